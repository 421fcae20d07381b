"""Our server, as `python -m service` starts it: python -m benchmarks.serving.ours BACKEND PORT"""

from __future__ import annotations

import os
import sys

from benchmarks.serving.stand_in import stand_in
from service.__main__ import main
from service.app import open_runner
from service.settings import SHIPPED_BUNDLE

if __name__ == "__main__":
    backend, port = sys.argv[1:]
    # No access log, as with the peers; everything else is what `make serve` has.
    os.environ |= {
        "PATRONUS_BUNDLE": str(SHIPPED_BUNDLE),
        "PATRONUS_PORT": port,
        "PATRONUS_LOG_LEVEL": "WARNING",
    }
    sys.exit(main(stand_in if backend == "stand-in" else open_runner))
