"""Bytes and JSON into what the client gives, and pictures into what it sends."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.client import Edit, ImageId, Picture, calls
from service.client.events import Event, EventParser
from service.client.images import to_file
from service.client.reading import parse

STREAM = (
    b': hello\r\n\r\nevent: progress\ndata: {"name": "\xe2\x80\xa8"}\n\n'
    b"event:result\rdata:1\rdata: 2\r\rid: 7\n\nevent: lost"
)
EVENTS = [Event("progress", b'{"name": "\xe2\x80\xa8"}'), Event("result", b"1\n2")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_their_bytes_are_cut(cuts: list[int]) -> None:
    parser, edges = EventParser(), [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == EVENTS


def test_one_long_line_in_many_pieces_is_read_in_one_go() -> None:
    """Were all that came before searched again for each piece, this would take minutes."""
    data, size = b"x" * 2**25, 2**13
    stream = b"event: result\ndata: " + data + b"\n\n"
    parser = EventParser()
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    assert [event for chunk in chunks for event in parser.feed(chunk)] == [Event("result", data)]


@dataclass(frozen=True, eq=False)
class Inner:
    x: float
    box: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Outer:
    inner: tuple[Inner, ...]
    array: npt.NDArray[np.float32]
    name: str = "none"


def test_fields_are_read_by_their_types_and_news_is_left_out() -> None:
    value = {"inner": [{"x": 1, "box": [2, 3], "new": []}], "array": [[1.5, None]], "newer": 1}
    read = parse(Outer, value)
    assert (read.inner[0].x, read.inner[0].box, read.name) == (1.0, (2, 3), "none")
    assert read.array.dtype == np.float32
    np.testing.assert_array_equal(read.array, [[1.5, np.nan]])


@pytest.mark.parametrize(
    "value",
    [
        {"inner": [], "array": [[1], [1, 2]]},
        {"inner": [], "array": ["a"]},
        {"inner": [{"x": True, "box": None}], "array": []},
        {"inner": [{"x": "1", "box": None}], "array": []},
        {"inner": [{"x": 1, "box": [1, 2, 3]}], "array": []},
        {"inner": [{"x": 1, "box": [1, 2.5]}], "array": []},
        {"inner": [{"box": None}], "array": []},
        {"inner": {}, "array": []},
        [],
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(ValueError, match="the answer"):
        parse(Outer, value)


def test_a_picture_that_is_not_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="base64"):
        parse(Picture, "!!!!")


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1), (9, 8, 3)])
def test_pixels_are_sent_without_loss(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sent = Picture(to_file(pixels)).to_numpy()
    np.testing.assert_array_equal(sent, pixels[:, :, 0] if shape[-1] == 1 else pixels)


def test_a_path_and_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (9, 9)).save(path)
    assert to_file(path) == to_file(str(path)) == to_file(path.read_bytes()) == path.read_bytes()
    picture = Image.open(io.BytesIO(to_file(Image.new("L", (9, 8), 7))))
    assert (picture.size, picture.getpixel((0, 0))) == ((9, 8), 7)


def test_what_is_no_image_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="float64"):
        calls.encode(np.zeros((9, 9)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(9, 9, 4\)"):
        calls.encode(np.zeros((9, 9, 4), np.uint8))
    with pytest.raises(TypeError, match="int"):
        calls.encode(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        calls.encode("nowhere.png")
    with pytest.raises(ValueError, match="image_id"):
        calls.encode(ImageId("0" * 64), b"another")
    with pytest.raises(ValueError, match="image_id"):
        calls.interpolate(ImageId("0" * 64), b"another")


def test_numpy_numbers_go_into_json() -> None:
    call = calls.generate(activations=np.array([0.5, 1.0], np.float32), edits=[Edit(3, "max")])
    assert call.fields == {"activations": [0.5, 1.0], "edits": [{"prototype": 3, "op": "max"}]}
