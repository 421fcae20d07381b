"""`python -m service`: serve the bundle that the PATRONUS_* settings name."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping

import uvicorn

from model.bundle import BundleError
from service.app import RunnerFactory, create_app, open_runner
from service.engine.errors import DeviceError
from service.logs import set_up_logs
from service.server import Server
from service.settings import Settings, SettingsError

SWITCH_INTERVAL_S = 0.0005


def main(make_runner: RunnerFactory = open_runner, environment: Mapping[str, str] = os.environ) -> int:
    """Serve until stopped; 2 for a setting, bundle or device that cannot be served."""
    try:
        settings = Settings.from_environment(environment)
        set_up_logs(settings.log_level, settings.log_format)
        app = create_app(settings, make_runner)
    except (SettingsError, BundleError, DeviceError) as error:
        print(f"patronus: {error}", file=sys.stderr)
        return 2
    # The engine's thread comes back from every step to take the interpreter over from the event loop; by
    # default Python lets it wait for 5 ms, as long as a step may take.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # its loggers write through ours
        access_log=False,  # ours has an access log of its own
        server_header=False,
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, app.state.drain, drain_timeout_s=settings.drain_timeout_s).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
