"""The parts of an evaluation, one measurement per file; `training.evaluate` puts them together."""
