"""Which replicas there are to scrape, kept by an actor that they all tell."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import ray

log = logging.getLogger(__name__)

TELL_EVERY_S = 5.0
FORGET_AFTER_S = 20.0
"""A replica that ends in order is forgotten at once; one that dies is scraped in vain for so long."""
NAME, NAMESPACE = "patronus-scrape-targets", "patronus"


class ScrapeTargets:
    """Addresses by replica, each for `FORGET_AFTER_S` from when it was told last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[str, float]] = {}

    def keep(self, replica: str, address: str) -> None:
        self._told[replica] = (address, self._clock())

    def forget(self, replica: str) -> None:
        self._told.pop(replica, None)

    def targets(self) -> list[dict[str, Any]]:
        """As Prometheus' HTTP service discovery has them."""
        oldest = self._clock() - FORGET_AFTER_S
        self._told = {replica: told for replica, told in self._told.items() if told[1] >= oldest}
        # One that took over the port of another that died stands for both.
        owners = {address: replica for replica, (address, _) in sorted(self._told.items(), key=_time_told)}
        return [
            {"targets": [address], "labels": {"__meta_patronus_replica": replica}}
            for address, replica in sorted(owners.items())
        ]


@asynccontextmanager
async def announced(replica: str, address: str) -> AsyncIterator[None]:
    """Have the cluster's ScrapeTargets know of a replica while the block lasts."""
    telling = asyncio.ensure_future(_tell(replica, address))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        try:
            await (await _actor()).forget.remote(replica)
        except ray.exceptions.RayError as error:
            log.warning("%s is not forgotten as a target of scrapes: %s", address, error)


async def cluster_targets() -> list[dict[str, Any]]:
    """`ScrapeTargets.targets` of the cluster. Raises RayError."""
    found: list[dict[str, Any]] = await (await _actor()).targets.remote()
    return found


async def _tell(replica: str, address: str) -> None:
    while True:
        try:
            await (await _actor()).keep.remote(replica, address)
        except ray.exceptions.RayError as error:
            log.warning("%s is not known as a target of scrapes: %s", address, error)
        await asyncio.sleep(TELL_EVERY_S)


async def _actor() -> Any:
    """The one of the cluster, made where there is none; it comes again wherever it dies, and is told anew.

    Looking it up blocks for as long as Ray's head does not answer, which the event loop must not.
    """
    kind = ray.remote(num_cpus=0, max_restarts=-1)(ScrapeTargets)
    options = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
    return await asyncio.to_thread(kind.options(**options).remote)


def _time_told(item: tuple[str, tuple[str, float]]) -> float:
    return item[1][1]
