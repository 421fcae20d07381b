"""The measurement: what each server can do, then every load on every server, turn about.

First each server is asked alone, kind by kind (solo times), and by as many clients as fill it (capacity).
The loads are shares of the best server's capacity, and good answers come within 3 of the best server's solo
times: both are the same for all. Then come the rounds. In a round each server in turn has the machine to
itself and is given every load; the next round begins with the next server. A figure is the median of its
rounds.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import uvloop

from benchmarks.http_connections import Call
from benchmarks.machine import describe
from benchmarks.open_loop import Record, poisson_arrivals, run_closed_loop, run_open_loop, summarize
from benchmarks.serving.result import Result, Window
from benchmarks.serving.servers import Running, Server, ServerError, running
from benchmarks.serving.whole_requests import Backend
from benchmarks.serving.workloads import Calls, Kind, Workload
from model.bundle import Bundle

LOADS = (0.3, 0.6, 0.8, 0.95, 1.2)
SOLO_REPEATS = 5
GIVE_UP_AFTER, GIVE_UP_AFTER_S = 8.0, 4.0
"""The client gives a request up after so many of the longest solo time, and not before these seconds."""
IDLE_WITHIN, IDLE_AFTER_S = 1.5, 10.0
"""A server is idle when a request takes at most so many solo times; it has these seconds to get there."""
CLOSED_LOOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Plan:
    """What to measure. `pace` multiplies the length of all windows."""

    backend: Backend
    works: Sequence[Workload]
    servers: Sequence[Server]
    loads: Sequence[float] = LOADS
    rounds: int = 3
    pace: float = 1.0


class Measurement:
    """Carries a plan out. Raises ServerError where a server fails or answers wrongly."""

    def __init__(self, plan: Plan, bundle: Bundle, *, command: str, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.bundle = bundle
        self.say = say
        self.results = {
            work.name: Result(work.name, plan.backend, describe(), command) for work in plan.works
        }
        self._answers: dict[tuple[str, str], Any] = {}

    def run(self) -> list[Result]:
        started = time.perf_counter()
        for server in self.plan.servers:
            self._find_limits(server)
        for number in range(self.plan.rounds):
            first = number % len(self.plan.servers)
            for server in [*self.plan.servers[first:], *self.plan.servers[:first]]:
                self._round(server, number)
        for result in self.results.values():
            result.seconds = time.perf_counter() - started
        return list(self.results.values())

    def _find_limits(self, server: Server) -> None:
        """Solo times and capacity, after a look at the answers."""
        calls = Calls(self.bundle, seed=1)
        with running(server, self.plan.backend, calls.call(Kind(0))) as found:
            for work in self.plan.works:
                result = self.results[work.name]
                result.versions[server.name] = found.version
                result.settings[server.name] = server.settings
                self._check_answers(found, work)
                solo_s = result.solo_s[server.name] = _solo_times(found, work, calls)
                capacity = result.capacity[server.name] = _capacity(found, work, calls, self.plan.pace)
                times = ", ".join(f"{kind} {1e3 * s:.1f} ms" for kind, s in solo_s.items())
                self.say(f"{server.title}, {work.name}: {capacity:.1f} requests/s; alone: {times}")

    def _check_answers(self, found: Running, work: Workload) -> None:
        """The first server's answers to one request of each kind are what all others must give."""
        calls = Calls(self.bundle, seed=0)
        for kind in work.kinds:
            call = calls.call(kind)
            answer = json.loads(found.ask(call, timeout_s=CLOSED_LOOP_TIMEOUT_S))
            answer = answer[0] if isinstance(answer, list) else answer
            images = answer["images"]
            values = [np.array(image.get("achieved", image.get("activations"))) for image in images]
            expected = self._answers.setdefault((work.name, kind.name), values)
            if len(images) != kind.num_images or not np.allclose(values, expected, atol=1e-2):
                raise ServerError(f"{found.server.name} answers {kind.name} differently: {str(answer)[:300]}")

    def _round(self, server: Server, number: int) -> None:
        """All loads of all workloads on one server, which is started anew where a load left it busy."""
        jobs = [(work, load) for work in self.plan.works for load in self.plan.loads]
        while jobs:
            probes = Calls(self.bundle, seed=2)
            with running(server, self.plan.backend, probes.call(Kind(0))) as found:
                is_idle = True
                while jobs and is_idle:
                    work, load = jobs.pop(0)
                    self._window(found, work, load, number)
                    is_idle = not jobs or self._becomes_idle(found, work, probes)

    def _window(self, found: Running, work: Workload, load: float, number: int) -> None:
        result, pace = self.results[work.name], self.plan.pace
        rate = load * result.best_capacity
        from_s, until_s = pace * work.warm_up_s, pace * (work.warm_up_s + work.window_s)
        seed = 1000 * (number + 1) + round(100 * load)  # the same load for every server
        calls = (found.server.call(call) for call in Calls(self.bundle, seed).drawn(work))
        arrivals = poisson_arrivals(calls, rate=rate, duration_s=until_s, seed=seed)
        solo_s = result.best_solo_s
        timeout_s = max(GIVE_UP_AFTER_S, GIVE_UP_AFTER * max(solo_s.values()))
        records = uvloop.run(run_open_loop(found.url, arrivals, timeout_s=timeout_s))
        summary = summarize(records, solo_s=solo_s, from_s=from_s, until_s=until_s)
        result.windows.append(Window(found.server.name, load, rate, number, summary))
        self.say(
            f"round {number + 1}, {found.server.title}, {work.name} at {load:g} ({rate:.1f}/s): "
            f"goodput {summary.goodput:.1f}/s, p50 {1e3 * summary.p50_s:.0f} ms, "
            f"p99 {1e3 * summary.p99_s:.0f} ms, {summary.num_rejected} rejected, {summary.num_errors} errors"
        )

    def _becomes_idle(self, found: Running, work: Workload, probes: Calls) -> bool:
        """Whether the shortest request soon takes about as long as it does alone."""
        kind = min(work.kinds, key=lambda kind: kind.row_steps)
        limit_s = IDLE_WITHIN * self.results[work.name].solo_s[found.server.name][kind.name] + 0.005
        give_up_at = time.monotonic() + IDLE_AFTER_S
        while time.monotonic() < give_up_at:
            records = _one_by_one(found, [probes.call(kind)] * 3)
            if all(record.is_ok and record.seconds <= limit_s for record in records[1:]):
                return True
        return False


def _solo_times(found: Running, work: Workload, calls: Calls) -> dict[str, float]:
    """The median of a few requests of each kind, nobody else being there."""
    times = {}
    for kind in work.kinds:
        records = _one_by_one(found, [calls.call(kind) for _ in range(SOLO_REPEATS + 1)])
        _expect_answers(found, records)
        times[kind.name] = statistics.median(record.seconds for record in records[1:])
    return times


def _capacity(found: Running, work: Workload, calls: Calls, pace: float) -> float:
    """Requests per second in a closed loop, counted by the row-steps of those answered after a warm-up.

    The kinds differ in work by a hundred times: row-steps / their mean is what an endless run would give. The
    warm-up is twice as long as before a window: the loop has to fill with long requests first.
    """
    row_steps = {kind.name: max(kind.row_steps, 1) for kind in work.kinds}
    warm_up_s, duration_s = pace * 2.0 * work.warm_up_s, pace * (2.0 * work.warm_up_s + work.window_s)
    made = list(islice(calls.in_turn(work), 20_000 if work.mean_row_steps == 0 else 4_000))
    loop = run_closed_loop(
        found.url,
        (found.server.call(call) for call in made),
        clients=work.clients,
        timeout_s=CLOSED_LOOP_TIMEOUT_S,
        duration_s=duration_s,
    )
    records = uvloop.run(loop)
    _expect_answers(found, records)
    done = [record for record in records if warm_up_s < record.due_s + record.seconds <= duration_s]
    return (
        sum(row_steps[record.kind] for record in done)
        / max(work.mean_row_steps, 1.0)
        / (duration_s - warm_up_s)
    )


def _one_by_one(found: Running, calls: Sequence[Call]) -> list[Record]:
    asked: Iterator[Call] = (found.server.call(call) for call in calls)
    return uvloop.run(run_closed_loop(found.url, asked, clients=1, timeout_s=CLOSED_LOOP_TIMEOUT_S))


def _expect_answers(found: Running, records: Sequence[Record]) -> None:
    failed = [record for record in records if not record.is_ok]
    if failed:
        raise ServerError(
            f"{found.server.name}: {len(failed)} of {len(records)} requests failed: {failed[0]}"
        )
