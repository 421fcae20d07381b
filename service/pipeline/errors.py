"""Why a use case cannot be carried out. HTTP statuses for these are in `service.problems`."""

from __future__ import annotations


class PipelineError(ValueError):
    """A request asks for something that this model cannot do; the message says what and why."""


class UnknownModelError(PipelineError):
    """A model is named that is not served here."""


class UnknownPrototypeError(PipelineError):
    """A prototype is named or numbered that the model does not have."""


class UnknownAttributeError(PipelineError):
    """An attribute is named that the model does not know."""


class InvalidNameError(PipelineError):
    """A prototype cannot have that name."""


class NameTakenError(PipelineError):
    """Another prototype of the model has that name."""


class NamesFileError(Exception):
    """The names that prototypes were given cannot be read or kept; a fault of the service's surroundings."""


class UnknownImageError(PipelineError):
    """An image_id was never given out for this model, or is no longer kept."""
