"""The commands that look at prototypes: where they are, what they are called, and what they do when swept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from service.cli import main
from service.settings import Settings
from tests.service.conftest import fake_runner, serving


@pytest.fixture
def folder(tmp_path: Path, reference_pngs: list[bytes]) -> Path:
    """Two pictures."""
    for name, data in zip(("a.png", "b.png"), reference_pngs, strict=False):
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.fixture
def own_url(settings: Settings, tmp_path: Path) -> Iterator[str]:
    """A service whose names of prototypes are nobody else's."""
    with serving(replace(settings, state_dir=tmp_path / "state"), fake_runner) as url:
        yield url


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_locate_draws_a_picture_for_each_image_and_lists_the_boxes(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["locate", str(folder / "a.png"), str(folder / "b.png"), "--url", real_url]
    assert main([*given, "-p", "3", "-p", "21", "-o", str(folder / "out")]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["file", "prototype", "name", "s", "z", "box", "centre"]
    assert [line[1] for line in table[1:]] == ["3", "21", "3", "21"]
    assert size(folder / "out" / "a.located.png")[0] > 2 * 32
    assert (folder / "out" / "b.located.png").is_file()
    assert main([*given, "--csv"]) == 0
    assert len(list(csv.reader(io.StringIO(capsys.readouterr().out)))) == 1 + 2 * 8
    assert main([*given, "-o", str(folder / "all.json")]) == 0
    images = json.loads((folder / "all.json").read_text())["images"]
    assert [Path(image["file"]).name for image in images] == ["a.png", "b.png"]
    assert len(images[0]["prototypes"]) == 8


def test_locate_goes_on_after_an_image_that_cannot_be_used(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(b"not a picture")
    assert main(["locate", str(folder), "--json", "--url", real_url]) == 1
    output = capsys.readouterr()
    assert [Path(image["file"]).name for image in json.loads(output.out)["images"]] == ["b.png"]
    assert "a.png: 422" in output.err


def test_a_name_given_on_the_command_line_holds_at_the_service(
    folder: Path, own_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--url", own_url]
    assert main(["prototypes", "21", "--name", "3=sleeve", "--name", "4=v neck", *at]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["sleeve", "v", "-"]
    assert main(["prototypes", "sleeve", "--json", *at]) == 0
    [shown] = json.loads(capsys.readouterr().out)["prototypes"]
    assert (shown["prototype"]["index"], shown["prototype"]["name"]) == (3, "sleeve")
    assert main(["locate", str(folder / "a.png"), "-p", "sleeve", "--csv", *at]) == 0
    assert ",3,sleeve," in capsys.readouterr().out
    assert main(["prototypes", "--name", "sleeve=", *at]) == 0
    assert main(["prototypes", "sleeve", *at]) == 1
    assert "404" in capsys.readouterr().err


def test_prototypes_are_listed_and_drawn(
    folder: Path, fake_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prototypes", "--csv", "--url", fake_url]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[:3] == ["prototype", "name", "mean"]
    assert [row[0] for row in rows] == [str(j) for j in range(30)]
    assert main(["prototypes", "3", "21", "-o", str(folder / "each"), "--url", fake_url]) == 0
    assert {path.name for path in (folder / "each").iterdir()} == {"prototype-3.png", "prototype-21.png"}
    assert main(["prototypes", "-o", str(folder / "sheet.png"), "--url", fake_url]) == 0
    assert min(size(folder / "sheet.png")) > 96


def test_a_sweep_is_a_strip_of_each_image_or_of_a_sample(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--values", "0,2,9", "--steps", "2", "--url", real_url]
    assert main(["extrapolate", "3", str(folder), "-o", str(folder / "out"), *at]) == 0
    assert {path.name for path in (folder / "out").iterdir()} == {"a.extrapolated.png", "b.extrapolated.png"}
    assert size(folder / "out" / "a.extrapolated.png")[0] >= 3 * 128
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in table[1:4]] == ["0.000", "2.000", "9.000"]
    assert table[3][4] == "yes"
    assert main(["extrapolate", "3", "-o", str(folder / "one.csv"), *at]) == 0
    assert len((folder / "one.csv").read_text().splitlines()) == 4


def test_an_interpolation_is_a_strip_or_a_picture_each(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = ["interpolate", str(folder / "a.png"), str(folder / "b.png")]
    at = ["-n", "3", "--steps", "2", "--url", real_url]
    assert main([*ends, "-o", str(folder / "strip.png"), *at]) == 0
    assert size(folder / "strip.png")[0] >= 3 * 128
    assert main([*ends, "-o", str(folder / "each"), *at]) == 0
    assert {path.name for path in (folder / "each").iterdir()} == {"0.000.png", "0.500.png", "1.000.png"}
    capsys.readouterr()
    assert main([*ends, "--csv", *at]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "weight",
        "0.0",
        "0.5",
        "1.0",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["locate"], "Missing argument"),
        (["locate", "{folder}", "-o", "{folder}/one.png"], "one file for 2 images"),
        (["prototypes", "--name", "3"], "'3' is not PROTOTYPE=NAME"),
        (["extrapolate", "3", "--values", "1,two"], "'1,two' is not numbers"),
        (["interpolate", "{folder}/a.png"], "Missing argument"),
        (["interpolate", "{folder}/a.png", "{folder}/b.png", "-n", "1"], "1 is not in the range"),
        (["push", "{folder}", "lab/tiny"], "'lab/tiny' is not of the form hf://"),
        (["push", "{folder}", "hf://lab/tiny"], "manifest.json"),
        (["pull", "hf://tiny"], "'hf://tiny' is not of the form hf://"),
        (["models", "--bundle", "hf://tiny"], "'hf://tiny' is not of the form hf://"),
        (["serve", "--bundle", "hf://tiny"], "PATRONUS_BUNDLE must be directories or hf://"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(folder=folder) for word in arguments]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""
