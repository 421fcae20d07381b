"""Log lines: JSON for machines, text for people."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime

import pytest

from service.logs import JsonFormatter, TextFormatter, request_id, set_up_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    names = ("PIL", "python_multipart", "uvicorn.error")
    quiet = {name: logging.getLogger(name).level for name in names}
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # Ray, where a test uses it, silences it
    access = logging.getLogger("uvicorn.access")
    propagates, access.propagate = access.propagate, True  # a server without this log ends it in the process
    yield
    access.propagate = propagates
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def current_request() -> Iterator[str]:
    token = request_id.set("abc-1")
    yield "abc-1"
    request_id.reset(token)


def written(log_format: str, stream: io.StringIO | None = None) -> str:
    """What the log says about one event."""
    stream = stream or io.StringIO()
    set_up_logs("INFO", log_format, stream)  # type: ignore[arg-type]
    logging.getLogger("a.b").info("%s happened", "it", extra={"fields": {"rows": 3, "path": "/x\ny"}})
    return stream.getvalue()


def test_json_line_holds_time_level_logger_message_id_and_fields(current_request: str) -> None:
    line = json.loads(written("json"))
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "level": "INFO",
        "logger": "a.b",
        "message": "it happened",
        "request_id": "abc-1",
        "rows": 3,
        "path": "/x\ny",
    }


def test_line_outside_a_request_has_no_id() -> None:
    assert "request_id" not in json.loads(written("json"))


def test_text_line_holds_the_same_for_people(current_request: str) -> None:
    line = written("text")
    assert line.endswith(' INFO a.b [abc-1] it happened rows=3 path="/x\\ny"\n')
    assert line.count("\n") == 1


def test_auto_is_json_except_on_a_terminal() -> None:
    assert written("auto").startswith("{")
    assert not written("auto", Terminal()).startswith("{")
    assert written("json", Terminal()).startswith("{")


def test_exception_is_in_its_line_with_its_trace() -> None:
    try:
        raise ValueError("what went wrong")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "f.py", 1, "failed", (), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: what went wrong")
    assert TextFormatter().format(record).endswith("failed\n" + json.loads(line)["exception"])


def test_text_that_is_no_valid_unicode_is_logged() -> None:
    record = logging.LogRecord("a", logging.INFO, "f.py", 1, "path %s", ("\udcff\u2028",), None)
    JsonFormatter().format(record).encode("ascii")


def test_level_is_that_of_the_setting_and_all_loggers_share_it() -> None:
    stream = io.StringIO()
    set_up_logs("WARNING", "json", stream)
    for name in ("service.app", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).info("not this")
        logging.getLogger(name).warning("this")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["this"] * 3


def test_set_up_twice_writes_once() -> None:
    stream = io.StringIO()
    set_up_logs("INFO", "json", io.StringIO())
    set_up_logs("INFO", "json", stream)
    logging.getLogger("a").info("once")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("library", "level"),
    [
        ("PIL.PngImagePlugin", logging.DEBUG),
        ("python_multipart.multipart", logging.DEBUG),
        ("httpx2", logging.INFO),
        ("httpcore2.connection", logging.INFO),
    ],
)
def test_libraries_that_tell_what_they_read_are_not_heard(library: str, level: int) -> None:
    stream = io.StringIO()
    set_up_logs("DEBUG", "json", stream)
    logging.getLogger(library).log(level, "pixels, or a signed address")
    logging.getLogger("service").debug("ours")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours"]


def test_warnings_are_log_lines() -> None:
    stream = io.StringIO()
    set_up_logs("INFO", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # captureWarnings replaces what shows a warning: called as Python does it
        warnings.showwarning("take care", UserWarning, "f.py", 1)
    assert json.loads(stream.getvalue())["logger"] == "py.warnings"
