"""Where each request's time goes, as OpenTelemetry spans.

The only place that imports `opentelemetry`, and itself imported only where PATRONUS_TRACING is not off. The
engine's thread only notes times; spans are made from them by the event loop that waits for the job.
"""
