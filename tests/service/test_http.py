"""What each endpoint answers, over the shipped model."""

from __future__ import annotations

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from model.transforms import to_x_0
from service.engine.onnx_runner import OnnxRunner
from tests.service.conftest import b64, picture


def test_encode_answers_what_the_graph_computes(
    real: httpx.Client, bundle: Bundle, reference_pngs: list[bytes]
) -> None:
    files = [("image", ("a.png", data)) for data in reference_pngs[:3]]
    answer = real.post("/encode", files=files, data={"maps": "true"}).json()
    runner = OnnxRunner(bundle, device="cpu", max_batch=4)
    assert bundle.pictures is not None
    activations, maps = runner.encode(to_x_0(bundle.pictures.reference_images[:3]))
    assert answer["model"] == {"name": bundle.name, "digest": bundle.digest}
    assert len(answer["images"]) == 3
    for i, image in enumerate(answer["images"]):
        np.testing.assert_allclose(image["activations"], activations[i], atol=1e-4)
        np.testing.assert_allclose(image["similarity_maps"], maps[i], atol=1e-4)
        for j, patch in enumerate(image["patches"]):
            cell = int(maps[i, j].argmax())
            assert tuple(patch["box"]) == bundle.config.receptive_field.box(cell, 32, 32)
            assert patch["similarity"] == image["activations"][j]


def test_file_base64_data_url_and_image_id_are_the_same_image(
    real: httpx.Client, reference_pngs: list[bytes]
) -> None:
    data = reference_pngs[4]
    first = real.post("/encode", files={"image": data}).json()["images"][0]
    others = [
        {"image": b64(data)},
        {"images": [f"data:image/png;base64,{b64(data)}"]},
        {"image_id": first["image_id"]},
    ]
    for body in others:
        image = real.post("/encode", json=body).json()["images"][0]
        assert image["image_id"] == first["image_id"]
        assert image["activations"] == first["activations"]
        assert image["cached"] is True


def test_jpeg_and_webp_are_read(real: httpx.Client, reference_pngs: list[bytes]) -> None:
    for kind in ("JPEG", "WEBP"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(reference_pngs[0])).convert("RGB").resize((200, 100)).save(buffer, kind)
        assert real.post("/encode", files={"image": buffer.getvalue()}).status_code == 200


def test_the_same_seed_gives_the_same_image_alone_and_in_a_batch(real: httpx.Client) -> None:
    together = real.post("/generate", json={"num_images": 4, "seed": 7, "steps": 6}).json()
    for image in together["images"]:
        alone = real.post("/generate", json={"seed": image["seed"], "steps": 6}).json()["images"][0]
        difference = np.abs(
            np.asarray(picture(alone["image"]), int) - np.asarray(picture(image["image"]), int)
        )
        assert difference.max() <= 1  # one of 255 gray levels: float tolerance before rounding


def test_generation_without_a_source_says_where_its_activations_come_from(real: httpx.Client) -> None:
    answer = real.post("/generate", json={"num_images": 2, "steps": 3}).json()
    assert answer["activations_from"] == "prior"
    assert answer["activations"][0] != answer["activations"][1]
    assert [image["seed"] for image in answer["images"]] == [0, 1]


def test_empty_body_generates_one_image(real: httpx.Client) -> None:
    assert len(real.post("/generate").json()["images"]) == 1


def test_achieved_activations_are_those_of_the_returned_picture(real: httpx.Client) -> None:
    image = real.post("/generate", json={"steps": 5, "seed": 3}).json()["images"][0]
    encoded = real.post("/encode", json={"image": image["image"]}).json()["images"][0]
    np.testing.assert_allclose(encoded["activations"], image["achieved"], atol=1e-5)


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "ddpm"])
def test_every_sampler_draws_a_picture(real: httpx.Client, sampler: str) -> None:
    answer = real.post("/generate", json={"sampler": sampler, "steps": 8, "seed": 1}).json()
    pixels = np.asarray(picture(answer["images"][0]["image"]))
    assert pixels.shape == (32, 32)
    assert pixels.std() > 10


def test_inverted_start_gives_the_image_back(
    real: httpx.Client, bundle: Bundle, reference_pngs: list[bytes]
) -> None:
    assert bundle.pictures is not None
    for i in range(3):
        answer = real.post(
            "/generate", files={"image": reference_pngs[i]}, data={"x_T": "inverted", "steps": "50"}
        ).json()
        original = bundle.pictures.reference_images[i, 0].astype(float)
        error = np.square(np.asarray(picture(answer["images"][0]["image"]), float) - original).mean()
        assert 10 * np.log10(255**2 / error) > 24  # dB; a random x_T gives 18.6 on average


def test_edits_are_applied_clamped_and_reported(
    real: httpx.Client, bundle: Bundle, reference_pngs: list[bytes]
) -> None:
    edits = [{"prototype": 2, "op": "set", "value": 50.0}, {"prototype": 5, "op": "min"}]
    body = {"image": b64(reference_pngs[1]), "edits": edits, "steps": 4}
    answer = real.post("/generate", json=body).json()
    assert bundle.statistics is not None
    high, low = float(bundle.statistics.high[2]), float(bundle.statistics.low[5])
    assert answer["activations"][0][2] == pytest.approx(high, abs=1e-5)
    assert answer["activations"][0][5] == pytest.approx(low, abs=1e-5)
    assert [(entry["prototype"], entry["requested"]) for entry in answer["clamped"]] == [(2, 50.0)]
    free = real.post("/generate", json={**body, "extrapolate": True}).json()
    assert free["activations"][0][2] == pytest.approx(9.21034, abs=1e-4)


def test_edit_returns_the_edited_image_beside_its_reconstruction(
    real: httpx.Client, reference_pngs: list[bytes]
) -> None:
    answer = real.post(
        "/edit", files={"image": reference_pngs[0]}, data={"edits": '[{"prototype": 0, "op": "max"}]'}
    ).json()
    s = answer["activations"]
    assert picture(answer["image"]).size == picture(answer["reconstruction"]).size == (32, 32)
    assert s["asked"][1:] == s["before"][1:]
    assert s["driven"][1:] == s["before"][1:]
    assert s["achieved"][0] > s["before"][0]
    assert 1 <= answer["rounds"] <= 4
    again = real.post("/generate", json={"image_id": answer["image_id"], "steps": 1})
    assert again.status_code == 200


def test_more_rounds_come_nearer_to_what_an_edit_asks(
    real: httpx.Client, reference_pngs: list[bytes]
) -> None:
    errors = []
    for rounds in ("1", "4"):
        data = {"edits": '[{"prototype": 0, "op": "max"}]', "rounds": rounds}
        s = real.post("/edit", files={"image": reference_pngs[0]}, data=data).json()["activations"]
        errors.append(abs(s["asked"][0] - s["achieved"][0]))
    assert errors[1] < errors[0]


def test_visualize_finds_the_patch_that_the_prototype_matches(
    real: httpx.Client, reference_pngs: list[bytes]
) -> None:
    answer = real.post("/visualize", json={"prototypes": [1, 4], "num_samples": 4, "steps": 8}).json()
    assert [entry["prototype"] for entry in answer["prototypes"]] == [1, 4]
    for entry in answer["prototypes"]:
        x0, y0, x1, y1 = entry["box"]
        enhanced = picture(entry["enhanced"])
        assert np.array_equal(
            np.asarray(enhanced.crop((x0, y0, x1, y1))), np.asarray(picture(entry["patch"]))
        )
        encoded = real.post("/encode", json={"image": entry["enhanced"]}).json()["images"][0]
        j = entry["prototype"]
        assert encoded["patches"][j]["box"] == entry["box"]
        assert encoded["activations"][j] == pytest.approx(entry["activation_after"], abs=1e-4)


def test_png_is_returned_on_request(real: httpx.Client) -> None:
    answer = real.post("/generate", json={"num_images": 3, "steps": 2}, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)


def test_prototypes_are_listed_and_shown(real: httpx.Client, bundle: Bundle) -> None:
    listed = real.get("/prototypes").json()["prototypes"]
    assert [entry["index"] for entry in listed] == list(range(bundle.config.num_prototypes))
    one = real.get("/prototypes/3").json()
    assert one["prototype"] == listed[3]
    assert bundle.pictures is not None
    patches = bundle.pictures.patches
    assert patches is not None
    assert [np.asarray(picture(patch)).tolist() for patch in one["patches"]] == [
        patch[0].tolist() for patch in patches.pixels[3]
    ]
    assert one["patches"][0] == one["prototype"]["picture"]
    assert one["patch_similarities"] == sorted(one["patch_similarities"], reverse=True)
    assert one["patch_image_indices"] == patches.image_indices[3].tolist()
    assert bundle.attributes is not None
    for entry, prototype in zip(listed, bundle.prototypes, strict=True):
        assert entry["emergence_timestep"] == prototype.emergence_timestep
        assert entry["emergence_spread"] == prototype.emergence_spread
        assert entry["emergence_share"] == prototype.emergence_share
        aurocs = [found["auroc"] for found in entry["attributes"]]
        assert aurocs == sorted(aurocs, reverse=True)
        best = bundle.attributes.best(entry["index"], 1)[0]
        assert (entry["attributes"][0]["name"], entry["attributes"][0]["sign"]) == (best.name, best.sign)
    x0, y0, x1, y1 = one["prototype"]["exemplar_box"]
    assert picture(one["prototype"]["picture"]).size == (x1 - x0, y1 - y0)
    shown = real.get("/prototypes/3", headers={"Accept": "image/png"})
    assert shown.headers["content-type"] == "image/png"


def test_health_version_and_docs_answer(real: httpx.Client, bundle: Bundle) -> None:
    assert real.get("/healthz").json()["status"] == "ok"
    assert real.get("/readyz").json()["engine"] == "ready"
    assert real.get("/version").json()["model"]["digest"] == bundle.digest
    assert "swagger" in real.get("/docs").text.lower()
    paths = real.get("/openapi.json").json()["paths"]
    assert {"/encode", "/generate", "/edit", "/visualize", "/prototypes"} <= set(paths)


def test_every_reference_in_the_openapi_document_resolves(real: httpx.Client) -> None:
    document = real.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    prefix = "#/components/schemas/"

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    found = references(document)
    assert found
    assert all(reference.startswith(prefix) and reference[len(prefix) :] in schemas for reference in found)


def test_request_id_is_the_callers_or_a_new_one(real: httpx.Client) -> None:
    assert real.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    first, second = (real.get("/nowhere").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_metrics_count_what_happened(real: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = real.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    steps = value("patronus_denoise_steps_total")
    ok = value('patronus_requests_total{endpoint="generate",finished_reason="ok"')
    rejected = value('patronus_requests_total{endpoint="generate",finished_reason="rejected"')
    invalid = value('patronus_requests_rejected_total{endpoint="generate",reason="invalid"}')
    real.post("/generate", json={"num_images": 2, "steps": 5})
    real.post("/generate", json={"steps": -1})
    assert value("patronus_denoise_steps_total") == steps + 10
    assert value('patronus_requests_total{endpoint="generate",finished_reason="ok"') == ok + 1
    assert value('patronus_requests_total{endpoint="generate",finished_reason="rejected"') == rejected + 1
    assert value('patronus_requests_rejected_total{endpoint="generate",reason="invalid"}') == invalid + 1
    assert value("patronus_build_info") == 1
