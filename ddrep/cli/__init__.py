"""`ddrep VERB`: one verb for each rule of the workflow, its options made from the typed config.

Every import that costs time is inside the verb that needs it, for the workflow starts many short commands.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import logging
import os
import signal
import sys
from collections.abc import Iterator

import ddrep
from ddrep import stopping
from ddrep.cli.index import Entry, verbs
from ddrep.errors import UserError, complaint
from ddrep.files import WRITING
from ddrep.registry import declare_members

log = logging.getLogger("ddrep")
# Before torch is there: threads that wait for each other leave their core to other processes. On an idle CPU that costs
# two of them a tenth of their speed, beside others it saves more the more there are (benchmarks/threads.py).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main(args: list[str] | None = None) -> int:
    """Exit status: 0; 2 with one line on standard error for what the user can mend; 130 when interrupted, and 75 when
    asked to end by SIGTERM or SIGUSR1, after which the same command goes on.

    Where the reader of standard output has gone, as in `ddrep plan | head`, it ends without a word.
    """
    _open_closed_streams()
    if args is None and os.environ.get("DDREP_WARM"):
        from ddrep import warm

        if (status := warm.hand_over(sys.argv[1:])) is not None:
            return status
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of any locale is better seen as numbers than not at all
            stream.reconfigure(errors="backslashreplace")
    with _log_of_the_call():
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


def _open_closed_streams() -> None:
    """Streams that are closed, as a daemon's may be, lead nowhere, or a file would be taken for one."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 until the end


@contextlib.contextmanager
def _log_of_the_call() -> Iterator[None]:
    """Messages go to the log that a verb opens until its end; a process that calls several has its own back then."""
    before = log.handlers[:]
    try:
        yield
    finally:
        opened = [handler for handler in log.handlers if handler not in before]
        log.handlers[:] = before
        for handler in opened:
            with contextlib.suppress(OSError):  # a log that could not be written has ended its verb with that line
                handler.close()


def _mute() -> None:
    """Nothing more goes to standard output, which Python flushes again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str]) -> int:
    try:
        declare_members()
        known = verbs()
        if args and args[0] in known:
            from ddrep.cli.call import call

            with stopping.heard():
                call(args[0], known[args[0]].load(), args)
        else:
            _explain(args, known)
        return 0
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as e:
        interrupt = _interrupt(e)
        if isinstance(interrupt, stopping.Stopped):
            return _say(f"interrupted by {interrupt}; the same command goes on", stopping.AGAIN)
        if interrupt:
            return _say("interrupted; the same command goes on", 128 + signal.SIGINT)
        if isinstance(e, OSError) and e.filename is None and e.errno in WRITING:
            raise  # of standard output, for files are named
        if message := complaint(e):
            return _say(message, 2)
        log.exception("ddrep: a defect, or a machine at its limits; please report it with these lines")
        raise


def _interrupt(e: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an error is, or came of: torch, interrupted where it writes, ends in an error of its own."""
    while e is not None and not isinstance(e, KeyboardInterrupt):
        e = e.__context__
    return e


def _explain(args: list[str], known: dict[str, Entry]) -> None:
    """What `ddrep --help` and `ddrep --version` print; of anything else, that it is no verb."""
    if not args:
        raise UserError("no verb is given; ddrep --help lists them")
    if args[0] == "--version":
        print(f"ddrep {ddrep.__version__}")
        return
    if args[0] not in ("-h", "--help"):
        near = ", ".join(difflib.get_close_matches(args[0], known, 3))
        raise UserError(f"{args[0]}: no such verb{f' (there is: {near})' if near else ''}; ddrep --help lists them")
    about = "Labelled training images from an unconditional diffusion model. Each verb has a --help of its own."
    parser = argparse.ArgumentParser("ddrep", "ddrep VERB ...", about, add_help=False)
    groups = {verb.group: parser.add_argument_group(verb.group) for verb in known.values()}
    for name, verb in known.items():
        groups[verb.group].add_argument(name, help=verb.help.replace("%", "%%"))
    parser.print_help()


def _say(message: str, status: int) -> int:
    """One line on standard error, and in the log if that is a file: where either can be written."""
    with contextlib.suppress(OSError):
        if log.handlers and isinstance(log.handlers[0], logging.FileHandler):
            log.error("ddrep: %s", message)
    with contextlib.suppress(OSError):
        print(f"ddrep: {message}", file=sys.stderr, flush=True)
    return status
