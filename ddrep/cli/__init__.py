"""`ddrep VERB`: one verb for each rule of the workflow, its options made from the typed config.

Every import that costs time is inside the verb that needs it, for the workflow starts many short commands.
"""

from __future__ import annotations

import contextlib
import io
import keyword
import logging
import os
import re
import signal
import sys
from importlib import import_module
from typing import Any

from pydantic import Field, ValidationError, create_model
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict, SettingsError

from ddrep import stopping
from ddrep.cli.base import Verb, log
from ddrep.config import explain
from ddrep.errors import complaint

MODULES = (
    "init", "plan", "config", "stages", "exchange", "guidance", "evaluation", "sample", "guidance_reporting",
    "reporting",
)  # fmt: skip
"""Of this room, in the order of `ddrep --help`."""


class Base(BaseSettings):
    """Labelled training images from an unconditional diffusion model."""

    model_config = SettingsConfigDict(
        cli_prog_name="ddrep",
        cli_enforce_required=False,
        cli_exit_on_error=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
    )

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def verbs() -> dict[str, type[Verb]]:
    """Name -> the class of each verb: those of the modules that are no base of others."""
    rooms = [import_module(f"ddrep.cli.{name}") for name in MODULES]
    classes = [each for room in rooms for each in vars(room).values() if isinstance(each, type)]
    found = dict.fromkeys(each for each in classes if issubclass(each, Verb) and not each.__subclasses__())
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", each.__name__).lower(): each for each in found}


def _field(name: str, verb: type[Verb]) -> tuple[str, Any]:
    kind = CliSubCommand[verb]  # type: ignore[valid-type]
    return (f"{name}_", (kind, Field(alias=name))) if keyword.iskeyword(name) else (name, (kind, ...))


Ddrep: type[Base] = create_model(
    "Ddrep", __doc__=Base.__doc__, __base__=Base, **dict(_field(*each) for each in verbs().items())
)


def main(args: list[str] | None = None) -> int:
    """Exit status: 0; 2 with one line on standard error for what the user can mend; 130 when interrupted, and 75 when
    asked to end by SIGTERM or SIGUSR1, after which the same command goes on.

    Where the reader of standard output has gone, as in `ddrep plan | head`, it ends without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of any locale is better seen as numbers than not at all
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(sys.argv[1:] if args is None else args)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _mute()
        return 128 + signal.SIGPIPE
    except OSError as e:
        _mute()
        return _say(f"standard output: {str(e.strerror).lower()}; what was to be printed is lost", 2)


def _mute() -> None:
    """Nothing more goes to standard output, which Python flushes again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str]) -> int:
    try:
        with stopping.heard():
            CliApp.run(Ddrep, cli_args=args)
        return 0
    except stopping.Stopped as e:
        return _say(f"interrupted by {e}; the same command goes on", stopping.AGAIN)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on", 128 + signal.SIGINT)
    except BrokenPipeError:
        raise
    except ValidationError as e:
        return _say(explain(e), 2)
    except SettingsError as e:
        return _say(" ".join(str(e).split()).split(" usage: ")[0], 2)
    except Exception as e:
        if message := complaint(e):
            return _say(message, 2)
        log.exception("ddrep: a defect, or a machine at its limits; please report it with these lines")
        raise


def _say(message: str, status: int) -> int:
    """One line on standard error, and in the log if that is a file: where either can be written."""
    with contextlib.suppress(OSError):
        if log.handlers and isinstance(log.handlers[0], logging.FileHandler):
            log.error("ddrep: %s", message)
    with contextlib.suppress(OSError):
        print(f"ddrep: {message}", file=sys.stderr, flush=True)
    return status
