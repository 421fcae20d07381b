"""What one NVIDIA GPU makes of this program: correctness, speed, training. README.md has the order of calls."""
