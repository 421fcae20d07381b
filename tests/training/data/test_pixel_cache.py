from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import ImageConfig
from model.transforms import Pixels, to_pixels
from training.data import DataError, default_cache_directory
from training.data.image_folder import image_folder_source
from training.data.pixel_cache import _mapped, cached_pixels, decoded_pixels
from training.data.source import Annotations, Source

SavePicture = Callable[..., Pixels]

NUM_PICTURES = 150
RAW = np.random.default_rng(0).integers(0, 256, (NUM_PICTURES, 10, 12, 3), dtype=np.uint8)


@dataclass(frozen=True)
class FakeSource:
    """Keeps account of what is decoded; picture `broken_at` cannot be."""

    files: str = "as they were"
    broken_at: int = -1
    annotations: Annotations = field(default_factory=lambda: Annotations.none(NUM_PICTURES))
    decoded: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return NUM_PICTURES

    def picture(self, i: int) -> Image.Image:
        if i == self.broken_at:
            raise OSError("image file is truncated")
        self.decoded.append(i)
        return Image.fromarray(RAW[i])

    def broken(self, i: int, reason: object) -> DataError:
        return DataError(f"picture {i}: {reason}")

    def fingerprint(self) -> str:
        return self.files


def load(source: Source, cache: Path, image: ImageConfig, name: str = "fake-train") -> Pixels:
    return cached_pixels(source, image, name=name, cache=cache)


def cache_file(cache: Path) -> Path:
    (path,) = cache.glob("*.npy")
    return path


def test_pixels_are_those_of_to_pixels_in_order(tmp_path: Path, image: ImageConfig) -> None:
    expected = np.stack([to_pixels(Image.fromarray(raw), image) for raw in RAW])
    np.testing.assert_array_equal(load(FakeSource(), tmp_path, image), expected)
    np.testing.assert_array_equal(decoded_pixels(FakeSource(), image, name="fake"), expected)


def test_a_second_run_decodes_nothing(tmp_path: Path, image: ImageConfig) -> None:
    first, second = FakeSource(), FakeSource()
    pixels = load(first, tmp_path, image)
    np.testing.assert_array_equal(load(second, tmp_path, image), pixels)
    assert sorted(first.decoded) == list(range(NUM_PICTURES))
    assert second.decoded == []


def test_the_file_is_an_ordinary_npy_file(tmp_path: Path, image: ImageConfig) -> None:
    pixels = load(FakeSource(), tmp_path, image)
    np.testing.assert_array_equal(np.load(cache_file(tmp_path)), pixels)


def test_changed_files_are_read_again(tmp_path: Path, image: ImageConfig) -> None:
    load(FakeSource(), tmp_path, image)
    changed = FakeSource(files="changed")
    load(changed, tmp_path, image)
    assert len(changed.decoded) == NUM_PICTURES


def test_another_shape_or_split_has_a_file_of_its_own(tmp_path: Path, image: ImageConfig) -> None:
    load(FakeSource(), tmp_path, image)
    assert load(FakeSource(), tmp_path, replace(image, channels=1)).shape == (NUM_PICTURES, 1, 8, 8)
    test = FakeSource()
    load(test, tmp_path, image, name="fake-test")
    assert len(test.decoded) == NUM_PICTURES
    assert len(list(tmp_path.glob("*.npy"))) == 3


def _cut(content: bytes) -> bytes:
    return content[:-1000]


def _lengthen(content: bytes) -> bytes:
    return content + b"more"


def _flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def _change_the_header(content: bytes) -> bytes:
    return content.replace(b"|u1", b"|i1", 1)


def _empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [_cut, _lengthen, _flip_a_bit, _change_the_header, _empty])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, image: ImageConfig, damage: Callable[[bytes], bytes]
) -> None:
    expected = load(FakeSource(), tmp_path, image).copy()
    path = cache_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    source = FakeSource()
    np.testing.assert_array_equal(load(source, tmp_path, image), expected)
    assert len(source.decoded) == NUM_PICTURES
    assert path.read_bytes() == whole


def test_a_picture_that_cannot_be_decoded_is_named_and_leaves_no_file(
    tmp_path: Path, image: ImageConfig
) -> None:
    with pytest.raises(DataError, match="picture 149: image file is truncated"):
        load(FakeSource(broken_at=149), tmp_path, image)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert len(load(FakeSource(), tmp_path, image)) == NUM_PICTURES


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path, image: ImageConfig) -> None:
    pixels = load(FakeSource(), tmp_path, image).copy()
    path = cache_file(tmp_path)
    path.rename(tmp_path / f"{path.name}.abc.partial")
    source = FakeSource()
    np.testing.assert_array_equal(load(source, tmp_path, image), pixels)
    assert len(source.decoded) == NUM_PICTURES
    assert not list(tmp_path.glob("*.partial"))


def test_processes_that_start_together_make_one_sound_file(
    tmp_path: Path, image: ImageConfig, save_picture: SavePicture
) -> None:
    for i in range(40):
        save_picture(tmp_path / "images" / f"{i}.png", i)
    program = (
        "import sys; from pathlib import Path; from training.data import load_dataset\n"
        "from model.config import ImageConfig\n"
        "data, cache = map(Path, sys.argv[1:])\n"
        "dataset = load_dataset('folder', data, 'train', ImageConfig(3, 8, 8), cache=cache)\n"
        "sys.stdout.buffer.write(dataset.pixels.tobytes())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "images"), str(tmp_path / "cache")]
    root = Path(__file__).parents[3]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(3)]
    outputs = [process.communicate()[0] for process in processes]
    expected = decoded_pixels(image_folder_source(tmp_path / "images", "train"), image, name="folder")
    assert outputs == [expected.tobytes()] * 3
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".lock", ".npy"]


def test_torch_takes_the_map_without_a_warning_and_writing_changes_no_file(
    tmp_path: Path, image: ImageConfig
) -> None:
    pixels = load(FakeSource(), tmp_path, image)
    before = cache_file(tmp_path).read_bytes()
    tensor = torch.from_numpy(pixels)
    tensor[:] = 7
    assert (pixels == 7).all()
    assert cache_file(tmp_path).read_bytes() == before
    assert (load(FakeSource(), tmp_path, image) != 7).any()


def test_a_batch_is_one_indexing_call_and_a_copy(tmp_path: Path, image: ImageConfig) -> None:
    pixels = load(FakeSource(), tmp_path, image)
    batch = pixels[np.array([5, 0, 149])]
    assert type(batch) is np.ndarray
    assert batch.shape == (3, 3, 8, 8)
    assert not np.shares_memory(batch, pixels)


def test_a_file_larger_than_memory_is_mapped_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    size = 1 << 42
    try:
        with open(path, "wb") as file:
            file.truncate(size)
    except OSError as error:
        pytest.skip(f"this file system holds no sparse file of {size} bytes: {error}")
    pixels = _mapped(path, (size - 128,), offset=128)
    assert pixels[-1] == 0


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, image: ImageConfig) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(
        DataError, match=r"file/.* cannot be written \(0 MB\): .*name another cache directory"
    ):
        load(FakeSource(), tmp_path / "file", image)


def test_the_default_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / "patronus" / "datasets"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache_directory() == tmp_path / "home" / ".cache" / "patronus" / "datasets"


def test_a_name_with_slashes_stays_inside_the_cache(tmp_path: Path, image: ImageConfig) -> None:
    load(FakeSource(), tmp_path / "cache", image, name="hf:../../a/b:image-train")
    assert cache_file(tmp_path / "cache").name.startswith("hf-..-..-a-b-image-train-3x8x8-")
    assert os.listdir(tmp_path) == ["cache"]
