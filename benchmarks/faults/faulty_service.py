"""`python -m benchmarks.faults.faulty_service`: the service as it is, over a network that breaks on command.

Settings are the service's own PATRONUS_* variables; STAND_IN_STEP_S=0 makes a step take no time.
"""

from __future__ import annotations

import os
import sys

from benchmarks.faults.faulty_runner import ROW_S, STEP_S, FaultyRunner, StandIn
from model.bundle import Bundle
from service.__main__ import main
from service.engine.runner import Runner
from service.settings import Settings


def faulty_runner(bundle: Bundle, settings: Settings) -> Runner:
    """A stand-in in the bundle's shapes that obeys commands."""
    step_s = float(os.environ.get("STAND_IN_STEP_S", STEP_S))
    has_prior = bundle.prior is not None
    stand_in = StandIn(
        bundle.config, max_batch=settings.max_batch, has_prior=has_prior, step_s=step_s, row_s=ROW_S
    )
    return FaultyRunner(stand_in)


if __name__ == "__main__":
    sys.exit(main(faulty_runner))
