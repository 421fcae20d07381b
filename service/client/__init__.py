"""The Python client of the HTTP API, for `from patronus_server import Client`.

    with Client("http://127.0.0.1:8000") as client:
        encoding = client.encode("shirt.png")[0]
        edited = client.edit(encoding.image_id, [Edit(21, "max")])
        edited.image.save("edited.png")
        for event in client.stream(calls.generate(num_images=4, steps=50)):
            ...  # Progress again and again, at last the Generation

It needs httpx, NumPy and Pillow, and imports nothing else of the service.
"""

from service.client import calls
from service.client.async_client import AsyncClient
from service.client.calls import Call, Edit
from service.client.client import Client
from service.client.errors import (
    AnswerError,
    ApiError,
    AuthenticationError,
    BadRequestError,
    DeadlineError,
    NotFoundError,
    OverloadedError,
    PatronusError,
    ServerError,
    TimedOutError,
    UnreachableError,
)
from service.client.events import Progress
from service.client.images import ImageId, ImageLike, Picture
from service.client.results import (
    Diagnosis,
    Edited,
    Encoding,
    Encodings,
    Extrapolation,
    Generation,
    Health,
    Interpolation,
    Locations,
    Models,
    Prototype,
    PrototypeDetails,
    Prototypes,
    Trace,
    Version,
    Visualizations,
)
from service.client.retrying import Retries

__all__ = [
    "AnswerError",
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "Call",
    "Client",
    "DeadlineError",
    "Diagnosis",
    "Edit",
    "Edited",
    "Encoding",
    "Encodings",
    "Extrapolation",
    "Generation",
    "Health",
    "ImageId",
    "ImageLike",
    "Interpolation",
    "Locations",
    "Models",
    "NotFoundError",
    "OverloadedError",
    "PatronusError",
    "Picture",
    "Progress",
    "Prototype",
    "PrototypeDetails",
    "Prototypes",
    "Retries",
    "ServerError",
    "TimedOutError",
    "Trace",
    "UnreachableError",
    "Version",
    "Visualizations",
    "calls",
]
