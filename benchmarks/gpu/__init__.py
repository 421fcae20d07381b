"""This program on one NVIDIA GPU: correctness, speed, training. README.md has the order of calls."""
