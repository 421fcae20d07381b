"""What the stack must do: answer, share, stream, survive, and be seen by Prometheus."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.compose.engine import ROOT, CommandError, Engine
from tests.compose.transcript import Transcript

EXAMPLE = ROOT / "docs" / "example.png"
WITHIN_S = 120.0
POLL_S = 0.25
KEY = "a-key-of-the-compose-test"
"""In the file that docker-compose.keys.yml gives to the service."""
NAME = "compose-test"
"""Given to a prototype."""
COUNT_CORES = "from service.cpu_quota import cores_of_quota; print(cores_of_quota(num_cores=1000))"
CONNECT_OUTSIDE = """
import socket
try:
    socket.create_connection(("1.1.1.1", 443), timeout=3)
    print("reached it")
except OSError:
    print("no way out")
"""


@dataclass(frozen=True)
class Stack:
    """The engine, and the addresses under which proxy, Prometheus and Grafana are published."""

    engine: Engine
    url: str
    prometheus_url: str
    grafana_url: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def encode(self) -> httpx.Response:
        return httpx.post(f"{self.url}/encode", files={"image": EXAMPLE.read_bytes()}, timeout=60)

    def generate(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/generate", json=body, timeout=300)

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.prometheus_url}/api/v1/query", params={"query": expression}, timeout=30)
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def value(self, expression: str) -> float:
        """The sum of an expression's samples."""
        return sum(float(sample["value"][1]) for sample in self.query(expression))

    def targets(self) -> dict[str, str]:
        """Health of each target of the job patronus."""
        answer = httpx.get(f"{self.prometheus_url}/api/v1/targets", timeout=30).json()
        active = answer["data"]["activeTargets"]
        jobs = [target for target in active if target["labels"]["job"] == "patronus"]
        return {target["labels"]["instance"]: target["health"] for target in jobs}

    def health(self, service: str) -> list[str]:
        """Of each container of a service: healthy, starting, unhealthy, or exited and the like."""
        states = [self.engine.inspect(container)["State"] for container in self.engine.containers(service)]
        return [
            state["Health"]["Status"] if state["Running"] and "Health" in state else state["Status"]
            for state in states
        ]


def check_stack(stack: Stack, services: Sequence[str], transcript: Transcript) -> None:
    """Start `services`, two replicas of the service, and go through everything."""
    transcript.section("Start")
    stack.engine.compose("up", "--detach", "--scale", "patronus=2", *services, timeout_s=600)
    for service in services:
        healthy = eventually(lambda service=service: set(stack.health(service)) == {"healthy"})  # type: ignore[misc]
        transcript.check(f"{service} is healthy", healthy, ", ".join(stack.health(service)))
    _answers(stack, transcript)
    _isolation(stack, transcript)
    _prometheus(stack, transcript)
    if "grafana" in services:
        _grafana(stack, transcript)
    _redis(stack, transcript)
    _replicas(stack, transcript)
    _keys(stack, transcript)
    _nobody(stack, transcript)


def _answers(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Answers through the proxy")
    version = stack.get("/version").json()
    provenance = version["model"]["provenance"]
    transcript.check(
        "/version tells bundle and provenance",
        bool(provenance),
        f"{version['model']['name']}, {sorted(provenance)}",
    )
    models = [model["name"] for model in version["models"]]
    statuses = [stack.generate(model=model, steps=2).status_code for model in models]
    transcript.check("both shipped models are served", statuses == [200, 200], models)
    page = httpx.get(f"{stack.url}/", headers={"Accept": "text/html"}, timeout=60)
    head = httpx.head(f"{stack.url}/", headers={"Accept": "text/html"}, timeout=60)
    transcript.check(
        "the Studio is at /",
        (page.status_code, head.status_code) == (200, 200) and "/studio/" in page.text,
        page.headers["content-type"],
    )
    first, *others = (stack.encode() for _ in range(8))
    transcript.check("/encode", first.status_code == 200, first.json()["images"][0]["image_id"][:16])
    cached = [answer.json()["images"][0]["cached"] for answer in others]
    transcript.check("what one replica encoded both find in Redis", all(cached), f"cached: {cached}")
    named = [httpx.put(f"{stack.url}/prototypes/3", json={"name": NAME}, timeout=60)]
    named += [stack.get(f"/prototypes/{NAME}") for _ in range(8)]
    statuses = [answer.status_code for answer in named]
    transcript.check("a name that one replica was told both know", set(statuses) == {200}, statuses)
    answers = [stack.generate(seed=7, steps=10) for _ in range(4)]
    pictures = {answer.json()["images"][0]["image"] for answer in answers if answer.status_code == 200}
    transcript.check(
        "/generate with one seed is one picture, whoever answers",
        len(pictures) == 1,
        f"{len(answers)} answers",
    )
    picture = httpx.post(
        f"{stack.url}/generate",
        json={"num_images": 4, "steps": 5},
        headers={"Accept": "image/png"},
        timeout=60,
    )
    transcript.check(
        "a picture itself", picture.content.startswith(b"\x89PNG"), f"{len(picture.content)} bytes"
    )

    started = time.monotonic()
    arrivals: list[float] = []
    names: Counter[str] = Counter()
    with httpx.stream(
        "POST",
        f"{stack.url}/generate",
        json={"steps": 200},
        headers={"Accept": "text/event-stream"},
        timeout=120,
    ) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                names[line.removeprefix("event: ")] += 1
                arrivals.append(time.monotonic() - started)
    is_live = names["progress"] > 10 and names["result"] == 1 and arrivals[0] < arrivals[-1] / 2
    transcript.check(
        "events arrive as they are sent",
        is_live,
        f"{dict(names)}, the first after {arrivals[0]:.2f} s, the last after {arrivals[-1]:.2f} s",
    )

    started = time.monotonic()
    long = stack.generate(steps=1000, num_images=8)
    transcript.check(
        "a request of 1000 steps",
        long.status_code == 200,
        f"{time.monotonic() - started:.1f} s without a byte in between",
    )
    bad = stack.generate(steps=-1)
    transcript.check("problems come through", bad.status_code == 422, bad.headers["content-type"])
    metrics = [stack.get(path).status_code for path in ("/metrics", "/%6detrics")]
    transcript.check("/metrics is not for clients", metrics == [404, 404], metrics)


def _isolation(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Isolation")
    replica = stack.engine.containers("patronus")[0]
    user = stack.engine.docker(
        "exec", replica, "sh", "-c", "id -u; touch /x 2>/dev/null && echo writable || echo read-only"
    )
    transcript.check(
        "not root, on a read-only file system", user.split() == ["10001", "read-only"], user.split()
    )
    published = {
        name: [ports for container in stack.engine.containers(name) for ports in _published(stack, container)]
        for name in ("patronus", "redis", "proxy", "prometheus")
    }
    transcript.check(
        "only proxy and Prometheus are published, to this machine",
        not published["patronus"]
        and not published["redis"]
        and all("127.0.0.1" in p for ports in published.values() for p in ports),
        published,
    )
    redis = stack.engine.containers("redis")[0]
    refused = stack.engine.docker("exec", redis, "redis-cli", "ping")
    transcript.check("Redis wants its password", "NOAUTH" in refused, refused.strip())
    configured = _redis_cli(stack, "config", "get", "maxmemory*").split()
    transcript.check(
        "Redis is bounded, least recently used first",
        {"268435456", "allkeys-lru"} <= set(configured),
        configured,
    )
    cores = stack.engine.docker("exec", replica, "python3", "-c", COUNT_CORES).strip()
    transcript.check("a replica knows how many cores it has", cores == "2", cores)
    outside = stack.engine.docker("exec", replica, "python3", "-c", CONNECT_OUTSIDE)
    transcript.check("replicas cannot reach the outside", outside.strip() == "no way out", outside.strip())


def _prometheus(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Prometheus")
    found = eventually(lambda: list(stack.targets().values()) == ["up", "up"])
    transcript.check("both replicas are targets and up", found, stack.targets())
    served = eventually(lambda: len(stack.query("sum by (instance) (patronus_requests_total) > 0")) == 2)
    shares = {
        sample["metric"]["instance"]: sample["value"][1]
        for sample in stack.query("sum by (instance) (patronus_requests_total)")
    }
    transcript.check("the proxy gives both work", served, shares)
    rules = [
        rule
        for group in httpx.get(f"{stack.prometheus_url}/api/v1/rules", timeout=30).json()["data"]["groups"]
        for rule in group["rules"]
    ]
    health = Counter(rule["health"] for rule in rules)
    transcript.check(
        "rules are evaluated",
        eventually(lambda: bool(stack.query("job:patronus_denoise_steps:rate5m")))
        and set(health) <= {"ok", "unknown"},
        dict(health),
    )


def _grafana(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Grafana")
    container = stack.engine.containers("grafana")[0]
    password = stack.engine.docker("exec", container, "cat", "/run/grafana-secret/admin_password").strip()
    with httpx.Client(base_url=stack.grafana_url, auth=("admin", password), timeout=30) as grafana:
        shown = grafana.get("/api/search", params={"query": "Patronus"})
        is_there = shown.status_code == 200 and "Patronus" in {one["title"] for one in shown.json()}
        transcript.check("the dashboard is there", is_there, shown.status_code)
        query = {"query": "sum(patronus_requests_total)"}
        asked = grafana.get("/api/datasources/proxy/uid/prometheus/api/v1/query", params=query)
        has_data = asked.status_code == 200 and bool(asked.json()["data"]["result"])
        transcript.check("its data source has data", has_data, asked.status_code)


def _redis(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Redis is killed")
    redis = stack.engine.containers("redis")[0]
    with load(stack) as statuses:
        stack.engine.kill_process(redis)
        back = eventually(
            lambda: stack.engine.inspect(redis)["RestartCount"] > 0 and stack.health("redis") == ["healthy"]
        )
    transcript.check("requests go on meanwhile", set(statuses) == {200}, dict(statuses))
    transcript.check("it is started again", back, f"{stack.engine.inspect(redis)['RestartCount']} restart")
    used = eventually(lambda: stack.encode().json()["images"][0]["cached"])
    transcript.check("and used again", used)

    stack.engine.docker("stop", redis)
    with load(stack) as statuses:
        open_circuit = eventually(lambda: stack.value("patronus_cache_circuit_open") == 2)
    transcript.check("while it is away, both replicas answer", set(statuses) == {200}, dict(statuses))
    pending = [sample["metric"]["alertname"] for sample in stack.query("ALERTS")]
    transcript.check(
        "and Prometheus knows that they leave it alone", open_circuit, f"alerts pending: {pending}"
    )
    stack.engine.docker("start", redis)
    with load(stack):
        closed = eventually(lambda: stack.value("patronus_cache_circuit_open") == 0)
    transcript.check("until it is back", closed)


def _replicas(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Replicas are killed and stopped")
    first, second = stack.engine.containers("patronus")
    with load(stack) as statuses:
        stack.engine.kill_process(first)
        back = eventually(
            lambda: (
                stack.engine.inspect(first)["RestartCount"] > 0
                and set(stack.health("patronus")) == {"healthy"}
            )
        )
    transcript.check("one is killed under load: no request is lost", set(statuses) == {200}, dict(statuses))
    transcript.check(
        "it is started again and healthy", back, f"{stack.engine.inspect(first)['RestartCount']} restart"
    )
    up = eventually(lambda: list(stack.targets().values()) == ["up", "up"])
    transcript.check("Prometheus sees both again", up, stack.targets())

    with load(stack) as statuses:
        stack.engine.docker("stop", "--time", "60", second, timeout_s=90)
        state = stack.engine.inspect(second)["State"]
    transcript.check("one is stopped under load: no request is lost", set(statuses) == {200}, dict(statuses))
    transcript.check(
        "it drained and went by itself", state["ExitCode"] in (0, 143), f"exit status {state['ExitCode']}"
    )
    left = eventually(lambda: list(stack.targets().values()) == ["up"])
    transcript.check("Prometheus forgets it", left, stack.targets())
    stack.engine.docker("start", second)
    with load(stack) as statuses:
        back = eventually(lambda: list(stack.targets().values()) == ["up", "up"])
    transcript.check("and finds it again", back, f"{stack.targets()}, {dict(statuses)}")

    replica = stack.engine.containers("patronus")[0]
    before = stack.engine.inspect(replica)["RestartCount"]
    stack.engine.docker(
        "exec", replica, "python3", "-c", "from service.probe import end_process_1 as end; end()"
    )
    back = eventually(
        lambda: (
            stack.engine.inspect(replica)["RestartCount"] > before
            and set(stack.health("patronus")) == {"healthy"}
        )
    )
    transcript.check("one that its own health check ends is started again", back)

    stack.engine.compose(
        "up", "--detach", "--no-recreate", "--scale", "patronus=3", "patronus", timeout_s=300
    )
    grown = eventually(lambda: list(stack.targets().values()) == ["up"] * 3)
    transcript.check("a third is found while all run", grown, stack.targets())


def _keys(stack: Stack, transcript: Transcript) -> None:
    transcript.section("With docker-compose.keys.yml")
    files = ("--file", "docker-compose.yml", "--file", "docker-compose.keys.yml")
    stack.engine.compose(*files, "up", "--detach", "--scale", "patronus=2", "patronus", timeout_s=300)
    closed = eventually(lambda: stack.get("/version").status_code == 401)
    transcript.check("nobody is served without a key", closed)
    answer = httpx.get(f"{stack.url}/version", headers={"X-API-Key": KEY}, timeout=60)
    transcript.check("a key of the file is one", answer.status_code == 200, answer.status_code)
    seen = stack.engine.docker("inspect", *stack.engine.containers("patronus"))
    transcript.check("the engine does not show it", KEY not in seen)
    kept = httpx.get(f"{stack.url}/prototypes/{NAME}", headers={"X-API-Key": KEY}, timeout=60)
    transcript.check("names outlive their containers", kept.status_code == 200, kept.status_code)


def _nobody(stack: Stack, transcript: Transcript) -> None:
    transcript.section("Without any replica")
    stack.engine.compose("stop", "--timeout", "60", "patronus", timeout_s=180)
    eventually(lambda: stack.get("/version").status_code == 503)
    answer = stack.get("/version")
    transcript.check(
        "the proxy asks to come again",
        (answer.status_code, answer.headers.get("retry-after")) == (503, "1")
        and answer.headers["content-type"] == "application/problem+json",
        answer.text,
    )


@contextmanager
def load(stack: Stack, num_clients: int = 3) -> Iterator[Counter[int | str]]:
    """Clients that encode and generate until the block ends; gives how often each status, or fault, came."""
    statuses: Counter[int | str] = Counter()
    over = threading.Event()
    seeds = itertools.count()

    def ask() -> None:
        while not over.is_set():
            try:
                seed = next(seeds)
                answer = stack.encode() if seed % 2 else stack.generate(seed=seed, steps=10)
                status: int | str = answer.status_code
            except httpx.TransportError as error:
                status = type(error).__name__
            statuses[status] += 1

    clients = [threading.Thread(target=ask) for _ in range(num_clients)]
    for client in clients:
        client.start()
    try:
        yield statuses
    finally:
        over.set()
        for client in clients:
            client.join()


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether something becomes so within two minutes; while it cannot be asked, it is not."""
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        try:
            if is_so():
                return True
        except (httpx.HTTPError, CommandError, LookupError):
            pass
        time.sleep(POLL_S)
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _published(stack: Stack, container: str) -> list[str]:
    ports = stack.engine.inspect(container)["NetworkSettings"]["Ports"]
    return [
        f"{bound['HostIp']}:{bound['HostPort']}" for bindings in ports.values() for bound in bindings or ()
    ]


def _redis_cli(stack: Stack, *words: str) -> str:
    redis = stack.engine.containers("redis")[0]
    script = 'REDISCLI_AUTH="$(cat /run/cache-secret/redis_password)" redis-cli "$@"'
    return stack.engine.docker("exec", redis, "sh", "-c", script, "sh", *words)
