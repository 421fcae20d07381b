"""Whatever a client sends, the answer is a clear 4xx, and the next request is served."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.bundle import Bundle
from tests.service.conftest import b64, png

GRAY = Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40).astype(np.uint8))


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png() -> bytes:
    """A valid header of 10,000 x 10,000 pixels before very little data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


FRAMES = {"save_all": True, "append_images": [GRAY.rotate(90)], "duration": 50}
PICTURES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "empty"),
    "text": (b"not an image at all", 422, "not a readable"),
    "gif": (save(GRAY, "GIF"), 422, "not a readable"),
    "bmp": (save(GRAY, "BMP"), 422, "not a readable"),
    "truncated png": (png(Image.effect_noise((90, 90), 50))[:2000], 422, "damaged"),
    "truncated jpeg": (save(Image.effect_noise((90, 90), 50), "JPEG")[:1500], 422, "damaged"),
    "header only": (png(GRAY)[:20], 422, "not a readable"),
    "1x1": (png(Image.new("L", (1, 1))), 422, "1x1"),
    "10,000 x 10,000": (huge_png(), 413, "10000x10000"),
    "animated png": (save(GRAY, "PNG", **FRAMES), 422, "animated"),
    "animated webp": (save(GRAY, "WEBP", **FRAMES), 422, "animated"),
    "cmyk": (save(Image.new("CMYK", (40, 40)), "JPEG"), 422, "CMYK"),
    "16-bit": (png(Image.fromarray(np.full((40, 40), 40_000, np.uint16))), 422, "I;16"),
    "transparent": (png(Image.new("RGBA", (40, 40), (9, 9, 9, 100))), 422, "transparent"),
}


def check_problem(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert words.lower() in body["detail"].lower()


@pytest.fixture(autouse=True)
def still_serving(fake: httpx.Client) -> Any:
    yield
    assert fake.post("/generate", json={"steps": 1}).status_code == 200


@pytest.mark.parametrize("name", PICTURES)
def test_unusable_picture_is_refused_with_its_reason(fake: httpx.Client, name: str) -> None:
    data, status, words = PICTURES[name]
    check_problem(fake.post("/encode", files={"image": data}), status, words)
    check_problem(fake.post("/encode", json={"image": b64(data)}), status, words)
    check_problem(fake.post("/generate", json={"image": b64(data)}), status, words)
    check_problem(
        fake.post("/edit", files={"image": data}, data={"edits": '[{"prototype": 0, "op": "max"}]'}),
        status,
        words,
    )
    check_problem(fake.post("/visualize", json={"prototypes": [0], "images": [b64(data)]}), status, words)


def test_one_bad_picture_among_good_ones_is_named(fake: httpx.Client) -> None:
    files = [("image", png(GRAY)), ("image", b"rubbish"), ("image", png(GRAY))]
    check_problem(fake.post("/encode", files=files), 422, "image 1")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/encode", {}, 422, "one way"),
        ("/encode", {"image": "%%%"}, 422, "base64"),
        ("/encode", {"image": "data:image/png,abc"}, 422, "data:"),
        ("/encode", {"image": 5}, 422, "image"),
        ("/encode", {"image_id": "abc"}, 422, "image_id"),
        ("/encode", {"image_id": "0" * 64}, 404, "image_id"),
        ("/encode", {"images": []}, 422, "images"),
        ("/encode", {"images": [b64(png(GRAY))] * 33}, 422, "33"),
        ("/encode", {"image": b64(png(GRAY)), "image_id": "0" * 64}, 422, "one way"),
        ("/generate", {"steps": 0}, 422, "steps"),
        ("/generate", {"steps": 201}, 422, "200"),
        ("/generate", {"steps": 1_000_000}, 422, "steps"),
        ("/generate", {"steps": 10**400}, 422, "steps"),
        ("/generate", {"steps": "20"}, 422, "steps"),
        ("/generate", {"steps": True}, 422, "steps"),
        ("/generate", {"steps": 2.5}, 422, "steps"),
        ("/generate", {"seed": -1}, 422, "seed"),
        ("/generate", {"seed": 2**32}, 422, "seed"),
        ("/generate", {"num_images": 0}, 422, "num_images"),
        ("/generate", {"num_images": 33}, 422, "num_images"),
        ("/generate", {"sampler": "euler"}, 422, "sampler"),
        ("/generate", {"sampler": "ddpm", "eta": 0.5}, 422, "eta"),
        ("/generate", {"eta": 1.5}, 422, "eta"),
        ("/generate", {"x_T": "inverted"}, 422, "needs an image"),
        ("/generate", {"activations": [1.0]}, 422, "30 entries"),
        ("/generate", {"activations": []}, 422, "30 entries"),
        ("/generate", {"activations": [-1.0] * 30}, 422, "0 to 9.21"),
        ("/generate", {"activations": [1e30] * 30}, 422, "activations"),
        ("/generate", {"activations": [1e300] * 30}, 422, "activations"),
        ("/generate", {"activations": ["1"] * 30}, 422, "activations"),
        ("/generate", {"activations": [1.0] * 30, "image": b64(png(GRAY))}, 422, "not both"),
        ("/generate", {"image": b64(png(GRAY)), "x_T": "inverted", "num_images": 2}, 422, "same"),
        ("/generate", {"start": 300}, 422, "x_T inverted"),
        ("/generate", {"inversion": "bdia"}, 422, "x_T inverted"),
        ("/generate", {"start": "auto"}, 422, "start"),
        ("/trace", {"image": b64(png(GRAY)), "x_T": "inverted", "start": 0}, 422, "start must be"),
        ("/trace", {"image": b64(png(GRAY)), "x_T": "inverted", "start": 300, "eta": 1.0}, 422, "eta 0"),
        ("/generate", {"colour": "red"}, 422, "colour"),
        ("/generate", {"edits": [{"prototype": 30, "op": "max"}]}, 404, "no prototype 30"),
        ("/generate", {"edits": [{"prototype": -1, "op": "max"}]}, 404, "no prototype -1"),
        ("/generate", {"edits": [{"prototype": "smile", "op": "max"}]}, 404, "smile"),
        ("/generate", {"edits": [{"prototype": "\ud800", "op": "max"}]}, 404, "no prototype"),
        ("/generate", {"edits": [{"prototype": 1, "op": "set"}]}, 422, "needs a value"),
        ("/generate", {"edits": [{"prototype": 1, "op": "max", "value": 1.0}]}, 422, "no value"),
        ("/generate", {"edits": [{"prototype": 1, "op": "explode", "value": 1.0}]}, 422, "op"),
        ("/generate", {"edits": [{"prototype": 1, "op": "add", "value": 1e300}]}, 422, "value"),
        ("/generate", {"edits": {"prototype": 1}}, 422, "edits"),
        ("/edit", {"image": b64(png(GRAY))}, 422, "edits"),
        ("/edit", {"image": b64(png(GRAY)), "edits": []}, 422, "edits"),
        ("/edit", {"edits": [{"prototype": 1, "op": "max"}]}, 422, "give an image"),
        ("/visualize", {"samples": 1}, 422, "samples"),
        ("/visualize", {"prototypes": []}, 422, "prototypes"),
        ("/visualize", {"prototypes": [99]}, 404, "99"),
        ("/visualize", {"prototypes": [1], "num_samples": 33}, 422, "num_samples"),
        ("/visualize", {"prototypes": [1], "num_samples": 2, "images": [b64(png(GRAY))]}, 422, "not both"),
        ("/visualize", {"prototypes": [1], "steps": 0}, 422, "steps"),
    ],
)
def test_bad_field_is_refused_with_its_name(
    fake: httpx.Client, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = fake.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    check_problem(answer, status, words)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(fake: httpx.Client, number: str) -> None:
    headers = {"Content-Type": "application/json"}
    s = ",".join([number] * 30)
    check_problem(
        fake.post("/generate", content=f'{{"activations": [{s}]}}', headers=headers), 422, "activations"
    )
    edits = f'{{"edits": [{{"prototype": 0, "op": "set", "value": {number}}}]}}'
    check_problem(fake.post("/generate", content=edits, headers=headers), 422, "value")


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}", b'{"a": 1} x', b"\x00"],
)
def test_body_that_is_not_json_is_refused(fake: httpx.Client, body: bytes) -> None:
    check_problem(
        fake.post("/generate", content=body, headers={"Content-Type": "application/json"}),
        400,
        "not valid JSON",
    )


@pytest.mark.parametrize("body", [b"[]", b"5", b"null", b'"text"'])
def test_json_that_is_no_object_is_refused(fake: httpx.Client, body: bytes) -> None:
    check_problem(
        fake.post("/generate", content=body, headers={"Content-Type": "application/json"}), 422, "body"
    )


def test_other_media_types_are_refused(fake: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/png", ""):
        answer = fake.post("/encode", content=b"abc", headers={"Content-Type": kind})
        check_problem(answer, 415, "application/json")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=", b"abc"),
        ("multipart/form-data; boundary=x", b"abc"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
        ),
    ],
)
def test_broken_form_is_refused(fake: httpx.Client, kind: str, body: bytes) -> None:
    answer = fake.post("/encode", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_unexpected_files_and_repeated_fields_are_refused(fake: httpx.Client) -> None:
    check_problem(fake.post("/encode", files={"picture": png(GRAY)}), 422, "named image")
    check_problem(fake.post("/edit", files=[("image", png(GRAY))] * 2, data={"edits": "[]"}), 422, "")
    body = (
        b'--x\r\nContent-Disposition: form-data; name="steps"\r\n\r\n5\r\n'
        b'--x\r\nContent-Disposition: form-data; name="steps"\r\n\r\n6\r\n--x--\r\n'
    )
    answer = fake.post("/generate", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    check_problem(answer, 422, "twice")


def test_body_over_the_limit_is_refused_announced_or_not(fake: httpx.Client) -> None:
    large = b"x" * 2_100_000
    check_problem(
        fake.post("/encode", content=large, headers={"Content-Type": "application/json"}), 413, "2000000"
    )

    def chunks() -> Any:
        for start in range(0, len(large), 100_000):
            yield large[start : start + 100_000]

    check_problem(
        fake.post("/encode", content=chunks(), headers={"Content-Type": "application/json"}), 413, "2000000"
    )


def test_unknown_paths_and_methods_are_problems(fake: httpx.Client) -> None:
    check_problem(fake.get("/nowhere"), 404, "not found")
    check_problem(fake.get("/encode"), 405, "not allowed")
    check_problem(fake.get("/prototypes/99"), 404, "99")
    check_problem(fake.get("/prototypes/smile"), 404, "smile")
    check_problem(fake.get("/prototypes/%ff"), 404, "no prototype")
    check_problem(fake.get("/prototypes/-1"), 404, "-1")
    check_problem(fake.get("/prototypes/" + "9" * 30), 404, "no prototype")


def test_picture_of_any_reasonable_size_is_read(fake: httpx.Client, bundle: Bundle) -> None:
    for size in ((8, 8), (9, 3000), (3000, 9), (2000, 1500)):
        answer = fake.post("/encode", files={"image": png(Image.new("L", size, 128))})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("seed", range(4))
def test_seeded_rubbish_never_gives_a_500(fake: httpx.Client, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = [png(Image.effect_noise((40, 40), 60)), save(GRAY, "JPEG"), save(GRAY, "WEBP")]
    for _ in range(40):
        data = bytearray(whole[rng.integers(len(whole))])
        for position in rng.integers(0, len(data), rng.integers(1, 12)):
            data[position] = rng.integers(256)
        cut = int(rng.integers(1, len(data) + 1)) if rng.random() < 0.3 else len(data)
        answer = fake.post("/encode", files={"image": bytes(data[:cut])})
        assert answer.status_code in (200, 413, 422), answer.text


def test_a_prototype_is_visualized_once(fake: httpx.Client, bundle: Bundle) -> None:
    response = fake.post("/visualize", json={"prototypes": [3, 1, 3], "steps": 1})
    assert response.status_code == 422
    assert "more than once: [3]" in response.json()["detail"]
