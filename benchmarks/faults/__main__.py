"""What happens to requests when something breaks.

    python -m benchmarks.faults [--seconds 10] [--only TEXT]

Each fault meets a service of its own: the real application and the real HTTP server, over a stand-in for the
network that takes 4 ms + 0.2 ms a row, gives pictures that can be compared, and breaks on command; Redis is a
real redis-server. Load is kept up for `--seconds` (overload: six times as long). What is asked and how
answers are read is all in `benchmarks.faults.contract`; peers are not described there yet.

Prints the table, writes it to benchmarks/results/faults.md, and exits with 1 if a request hung, was lost or
was answered wrongly. Needs redis-server.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.faults import bad_bodies, broken_redis, ended_processes, failing_steps, leaving, overload
from benchmarks.faults.contract import Contract, Patronus
from benchmarks.faults.faulty_runner import ROW_S, STEP_S
from benchmarks.faults.redis_process import redis_process
from benchmarks.faults.report import is_clean, notes_of, table_of
from benchmarks.faults.service_process import FAULTY_SERVICE, service_process
from benchmarks.faults.solo_answers import SoloAnswers
from benchmarks.faults.stage import Fault, Row, Stage, observe
from benchmarks.faults.tcp_proxy import tcp_proxy
from benchmarks.machine import describe
from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

RESULT = Path(__file__).parents[1] / "results" / "faults.md"
FAULTS: tuple[Fault, ...] = (
    *leaving.FAULTS,
    *failing_steps.FAULTS,
    *ended_processes.FAULTS,
    *broken_redis.FAULTS,
    *bad_bodies.FAULTS,
    *overload.FAULTS,
)
SETTINGS = {
    "PATRONUS_BUNDLE": str(SHIPPED_BUNDLE),
    "PATRONUS_TUNE_BATCH": "off",
    "PATRONUS_REQUEST_TIMEOUT_S": "20",
    "PATRONUS_LOG_LEVEL": "warning",
    "OMP_NUM_THREADS": "1",
}


@asynccontextmanager
async def solo_answers(contract: Contract, directory: Path) -> AsyncIterator[SoloAnswers]:
    """From a service of the same stand-in, whose steps take no time."""
    settings = {**SETTINGS, "STAND_IN_STEP_S": "0"}
    with service_process(FAULTY_SERVICE, settings, directory / "solo.log") as service:
        await service.start()
        yield SoloAnswers(service.address, contract)


@asynccontextmanager
async def set_stage(
    solo: SoloAnswers,
    contract: Contract,
    directory: Path,
    *,
    seconds: float,
    settings: Mapping[str, str],
    has_redis: bool,
) -> AsyncIterator[Stage]:
    """A service that is ready, with a Redis behind a network of ours if asked; all ended afterwards."""
    with redis_process(directory) as redis:
        async with tcp_proxy(redis.port) as proxy:
            cache = {}
            if has_redis:
                await redis.start()
                cache = {"PATRONUS_CACHE_URL": f"redis://127.0.0.1:{proxy.port}/0"}
            environment = {**SETTINGS, **cache, **settings}
            with service_process(FAULTY_SERVICE, environment, directory / "service.log") as service:
                await service.start()
                rng = np.random.default_rng(0)
                yield Stage(service, contract, solo, seconds, rng, redis, proxy)


async def run(faults: tuple[Fault, ...], seconds: float) -> list[Row]:
    """Each fault in turn, on a stage of its own."""
    contract = Patronus(Bundle.load(SHIPPED_BUNDLE).config.num_prototypes)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with solo_answers(contract, directory) as solo:
            for fault in faults:
                async with set_stage(
                    solo,
                    contract,
                    directory,
                    seconds=seconds,
                    settings=fault.settings,
                    has_redis=fault.has_redis,
                ) as stage:
                    rows.append(await observe(fault, stage))
                print(table_of(rows[-1:]).splitlines()[-1], notes_of(rows[-1:]), sep="\n", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of load for each fault")
    parser.add_argument("--only", default="", help="faults whose name holds this text; no results are kept")
    options = parser.parse_args()
    faults = tuple(fault for fault in FAULTS if options.only in fault.name)
    if not faults:
        parser.error(f"no fault is called {options.only!r}: {', '.join(fault.name for fault in FAULTS)}")
    rows = uvloop.run(run(faults, options.seconds))
    text = "\n".join(
        [
            "# Faults",
            "",
            f"{describe()}; the network is a stand-in of {1000 * STEP_S:g} ms + {1000 * ROW_S:g} ms a row.",
            f"Command: `python -m benchmarks.faults --seconds {options.seconds:g}`",
            "",
            table_of(rows),
            "",
            notes_of(rows),
            "",
        ]
    )
    print(text)
    if not options.only:
        RESULT.write_text(text)
    return 0 if is_clean(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
