"""The Open Inference Protocol v2 as NVIDIA's own client speaks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from model.bundle import Bundle
from model.transforms import to_x_0
from service.engine.onnx_runner import OnnxRunner
from tests.service.conftest import b64


@pytest.fixture(scope="module")
def client(real_url: str) -> Iterator[Any]:
    client = triton.InferenceServerClient(real_url.removeprefix("http://"))
    yield client
    client.close()


def given(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_it_finds_the_server_and_its_models(client: Any, bundle: Bundle) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    version = bundle.digest[:12]
    for name in (bundle.name, f"{bundle.name}-generate"):
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, version)
        assert client.get_model_metadata(name)["versions"] == [version]
    assert not client.is_model_ready("another")


def test_it_encodes_pixels_and_files(client: Any, bundle: Bundle, reference_pngs: list[bytes]) -> None:
    assert bundle.pictures is not None
    x_0 = to_x_0(bundle.pictures.reference_images[:2])
    activations, maps = OnnxRunner(bundle, device="cpu", max_batch=4).encode(x_0)
    files = np.array(reference_pngs[:2], dtype=np.object_)
    texts = np.array([b64(file) for file in reference_pngs[:2]], dtype=np.object_)
    for binary in (True, False):
        for tensor in (
            given("x_0", x_0, "FP32", binary=binary),
            given("image", files if binary else texts, "BYTES", binary=binary),
        ):
            outputs = [
                triton.InferRequestedOutput("activations", binary_data=binary),
                triton.InferRequestedOutput("similarity_maps", binary_data=not binary),
            ]
            for asked in (outputs, None):
                result = client.infer(bundle.name, [tensor], outputs=asked, request_id="7")
                np.testing.assert_allclose(result.as_numpy("activations"), activations, atol=1e-4)
                np.testing.assert_allclose(result.as_numpy("similarity_maps"), maps, atol=1e-4)
                assert result.get_response()["id"] == "7"


def test_it_generates(client: Any, bundle: Bundle) -> None:
    m = bundle.config.num_prototypes
    seed = given("seed", np.array([7, 8], np.int64), "INT64")
    result = client.infer(f"{bundle.name}-generate", [seed], parameters={"steps": 3, "sampler": "dpmpp_2m"})
    images, asked = result.as_numpy("images"), result.as_numpy("activations")
    assert (images.dtype, images.shape) == (np.uint8, (2, *bundle.config.image.shape))
    assert result.as_numpy("achieved").shape == asked.shape == (2, m)
    alone = given("seed", np.array([8], np.int64), "INT64")
    under = given("activations", asked[1:], "FP32")
    again = client.infer(
        f"{bundle.name}-generate", [alone, under], parameters={"steps": 3, "sampler": "dpmpp_2m"}
    )
    assert np.abs(again.as_numpy("images")[0].astype(int) - images[1].astype(int)).max() <= 1


def test_it_reads_our_errors(client: Any, bundle: Bundle) -> None:
    seed = given("seed", np.array([7], np.int64), "INT64")
    with pytest.raises(InferenceServerException, match="there is no model 'another'") as caught:
        client.infer("another", [seed])
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="steps must be 1 to 200, not 500"):
        client.infer(f"{bundle.name}-generate", [seed], parameters={"steps": 500})
    with pytest.raises(InferenceServerException, match=r"took longer|deadline|left") as caught:
        client.infer(f"{bundle.name}-generate", [seed], timeout=1)
    assert caught.value.status() == "504"
