"""The HTTP server, which answers everybody before it goes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Any

import uvicorn

from service.drain import Drain
from service.stalled_clients import StalledClients

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
LAST_REQUESTS_S = 0.2
"""For requests on their way over connections that exist when the service stops listening."""
LAST_ANSWERS_S = 2
"""For those that are told that the time is over, and for slow readers of an answer."""
STALL_S = 30.0
"""A client that for so long reads nothing of what was sent to it loses its connection."""


class Server(uvicorn.Server):
    """uvicorn, but at SIGTERM and SIGINT it goes on listening while requests run.

    Meanwhile new ones are refused by `service.middleware.drain_gate`. After `drain_timeout_s` the tasks of
    those that still run are cancelled, which `service.routes.answering` answers with 503. A second SIGINT
    ends it at once.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Drain, *, drain_timeout_s: float, stall_s: float = STALL_S
    ) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = LAST_ANSWERS_S
        self._drain = drain
        self._drain_timeout_s = drain_timeout_s
        self._stalls = StalledClients(stall_s=stall_s)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # uvicorn ticks ten times a second
            self._stalls.look(self._transports(), time.monotonic())
        return await super().on_tick(counter)

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
        for server in self.servers:
            server.close()
        if not self.force_exit:
            await asyncio.sleep(LAST_REQUESTS_S)
        if self.force_exit:
            for transport in self._transports():
                transport.abort()
        await super().shutdown(sockets)

    def _transports(self) -> list[Any]:
        connections = list(self.server_state.connections)
        return [connection.transport for connection in connections if connection.transport is not None]
