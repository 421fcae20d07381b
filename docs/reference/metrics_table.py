"""The page of the metrics, from `service.metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics import Counter, Gauge, Histogram, MetricWrapperBase

from docs.reference.markdown import code, prose, table
from service.metrics import Metrics

_KINDS = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


def metrics_page() -> str:
    return "\n".join(
        (
            "# Metrics\n",
            "*Written from `service/metrics.py`.* `GET /metrics` is in Prometheus' text format and wants no "
            "key. Each process has a registry of its own: scrape every replica by its own address. Beside "
            "these there are the Prometheus client's `process_*`, `python_gc_*` and `python_info`.\n",
            table(("metric", "kind", "labels", "meaning"), _rows()),
            "Histograms have `_bucket`, `_sum` and `_count`, with these bounds:\n",
            table(("histogram", "bounds"), _bounds()),
            "Recording rules and alerts over them are in `deploy/prometheus/rules/`; see "
            "[dashboards and alerts](../operating/monitoring.md).\n",
        )
    )


def all_metrics() -> list[MetricWrapperBase]:
    return [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]


def exposed_name(metric: MetricWrapperBase) -> str:
    """As it stands in /metrics: a counter's ends in _total."""
    return f"{metric._name}_total" if isinstance(metric, Counter) else str(metric._name)


def _rows() -> Iterator[list[str]]:
    for metric in all_metrics():
        yield [
            code(exposed_name(metric)),
            _KINDS[type(metric)],
            ", ".join(code(label) for label in metric._labelnames),
            prose(metric._documentation),
        ]


def _bounds() -> Iterator[list[str]]:
    for metric in all_metrics():
        if isinstance(metric, Histogram):
            bounds = metric._kwargs["buckets"]
            yield [code(exposed_name(metric)), ", ".join(f"{bound:g}" for bound in bounds)]
