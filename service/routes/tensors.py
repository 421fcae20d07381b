"""Tensors of the Open Inference Protocol v2: in JSON, and by the binary tensor data extension.

github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; the extension is KServe's
and Triton's. Binary data is little-endian and row-major, and follows the JSON in the order of the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.problems import ProblemError
from service.routes.inference_schemas import Datatype, InferInput, InferOutput, InferResponse, OutputTensor

DTYPES: Mapping[Datatype, str] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1",
    "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
LENGTH_BYTES = 4
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, eq=False)
class Tensor:
    """array: of `shape`, None for BYTES; texts and files: the elements of BYTES, from JSON or binary."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    array: np.ndarray | None = None
    texts: Sequence[str] = ()
    files: Sequence[bytes] = ()


def split_body(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the binary data behind it. Raises ProblemError."""
    if header_length is None:
        return body, b""
    is_number = header_length.isascii() and header_length.isdecimal() and len(header_length) < 12
    if not is_number or int(header_length) > len(body):
        raise ProblemError(
            400,
            f"{HEADER_LENGTH} must be 0 to {len(body)}, the length of the body, not {header_length[:20]!r}",
        )
    return body[: int(header_length)], body[int(header_length) :]


def read_tensors(inputs: Sequence[InferInput], binary: bytes) -> dict[str, Tensor]:
    """The inputs by name. Raises ProblemError."""
    tensors: dict[str, Tensor] = {}
    at = 0
    for given in inputs:
        if given.name in tensors:
            raise ProblemError(422, f"the input {given.name!r} is given twice")
        size = _binary_size(given)
        if (given.data is None) == (size is None):
            raise ProblemError(422, f"the input {given.name!r} needs either data or binary_data_size")
        if size is None:
            tensors[given.name] = _from_json(given)
            continue
        if at + size > len(binary):
            raise ProblemError(
                422, f"the input {given.name!r} ends at byte {at + size} of {len(binary)} behind the JSON"
            )
        tensors[given.name] = _from_binary(given, binary[at : at + size])
        at += size
    if at != len(binary):
        raise ProblemError(422, f"{len(binary) - at} bytes behind the JSON belong to no input")
    return tensors


def write_tensors(
    arrays: Mapping[str, tuple[Datatype, np.ndarray]],
    asked: Sequence[InferOutput],
    *,
    all_binary: bool,
    model_name: str,
    model_version: str,
    request_id: str | None,
) -> tuple[bytes, bytes]:
    """The JSON of a response with the outputs that were asked for (none is all), and what is behind it.

    Raises ProblemError for an output that is not in `arrays`.
    """
    outputs: list[OutputTensor] = []
    binaries: list[bytes] = []
    for output in asked or [InferOutput(name=name) for name in arrays]:
        check_output(output, arrays)
        datatype, array = arrays[output.name]
        tensor = OutputTensor(name=output.name, datatype=datatype, shape=list(array.shape))
        values = np.ascontiguousarray(array, DTYPES[datatype])
        if output.parameters.get("binary_data", all_binary):
            binaries.append(values.tobytes())
            tensor.parameters = {"binary_data_size": len(binaries[-1])}
        else:
            tensor.data = values.ravel().tolist()
        outputs.append(tensor)
    response = InferResponse(
        model_name=model_name, model_version=model_version, id=request_id, outputs=outputs
    )
    return response.model_dump_json(exclude_none=True).encode(), b"".join(binaries)


def check_output(output: InferOutput, known: Mapping[str, Any]) -> None:
    """Raises ProblemError for an output that there is not, or cannot be given as it is asked for."""
    if output.name not in known:
        raise ProblemError(422, f"there is no output {output.name!r}: this model has {', '.join(known)}")
    unknown = sorted(set(output.parameters) - {"binary_data"})
    if unknown or not isinstance(output.parameters.get("binary_data", False), bool):
        raise ProblemError(
            422, f"the output {output.name!r} takes the one parameter binary_data, true or false"
        )


def _binary_size(given: InferInput) -> int | None:
    unknown = sorted(set(given.parameters) - {"binary_data_size"})
    if unknown:
        raise ProblemError(422, f"the input {given.name!r} takes no parameter {unknown[0][:100]!r}")
    size = given.parameters.get("binary_data_size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise ProblemError(422, f"binary_data_size of {given.name!r} must be 0 or more, not {size!r:.40}")
    return size


def _from_binary(given: InferInput, data: bytes) -> Tensor:
    shape, count = tuple(given.shape), math.prod(given.shape)
    if given.datatype == "BYTES":
        return Tensor(given.name, given.datatype, shape, files=_elements(given.name, data, count))
    dtype = np.dtype(DTYPES[given.datatype])
    if len(data) != count * dtype.itemsize:
        raise ProblemError(
            422,
            f"the input {given.name!r} of shape {list(shape)} and {given.datatype} needs "
            f"{count * dtype.itemsize} bytes, not {len(data)}",
        )
    return Tensor(given.name, given.datatype, shape, array=np.frombuffer(data, dtype).reshape(shape))


def _elements(name: str, data: bytes, count: int) -> list[bytes]:
    """Each element is its length in four bytes, and that many more."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or at > len(data):
            raise ProblemError(422, f"the input {name!r} ends within an element")
        found.append(data[start:at])
    if len(found) != count:
        raise ProblemError(422, f"the input {name!r} has {len(found)} elements, and its shape {count}")
    return found


def _from_json(given: InferInput) -> Tensor:
    assert given.data is not None
    shape = tuple(given.shape)
    values = _flat(given.name, given.data, shape)
    if given.datatype == "BYTES":
        if not all(isinstance(value, str) for value in values):
            raise ProblemError(422, f"the input {given.name!r} must be strings")
        return Tensor(given.name, given.datatype, shape, texts=values)
    kinds: tuple[type, ...] = (bool,) if given.datatype == "BOOL" else (int,)
    if given.datatype.startswith("FP"):
        kinds = (int, float)
    if not {type(value) for value in values} <= set(kinds):  # a bool is no number here
        raise ProblemError(422, f"the input {given.name!r} has values that are not {given.datatype}")
    try:
        with np.errstate(over="ignore"):  # an FP32 too large is infinite, which its reader refuses
            array = np.array(values, dtype=DTYPES[given.datatype]).reshape(shape)
    except OverflowError as error:
        raise ProblemError(
            422, f"the input {given.name!r} is beyond the range of {given.datatype}"
        ) from error
    return Tensor(given.name, given.datatype, shape, array=array)


def _flat(name: str, data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The elements in row-major order, whether they came so or nested as `shape` says."""
    if any(isinstance(item, list) for item in data):
        if not shape or len(data) != shape[0]:
            raise ProblemError(422, f"the input {name!r} has data of another shape than {list(shape)}")
        for size in shape[1:]:
            if not all(isinstance(item, list) and len(item) == size for item in data):
                raise ProblemError(422, f"the input {name!r} has data of another shape than {list(shape)}")
            data = [part for item in data for part in item]
    if len(data) != math.prod(shape):
        raise ProblemError(
            422, f"the input {name!r} has {len(data)} elements, and its shape {math.prod(shape)}"
        )
    return data
