"""One job's way through the engine: its wait, its run, and a few of the steps that it shared with others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from service.engine.jobs import DenoiseJob, EncodeJob, Network
from service.engine.observer import EngineObserver
from service.tracing.outcome import mark
from service.tracing.request_spans import job_count

MAX_JOBS = 64
"""Of one request that get spans; /trace and /diagnose make hundreds. The request says how many it had."""

FACTOR = 10
"""Between the numbers of two steps that get a span of their own: 1, 10, 100 … of a job, and its last."""

Clock = Callable[[], int]
"""Nanoseconds since 1970."""


class Step(NamedTuple):
    """One call of the denoiser over `rows` rows, for which `computed` rows were, padding included."""

    number: int
    start_ns: int
    end_ns: int
    rows: int
    computed: int


class Totals(NamedTuple):
    """Sums over all steps so far: the difference of two says what lies between, without a look at each."""

    steps: int = 0
    rows: int = 0
    computed: int = 0


class StepLog:
    """The steps of one engine. Written by its thread alone: a step costs the same however many jobs run."""

    def __init__(self, clock: Clock) -> None:
        self.totals = Totals()
        self.last: Step | None = None
        self._clock = clock
        self._started = (0, 0, 0)
        self._due: dict[int, list[JobSpans]] = {}

    def step_started(self, rows: int, bucket: int) -> None:
        self._started = (self._clock(), rows, max(rows, bucket))

    def step_finished(self) -> None:
        start_ns, rows, computed = self._started
        steps, all_rows, all_computed = self.totals
        self.totals = Totals(steps + 1, all_rows + rows, all_computed + computed)
        self.last = step = Step(steps + 1, start_ns, self._clock(), rows, computed)
        for job in self._due.pop(step.number, ()):
            if not job.is_over:
                job.keep(step)
                self.tell(job, after=(step.number - job.before.steps) * FACTOR)

    def tell(self, job: JobSpans, *, after: int) -> None:
        """Have a job keep the step that is its `after`-th, counted from its first row."""
        self._due.setdefault(job.before.steps + after, []).append(job)


class JobSpans:
    """The times of one job (`service.engine.job_record.JobRecord`); `steps` is None where its network's are
    not kept."""

    def __init__(self, clock: Clock, steps: StepLog | None) -> None:
        self._clock = clock
        self._steps = steps
        self.submitted_ns = clock()
        self.started_ns: int | None = None
        self.resolved_ns: int | None = None
        self.before = Totals()
        self.after: Totals | None = None
        self.kept: dict[int, Step] = {}

    @property
    def is_over(self) -> bool:
        return self.resolved_ns is not None

    def started(self) -> None:
        self.started_ns = self._clock()
        if self._steps is not None:
            self.before = self._steps.totals
            self._steps.tell(self, after=1)

    def resolved(self) -> None:
        self.resolved_ns = self._clock()
        if self._steps is not None and self.started_ns is not None:
            self.after = self._steps.totals
            last = self._steps.last
            if last is not None and last.number > self.before.steps:
                self.keep(last)

    def keep(self, step: Step) -> None:
        self.kept[step.number - self.before.steps] = step

    def batch(self) -> dict[str, AttributeValue]:
        """What the steps between the job's first row and its end, or now, were like."""
        if self._steps is None:
            return {}
        after = self.after or self._steps.totals
        steps, rows, computed = (b - a for a, b in zip(self.before, after, strict=True))
        if not steps:
            return {"patronus.batch.steps": 0}
        return {
            "patronus.batch.steps": steps,
            "patronus.batch.mean_rows": round(rows / steps, 3),
            "patronus.batch.padding_ratio": round((computed - rows) / computed, 4),
        }


class EngineSpans:
    """Records the jobs of one model's engine, and observes it on behalf of another observer.

    `service.engine.job_record.JobRecorder` and `service.engine.observer.EngineObserver`. A job's spans are
    made when the waiting for it ends, from the times that the engine's thread noted: that thread makes none.
    They lie below the span that was the current one at submission.
    """

    def __init__(
        self, tracer: trace.Tracer, observer: EngineObserver, model_name: str, clock: Clock = time.time_ns
    ) -> None:
        self._tracer = tracer
        self._observer = observer
        self._model_name = model_name
        self._clock = clock
        self._steps = StepLog(clock)

    @contextmanager
    def record(self, job: DenoiseJob | EncodeJob) -> Iterator[JobSpans | None]:
        """As `JobRecorder`; None for jobs of requests that are not sampled, and beyond the first MAX_JOBS."""
        count = job_count.get()
        if count is not None:
            count.num_jobs += 1
        if not trace.get_current_span().is_recording() or (count is not None and count.num_jobs > MAX_JOBS):
            yield None
            return
        is_denoised = isinstance(job, DenoiseJob) and job.network is Network.DENOISER
        spans = JobSpans(self._clock, self._steps if is_denoised else None)
        try:
            yield spans
        except BaseException as error:
            self._write(job, spans, error)
            raise
        self._write(job, spans, None)

    def _write(self, job: DenoiseJob | EncodeJob, spans: JobSpans, error: BaseException | None) -> None:
        name, values = self._description(job)
        end_ns = spans.resolved_ns or self._clock()
        queue = self._tracer.start_span(
            "queue", start_time=spans.submitted_ns, attributes={**values, "patronus.job": name}
        )
        if spans.started_ns is None:
            mark(queue, error)
            queue.end(end_ns)
            return
        queue.end(spans.started_ns)
        run = self._tracer.start_span(
            name, start_time=spans.started_ns, attributes={**values, **spans.batch()}
        )
        below = trace.set_span_in_context(run)
        for number, step in sorted(spans.kept.copy().items()):
            self._tracer.start_span(
                "denoise step",
                context=below,
                start_time=step.start_ns,
                attributes={
                    "patronus.step": number,
                    "patronus.batch.rows": step.rows,
                    "patronus.batch.computed_rows": step.computed,
                },
            ).end(step.end_ns)
        mark(run, error)
        run.end(end_ns)

    def _description(self, job: DenoiseJob | EncodeJob) -> tuple[str, dict[str, AttributeValue]]:
        values: dict[str, AttributeValue] = {
            "patronus.model": self._model_name,
            "patronus.samples": len(job),
        }
        if isinstance(job, EncodeJob):
            return "encode", values
        values |= {"patronus.steps": len(job.table), "patronus.priority": job.priority.value}
        return ("denoise" if job.network is Network.DENOISER else "prior"), values

    def step_started(self, rows: int, bucket: int) -> None:
        self._observer.step_started(rows, bucket)
        self._steps.step_started(rows, bucket)

    def step_finished(self, rows: int, wasted: int) -> None:
        self._steps.step_finished()
        self._observer.step_finished(rows, wasted)

    def occupancy(self, running: int, waiting: int, active_samples: int) -> None:
        self._observer.occupancy(running, waiting, active_samples)

    def job_finished(self, queue_s: float, inference_s: float) -> None:
        self._observer.job_finished(queue_s, inference_s)

    def ran_out_of_memory(self, rows: int) -> None:
        self._observer.ran_out_of_memory(rows)

    def preempted(self, rows: int) -> None:
        self._observer.preempted(rows)
