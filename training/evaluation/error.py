"""The one fault that an evaluation reports."""


class EvaluationError(Exception):
    """A run has no readable evaluation, or one was asked for that the data or a file cannot give."""
