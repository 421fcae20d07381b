"""What is noted of jobs and steps while the engine's thread runs, without HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from model.config import ModelConfig
from model.samplers import ddim
from model.schedule import NoiseSchedule
from service.engine.engine_core import EngineCore
from service.engine.fake_runner import FakeRunner
from service.engine.jobs import DenoiseJob, DenoiseResult, Ticket
from service.engine.observer import SilentObserver
from service.tracing.engine_spans import EngineSpans, StepLog


class Observed:
    """A core whose jobs are recorded below one span, in a time that goes on by 1 ns at each look."""

    def __init__(self, config: ModelConfig, tracer: Tracer, max_batch: int) -> None:
        ticks = count(1)
        self.spans = EngineSpans(tracer, SilentObserver(), "tiny", clock=lambda: next(ticks))
        runner = FakeRunner(config, max_batch=max_batch)
        self.core = EngineCore(runner, max_queue=100, observer=self.spans, recorder=self.spans)
        self._tracer = tracer
        self._schedule = NoiseSchedule.from_config(config.schedule)
        self._config = config

    def job(self, num_samples: int, steps: int) -> DenoiseJob:
        x = np.zeros((num_samples, *self._config.image.shape), np.float32)
        s = np.zeros((num_samples, self._config.num_prototypes), np.float32)
        return DenoiseJob(x, s, ddim(self._schedule, steps), (0,) * num_samples)

    def run(self) -> None:
        while self.core.has_work:
            self.core.tick(lambda: 0.0)

    def run_alone(self, job: DenoiseJob) -> None:
        """The job of a request that has no other, to its end."""
        with self._tracer.start_as_current_span("request"), self.spans.record(job) as record:
            self.core.submit_denoise(job, Ticket(lambda _: None, record=record), 0.0)
            self.run()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


def attributes(exporter: InMemorySpanExporter, name: str) -> list[dict[str, Any]]:
    return [dict(span.attributes or {}) for span in exporter.get_finished_spans() if span.name == name]


def test_mean_batch_is_that_of_the_steps_between_the_first_row_and_the_end(
    tiny_config: ModelConfig, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    observed = Observed(tiny_config, tracer, max_batch=8)
    with tracer.start_as_current_span("request"):
        long, short = observed.job(1, 10), observed.job(2, 5)
        with observed.spans.record(long) as first, observed.spans.record(short) as second:
            observed.core.submit_denoise(long, Ticket(lambda _: None, record=first), 0.0)
            for _ in range(5):
                observed.core.tick(lambda: 0.0)
            observed.core.submit_denoise(short, Ticket(lambda _: None, record=second), 0.0)
            observed.run()
    by_samples = {found["patronus.samples"]: found for found in attributes(exporter, "denoise")}
    assert by_samples[1]["patronus.batch.steps"] == 10
    assert by_samples[1]["patronus.batch.mean_rows"] == 2.0  # five steps alone, five with two others
    assert by_samples[2]["patronus.batch.steps"] == 5
    assert by_samples[2]["patronus.batch.mean_rows"] == 3.0


def test_padding_is_the_share_of_computed_rows_that_nobody_had(
    tiny_config: ModelConfig, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    observed = Observed(tiny_config, tracer, max_batch=8)
    bucket = FakeRunner(tiny_config, max_batch=8).bucket(3)
    observed.run_alone(observed.job(3, 4))
    [found] = attributes(exporter, "denoise")
    assert found["patronus.batch.padding_ratio"] == round((bucket - 3) / bucket, 4)
    assert {step["patronus.batch.computed_rows"] for step in attributes(exporter, "denoise step")} == {bucket}


def test_more_samples_than_rows_are_more_steps_than_the_table_has(
    tiny_config: ModelConfig, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    observed = Observed(tiny_config, tracer, max_batch=2)
    observed.run_alone(observed.job(6, 5))
    [found] = attributes(exporter, "denoise")
    assert (found["patronus.steps"], found["patronus.batch.steps"]) == (5, 15)
    assert [step["patronus.step"] for step in attributes(exporter, "denoise step")] == [1, 10, 15]


def test_job_that_is_left_while_it_runs_is_recorded_up_to_then(
    tiny_config: ModelConfig, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    observed = Observed(tiny_config, tracer, max_batch=2)
    with tracer.start_as_current_span("request"):
        job = observed.job(1, 30)
        with observed.spans.record(job) as record:
            ticket: Ticket[DenoiseResult] = Ticket(lambda _: None, record=record)
            observed.core.submit_denoise(job, ticket, 0.0)
            for _ in range(12):
                observed.core.tick(lambda: 0.0)
    [found] = attributes(exporter, "denoise")
    assert found["patronus.batch.steps"] == 12
    observed.core.cancel(ticket)  # the engine hears of it after the spans were made
    assert len(attributes(exporter, "denoise")) == 1


def test_job_without_a_recorded_request_has_no_record(tiny_config: ModelConfig, tracer: Tracer) -> None:
    observed = Observed(tiny_config, tracer, max_batch=2)
    with observed.spans.record(observed.job(1, 2)) as record:
        assert record is None


def test_spans_are_made_by_who_waits_and_none_by_the_engine(
    tiny_config: ModelConfig, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    observed = Observed(tiny_config, tracer, max_batch=2)
    with tracer.start_as_current_span("request"):
        job = observed.job(1, 20)
        with observed.spans.record(job) as record:
            observed.core.submit_denoise(job, Ticket(lambda _: None, record=record), 0.0)
            observed.run()
            assert exporter.get_finished_spans() == ()
        assert len(exporter.get_finished_spans()) == 2 + 3


def test_a_step_looks_at_those_jobs_alone_that_keep_it() -> None:
    log = StepLog(lambda: 0)
    kept: list[int] = []

    class Job:
        is_over = False
        before = log.totals

        def keep(self, step: Any) -> None:
            kept.append(step.number)

    log.tell(Job(), after=1)  # type: ignore[arg-type]
    for _ in range(1000):
        log.step_started(1, 1)
        log.step_finished()
    assert kept == [1, 10, 100, 1000]
