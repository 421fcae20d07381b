"""The serving benchmark's own parts: its stand-in, its requests, what a peer's worker does, its tables."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.open_loop import Record, Summary, summarize
from benchmarks.serving.engine_overhead import EngineOverhead
from benchmarks.serving.report import write_report
from benchmarks.serving.result import Result, Window
from benchmarks.serving.servers import SERVERS
from benchmarks.serving.stand_in import StandInRunner, stand_in
from benchmarks.serving.whole_requests import Generate, WholeRequests
from benchmarks.serving.workloads import WORKLOADS, Calls, Kind
from model.bundle import Bundle
from service.engine.runner import Runner, StepInputs
from service.settings import SHIPPED_BUNDLE, Settings
from tests.service.conftest import serving


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(SHIPPED_BUNDLE)


def test_the_stand_in_keeps_the_runners_contract(bundle: Bundle) -> None:
    runner: Runner = StandInRunner(bundle.config, max_batch=4)
    image, m = bundle.config.image.shape, bundle.config.num_prototypes
    inputs = StepInputs.blank(3, image, m)
    inputs.x_t[:] = np.random.default_rng(0).standard_normal(inputs.x_t.shape)
    outputs = runner.denoise_step(inputs)
    activations, maps = runner.encode(outputs.x_0_hat)
    assert outputs.x_next.shape == outputs.memory_next.shape == outputs.x_0_hat.shape == (3, *image)
    assert not np.shares_memory(outputs.x_next, inputs.x_t)
    assert activations.shape == (3, m)
    assert maps.shape == (3, m, *bundle.config.grid_shape)
    assert {array.dtype for array in (outputs.x_next, activations, maps)} == {np.dtype(np.float32)}
    assert (runner.max_batch, runner.bucket(3), runner.has_prior) == (4, 3, False)


def test_requests_are_the_same_for_a_seed_and_different_from_one_another(bundle: Bundle) -> None:
    for work in WORKLOADS.values():
        calls, again, other = (list(islice(Calls(bundle, seed).drawn(work), 20)) for seed in (5, 5, 6))
        assert calls == again
        bodies = [call.body for call in (*calls, *other)]
        assert len(set(bodies)) == 40


def test_kinds_in_turn_come_equally_often(bundle: Bundle) -> None:
    work = WORKLOADS["mixed"]
    names = [call.kind for call in islice(Calls(bundle, 0).in_turn(work), 3 * len(work.kinds))]
    assert all(names.count(kind.name) == 3 for kind in work.kinds)


def test_our_server_and_a_peers_worker_answer_alike(bundle: Bundle) -> None:
    worker = WholeRequests("stand-in")
    settings = Settings(bundle=(SHIPPED_BUNDLE,), tune_batch="off")
    kinds = [Kind(0), Kind(2), Kind(3, 4)]
    calls = [Calls(bundle, 3).call(kind) for kind in kinds]
    theirs = worker.run([worker.parse(json.loads(call.body)) for call in calls])
    with serving(settings, stand_in) as url, httpx.Client(base_url=url, timeout=30) as client:
        for call, answer in zip(calls, theirs, strict=True):
            response = client.post(call.path, content=call.body, headers={"Content-Type": "application/json"})
            assert response.status_code == 200
            ours = response.json()
            assert {name: ours[name] for name in answer} == json.loads(json.dumps(answer))


def test_a_peers_worker_runs_samples_to_their_own_end_in_full_batches(bundle: Bundle) -> None:
    worker = WholeRequests("stand-in")
    s = np.zeros(bundle.config.num_prototypes, np.float32)
    batch = [Generate(s, 4, steps, seed=10 * steps) for steps in (1, 2, 3)] * 3  # 36 samples, 32 places
    answers = worker.run(batch)
    assert [len(answer["images"]) for answer in answers] == [4] * 9
    alone = [worker.run([work])[0] for work in batch[:3]]
    assert answers[:3] == alone


def test_bento_gets_a_list_and_we_our_own_paths(bundle: Bundle) -> None:
    call = Calls(bundle, 0).call(Kind(20))
    assert SERVERS["ours"].call(call) == call
    assert json.loads(SERVERS["bentoml"].call(call).body) == {"bodies": [json.loads(call.body)]}
    assert {SERVERS[name].call(call).path for name in SERVERS if name != "ours"} == {"/predict"}


def result_of(work: str, seconds: dict[str, float]) -> Result:
    """Three windows at 0.8 in which each server always takes that long."""
    kinds = [kind.name for kind in WORKLOADS[work].kinds]
    result = Result(work, "stand-in", "a machine", "a command", seconds=60.0)
    for server, s in seconds.items():
        result.capacity[server] = 10.0
        result.solo_s[server] = dict.fromkeys(kinds, 1.0)
        result.versions[server], result.settings[server] = "1", "-"
        for number in range(3):
            summary = summary_of(kinds, s)
            result.windows.append(Window(server, 0.8, 8.0, number, summary))
    return result


def summary_of(kinds: list[str], seconds: float) -> Summary:
    records = [Record(kind, 0.1 * i, seconds, 0.0, 200, "") for i, kind in enumerate(kinds * 5)]
    return summarize(records, solo_s=dict.fromkeys(kinds, 1.0), from_s=0.0, until_s=10.0)


def test_results_are_kept_and_read_again(tmp_path: Path) -> None:
    for work in ("mixed", "encode"):
        result_of(work, {"ours": 1.0, "mosec": 2.0}).save(tmp_path)
    EngineOverhead("a machine", "a command", [97.0], [100.0]).save(tmp_path)
    assert Result.all_in(tmp_path) == [
        result_of("encode", {"ours": 1.0, "mosec": 2.0}),
        result_of("mixed", {"ours": 1.0, "mosec": 2.0}),
    ]


def test_the_report_says_which_targets_are_met_and_which_missed(tmp_path: Path) -> None:
    EngineOverhead("a machine", "a command", [96.0], [100.0]).save(tmp_path)
    results = [
        result_of("encode", {"ours": 1.0, "mosec": 1.0}),
        result_of("mixed", {"ours": 1.0, "mosec": 2.9, "ray": 3.1}),
    ]
    lines = write_report(results, tmp_path).splitlines()
    verdicts = {
        line.split("|")[1].strip(): line.split("|")[3].strip() for line in lines if line.count("|") == 4
    }
    assert verdicts["mixed at 0.8: goodput at least 2 times the best peer"] == "no"  # mosec's are good too
    assert verdicts["mixed at 0.8: p99 at most a third of the best peer"] == "no"
    assert verdicts["mixed at 0.8: fairness at least 0.9"] == "yes"
    assert verdicts["encode only at 0.8: no worse than the best peer"] == "yes"
    assert verdicts["engine overhead at most 3% of step time at a full batch"] == "no"
    assert (tmp_path / "serving.md").read_text().splitlines() == lines
