"""Completion in the shells themselves, asked as a person asks: with the tab key."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
NEW = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
"""Without anything that a person has set up."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a picture, and the program."""
    (tmp_path / "picture.png").touch()
    (tmp_path / "patronus").write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli "$@"\n')
    (tmp_path / "patronus").chmod(0o755)
    return tmp_path


@pytest.fixture
def environment(home: Path) -> Mapping[str, str]:
    path = f"{home}:{os.environ['PATH']}"
    return {**os.environ, "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here: what it makes of the completion cannot be seen")


def type_into(shell: Sequence[str], keys: str, home: Path, environment: Mapping[str, str]) -> str:
    """What is on the terminal of `shell` when it ends."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shell,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=home,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        shown = b""
        try:
            os.write(ours, keys.encode())
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that nobody has the terminal open any more
            pass
        finally:
            watchdog.cancel()
            os.close(ours)
            process.kill()
    return shown.decode(errors="replace")


@pytest.mark.parametrize("shell", NEW)
def test_tab_completes_commands_and_pictures(shell: str, home: Path, environment: Mapping[str, str]) -> None:
    needs(shell)
    begin, end = "\x01", "\x05"  # of the line, in both shells
    lines = [
        f'eval "$(patronus completion {shell})"',
        f"patronus gener\t{begin}echo {end}> command",
        f"patronus encode pic\t{begin}echo {end}> picture",
        "exit",
    ]
    shown = type_into(NEW[shell], "".join(line + "\n" for line in lines), home, environment)
    assert (home / "command").is_file(), shown
    assert (home / "command").read_text().split() == ["patronus", "generate"], shown
    assert (home / "picture").read_text().split() == ["patronus", "encode", "picture.png"], shown


def test_fish_completes_commands_and_pictures(home: Path, environment: Mapping[str, str]) -> None:
    needs("fish")
    script = (
        "patronus completion fish | source; complete -C 'patronus gener'; complete -C 'patronus encode pic'"
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["generate", "picture.png"], done
