"""The program `patronus`: its commands, and what its exit statuses mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from model.bundle import BundleError
from model.hub import HubUnreachableError
from service.cli.bench import bench
from service.cli.completion import completion
from service.cli.diagnose import diagnose
from service.cli.edit import edit
from service.cli.encode import encode
from service.cli.extrapolate import extrapolate
from service.cli.generate import generate
from service.cli.interpolate import interpolate
from service.cli.locate import locate
from service.cli.models import models
from service.cli.prototypes import prototypes
from service.cli.pull import pull
from service.cli.push import push
from service.cli.serve import serve
from service.cli.trace import trace
from service.cli.visualize import visualize
from service.client import (
    AnswerError,
    DeadlineError,
    OverloadedError,
    PatronusError,
    ServerError,
    UnreachableError,
)
from service.engine.errors import DeviceError
from service.settings import SettingsError
from service.version import program_version

REFUSED, USAGE, UNREACHABLE, BUSY, FAULT, INTERRUPTED = 1, 2, 3, 4, 5, 130
STATUSES: tuple[tuple[type[PatronusError], int], ...] = (  # the first match counts
    (UnreachableError, UNREACHABLE),
    (DeadlineError, BUSY),
    (OverloadedError, BUSY),
    (AnswerError, FAULT),
    (ServerError, FAULT),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(program_version(), prog_name="patronus")
def program() -> None:
    """Encode, generate, edit and explain images with learned visual prototypes.

    Commands run the model here (a shipped one, or that of --bundle), or ask a service (--url, or
    PATRONUS_CLIENT_URL). Images are files, folders or quoted globs. Results go to stdout and into
    files, everything else to stderr.

    \b
    Exit status:
      0    done
      1    refused, or some of the images could not be used
      2    wrong usage, file, setting or bundle
      3    the service, or the hub, cannot be reached
      4    out of time, or the service is busy; retries included
      5    the service failed
      130  interrupted
    """


COMMANDS = (
    serve, encode, locate, generate, edit, extrapolate, interpolate, visualize, trace, diagnose, prototypes,
    models, bench, push, pull, completion,
)  # fmt: skip
for command in COMMANDS:
    program.add_command(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """As `service.cli.main`."""
    try:
        status = program.main(arguments, prog_name="patronus", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # such as `| head`; nothing more may be written, at the interpreter's end neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except HubUnreachableError as error:
        return _fail(error, UNREACHABLE)
    except (SettingsError, BundleError, DeviceError) as error:
        return _fail(error, USAGE)
    except PatronusError as error:
        return _fail(error, next((status for kind, status in STATUSES if isinstance(error, kind)), REFUSED))
    except OSError as error:
        return _fail(error, USAGE)
    return status if isinstance(status, int) else 0


def _fail(error: Exception, status: int) -> int:
    click.echo(f"patronus: {error}", err=True)
    return status
