"""The scripts for a GPU run at tiny sizes on a CPU, stop in time, and find what is wrong."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import compare, correctness, onnx_cuda, serving, shards, speed, train, training_rate
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.call import RESULTS, Call
from benchmarks.gpu.differences import row_difference
from benchmarks.gpu.machine import environment
from benchmarks.gpu.networks import TINY, open_network, random_steps
from benchmarks.gpu.report import Report
from benchmarks.gpu.roofline import count_flops
from service.engine.torch_runner import TorchRunner
from training.config import TrainConfig
from training.devices import make_accelerator
from training.trainer import Trainer, read_checkpoint

CPU = torch.device("cpu")
CPU_HAS_BF16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def report(*, rehearsal: bool = True) -> Report:
    return Report("title", "command", environment(CPU), rehearsal=rehearsal)


def kept(out: Path, stem: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{stem}.json").read_text())
    assert (out / f"{stem}.md").read_text().startswith("# ")
    return found


# --- what all scripts share --------------------------------------------------------------------------


def test_what_would_not_end_in_time_is_not_begun() -> None:
    clock = Clock()
    budget = Budget(100.0, clock)
    assert budget.allows(100.0)
    clock.now = 41.0
    assert budget.allows(59.0)
    assert not budget.allows(60.0)


def test_report_says_what_there_was_no_time_for() -> None:
    clock = Clock()
    call = Call(CPU, Budget(10.0, clock), False, report(), Path())
    clock.now = 8.0
    assert call.allows(1.0, "a short thing")
    assert not call.allows(3.0, "a long thing")
    assert call.report.not_measured == {"a long thing": "the budget had 2 s left"}
    assert "- not measured: a long thing: the budget had 2 s left" in call.report.markdown()


def test_script_whose_time_is_over_measures_nothing_and_says_so(tmp_path: Path) -> None:
    assert correctness.main(["--rehearse", "--budget-s", "-1", "--out", str(tmp_path)]) == 1
    found = kept(tmp_path, "correctness")
    assert list(found["not_measured"]) == ["tiny in bf16", "tiny in fp32"]
    assert found["checks"] == []


def test_missing_packages_are_named_and_their_section_left_out() -> None:
    call = Call(CPU, Budget(1.0), False, report(), Path())
    assert call.has_packages("numbers", ["numpy"])
    assert not call.has_packages("a service", ["numpy", "no_such_package"])
    assert call.report.not_measured == {"a service": "these packages are not installed: no_such_package"}


def test_failed_check_makes_the_exit_status_1_and_a_missed_target_does_not() -> None:
    found = report(rehearsal=False)
    assert found.exit_status == 1  # nothing was checked
    found.check("good", True)
    found.target("share", 0.4, 0.5, "", at_least=True)
    found.target("time", 20.0, 30.0, "ms", at_least=False)
    assert found.exit_status == 0
    assert "- MISSED: share: 0.4" in found.markdown()
    assert "- met: time: 20 ms" in found.markdown()
    found.check("bad", False, "2 of 1")
    assert found.exit_status == 1
    assert "- FAILED: bad: 2 of 1" in found.markdown()


def test_rehearsal_judges_no_target_and_claims_nothing(tmp_path: Path) -> None:
    found = report()
    found.target("share", 0.9, 0.5, "", at_least=True)
    found.write(tmp_path, "stem")
    assert kept(tmp_path, "stem")["targets"][0]["met"] is None
    assert "rehearsal" in found.markdown()
    assert "not judged: share" in found.markdown()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_measuring_without_a_gpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        speed.main([])
    assert "finds no GPU here; --rehearse runs tiny sizes on the CPU" in capsys.readouterr().err


def test_rehearsal_does_not_write_among_results(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        speed.main(["--rehearse", "--out", str(RESULTS / "gpu")])
    assert "a rehearsal claims nothing" in capsys.readouterr().err


def test_measurement_that_breaks_off_leaves_a_report_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        correctness.main(["--rehearse", "--networks", "no-such-network", "--out", str(tmp_path)])
    (check,) = kept(tmp_path, "correctness")["checks"]
    assert (check["passed"], "no-such-network" in check["detail"]) == (False, True)


# --- rehearsals --------------------------------------------------------------------------------------


def test_correctness_holds_on_the_cpu(tmp_path: Path) -> None:
    assert correctness.main(["--rehearse", "--out", str(tmp_path)]) == 0
    found = kept(tmp_path, "correctness")
    names = {check["name"] for check in found["checks"]}
    for precision in ("fp32", "bf16") if CPU_HAS_BF16 else ("fp32",):
        for what in ("eager step of 6 rows", "replayed step of 5 rows", "rows alone and in company"):
            assert f"tiny, {precision}: {what}" in names
    differences = {(f["precision"], f["what"]): f["found"] for f in found["figures"]["difference"]}
    if CPU_HAS_BF16:
        assert differences["bf16", "eager step of 6 rows"] > 1e-5  # it was bf16 indeed


def test_speed_keeps_every_window_and_checks_its_count_of_flops(tmp_path: Path) -> None:
    assert speed.main(["--rehearse", "--out", str(tmp_path)]) == 0
    found = kept(tmp_path, "speed")
    assert found["rehearsal"]
    assert [(step["variant"], step["batch"]) for step in found["figures"]["step"]] == [
        ("eager", 1),
        ("eager", 4),
        ("graph-bf16", 1),
    ]
    assert all(len(step["device_ms"]) == len(step["call_ms"]) == 2 for step in found["figures"]["step"])
    assert "tiny: FLOPs of 4 rows and of 1" in {check["name"] for check in found["checks"]}


def test_cases_of_the_targets_come_first_and_few_sizes_have_every_variant() -> None:
    call = Call(CPU, Budget(1.0), False, report(rehearsal=False), Path())
    found = speed.cases(call, speed.parser().parse_args([]))
    first = {(case.network, case.batch) for case in found[:12]}
    assert first == {("paper-64", 256), ("paper-32", 1)}
    assert {case.batch for case in found if case.variant not in ("eager", "graph")} == {1, 256}
    assert len(found) == len(set(found)) == 4 * (2 * 10 + 4 * 2)


def test_flops_are_counted_as_multiply_adds_of_two() -> None:
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7


def test_engine_is_measured_with_every_row_in_use(tmp_path: Path) -> None:
    assert serving.main(["--rehearse", "--sections", "engine", "--out", str(tmp_path)]) == 0
    found = kept(tmp_path, "serving")
    (engine,) = found["figures"]["engine"]
    assert min(*engine["alone"], *engine["served"], *engine["image_ms"]) > 0.0
    assert found["checks"][0]["name"] == "tiny: every step was full"


def test_service_may_take_no_longer_to_start_than_leaves_time_for_its_loads() -> None:
    clock = Clock()
    call = Call(CPU, Budget(540.0, clock), False, report(rehearsal=False), Path())
    assert serving.start_allowance_s(call) == serving.START_S
    clock.now = 540.0 - serving.HTTP_S
    assert serving.start_allowance_s(call) == serving.HTTP_S - serving.LOADS_S > 0.0


def test_training_rate_is_measured_of_the_trainer(tmp_path: Path) -> None:
    assert training_rate.main(["--rehearse", "--out", str(tmp_path)]) == 0
    (figure,) = kept(tmp_path, "training_rate")["figures"]["training"]
    assert len(figure["windows"]) == 2
    assert figure["flops"] > 3 * 1.9e6  # a step forwards takes 1.93e6, and backwards twice that


def test_onnx_runtime_stands_beside_torch(tmp_path: Path) -> None:
    assert onnx_cuda.main(["--rehearse", "--out", str(tmp_path)]) == 0
    found = kept(tmp_path, "onnx_cuda")
    assert [step["what"] for step in found["figures"]["step"]] == [
        "onnxruntime run",
        "onnxruntime bound",
        "torch fp32 graph",
        "torch bf16 graph",
    ]
    assert found["not_measured"] == {}


def test_random_network_is_opened_by_the_runner_and_gives_numbers(tmp_path: Path) -> None:
    network = open_network("tiny", tmp_path)
    runner = TorchRunner(network.bundle, device="cpu", precision="fp32", max_batch=4)
    outputs = runner.denoise_step(random_steps(network.config, 3, seed=0))
    assert np.isfinite(outputs.x_next).all()
    assert outputs.x_0_hat.std() > 0.01


def test_difference_in_a_small_row_is_not_hidden_by_a_large_one() -> None:
    expected = np.array([[1000.0, 1.0], [2.0, 0.0]], np.float32)
    found = expected + np.array([[1.0, 0.0], [0.0, 0.5]], np.float32)
    assert row_difference(found, expected) == pytest.approx(0.25)
    found[0, 0] = np.nan
    assert not row_difference(found, expected) <= 1e9


# --- training in several calls -----------------------------------------------------------------------


def trainer_of(run: Path, *, steps: int) -> Trainer:
    config = TrainConfig(model=TINY, batch_size=8, num_images=8 * steps, precision="fp32")
    dataset = training_rate.random_pictures(config, 32)
    return Trainer(config, dataset, run, make_accelerator("cpu"))


def answers(*values: bool) -> Callable[[], bool]:
    left: Iterator[bool] = iter(values)
    return lambda: next(left)


def test_training_stops_when_time_is_over_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, steps=1000)
    ticks = itertools.count()  # a second between any two looks: a stretch takes one
    train.train_until(
        trainer, has_time=answers(True, True, False), chunk_s=0.5, clock=lambda: float(next(ticks))
    )
    assert trainer.step == 10 + 5
    assert read_checkpoint(tmp_path)["step"] == trainer.step


def test_training_without_time_leaves_the_run_as_it_is(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, steps=1000)
    train.train_until(trainer, has_time=answers(False), chunk_s=1.0)
    assert trainer.step == 0


def test_run_goes_on_from_its_parts(tmp_path: Path) -> None:
    """Two calls, the second of which finds nothing of the first but its parts."""
    first = trainer_of(tmp_path / "first", steps=9)
    first.run(until_step=2)
    shards.split(tmp_path / "first", tmp_path / "carried")
    out, run = tmp_path / "out", tmp_path / "second"
    arguments = ["--rehearse", "--out", str(out), "--run", str(run)]
    assert train.main([*arguments, "--shards", str(tmp_path / "carried")]) == 0
    (training,) = kept(out, "train")["figures"]["training"]
    assert (training["first_step"], training["last_step"], training["num_steps"]) == (2, 9, 9)
    shards.join(out / "shards", tmp_path / "home")
    assert read_checkpoint(tmp_path / "home")["step"] == 9
    with pytest.raises(SystemExit, match="plan is fixed: leave out --batch-size"):
        train.main([*arguments, "--batch-size", "16"])


def test_call_that_finds_no_run_begins_none_and_keeps_the_parts(tmp_path: Path) -> None:
    """A run, or its parts, that did not come along; then a run directory without a checkpoint."""
    out, run = tmp_path / "out", tmp_path / "run"
    (tmp_path / "earlier").mkdir()
    parts = shards.split(tmp_path / "earlier", out / "shards")
    arguments = ["--rehearse", "--out", str(out), "--run", str(run)]
    with pytest.raises(SystemExit, match="holds no checkpoint: --preset begins a run"):
        train.main(arguments)
    assert not run.exists()
    run.mkdir()
    with pytest.raises(shards.ShardsError, match="run exists: name another target"):
        train.main([*arguments, "--preset", "tiny", "--shards", str(out / "shards")])
    assert not list(run.iterdir())
    assert all(path.exists() for path in parts)


def test_first_call_plans_whole_epochs_by_the_rate_it_measures(tmp_path: Path) -> None:
    arguments = ["--preset", "tiny", "--batch-size", "8", "--train-s", "0.3", "--run", str(tmp_path / "run")]
    assert train.main(["--rehearse", "--out", str(tmp_path / "out"), *arguments]) == 0
    figures = kept(tmp_path / "out", "train")["figures"]
    (plan,), (training,) = figures["plan"], figures["training"]
    assert plan["images_per_s"] > 0.0
    assert training["num_steps"] * 8 == plan["epochs"] * 64


# --- parts -------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with files, one of them empty and one in a folder."""
    directory = tmp_path / "source"
    (directory / "samples").mkdir(parents=True)
    (directory / "checkpoint.pt").write_bytes(np.random.default_rng(0).bytes(5000))
    (directory / "samples" / "step.png").write_bytes(b"picture")
    (directory / "empty").touch()
    return directory


def test_directory_comes_back_from_its_parts(source: Path, tmp_path: Path) -> None:
    paths = shards.split(source, tmp_path / "parts", max_bytes=1000)
    assert len(paths) > 6
    assert max(path.stat().st_size for path in paths[:-1]) <= 1000
    shards.join(tmp_path / "parts", tmp_path / "target")

    def content(directory: Path) -> dict[str, bytes]:
        files = (path for path in directory.rglob("*") if path.is_file())
        return {str(path.relative_to(directory)): path.read_bytes() for path in files}

    assert content(tmp_path / "target") == content(source)
    assert not list(tmp_path.glob("target.*"))


@pytest.mark.parametrize("size", [0, 1000, 1001])
def test_file_comes_back_from_its_parts(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(np.random.default_rng(1).bytes(size))
    paths = shards.split(file, tmp_path / "parts", max_bytes=500)
    assert len(paths) - 1 == max(1, -(-size // 500))
    shards.join(tmp_path / "parts", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == file.read_bytes()


def flipped(parts: Path) -> None:
    path = parts / "part-001"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)


def exchanged(parts: Path) -> None:
    index = json.loads((parts / shards.INDEX).read_text())
    index["parts"][0], index["parts"][1] = index["parts"][1], index["parts"][0]
    (parts / shards.INDEX).write_text(json.dumps(index))


def of_another_format(parts: Path) -> None:
    index = json.loads((parts / shards.INDEX).read_text())
    (parts / shards.INDEX).write_text(json.dumps(index | {"format": 2}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, "part-001 is damaged"),
        (lambda parts: (parts / "part-002").unlink(), "part-002 cannot be read"),
        (exchanged, "do not make the whole"),
        (lambda parts: (parts / shards.INDEX).unlink(), "shards.json is missing"),
        (of_another_format, "has format 2, this program reads 1"),
    ],
    ids=["flipped bit", "lost part", "wrong order", "lost index", "another format"],
)
def test_damaged_parts_are_found_and_nothing_appears(
    source: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    shards.split(source, tmp_path / "parts", max_bytes=1000)
    damage(tmp_path / "parts")
    with pytest.raises(shards.ShardsError, match=message):
        shards.join(tmp_path / "parts", tmp_path / "target")
    assert not list(tmp_path.glob("target*"))


def test_parts_of_an_older_split_do_not_stay(source: Path, tmp_path: Path) -> None:
    shards.split(source, tmp_path / "parts", max_bytes=1000)
    shards.split(source / "empty", tmp_path / "parts")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["part-000", "shards.json"]


def test_command_joins_only_where_nothing_is_overwritten(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, target = str(tmp_path / "parts"), str(tmp_path / "target")
    assert shards.main(["split", str(source), parts]) == 0
    assert shards.main(["join", parts, target]) == 0
    assert shards.main(["join", parts, target]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err


# --- which model ships -------------------------------------------------------------------------------

SHIPPED = {
    "measured": {
        "dataset": "fashion-mnist",
        "num_samples": 300,
        "steps": [10, 20],
        "seed": 0,
        "device": "cpu",
    },
    "probe": {"accuracy_test": 0.8},
    "prototypes": {"num_duplicates": 0, "largest_correlation_mean": 0.2},
    "samples": {"fd_classifier_real_train_images": 1.8, "fd_classifier_ddim_20_steps_learned_s": 3.4},
}


def changed(section: str, **values: object) -> dict[str, Any]:
    better: dict[str, Any] = {
        **SHIPPED,
        "probe": {"accuracy_test": 0.81},
        "prototypes": {"num_duplicates": 0, "largest_correlation_mean": 0.1},
        "samples": {"fd_classifier_real_train_images": 1.9, "fd_classifier_ddim_20_steps_learned_s": 3.0},
    }
    return {**better, section: {**better[section], **values}}


@pytest.mark.parametrize(
    ("section", "values", "status", "said"),
    [
        ("probe", {}, 0, "4 of 4 rows: ships"),
        ("probe", {"accuracy_test": 0.79}, 1, "3 of 4 rows: does not ship"),
        ("probe", {"accuracy_test": 0.8}, 1, "| more | the same |"),
        ("prototypes", {"num_duplicates": 1}, 1, "| less | WORSE |"),
        ("samples", {"fd_classifier_ddim_20_steps_learned_s": 3.5}, 1, "3 of 4 rows"),
        ("measured", {"num_samples": 1000}, 2, "num_samples is 300 of the one, 1000 of the other"),
    ],
    ids=["all better", "one worse", "one the same", "a count worse", "a distance worse", "not alike"],
)
def test_model_ships_only_if_every_row_is_better(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    section: str,
    values: dict[str, object],
    status: int,
    said: str,
) -> None:
    (tmp_path / "shipped").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "shipped" / "manifest.json").write_text(json.dumps({"metrics": SHIPPED}))
    (tmp_path / "new" / "evaluation.json").write_text(json.dumps(changed(section, **values)))
    assert compare.main([str(tmp_path / "shipped"), str(tmp_path / "new")]) == status
    output = capsys.readouterr()
    assert said in output.out + output.err


def test_rows_are_those_of_the_shipped_models_table() -> None:
    """Every section of the shipped model's figures that its table shows has a row."""
    metrics = compare.read_metrics(Path(__file__).parents[2] / "bundles" / "fashion-mnist")
    rows = compare.compare(metrics, metrics)
    sections = {row.name.split(".")[0] for row in rows}
    assert sections == {"probe", "tad", "samples", "reconstruction", "conditioning", "prototypes"}
    assert not any("real_train_images" in row.name or "classifier_accuracy" in row.name for row in rows)
    assert len(rows) > 30
