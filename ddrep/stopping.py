"""SIGTERM and SIGUSR1, by which schedulers ask a command to end: it saves what it has, and says that it will go on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN = os.EX_TEMPFAIL
"""The exit status (75): the same command goes on."""
WRITTEN = "all is written"
"""The last line of the log of a command that has done its work."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_saving = False
_asked: signal.Signals | None = None
_raised: KeyboardInterrupt | None = None


class Stopped(KeyboardInterrupt):
    """Asked to end. As an interrupt it passes by all that deals with errors."""


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Within, the signals raise `Stopped`, at once or where `saving` allows it. In the main thread alone, as Python
    has it. A library that is interrupted may end in an error of its own, which then is the interrupt again."""
    global _asked, _raised
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in the background
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _on_interrupt)
    try:
        yield
    except Exception as e:
        if _raised is None:
            raise
        raise _raised from e
    finally:
        _asked = _raised = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def saving() -> Iterator[None]:
    """Within, a first signal waits for `stop_if_asked`, which is called where what there is has been saved, or for the
    end; a second one does not."""
    global _saving
    before, _saving = _saving, True
    try:
        yield
    finally:
        _saving = before
    if not _saving:
        stop_if_asked()


def asked() -> bool:
    """Whether a signal waits for what there is to be saved."""
    return _asked is not None


def stop_if_asked() -> None:
    """Raise `Stopped` if a signal has come."""
    stop_if(asked())


def stop_if(told: bool) -> None:
    """The same, of one that was noticed before what there is was saved, and of no later one."""
    if told and _asked is not None:
        raise Stopped(_asked.name)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _asked, _raised
    first, _asked = _asked is None, signal.Signals(number)
    if not (first and _saving):
        _raised = Stopped(_asked.name)
        raise _raised


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    global _raised
    _raised = KeyboardInterrupt()
    raise _raised
