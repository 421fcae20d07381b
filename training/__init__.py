"""Offline: train, evaluate and export a Patronus model as a bundle."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime reports which models it runs
