"""Describe bodies that routes read by themselves, so that /docs and clients know them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.middleware import OPEN_PATHS
from service.routes.inference_schemas import InferError, InferRequest
from service.routes.schemas import REQUEST_MODELS, ProblemModel, ProgressEvent, RequestModel

_REFERENCE = "#/components/schemas/{model}"
PNG_OR_JSON: dict[int | str, dict[str, Any]] = {
    200: {"description": "JSON, or with `Accept: image/png` the picture", "content": {"image/png": {}}}
}
_PROBLEM = {"schema": {"$ref": _REFERENCE.format(model=ProblemModel.__name__)}}
NAME_TAKEN: dict[int | str, dict[str, Any]] = {
    409: {"description": "another prototype has that name", "content": {"application/problem+json": _PROBLEM}}
}
PNG_OR_EVENTS_OR_JSON: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON; with `Accept: image/png` the picture; with `Accept: text/event-stream` events: "
        "`progress` (a ProgressEvent) again and again, then `result` (the JSON) or `error` (a ProblemModel)",
        "content": {"image/png": {}, "text/event-stream": {"schema": {"type": "string"}}},
    }
}
HTML_OR_EVENTS_OR_JSON: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON; with `Accept: text/html` a page that needs nothing else; with "
        "`Accept: text/event-stream` events: `progress` (a ProgressEvent) again and again, then `result` "
        "(the JSON) or `error` (a ProblemModel)",
        "content": {
            "text/html": {"schema": {"type": "string"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}
_PROBLEMS = {
    "400": "not valid JSON or form data, or a header that cannot be read",
    "401": "no valid API key, where keys are set",
    "404": "unknown prototype or image_id",
    "413": "body or picture over the limit",
    "415": "neither JSON nor form data",
    "422": "a field or picture cannot be used; the detail says which and why",
    "429": "over a client's limit of requests or row-steps; retry after `Retry-After` seconds",
    "500": "a fault of the server; its log says more",
    "503": "the queue is full or the service drains; retry after `Retry-After` seconds",
    "504": "the request took longer than the service allows",
}


_KEYS = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_HEADERS = (
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "seconds after which the request is given up with 504; the server sets a limit",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    {
        "name": "X-Request-Priority",
        "in": "header",
        "description": "who goes first when there is more work than rows",
        "schema": {"type": "string", "enum": ["low", "normal", "high"]},
    },
)


def body_of(model: type[RequestModel], *, files: bool) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is `model`, as JSON or, with `files`, as a form too."""
    reference = {"$ref": _REFERENCE.format(model=model.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": reference}}
    if files:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        fields: dict[str, Any] = {name: {} for name in model.model_fields if name not in ("image", "images")}
        content["multipart/form-data"] = {
            "schema": {
                "type": "object",
                "properties": {"image": file, **fields},
                "additionalProperties": False,
            }
        }
    needs_body = any(item.is_required() for item in model.model_fields.values())
    return {"requestBody": {"content": content, "required": needs_body}}


def describe(app: FastAPI, *, needs_key: bool) -> None:
    """Complete the application's OpenAPI document: request models, problem responses, keys if needed."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            described = (*REQUEST_MODELS, InferRequest, InferError, ProblemModel, ProgressEvent)
            models = [(model, "validation") for model in described]
            _, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(definitions["$defs"])
            protocol_errors = {
                "application/json": {"schema": {"$ref": _REFERENCE.format(model="InferError")}}
            }
            if needs_key:
                document["components"]["securitySchemes"] = _KEYS
            for name, path in document["paths"].items():
                for operation in path.values():
                    if name in OPEN_PATHS:
                        continue
                    if needs_key:
                        operation["security"] = [{scheme: []} for scheme in _KEYS]
                    if "requestBody" in operation:
                        operation["parameters"] = [*operation.get("parameters", ()), *_HEADERS]
                    for status, description in _PROBLEMS.items():
                        is_protocol = name.startswith("/v2")
                        content = protocol_errors if is_protocol else {"application/problem+json": _PROBLEM}
                        operation["responses"][status] = {"description": description, "content": content}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
