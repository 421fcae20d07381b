"""`python -m benchmarks.ray_cluster DIRECTORY`: a Ray cluster of one machine, driven by `process`.

Writes a line of JSON once it has started; then does what lines of JSON on stdin tell, answers each with a
line, and ends with its stdin:

    {"deploy": CONFIG}   as `serve deploy`; null, once the config is taken
    {"details": null}    pids and states of replicas, how long one that goes may take, the application's
                         status and message
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    from ray import serve
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

OBJECT_STORE_BYTES = 80 * 2**20


def main() -> int:
    directory = sys.argv[1]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Ray has things to print
    ray.init(
        num_cpus=4,  # for Ray to count with; the machine has what it has
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="serve",
        _temp_dir=directory,
    )
    client: Any = None
    try:
        print(json.dumps("started"), file=answers, flush=True)
        for line in sys.stdin:
            [(command, argument)] = json.loads(line).items()
            if command == "deploy":
                config = ServeDeploySchema.model_validate(argument)
                if client is None:
                    client = serve_start(http_options=config.http_options.model_dump())
                client.deploy_apps(config)
                answer = None
            else:
                answer = details(client)
            print(json.dumps(answer), file=answers, flush=True)
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
    return 0


def details(client: Any) -> dict[str, Any]:
    """Of the only application."""
    [application] = client.get_serve_details()["applications"].values()
    replicas = [
        {"pid": replica.get("pid"), "state": str(replica["state"]), "id": replica["replica_id"]}
        for deployment in application["deployments"].values()
        for replica in deployment["replicas"]
    ]
    configs = [deployment["deployment_config"] for deployment in application["deployments"].values()]
    return {
        "status": application["status"],
        "message": application["message"],
        "replicas": replicas,
        "grace_s": min((config["graceful_shutdown_timeout_s"] for config in configs), default=None),
    }


if __name__ == "__main__":
    sys.exit(main())
