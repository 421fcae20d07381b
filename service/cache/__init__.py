"""Answers that need not be computed twice; whatever goes wrong in here is a miss."""
