"""The Open Inference Protocol v2, spoken by hand: JSON, binary tensors, and every way to get them wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from model.bundle import Bundle
from model.transforms import to_x_0
from service.settings import Settings
from tests.service.conftest import b64, fake_runner, metric, picture, serving

BINARY_OUTPUTS = {"binary_data_output": True}


def infer(client: httpx.Client, model: str, inputs: list[dict[str, Any]], **more: Any) -> httpx.Response:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **more})


def tensor(name: str, array: np.ndarray, datatype: str) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def arrays(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in answer["outputs"]}


def binary(
    client: httpx.Client, model: str, inputs: list[tuple[dict[str, Any], bytes]], **more: Any
) -> httpx.Response:
    """A request whose tensors follow its JSON."""
    described = [{**about, "parameters": {"binary_data_size": len(data)}} for about, data in inputs]
    head = json.dumps({"inputs": described, **more}).encode()
    body = head + b"".join(data for _, data in inputs)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return client.post(f"/v2/models/{model}/infer", content=body, headers=headers)


@pytest.fixture(scope="module")
def x_0(bundle: Bundle) -> np.ndarray:
    assert bundle.pictures is not None
    return to_x_0(bundle.pictures.reference_images[:2])


def test_the_server_and_its_models_are_described(real: httpx.Client, bundle: Bundle) -> None:
    m, (height, width) = bundle.config.num_prototypes, bundle.config.grid_shape
    server = real.get("/v2").json()
    assert server["name"] == "patronus-server"
    assert server["extensions"] == ["binary_tensor_data"]
    encode = real.get(f"/v2/models/{bundle.name}").json()
    version = bundle.digest[:12]
    assert encode == {
        "name": bundle.name,
        "versions": [version],
        "platform": "patronus_server",
        "inputs": [{"name": "x_0", "datatype": "FP32", "shape": [-1, *bundle.config.image.shape]}],
        "outputs": [
            {"name": "activations", "datatype": "FP32", "shape": [-1, m]},
            {"name": "similarity_maps", "datatype": "FP32", "shape": [-1, m, height, width]},
        ],
    }
    generate = real.get(f"/v2/models/{bundle.name}-generate/versions/{version}").json()
    assert [output["name"] for output in generate["outputs"]] == ["images", "activations", "achieved"]
    for path in (bundle.name, f"{bundle.name}/versions/{version}", f"{bundle.name}-generate"):
        ready = real.get(f"/v2/models/{path}/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert real.get("/v2/health/live").json() == {"live": True}
    assert real.get("/v2/health/ready").json() == {"ready": True}


def test_x_0_a_file_and_base64_are_encoded_as_by_encode(
    real: httpx.Client, bundle: Bundle, x_0: np.ndarray, reference_pngs: list[bytes]
) -> None:
    files = reference_pngs[:2]
    answer = real.post("/encode", json={"images": [b64(file) for file in files], "maps": True}).json()
    expected = np.array([image["activations"] for image in answer["images"]])
    expected_maps = np.array([image["similarity_maps"] for image in answer["images"]])
    texts = {"name": "image", "shape": [2], "datatype": "BYTES", "data": [b64(file) for file in files]}
    elements = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    image = {"name": "image", "shape": [2, 1], "datatype": "BYTES"}
    nested = {**tensor("x_0", x_0, "FP32"), "data": x_0.tolist()}
    about = {"name": "x_0", "shape": list(x_0.shape), "datatype": "FP32"}
    answers = [
        infer(real, bundle.name, [tensor("x_0", x_0, "FP32")], id="seven"),
        infer(real, bundle.name, [nested], id="seven"),
        infer(real, bundle.name, [texts], id="seven"),
        binary(real, bundle.name, [(image, elements)], id="seven"),
        binary(real, bundle.name, [(about, x_0.astype("<f4").tobytes())], id="seven"),
    ]
    for response in answers:
        assert response.status_code == 200, response.text
        found = response.json()
        assert (found["id"], found["model_name"]) == ("seven", bundle.name)
        assert found["model_version"] == bundle.digest[:12]
        np.testing.assert_allclose(arrays(found)["activations"], expected, atol=1e-5)
        np.testing.assert_allclose(arrays(found)["similarity_maps"], expected_maps, atol=1e-5)


def test_outputs_come_as_they_are_asked_for(real: httpx.Client, bundle: Bundle, x_0: np.ndarray) -> None:
    given = [tensor("x_0", x_0, "FP32")]
    plain = arrays(infer(real, bundle.name, given).json())
    mixed = [
        {"name": "similarity_maps", "parameters": {"binary_data": True}},
        {"name": "activations", "parameters": {"binary_data": False}},
    ]
    response = infer(real, bundle.name, given, outputs=mixed, parameters=BINARY_OUTPUTS)
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    maps, activations = json.loads(response.content[:length])["outputs"]
    assert maps["parameters"]["binary_data_size"] == len(response.content) - length
    read = np.frombuffer(response.content[length:], "<f4").reshape(maps["shape"])
    np.testing.assert_array_equal(read, plain["similarity_maps"].astype(np.float32))
    np.testing.assert_array_equal(np.array(activations["data"]), plain["activations"].ravel())
    only = infer(real, bundle.name, given, outputs=[{"name": "activations"}])
    assert list(arrays(only.json())) == ["activations"]


def test_generate_gives_what_generate_gives(real: httpx.Client, bundle: Bundle) -> None:
    edits = [{"prototype": 21, "op": "max"}]
    asked = {"num_images": 2, "seed": 7, "steps": 4, "sampler": "dpmpp_2m", "edits": edits}
    expected = real.post("/generate", json=asked).json()
    parameters = {"steps": 4, "sampler": "dpmpp_2m", "edits": json.dumps(edits)}
    seeds = np.array([7, 8])
    response = infer(real, f"{bundle.name}-generate", [tensor("seed", seeds, "INT64")], parameters=parameters)
    found = arrays(response.json())
    for i, image in enumerate(expected["images"]):
        difference = found["images"][i, 0].astype(int) - np.asarray(picture(image["image"]), int)
        assert np.abs(difference).max() <= 1
    np.testing.assert_allclose(found["activations"], expected["activations"], atol=1e-4)
    under = infer(
        real,
        f"{bundle.name}-generate",
        [tensor("seed", seeds, "INT64"), tensor("activations", found["activations"][:1], "FP32")],
        parameters={"steps": 4, "sampler": "dpmpp_2m"},
    )
    again = arrays(under.json())
    np.testing.assert_allclose(again["activations"], np.repeat(found["activations"][:1], 2, 0), atol=1e-6)
    assert np.abs(again["images"][0].astype(int) - found["images"][0].astype(int)).max() <= 1


def test_requests_are_counted_and_limited_as_all_others(settings: Settings, bundle: Bundle) -> None:
    keyed = replace(settings, api_keys=("key-of-eight",), max_row_steps_per_key=30, max_images=4)
    generate = f"{bundle.name}-generate"
    seed = [tensor("seed", np.array([1]), "INT64")]
    with serving(keyed, fake_runner) as url, httpx.Client(base_url=url) as client:
        refused = infer(client, generate, seed)
        assert (refused.status_code, list(refused.json())) == (401, ["error"])
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.headers["content-type"] == "application/json"
        for path in ("/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        client.headers["X-API-Key"] = "key-of-eight"
        assert infer(client, generate, seed).status_code == 200
        five = [tensor("seed", np.arange(5), "INT64")]
        assert "num_images must be 1 to 4" in infer(client, generate, five).json()["error"]
        budget = infer(client, generate, [tensor("seed", np.arange(4), "INT64")])
        assert "row-steps" in budget.json()["error"]
        assert infer(client, generate, seed, parameters={"timeout": 1}).status_code == 504
        late = client.post(
            f"/v2/models/{generate}/infer", json={"inputs": seed}, headers={"X-Request-Timeout": "1e-6"}
        )
        assert (late.status_code, list(late.json())) == (504, ["error"])
        labels = f'endpoint="v2_infer",finished_reason="{{}}",model_name="{bundle.name}"'
        assert metric(url, f"patronus_requests_total{{{labels.format('ok')}") == 1.0
        assert metric(url, f"patronus_requests_total{{{labels.format('deadline')}") == 2.0


X = {"name": "x_0", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": [0.0] * 1024}
SEED = {"name": "seed", "shape": [1], "datatype": "INT64", "data": [1]}


@pytest.mark.parametrize(
    ("model", "body", "status", "words"),
    [
        ("", {"inputs": []}, 422, "inputs"),
        ("", {"inputs": [X], "colour": 1}, 422, "colour"),
        ("", {"inputs": [X, X]}, 422, "given twice"),
        ("", {"inputs": [SEED]}, 422, "give the input 'x_0' or the input 'image'"),
        ("", {"inputs": [{**X, "shape": [1024]}]}, 422, "must have shape [-1, 1, 32, 32], not [1024]"),
        ("", {"inputs": [{**X, "data": [0.0]}]}, 422, "has 1 elements, and its shape 1024"),
        ("", {"inputs": [{**X, "data": [[0.0] * 1024]}]}, 422, "another shape"),
        ("", {"inputs": [{**X, "shape": [], "data": [[0.0]]}]}, 422, "another shape"),
        ("", {"inputs": [{**X, "shape": [0, 1, 32, 32], "data": []}]}, 422, "there are no images"),
        ("", {"inputs": [{**X, "data": [2.0] * 1024}]}, 422, "from -1 to 1"),
        ("", {"inputs": [{**X, "data": [1e300] * 1024}]}, 422, "from -1 to 1"),
        ("", {"inputs": [{**X, "data": ["0"] * 1024}]}, 422, "not FP32"),
        ("", {"inputs": [{**X, "data": [True] * 1024}]}, 422, "not FP32"),
        ("", {"inputs": [{**X, "datatype": "FP64"}]}, 422, "must be FP32"),
        ("", {"inputs": [{**X, "datatype": "BF16"}]}, 422, "datatype"),
        ("", {"inputs": [{**X, "data": None}]}, 422, "either data or binary_data_size"),
        ("", {"inputs": [{**X, "parameters": {"binary_data_size": 9}}]}, 422, "either data or"),
        ("", {"inputs": [{**X, "data": None, "parameters": {"binary_data_size": 9}}]}, 422, "of 0 behind"),
        ("", {"inputs": [{**X, "parameters": {"shared_memory_region": "r"}}]}, 422, "no parameter"),
        ("", {"inputs": [X], "outputs": [{"name": "logits"}]}, 422, "there is no output 'logits'"),
        (
            "",
            {"inputs": [X], "outputs": [{"name": "activations", "parameters": {"classification": 3}}]},
            422,
            "the one parameter binary_data",
        ),
        ("", {"inputs": [X], "parameters": {"steps": 3}}, 422, "there is no parameter 'steps'"),
        ("", {"inputs": [X], "parameters": {"timeout": -1}}, 422, "microseconds"),
        ("", {"inputs": [X], "parameters": {"binary_data_output": 1}}, 422, "true or false"),
        (
            "",
            {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["?"]}]},
            422,
            "base64",
        ),
        ("", {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [1]}]}, 422, "strings"),
        ("-generate", {"inputs": [X]}, 422, "give the input 'seed'"),
        ("-generate", {"inputs": [{**SEED, "data": [-1]}]}, 422, "0 to 4294967295"),
        ("-generate", {"inputs": [{**SEED, "data": [2**70]}]}, 422, "beyond the range of INT64"),
        ("-generate", {"inputs": [{**SEED, "data": [1.5]}]}, 422, "not INT64"),
        ("-generate", {"inputs": [SEED], "parameters": {"steps": 0}}, 422, "steps must be"),
        ("-generate", {"inputs": [SEED], "parameters": {"steps": 500}}, 422, "1 to 200, not 500"),
        ("-generate", {"inputs": [SEED], "parameters": {"sampler": "euler"}}, 422, "sampler must be one of"),
        ("-generate", {"inputs": [SEED], "parameters": {"edits": "[{}]"}}, 422, "edits must be a text"),
        ("-other", {"inputs": [X]}, 404, "there is no model"),
        ("/versions/2", {"inputs": [X]}, 404, "there is one version"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocols_own_shape(
    fake: httpx.Client, bundle: Bundle, model: str, body: dict[str, Any], status: int, words: str
) -> None:
    response = infer(fake, f"{bundle.name}{model}", **body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "content", "status", "words"),
    [
        ({}, b"{", 400, "not valid JSON"),
        ({"Inference-Header-Content-Length": "9"}, b"{}", 400, "must be 0 to 2"),
        ({"Inference-Header-Content-Length": "-1"}, b"{}", 400, "must be 0 to 2"),
        ({"Content-Encoding": "gzip"}, b"{}", 415, "content-encoding"),
        ({"Content-Type": "text/plain"}, b"{}", 415, "application/json"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    fake: httpx.Client, bundle: Bundle, headers: dict[str, str], content: bytes, status: int, words: str
) -> None:
    response = fake.post(f"/v2/models/{bundle.name}/infer", headers=headers, content=content)
    assert response.status_code == status
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("data", "shape", "words"),
    [
        (b"\x01\x00", [1], "ends within an element"),
        (b"\x09\x00\x00\x00ab", [1], "ends within an element"),
        (b"\x01\x00\x00\x00a", [2], "has 1 elements, and its shape 2"),
        (b"\x01\x00\x00\x00a", [1], "not a readable"),
    ],
)
def test_binary_elements_that_do_not_add_up_are_refused(
    fake: httpx.Client, bundle: Bundle, data: bytes, shape: list[int], words: str
) -> None:
    about = {"name": "image", "shape": shape, "datatype": "BYTES"}
    response = binary(fake, bundle.name, [(about, data)])
    assert response.status_code == 422
    assert words in response.json()["error"]


def test_binary_data_that_nobody_claims_is_refused(fake: httpx.Client, bundle: Bundle) -> None:
    about = {"name": "x_0", "shape": [1, 1, 32, 32], "datatype": "FP32"}
    head = json.dumps({"inputs": [{**about, "parameters": {"binary_data_size": 4096}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    path = f"/v2/models/{bundle.name}/infer"
    more = fake.post(path, content=head + bytes(4097), headers=headers)
    assert "1 bytes behind the JSON belong to no input" in more.json()["error"]
    short = head.replace(b"4096", b"4092")
    headers["Inference-Header-Content-Length"] = str(len(short))
    less = fake.post(path, content=short + bytes(4092), headers=headers)
    assert "needs 4096 bytes, not 4092" in less.json()["error"]


def test_an_unknown_path_of_the_protocol_is_an_error_of_the_protocol(fake: httpx.Client) -> None:
    response = fake.post("/v2/repository/index")
    assert (response.status_code, response.json()) == (404, {"error": "Not Found"})
    assert fake.post("/v2beta").headers["content-type"] == "application/problem+json"
