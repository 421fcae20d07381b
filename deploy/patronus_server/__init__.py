"""The client under the distribution's own name: `from patronus_server import Client`."""

from service.client import *  # noqa: F403  (exactly `service.client.__all__`)
from service.client import __all__ as __all__
