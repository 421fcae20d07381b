"""Our server beside LitServe, BentoML, Ray Serve and mosec.

    benchmarks/serving/install
    python -m benchmarks.serving [--backend stand-in] [--work mixed] [--servers ours,litserve]
        [--loads 0.8,0.95] [--rounds 3] [--pace 1.0] [--results DIRECTORY]
    python -m benchmarks.serving --overhead     what our engine costs at a full batch
    python -m benchmarks.serving --draw         tables and plots again from the results that are kept

Prints what it does, keeps each workload's figures in benchmarks/results/serving-BACKEND-WORK.json, and draws
benchmarks/results/serving.md and a plot for each workload from all of them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.serving.engine_overhead import measure_engine_overhead
from benchmarks.serving.measurement import LOADS, Measurement, Plan
from benchmarks.serving.plot import draw
from benchmarks.serving.report import write_report
from benchmarks.serving.result import Result
from benchmarks.serving.servers import SERVERS, ServerError
from benchmarks.serving.workloads import WORKLOADS
from model.bundle import Bundle
from service.settings import SHIPPED_BUNDLE

RESULTS = Path(__file__).parents[1] / "results"
OVERHEAD_WINDOW_S = 8.0


def main() -> int:
    options = _options(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that servers are ended
    options.results.mkdir(parents=True, exist_ok=True)
    command = "python -m benchmarks.serving " + " ".join(sys.argv[1:])
    bundle = Bundle.load(SHIPPED_BUNDLE)
    try:
        if options.overhead:
            window_s = OVERHEAD_WINDOW_S * options.pace
            overhead = measure_engine_overhead(
                bundle, window_s=window_s, rounds=options.rounds, command=command.strip()
            )
            overhead.save(options.results)
        elif not options.draw:
            plan = Plan(
                options.backend,
                [WORKLOADS[name] for name in options.work],
                [SERVERS[name] for name in options.servers],
                options.loads,
                options.rounds,
                options.pace,
            )
            measurement = Measurement(plan, bundle, command=command.strip(), say=_say)
            for result in measurement.run():
                result.save(options.results)
    except ServerError as error:
        print(f"serving: {error}", file=sys.stderr)
        return 1
    results = Result.all_in(options.results)
    print(write_report(results, options.results))
    for result in results:
        draw(result, options.results)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", choices=("stand-in", "bundle"), default="stand-in")
    parser.add_argument("--work", type=_names(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--servers", type=_names(SERVERS), default=list(SERVERS))
    parser.add_argument("--loads", type=_loads, default=LOADS, help="shares of the best capacity")
    parser.add_argument("--rounds", type=int, default=3, help="windows for each figure")
    parser.add_argument("--pace", type=float, default=1.0, help="times the usual length of a window")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--overhead", action="store_true", help="measure the engine's overhead instead")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    return parser.parse_args(arguments)


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return parse


def _loads(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
