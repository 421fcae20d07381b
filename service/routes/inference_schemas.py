"""The JSON objects of the Open Inference Protocol v2."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.routes.schemas import RequestModel

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64",
    "BYTES",
]  # fmt: skip
Parameters = Annotated[dict[str, bool | int | float | str], Field(max_length=20)]
Shape = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=8)]


class InferInput(RequestModel):
    """`data` in JSON, nested or row-major; or `parameters.binary_data_size` for bytes behind the JSON."""

    name: Annotated[str, Field(max_length=200)]
    shape: Shape
    datatype: Datatype
    parameters: Parameters = Field(default_factory=dict)
    data: Annotated[list[Any] | None, Field(description="BYTES: pictures in base64")] = None


class InferOutput(RequestModel):
    """`parameters.binary_data`: true for bytes behind the JSON."""

    name: Annotated[str, Field(max_length=200)]
    parameters: Parameters = Field(default_factory=dict)


class InferRequest(RequestModel):
    """To a model named as its bundle (encode) or the bundle with `-generate` behind it; `GET
    /v2/models/{model_name}` lists its tensors.

    parameters: `timeout` in microseconds; `binary_data_output`: true where outputs that say nothing else are
    to be binary; for generate also `steps`, `sampler`, `eta`, `extrapolate`, and `edits`, a JSON text.
    """

    id: Annotated[str | None, Field(max_length=200)] = None
    parameters: Parameters = Field(default_factory=dict)
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[InferOutput], Field(max_length=8)] = Field(default_factory=list)


class TensorMetadata(BaseModel):
    """shape: -1 for any size."""

    name: str
    datatype: Datatype
    shape: list[int]


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerLive(BaseModel):
    live: bool


class ServerReady(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class OutputTensor(TensorMetadata):
    """Either `data`, or `parameters.binary_data_size`."""

    parameters: dict[str, int] | None = None
    data: list[float | int | bool] | None = None


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class InferError(BaseModel):
    error: str
