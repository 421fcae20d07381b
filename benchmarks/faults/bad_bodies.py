"""Bodies that are too large, that unpack to something too large, or that end too early."""

from __future__ import annotations

import asyncio
import gzip
import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from benchmarks.faults.calls import Call
from benchmarks.faults.clients import Request, together
from benchmarks.faults.contract import JSON, picture_file
from benchmarks.faults.outcomes import Expected, Record, Tally, never_ok
from benchmarks.faults.stage import Fault, Finding, Stage

TOO_LARGE_BYTES = 33 * 2**20
"""Over the service's default limit of 32 MiB."""
BOMB_SIDE = 12_000
BOMB_BYTES = 64 * 2**20
AT_ONCE = 4


def bad_requests(stage: Stage) -> list[Request]:
    """Each with the statuses that fit it."""
    return [
        *_refused([Call("POST", "/encode", bytes(TOO_LARGE_BYTES), JSON)], 413),
        *_refused([Call("POST", "/encode", bytes(TOO_LARGE_BYTES), JSON, is_chunked=True)], 413),
        *_refused([stage.contract.encode(bomb) for bomb in _bombs()], 413, 422),
        *_refused([Call("POST", "/encode", *_gzipped(stage))], 400, 413, 415, 422),
        *_refused([stage.contract.encode(data) for data in _truncated()], 422),
    ]


async def send_bad_bodies(stage: Stage) -> Finding:
    """A few at a time, several times over, while others ask for ordinary things."""
    bad = bad_requests(stage)
    rounds = max(1, round(stage.seconds / 3))
    loading = asyncio.create_task(stage.load(await stage.mixture()))
    records: list[Record] = []
    for _ in range(rounds):
        for i in range(0, len(bad), AT_ONCE):
            records += await together(stage.service.address, bad[i : i + AT_ONCE])
    note = f"{len(bad)} kinds of bad bodies, {rounds} times: {_statuses(Tally(records))}"
    return Finding(Tally(records) + Tally(await loading), note)


def _bombs() -> Iterator[bytes]:
    """Small files that unpack to 144 million pixels, and to a text of 64 MiB."""
    picture = Image.new("1", (BOMB_SIDE, BOMB_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    yield buffer.getvalue()
    small = picture_file(0)
    end_of_header = 8 + 25
    text = b"Comment\0\0" + zlib.compress(bytes(BOMB_BYTES))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    yield small[:end_of_header] + chunk + small[end_of_header:]


def _truncated() -> Iterator[bytes]:
    for format in ("PNG", "JPEG", "WEBP"):
        whole = picture_file(3, side=64, format=format)
        for share in (0.02, 0.5, 0.9):
            yield whole[: int(share * len(whole))]


def _gzipped(stage: Stage) -> tuple[bytes, dict[str, str]]:
    call = stage.contract.encode(picture_file(0))
    return gzip.compress(call.body + bytes(BOMB_BYTES)), {**JSON, "Content-Encoding": "gzip"}


def _refused(calls: list[Call], *statuses: int) -> list[Request]:
    return [Request(call, Expected(never_ok, frozenset(statuses))) for call in calls]


def _statuses(tally: Tally) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(tally.statuses.items()))


FAULTS = (Fault("bodies too large, bombs, truncated images", send_bad_bodies),)
