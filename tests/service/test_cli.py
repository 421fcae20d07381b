"""The command line: the same answers here and by URL, files in and out, and what its exit status says."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request
from PIL import Image

from model.bundle import Bundle
from service.app import create_app
from service.cli import main
from service.cli.completion import completion
from service.cli.in_process import in_process
from service.cli.load import Load, Outcome, Summary
from service.cli.program import program
from service.cli.progress import ProgressLine
from service.cli.target import LOCAL_URL, local_settings
from service.client import Client, OverloadedError, Progress, UnreachableError, calls
from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.conftest import fake_runner, picture, serving
from tests.service.test_main import free_port, wait_until_ready

ROOT = Path(__file__).parents[2]
TIMES = ("timings", "total_s", "cached", "written")
"""What differs from one run to the next."""


@pytest.fixture
def folder(tmp_path: Path, reference_pngs: list[bytes]) -> Path:
    """Three pictures, one of them deeper, and a file that is none."""
    (tmp_path / "deeper").mkdir()
    for name, data in zip(("a.png", "b.png", "deeper/c.png"), reference_pngs, strict=False):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def assert_same(one: Any, other: Any) -> None:
    """Equal but for times, for the last digits of numbers, and for one of 255 levels of a pixel.

    Those depend on how many rows a network call has, and that on what comes together.
    """
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one.keys() - set(TIMES):
            assert_same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-3)
    elif isinstance(one, str) and one.startswith("iVBOR"):
        difference = np.asarray(picture(one), int) - np.asarray(picture(other), int)
        assert np.abs(difference).max() <= 1
    else:
        assert one == other


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "{folder}", "--maps"],
        ["generate", "-n", "2", "--steps", "3", "-e", "3=max", "--sampler", "dpmpp_2m"],
        ["edit", "{folder}/a.png", "-e", "21=max", "--steps", "3", "--rounds", "1", "-o", "{folder}/out.png"],
        ["locate", "{folder}", "--maps", "-p", "3"],
        ["extrapolate", "3", "{folder}/a.png", "--values", "1,2", "--steps", "2", "-o", "{folder}/out.png"],
        ["interpolate", "{folder}/a.png", "{folder}/b.png", "-n", "3", "--steps", "2"],
        ["prototypes"],
        ["visualize", "21", "--image", "{folder}/a.png", "--steps", "2"],
        ["trace", "--steps", "3", "--image", "{folder}/a.png"],
        ["diagnose", "-p", "3", "--num-samples", "6", "--steps", "1"],
        ["models"],
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_a_command_answers_the_same_here_and_by_url(
    arguments: list[str], folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for where in (["--bundle", str(SHIPPED_BUNDLE)], ["--url", real_url]):
        words = [word.format(folder=folder) for word in arguments]
        assert main([*words, "--json", *([] if words[0] == "models" else ["-q"]), *where]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]
    assert_same(*answers)


def test_encode_reads_files_folders_and_globs_once_each(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str], bundle: Bundle
) -> None:
    (folder / "album.png").mkdir()
    given = [str(folder / "a.png"), str(folder), str(folder / "**" / "*.png")]
    assert main(["encode", *given, "--csv", "--url", real_url]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["file", "image_id", *(f"s_{j}" for j in range(bundle.config.num_prototypes))]
    assert [Path(row[0]).name for row in rows] == ["a.png", "b.png", "c.png"]
    assert main(["encode", str(folder), "-o", str(folder / "new" / "all.json"), "--url", real_url]) == 0
    images = json.loads((folder / "new" / "all.json").read_text())["images"]
    assert [image["activations"] for image in images] == [[float(s) for s in row[2:]] for row in rows]
    assert main(["encode", str(folder / "a.png"), "--url", real_url, "--top", "2"]) == 0
    table = capsys.readouterr().out.splitlines()
    best = int(np.argmax(images[0]["activations"]))
    assert table[0].split() == ["file", "prototype", "similarity", "box"]
    assert table[1].split()[1] == str(best)
    assert len(table) == 3


def test_images_that_cannot_be_used_are_named_and_the_others_encoded(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.png").write_bytes(b"not a picture")
    assert main(["encode", str(folder), "--json", "--url", real_url]) == 1
    output = capsys.readouterr()
    assert [Path(image["file"]).name for image in json.loads(output.out)["images"]] == ["a.png", "c.png"]
    (line,) = output.err.splitlines()
    assert "b.png: 422" in line
    assert "not a readable" in line


def test_pictures_go_into_files(folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--url", real_url, "--steps", "2"]
    assert main(["generate", "-n", "3", "-o", str(folder / "grid.png"), *at]) == 0
    assert Image.open(io.BytesIO((folder / "grid.png").read_bytes())).size == (64, 64)
    assert main(["generate", "-n", "2", "--seed", "5", "-o", str(folder / "each"), *at]) == 0
    assert {path.name for path in (folder / "each").iterdir()} == {"5.png", "6.png"}
    edited = ["edit", str(folder / "a.png"), str(folder / "b.png"), "-e", "21=max", "--rounds", "1"]
    assert main([*edited, "--reconstruction", "-o", str(folder / "out"), *at]) == 0
    names = {f"{name}.{kind}.png" for name in "ab" for kind in ("edited", "reconstruction")}
    assert {path.name for path in (folder / "out").iterdir()} == names
    assert main(["visualize", "21", "--image", str(folder), "-o", str(folder / "shown"), *at]) == 0
    shown = {"prototype-21.png", "prototype-21.source.png", "prototype-21.patch.png"}
    assert {path.name for path in (folder / "shown").iterdir()} == shown
    assert main(["trace", "-n", "2", "--num-previews", "2", "-o", str(folder / "film.png"), *at]) == 0
    assert Image.open(io.BytesIO((folder / "film.png").read_bytes())).size == (64, 64)
    assert main(["trace", "--csv", *at]) == 0
    assert len(capsys.readouterr().out.splitlines()[-3:]) == 3
    report = ["diagnose", "-p", "3", "--num-samples", "6", *at]
    for name, start in (("r.html", "<!doctype html>"), ("r.csv", "prototype,affected"), ("r.json", "{")):
        assert main([*report, "-o", str(folder / name)]) == 0
        assert (folder / name).read_text().lstrip().startswith(start)


@pytest.mark.parametrize("where", [["--bundle", str(SHIPPED_BUNDLE)], ["--url"]], ids=["here", "by url"])
def test_an_edited_attribute_has_a_row_and_so_has_what_changed_along(
    where: list[str], folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = [*where, *([real_url] if where == ["--url"] else []), "--steps", "10", "-o", str(folder / "out.png")]
    assert main(["edit", str(folder / "a.png"), "-e", "@Bag=max", "-e", "21=+0.5", "-q", *at]) == 0
    header, *rows = (re.split(r"  +", line) for line in capsys.readouterr().out.strip().splitlines())
    assert header == ["file", "changed", "how", "before", "asked", "achieved", "written"]
    assert [row[1:3] for row in rows[:2]] == [["@Bag", "edited"], ["21", "edited"]]
    assert float(rows[0][5]) > float(rows[0][3])
    along = rows[2:]
    assert along
    assert all(row[1].startswith("@") and row[2] == "changed along" for row in along)


def test_a_named_prototype_has_its_row(
    tmp_path: Path, settings: Settings, reference_pngs: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(reference_pngs[0])
    with serving(replace(settings, state_dir=tmp_path), fake_runner) as url, Client(url) as client:
        client.rename(21, "handle")
        file, out = str(tmp_path / "a.png"), str(tmp_path / "out.png")
        assert main(["edit", file, "-e", "handle=max", "--steps", "2", "-o", out, "--url", url]) == 0
    rows = [line.split() for line in capsys.readouterr().out.strip().splitlines()]
    assert [row[1:3] for row in rows[1:] if row[2] != "changed"] == [["21", "edited"]]


def test_visualize_says_in_how_many_pictures_a_prototype_rose(
    tmp_path: Path, fake_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "black.png")
    given = ["--image", str(tmp_path / "black.png"), "--steps", "1", "-o", str(tmp_path / "shown")]
    assert main(["visualize", "3", *given, "--url", fake_url]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert (header.split()[-2:], row.split()[-3:]) == (["rose", "in"], ["none", "of", "1"])


def test_run_that_made_an_edit_is_traced(
    folder: Path, real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--steps", "10", "--json", "-q", "--url", real_url]
    shirt = str(folder / "a.png")
    assert (
        main(["edit", shirt, "-e", "21=max", "--start", "600", "-o", str(folder / "out.png"), *common]) == 0
    )
    (edited,) = json.loads(capsys.readouterr().out)["images"]
    driven = folder / "driven.json"
    driven.write_text(json.dumps(edited["activations"]["driven"]))
    way = ["--x-t", "inverted", "--start", str(edited["start_timestep"])]
    assert main(["trace", "--image", shirt, "--activations", str(driven), *way, *common]) == 0
    (traced,) = json.loads(capsys.readouterr().out)["images"]
    assert_same(traced["previews"][-1]["image"], edited["image"])


def test_what_an_attribute_does_to_others_comes_first(
    real_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num-samples", "6", "--steps", "1", "--num-couplings", "2", "-q", "--url", real_url]
    assert main(["diagnose", "--attribute", "Bag", *few]) == 0
    output = capsys.readouterr()
    header, *rows = [line for line in output.out.splitlines() if line]
    assert "effects on attributes are established" in output.err
    assert header.split()[:5] == ["changed", "how", "asked", "own", "effect"]
    own, columns, *couplings = rows
    assert own.split()[:2] == ["@Bag", "0.01"]
    assert [name for name in ("asked", "beyond", "finding") if name not in columns.split()] == []
    assert len(couplings) == 4
    assert all(row.startswith("@Bag") for row in couplings)
    assert [row.split("@Bag")[1].lstrip().startswith("@") for row in couplings] == [True, True, False, False]
    assert "leakage:" not in output.err  # quiet


def test_a_diagnosis_says_what_its_figures_are(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--num-samples", "6", "--steps", "1", "--url", real_url]
    assert main(["diagnose", "--attribute", "Bag", "-p", "3", *few]) == 0
    told = capsys.readouterr().err
    for definition in (
        "95% bootstrap interval over 6 samples",
        "corrected for all 59 pairs with prototypes, and for all 19 with attributes",
        "as a share of the own effect",
        "within what was asked, p is 1",
        "proves no cause",
    ):
        assert definition in told


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["encode"], 2, "Missing argument"),
        (["encode", "nowhere/*.png"], 2, "there is no file nowhere/*.png"),
        (["generate", "-e", "21"], 2, "'21' is not PROTOTYPE=CHANGE"),
        (["generate", "-e", "21=more"], 2, "'more' is not max, min"),
        (["generate", "-e", "21=nan"], 2, "'nan' is not max, min"),
        (["generate", "-e", "@=max"], 2, "'@=max' is not PROTOTYPE=CHANGE"),
        (["extrapolate", "3", "--values", "1,inf"], 2, "'1,inf' is not numbers"),
        (["models", "--bundle", ".", "--url", "http://127.0.0.1:9"], 2, "not both"),
        (["models", "--bundle", "."], 2, "manifest.json"),
        (["models", "--url", "http://127.0.0.1:9", "--timeout", "1"], 3, "ConnectError"),
        (["serve", "--port", "many"], 2, "PATRONUS_PORT must be a whole number, not 'many'"),
        (["paint"], 2, "No such command 'paint'"),
        (["bench", "--bundle", ".", "--url", "http://127.0.0.1:9"], 2, "not both"),
        (["bench", "--image", str(ROOT / "README.md")], 2, "--image is for --endpoint encode"),
        (["models", "--url", "127.0.0.1:8000"], 2, "no address of a service, such as http://"),
        (["generate", "-o", "grid.gif"], 2, "grid.gif must be a .png, a .json or a folder"),
        (["encode", ".", "-o", "all.txt"], 2, "all.txt must be a .json or a .csv"),
        (["edit", ".", "-e", "1=max", "-o", "edited.jpg"], 2, "edited.jpg must be a folder or a .png"),
        (["trace", "--num-previews", "0", "-o", "film.png"], 2, "--num-previews must be 1 or more"),
        (["diagnose", "--json", "-o", "report.html"], 2, "give --json or --out, not both"),
    ],
)
def test_what_goes_wrong_is_said_and_has_its_status(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    output = capsys.readouterr()
    assert words in output.err
    assert output.out == ""


def test_refused_busy_and_late_have_statuses_of_their_own(
    settings: Settings, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded = replace(settings, api_keys=("key-of-eight",), max_row_steps_per_key=50)
    with serving(guarded, fake_runner) as url:
        at = ["--url", url, "-o", str(folder / "x.png")]
        assert main(["generate", *at]) == 1
        assert "401" in capsys.readouterr().err
        monkeypatch.setenv("PATRONUS_CLIENT_API_KEY", "key-of-eight")
        monkeypatch.setenv("PATRONUS_CLIENT_URL", url)
        assert main(["generate", "-o", str(folder / "x.png")]) == 0
        assert main(["generate", "-n", "30", *at]) == 1
        assert main(["generate", "--timeout", "0.000001", *at]) == 4
        assert "no answer within" in capsys.readouterr().err


def test_a_folder_may_have_a_dot_in_its_name(folder: Path, fake_url: str) -> None:
    (folder / "run-1.5").mkdir()
    assert main(["generate", "-o", str(folder / "run-1.5"), "--steps", "1", "--url", fake_url]) == 0
    assert [path.name for path in (folder / "run-1.5").iterdir()] == ["0.png"]


def test_a_key_is_taken_without_the_line_end_of_its_file_and_is_never_shown(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(replace(settings, api_keys=("key-of-eight",)), fake_runner) as url:
        monkeypatch.setenv("PATRONUS_CLIENT_API_KEY", "key-of-eight\n")
        assert main(["models", "--url", url]) == 0
        capsys.readouterr()
        monkeypatch.setenv("PATRONUS_CLIENT_API_KEY", "key-of-éight")
        assert main(["models", "--url", url]) == 2
        output = capsys.readouterr()
        assert "API key must be printable ASCII" in output.err
        assert "éight" not in output.err


def test_every_command_has_help_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    for name in program.commands:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"Usage: patronus {name}" in shown
        assert "MISSING" not in shown
    for shell in completion.params[0].type.choices:  # type: ignore[attr-defined]
        assert main(["completion", shell]) == 0
        assert "_PATRONUS_COMPLETE" in capsys.readouterr().out


def test_serve_takes_its_settings_from_options_before_the_environment() -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", str(port), "--tune-batch", "off"],
        cwd=ROOT,
        env={**os.environ, "PATRONUS_PORT": "1", "PATRONUS_CLIENT_URL": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_bench_prints_percentiles_and_goodput(fake_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    load = ["bench", "--url", fake_url, "--rate", "40", "--duration", "0.5", "--steps", "2"]
    assert main([*load, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_ok"] == found["num_requests"] == len(Load(rate=40, duration_s=0.5, seed=0).moments())
    assert 0 < found["p50_s"] <= found["p95_s"] <= found["p99_s"]
    assert main([*load, "--endpoint", "encode"]) == 0
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()][-5:] == ["alone", "p50", "p95", "p99", "goodput"]


def test_bench_loads_a_bundle_here(capsys: pytest.CaptureFixture[str]) -> None:
    load = ["bench", "--bundle", str(SHIPPED_BUNDLE), "--endpoint", "encode", "--rate", "20"]
    assert main([*load, "--duration", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_ok"] == found["num_requests"] > 0


def test_goodput_counts_answers_within_three_times_what_one_takes_alone() -> None:
    full = OverloadedError(503, "full", "", retry_after_s=1, request_id=None)
    outcomes = [Outcome(seconds, None) for seconds in (1.0, 2.0, 3.0, 3.5)]
    outcomes += [Outcome(0.1, full), Outcome(0.1, UnreachableError("gone"))]
    summary = Summary.of(outcomes, solo_s=1.0, duration_s=2.0)
    assert (summary.num_ok, summary.num_rejected, summary.num_failed) == (4, 1, 1)
    assert summary.goodput == 1.5
    assert summary.p50_s == 2.5
    assert Summary.of([], solo_s=1.0, duration_s=2.0).p99_s is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals_and_is_wiped() -> None:
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        with ProgressLine(stream=stream, quiet=quiet) as line:
            line.show("encode", 1, 2)
        assert stream.getvalue() == ""
    terminal = Terminal()
    with ProgressLine(stream=terminal) as line:
        line.follow(Progress("generate", 0, 3, 4))
        line.follow(Progress("generate", 1, 2, 4))
        assert terminal.getvalue().endswith("generate [###############---------------] 2/4")
        line.follow(Progress("correct", 0, 1, 4))
        assert "correct [#######-" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


def test_activations_that_json_does_not_have_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.json").write_text("[0.5, NaN]")
    assert main(["generate", "--activations", str(tmp_path / "s.json")]) == 2
    assert "is no JSON: it has no NaN" in capsys.readouterr().err


def test_two_images_that_would_become_one_file_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "deeper" / "a.png").write_bytes((folder / "b.png").read_bytes())
    assert main(["locate", str(folder), "-o", str(folder / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{folder / 'a.png'} and {folder / 'deeper' / 'a.png'} would both become" in said


def test_in_process_who_interrupts_a_request_leaves_it() -> None:
    app = FastAPI()
    who_waits, has_left = threading.get_ident(), threading.Event()

    @app.get("/")
    async def wait(request: Request) -> None:
        signal.pthread_kill(who_waits, signal.SIGINT)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left.set()

    with in_process(app) as transport, httpx.Client(transport=transport) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get(LOCAL_URL)
        assert has_left.wait(20.0)


def test_in_process_a_stream_is_live_and_leaving_it_stops_the_work(settings: Settings) -> None:
    with (
        in_process(create_app(settings)) as transport,
        Client(LOCAL_URL, transport=transport) as client,
    ):
        for event in client.stream(calls.generate(num_images=32, steps=200)):
            assert isinstance(event, Progress)
            assert event.step < 200
            break
        again = client.generate(steps=2)
        assert len(again.images) == 1


def test_what_protects_a_service_does_not_bind_who_works_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATRONUS_API_KEYS", "key-of-eight")
    monkeypatch.setenv("PATRONUS_RATE_LIMIT", "1/h")
    monkeypatch.setenv("PATRONUS_MAX_BATCH", "7")
    found = local_settings(tmp_path)
    assert (found.api_keys, found.rate, found.max_batch, found.bundle) == ((), None, 7, (tmp_path,))


def test_commands_take_a_bundle_of_ones_own(
    tiny_prior_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "--bundle", str(tiny_prior_bundle), "--steps", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "tiny with prior"
