"""The HTTP server, which answers everybody before it goes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

import uvicorn

from service.drain import Drain

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
LAST_ANSWERS_S = 2
"""For those that are told that the time is over, and for slow readers of an answer."""


class Server(uvicorn.Server):
    """uvicorn, but at SIGTERM and SIGINT it goes on listening while requests run.

    Meanwhile new ones are refused by `service.middleware.drain_gate`. After `drain_timeout_s` the tasks of
    those that still run are cancelled, which `service.routes.answering` answers with 503. A second SIGINT
    ends it at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, *, drain_timeout_s: float) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = LAST_ANSWERS_S
        self._drain = drain
        self._drain_timeout_s = drain_timeout_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.start()
        log.info("shutting down: %d requests are running", self._drain.num_running)
        give_up_at = time.monotonic() + self._drain_timeout_s
        while self._drain.num_running and not self.force_exit and time.monotonic() < give_up_at:
            await asyncio.sleep(LOOK_EVERY_S)
        if self._drain.num_running and not self.force_exit:
            log.warning("%d requests are not done in time", self._drain.num_running)
            for task in list(self.server_state.tasks):
                task.cancel()
        await super().shutdown(sockets)
