"""JSON into frozen dataclasses, by the types of their fields."""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from service.client.images import Picture

T = TypeVar("T")


def parse(kind: type[T], value: Any) -> T:
    """`value`, as json.loads gives it, as a `kind`; an array is (…,) float32, with NaN for null.

    What a newer server adds is left out; what is missing though it has no default, or of another type, raises
    ValueError. Any other JSON is kept as it is where the field's type is Any or dict.
    """
    result: T = _parsed(kind, value, "the answer")
    return result


def _parsed(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not type(None))
        return _parsed(kind, value, place)
    if kind is Picture:
        return _picture(value, place)
    if dataclasses.is_dataclass(kind):
        return _instance(kind, value, place)
    if origin is np.ndarray:
        return _array(value, place)
    if origin is tuple:
        return _tuple(arguments, value, place)
    plain = origin or kind
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, _plain(plain)) or (plain is int and isinstance(value, bool)):
        raise ValueError(f"{place} must be {getattr(plain, '__name__', plain)}, not {value!r:.60}")
    return plain(value) if isinstance(plain, type) and plain not in (dict, bool) else value


def _instance(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be an object, not {value!r:.60}")
    hints, found = _hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            found[field.name] = _parsed(hints[field.name], value[field.name], f"{place}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{place} has no {field.name}")
    return kind(**found)


def _tuple(arguments: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{place} must be a list, not {value!r:.60}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ValueError(f"{place} must have {len(arguments)} entries, not {len(value)}")
    return tuple(_parsed(kind, item, place) for kind, item in zip(arguments, value, strict=True))


def _array(value: Any, place: str) -> Any:
    try:
        return np.array(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} must be numbers of one shape: {error}") from error


def _picture(value: Any, place: str) -> Picture:
    if not isinstance(value, str):
        raise ValueError(f"{place} must be a picture in base64, not {value!r:.60}")
    try:
        return Picture.from_base64(value)
    except ValueError as error:
        raise ValueError(f"{place} must be a picture in base64: {error}") from error


def _plain(kind: Any) -> Any:
    """What json.loads gives for a field of that type: subclasses of str are made from str."""
    return str if isinstance(kind, type) and issubclass(kind, str) else kind


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
