"""The HTTP API's pages, from the application's own OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.reference.markdown import anchor, code, prose, table
from model.bundle import Bundle
from service.app import create_app
from service.engine.fake_runner import FakeRunner
from service.engine.runner import Runner
from service.settings import SHIPPED_BUNDLE, Settings

OPERATIONS_PAGE = "http-api.md"
BODIES_PAGE = "http-bodies.md"
TAGS = {
    "images": "Pictures",
    "prototypes": "Prototypes and models",
    "operation": "Operation",
    "open inference protocol": "Open Inference Protocol v2",
}
"""Headings of the parts, in order; a tag that is not here has its own name and comes last."""

INTRODUCTION = """# HTTP API

*Written from the application's OpenAPI document, which a running service has at `/openapi.json`, with a
viewer at `/docs`.*

**Pictures in**: a file `image` of a form, several where several are allowed; or base64 in JSON, `data:`
URLs included; or the `image_id` of an earlier answer. PNG, JPEG or WebP, resized exactly as in training. In a
form, every other field is JSON text.

**Pictures out**: base64 PNG in JSON; where an operation lists `image/png`, `Accept: image/png` gets the
picture itself.

**Streams**: where an operation lists `text/event-stream`, `Accept: text/event-stream` gets `progress` events
([ProgressEvent](http-bodies.md#progressevent)), at last one `result` or `error`. A client that leaves is no
longer computed for.

**Errors** are RFC 9457 problem details ([ProblemModel](http-bodies.md#problemmodel)), those of `/v2` have
that protocol's own shape. Every answer carries `X-Request-ID`, the caller's own where one was sent.

**Keys**: where the service has some, operations marked so want one, as `X-API-Key` or as bearer token.
"""


def document() -> dict[str, Any]:
    """The OpenAPI document of a service that wants keys, as one that does not says nothing of them."""
    settings = Settings(bundle=(SHIPPED_BUNDLE,), api_keys=("described",), state_dir=Path("unused"))
    return create_app(settings, _without_weights).openapi()


def http_api_page(document: Mapping[str, Any]) -> str:
    """Every operation: parameters, body, responses."""
    by_tag: dict[str, list[str]] = {tag: [] for tag in TAGS}
    for path, method, operation in operations(document):
        tag = operation.get("tags", ["others"])[0]
        by_tag.setdefault(tag, []).append("\n".join(_operation(path, method, operation, document)))
    parts = [INTRODUCTION]
    for tag, written in by_tag.items():
        if written:
            parts += [f"## {TAGS.get(tag, tag.capitalize())}\n", *written]
    return "\n".join(parts)


def http_bodies_page(document: Mapping[str, Any]) -> str:
    """Every schema that operations name."""
    schemas = document["components"]["schemas"]
    parts = ["# Bodies of the HTTP API\n", "*Written from the application's OpenAPI document.*\n"]
    for name in sorted(schemas, key=str.lower):
        parts += [f"## {name} {{ #{anchor(name)} }}\n", *_fields(schemas[name])]
    return "\n".join(parts)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(path, method in capitals, operation) of all, in the document's order."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def type_of(schema: Mapping[str, Any]) -> str:
    """What values a schema allows, in words; schemas of a name are links."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}]({BODIES_PAGE}#{anchor(name)})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(type_of(part) for part in schema[key]))
    if "const" in schema:
        return code(str(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return prose("[") + ", ".join(type_of(part) for part in schema["prefixItems"]) + prose("]")
        return (
            "list of "
            + type_of(schema.get("items", {}))
            + _bounds(schema, "minItems", "maxItems", " of them")
        )
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {type_of(values)}" if isinstance(values, dict) and values else "object"
    if kind == "string":
        if "contentMediaType" in schema:
            return "file"
        return "string" + _bounds(schema, "minLength", "maxLength", " characters")
    if kind in ("integer", "number"):
        return f"{kind}{_range(schema)}"
    return "any" if kind is None else str(kind)


def _operation(
    path: str, method: str, operation: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[str]:
    yield f"### `{method} {path}` {{ #{anchor(method + ' ' + path)} }}\n"
    yield prose(operation.get("description", operation.get("summary", ""))) + "\n"
    if operation.get("security"):
        yield "*Wants a key, where keys are set.*\n"
    if operation.get("parameters"):
        rows = (
            [
                code(parameter["name"]),
                parameter["in"],
                type_of(parameter.get("schema", {})),
                "yes" if parameter.get("required") else "",
                prose(parameter.get("description", "")),
            ]
            for parameter in operation["parameters"]
        )
        yield table(("parameter", "in", "type", "needed", "meaning"), rows)
    if "requestBody" in operation:
        yield from _request_body(operation["requestBody"], document)
    rows = (
        [code(status), prose(response.get("description", "")), _contents(response)]
        for status, response in sorted(operation["responses"].items())
    )
    yield table(("status", "meaning", "body"), rows)


def _request_body(body: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    kinds = ", ".join(code(kind) for kind in body["content"])
    yield f"Body{'' if body.get('required') else ' (may be left out)'}: {kinds}.\n"
    schema = next(iter(body["content"].values())).get("schema", {})
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        yield f"Fields of [{name}]({BODIES_PAGE}#{anchor(name)}):\n"
        yield from _fields(document["components"]["schemas"][name])


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    if schema.get("description"):
        yield prose(schema["description"]) + "\n"
    required = schema.get("required", ())
    rows = [
        [
            code(name),
            type_of(field),
            "yes" if name in required else _default(field),
            prose(_meaning(field)),
        ]
        for name, field in schema.get("properties", {}).items()
    ]
    if rows:
        yield table(("field", "type", "needed, or default", "meaning"), rows)


def _meaning(field: Mapping[str, Any]) -> str:
    """What is said of a field, or of the one kind of value that it may have."""
    said = (part.get("description", "") for part in (field, *field.get("anyOf", ())))
    return next(filter(None, said), "")


def _default(field: Mapping[str, Any]) -> str:
    return "" if field.get("default") is None else code(str(field["default"]))


def _contents(response: Mapping[str, Any]) -> str:
    return "; ".join(
        code(kind) + (f": {type_of(content['schema'])}" if content.get("schema") else "")
        for kind, content in response.get("content", {}).items()
    )


def _range(schema: Mapping[str, Any]) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    above = "above " if "exclusiveMinimum" in schema else ""
    below = "below " if "exclusiveMaximum" in schema else ""
    if low is None and high is None:
        return ""
    if high is None:
        return f", {above or 'at least '}{low:.15g}"
    if low is None:
        return f", {below or 'at most '}{high:.15g}"
    return f", {above}{low:.15g} to {below}{high:.15g}"


def _bounds(schema: Mapping[str, Any], low: str, high: str, unit: str) -> str:
    if low in schema and high in schema:
        return f", {schema[low]} to {schema[high]}{unit}"
    if low in schema:
        return f", at least {schema[low]}{unit}"
    return f", at most {schema[high]}{unit}" if high in schema else ""


def _without_weights(bundle: Bundle, settings: Settings) -> Runner:
    return FakeRunner(bundle.config, max_batch=settings.max_batch, has_prior=bundle.prior is not None)
