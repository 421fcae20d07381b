"""What each request is answered when nobody else asks: the measure of a right answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from benchmarks.faults.calls import Address, Call, Reply, send
from benchmarks.faults.clients import Request
from benchmarks.faults.contract import Contract
from benchmarks.faults.outcomes import Expected

PATIENCE_S = 30.0


class SoloAnswers:
    """Asks a service that has nothing else to do, one request at a time, each once."""

    def __init__(self, address: Address, contract: Contract) -> None:
        self._address = address
        self._contract = contract
        self._contents: dict[tuple[str, bytes], object] = {}

    async def expected(
        self, call: Call, *, refusals: Sequence[int] = (), deadline_s: float = 20.0
    ) -> Expected:
        """What is right for this call. Raises RuntimeError where it is not answered even alone."""
        key = (call.path, call.body)
        if key not in self._contents:
            async with asyncio.timeout(PATIENCE_S):
                reply = await send(self._address, Call(call.method, call.path, call.body, call.headers))
            if reply.status != 200:
                raise RuntimeError(f"{call.path} alone is answered {reply.status}: {reply.body[:500]!r}")
            self._contents[key] = self._contract.content(reply)
        right = self._contents[key]

        def check(reply: Reply) -> str | None:
            try:
                content = self._contract.content(reply)
            except (ValueError, LookupError) as error:
                return f"a 200 that cannot be read: {error}"
            return None if content == right else f"{call.path} is answered otherwise than alone"

        return Expected(check, frozenset(refusals), deadline_s)

    async def requests(
        self, calls: Sequence[Call], *, refusals: Sequence[int] = (), deadline_s: float = 20.0
    ) -> list[Request]:
        """Requests of clients that stay, with their right answers."""
        return [
            Request(call, await self.expected(call, refusals=refusals, deadline_s=deadline_s))
            for call in calls
        ]
