"""Some of the faults, in a short form: the whole benchmark takes minutes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.faults import bad_bodies, ended_processes, failing_steps, leaving
from benchmarks.faults.__main__ import SETTINGS
from benchmarks.faults.contract import Patronus
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.redis_process import redis_process
from benchmarks.faults.report import is_clean, notes_of, table_of
from benchmarks.faults.service_process import FAULTY_SERVICE, Resources, service_process
from benchmarks.faults.solo_answers import SoloAnswers
from benchmarks.faults.stage import Fault, Row, Stage, observe
from benchmarks.faults.tcp_proxy import TcpProxy
from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

SECONDS = 0.4
LEAVING, POISONED = leaving.FAULTS[0], failing_steps.FAULTS[0]
OUT_OF_MEMORY, BAD_BODIES, KILLED = failing_steps.FAULTS[3], bad_bodies.FAULTS[0], ended_processes.FAULTS[0]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One service for all, whose steps take no time; when it is idle its own answers are the right ones."""
    directory = tmp_path_factory.mktemp("faults")
    contract = Patronus(Bundle.load(SHIPPED_BUNDLE).config.num_prototypes)
    settings = {**SETTINGS, "STAND_IN_STEP_S": "0"}
    with (
        redis_process(directory) as redis,
        service_process(FAULTY_SERVICE, settings, directory / "service.log") as service,
    ):
        asyncio.run(service.start())
        solo = SoloAnswers(service.address, contract)
        yield Stage(service, contract, solo, SECONDS, np.random.default_rng(0), redis, TcpProxy(redis.port))


@pytest.mark.parametrize("fault", [LEAVING, POISONED, OUT_OF_MEMORY, KILLED], ids=lambda f: f.name)
def test_fault_leaves_no_request_hung_lost_or_wrong(fault: Fault, stage: Stage) -> None:
    row = asyncio.run(observe(fault, stage))
    assert is_clean([row]), notes_of([row])
    assert row.finding.tally.count(Outcome.OK) > 0
    assert np.isfinite(row.back_s)


def test_bad_bodies_are_all_refused(stage: Stage) -> None:
    row = asyncio.run(observe(BAD_BODIES, stage))
    assert is_clean([row]), notes_of([row])
    assert row.finding.tally.count(Outcome.REFUSED) == len(bad_bodies.bad_requests(stage))
    assert_is_a_table([row])


def test_resources_of_this_process_are_read() -> None:
    found = Resources.of(os.getpid())
    assert found.rss_mib > 1.0
    assert found.num_threads >= 1
    assert found.num_files >= 3


def assert_is_a_table(rows: list[Row]) -> None:
    lines = table_of(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + len(rows)
