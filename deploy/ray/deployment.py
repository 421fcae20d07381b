"""The service under Ray Serve: the same application, a replica of it for each GPU or share of CPUs.

    serve run deploy/ray/serve.yaml

Each replica is built by `service.app.create_app` from the PATRONUS_* variables of the machine it runs on.
PATRONUS_HOST and PATRONUS_PORT are not used: Ray's proxies listen, where `http_options` says.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import ray
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from deploy.ray.leaving_clients import LeavingClients
from deploy.ray.scrape_port import scrape_port
from deploy.ray.scrape_targets import announced, cluster_targets
from service.__main__ import SWITCH_INTERVAL_S
from service.app import create_app
from service.logs import set_up_logs
from service.routes.health import death
from service.settings import Settings

AFTER_DEADLINE_S = 10.0
"""A replica that goes waits so much longer than its last request may take."""


class Arguments(BaseModel):
    """`args` of the application in a Serve config.

    scrape_ports: first and last of the ports that replicas of one machine are scraped on.
    """

    model_config = ConfigDict(extra="forbid")

    scrape_ports: tuple[int, int] = Field(default=(9464, 9495))


class DeadEngineError(Exception):
    """Only a new replica can help."""


@serve.deployment(
    # Ray's own limits are made for replicas that take one request at a time. This one takes as many into a
    # step as PATRONUS_MAX_BATCH (32), and wants as many at hand for rows that get free; what waits beyond
    # that waits in the proxy, from where a replica that comes meanwhile can take it.
    max_ongoing_requests=64,
    # For each proxy. More would be answered by nobody in time, and should come again.
    max_queued_requests=256,
    backpressure_config={"retry_after_s": 1},
    # Three failures in a row end a replica.
    health_check_period_s=5,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=0.5,
)
@serve.ingress()
class Patronus:
    """One replica: one application, one engine, one device."""

    def __init__(self, arguments: Arguments) -> None:
        first, last = arguments.scrape_ports
        self._scrape_ports = range(first, last + 1)
        self._app: FastAPI | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray, once, before it starts the application's lifespan."""
        settings = own_share(Settings.from_environment())
        set_up_logs(settings.log_level, settings.log_format)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._app = app = create_app(settings)
        app.add_middleware(LeavingClients)
        app.add_api_route("/metrics/targets", answer_targets, include_in_schema=False)
        run = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
            host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            replica = serve.get_replica_context().replica_id.unique_id
            async with (
                run(app) as state,
                scrape_port(app, host, self._scrape_ports) as address,
                announced(replica, address),
            ):
                yield state

        app.router.lifespan_context = lifespan
        return app

    async def check_health(self) -> None:
        """Called by Ray. Raises DeadEngineError where only a new replica can help, as /healthz has it."""
        assert self._app is not None
        reason = death(self._app.state.engine)
        if reason is not None:
            raise DeadEngineError(reason)


async def answer_targets() -> JSONResponse:
    """Every replica there is, for `http_sd_configs`; behind the keys, where there are any."""
    return JSONResponse(await cluster_targets())


def own_share(settings: Settings) -> Settings:
    """Settings with as many threads for a network call as Ray gave this replica CPUs.

    Without it each replica of a machine would start one for every core, and they would fight over them.
    """
    resources = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    cpus = int(resources.get("CPU", 0))
    return settings if settings.num_threads or not cpus else replace(settings, num_threads=cpus)


def build(arguments: dict[str, Any]) -> serve.Application:
    """What `import_path` of a Serve config names.

    Raises SettingsError, and pydantic's ValidationError for unknown arguments.
    """
    settings = Settings.from_environment()
    # A replica that is to go has so long for its running requests, each of which ends by its own deadline.
    patience_s = settings.request_timeout_s + AFTER_DEADLINE_S
    deployment = cast(serve.Deployment, Patronus).options(graceful_shutdown_timeout_s=patience_s)
    return deployment.bind(Arguments.model_validate(arguments))
