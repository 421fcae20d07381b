"""What holds for every request. Pure ASGI, so that a client's leaving still reaches the handler.

From the outside in: RequestId, where tracing is on `service.tracing.server_spans`, AccessLog, ProtocolErrors,
CORS where it is set, LastResort, DrainGate, ApiKeys, ClientLimits, BodyLimit.
"""

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Answered without a key and without limits: what watches the service has neither."""

STUDIO_PATH = "/studio/"


def is_open(path: str) -> bool:
    """Whether a path is answered without a key and without limits: probes, and the studio's static files."""
    return path in OPEN_PATHS or path == "/" or path.startswith(STUDIO_PATH)


CLIENT_CLOSED_REQUEST = 499
"""What the log says of a client that left before its answer; nginx's number."""
