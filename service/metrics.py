"""Prometheus metrics; names and labels are a contract with dashboards and alerts."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from service.engine.async_engine import EngineState

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """All metrics of one service process, in a registry of its own.

    Observes the cache (`service.cache.cache.CacheObserver`), and by `engine_observer` every model's engine;
    routes report requests.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._clock = clock
        GCCollector(registry)
        PlatformCollector(registry)
        ProcessCollector(registry=registry)

        self._requests = Counter(
            "patronus_requests",
            "Requests by endpoint and how they ended.",
            ["endpoint", "model_name", "finished_reason"],
            registry=registry,
        )
        self._refused = Counter(
            "patronus_requests_refused",
            "Requests that reached no endpoint: without a valid key, over the client's rate, while draining.",
            ["reason"],
            registry=registry,
        )
        self._rejected = Counter(
            "patronus_requests_rejected",
            "Why requests finished as rejected.",
            ["endpoint", "reason"],
            registry=registry,
        )
        self.running = Gauge(
            "patronus_num_requests_running", "Jobs with rows in the batch.", registry=registry
        )
        self.waiting = Gauge("patronus_num_requests_waiting", "Jobs without a row yet.", registry=registry)
        self.active = Gauge("patronus_active_samples", "Rows in the batch.", registry=registry)
        self._latency = Histogram(
            "patronus_e2e_request_latency_seconds",
            "From the request's arrival to its answer.",
            ["endpoint"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.queue_time = Histogram(
            "patronus_request_queue_time_seconds",
            "From submission to the first row.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.inference_time = Histogram(
            "patronus_request_inference_time_seconds",
            "From the first row to the last step.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.step_duration = Histogram(
            "patronus_denoise_step_duration_seconds",
            "One network call over all rows.",
            ["batch_bucket"],
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.steps = Counter("patronus_denoise_steps", "Row-steps computed.", registry=registry)
        self.wasted = Counter(
            "patronus_denoise_steps_wasted", "Row-steps done for somebody already gone.", registry=registry
        )
        self.batch_size = Histogram(
            "patronus_batch_size", "Rows per step.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.padding = Gauge(
            "patronus_batch_padding_ratio",
            "Share of the last step's rows that was padding.",
            registry=registry,
        )
        self.out_of_memory = Counter(
            "patronus_engine_out_of_memory", "Calls that did not fit into memory.", registry=registry
        )
        self.preempted = Counter(
            "patronus_preempted_samples",
            "Samples that gave their row to a more urgent one, to go on later.",
            registry=registry,
        )
        operations = ["operation"]
        self._hits = Counter("patronus_cache_hits", "Cache hits.", operations, registry=registry)
        self._misses = Counter("patronus_cache_misses", "Cache misses.", operations, registry=registry)
        self._errors = Counter("patronus_cache_errors", "Cache faults.", operations, registry=registry)
        self._circuit = Gauge(
            "patronus_cache_circuit_open", "1 while Redis is left alone after faults.", registry=registry
        )
        self.last_step = Gauge(
            "patronus_engine_last_step_timestamp_seconds", "Unix time of the last step.", registry=registry
        )
        self._state = Gauge(
            "patronus_engine_state", "1 for the state the engine is in.", ["state"], registry=registry
        )
        self._build = Gauge(
            "patronus_build_info",
            "What runs here.",
            ["version", "model_name", "bundle_digest", "backend", "python"],
            registry=registry,
        )

    def build(self, *, version: str, model_name: str, bundle_digest: str, backend: str) -> None:
        self._build.labels(version, model_name, bundle_digest, backend, platform.python_version()).set(1)

    def watch_engine_state(self, read: Callable[[], EngineState]) -> None:
        """Have each scrape ask for the engine's state."""
        for state in EngineState:
            self._state.labels(state.value).set_function(_is(read, state))

    def watch_cache_circuit(self, is_open: Callable[[], bool]) -> None:
        """Have each scrape ask whether the cache is left alone."""
        self._circuit.set_function(lambda: float(is_open()))

    def engine_observer(self) -> EngineMetrics:
        """What counts and times one model's engine; those of several models add up."""
        return EngineMetrics(self, self._clock)

    def request_finished(self, endpoint: str, model_name: str, reason: str, seconds: float) -> None:
        self._requests.labels(endpoint, model_name, reason).inc()
        self._latency.labels(endpoint).observe(seconds)

    def request_rejected(self, endpoint: str, reason: str) -> None:
        """One of those that finish as `rejected`, by `service.problems.rejection`."""
        self._rejected.labels(endpoint, reason).inc()

    def request_refused(self, reason: str) -> None:
        """A request that reached no endpoint, for its `key` or its `rate`, or because we are `draining`."""
        self._refused.labels(reason).inc()

    def exposition(self) -> bytes:
        """The text that /metrics answers with."""
        return generate_latest(self._registry)

    def cache_hit(self, operation: str) -> None:
        self._hits.labels(operation).inc()
        self._misses.labels(operation)  # that it exists, for the ratio of the two

    def cache_miss(self, operation: str) -> None:
        self._misses.labels(operation).inc()
        self._hits.labels(operation)

    def cache_error(self, operation: str) -> None:
        self._errors.labels(operation).inc()


class EngineMetrics:
    """Observes one model's engine (`service.engine.observer.EngineObserver`)."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._step_started_at = 0.0
        self._bucket = 0
        self._occupancy = (0, 0, 0)
        self._step_durations: dict[int, Histogram] = {}

    def job_finished(self, queue_s: float, inference_s: float) -> None:
        self._metrics.queue_time.observe(queue_s)
        self._metrics.inference_time.observe(inference_s)

    def step_started(self, rows: int, bucket: int) -> None:
        self._step_started_at = self._clock()
        self._bucket = bucket
        self._metrics.batch_size.observe(rows)
        self._metrics.padding.set(max(0, bucket - rows) / max(bucket, rows))

    def step_finished(self, rows: int, wasted: int) -> None:
        if self._bucket not in self._step_durations:
            self._step_durations[self._bucket] = self._metrics.step_duration.labels(str(self._bucket))
        self._step_durations[self._bucket].observe(self._clock() - self._step_started_at)
        self._metrics.steps.inc(rows)
        self._metrics.wasted.inc(wasted)
        self._metrics.last_step.set_to_current_time()

    def occupancy(self, running: int, waiting: int, active_samples: int) -> None:
        before, self._occupancy = self._occupancy, (running, waiting, active_samples)
        if before == self._occupancy:
            return
        self._metrics.running.inc(running - before[0])
        self._metrics.waiting.inc(waiting - before[1])
        self._metrics.active.inc(active_samples - before[2])

    def ran_out_of_memory(self, rows: int) -> None:
        self._metrics.out_of_memory.inc()

    def preempted(self, rows: int) -> None:
        self._metrics.preempted.inc(rows)


def _is(read: Callable[[], EngineState], state: EngineState) -> Callable[[], float]:
    return lambda: float(read() is state)
