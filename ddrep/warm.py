"""The commands of one workflow run, each forked from a process that has imported all.

Most of what a small job takes is the import of torch. So the workflow starts one such process beside itself, and names
its folder in `DDREP_WARM`; a `ddrep` that finds it there hands over its streams, folder, environment and arguments, and
waits. The job is a process of its own: it hears the signals that its caller is sent, and ends where that one is killed.
Where there is no such process, as on the nodes of a cluster, or it is of another installation, `ddrep` does the work
itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

from ddrep import stopping

FOLDER = "DDREP_WARM"
SOCKET = "socket"
WORTH = 4
"""Jobs of a run from which on it is worth an import beside them."""
_server: subprocess.Popen[bytes] | None = None
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""What a job is told that its caller is told."""
BESIDE = ("matplotlib.pyplot", "sklearn.linear_model", "sklearn.model_selection", "timm", "torchvision")
"""What verbs import once they run."""


def start(jobs: int) -> None:
    """Fork the commands of this process's children from now on, until it ends; unless its own caller does already, or
    so few jobs are not worth it.

    On Linux alone: a process that has loaded macOS's frameworks does not survive a fork for sure.
    """
    global _server
    if jobs < WORTH or FOLDER in os.environ or sys.platform != "linux":
        return
    folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="ddrep-")  # which is the user's alone
    # its standard input tells it of the end, however that comes
    command = [sys.executable, "-P", "-m", __name__, folder]
    _server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)


def hand_over(arguments: list[str]) -> int | None:
    """The exit status of `ddrep ARGUMENTS`, done by the process of `FOLDER`; None where that does not take it."""
    with socket.socket(socket.AF_UNIX) as server:
        try:
            call = json.dumps([_installation(), arguments, os.getcwd(), dict(os.environ)])
            server.connect(_address(os.environ[FOLDER]))
            socket.send_fds(server, [b"."], [0, 1, 2])
            server.sendall(call.encode() + b"\n")
            answers = server.makefile(encoding="utf-8")
            if not answers.readline():
                return None
        except OSError:
            return None

        def forward(number: int, frame: FrameType | None) -> None:
            with contextlib.suppress(OSError):
                server.send(bytes([number]))

        for number in HEARD:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as an interrupt is in the background
                signal.signal(number, forward)
        # without an answer it was killed, as by a kernel that is short of memory
        return int(answers.readline() or 128 + signal.SIGKILL)


def serve(folder: Path) -> None:
    """Import all, then fork a process for each call, until the standard input ends."""
    import ddrep

    for module in pkgutil.walk_packages(ddrep.__path__, "ddrep."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for beside in BESIDE:
        importlib.import_module(beside)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_address(folder))
        listener.listen(1024)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            caller, _ = listener.accept()
            if os.fork() == 0:
                try:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    listener.close()
                    _job(caller)
                finally:
                    os._exit(0)
            caller.close()


def _address(folder: str | Path) -> str:
    """Of its socket: a short one, for no socket takes a path of more than 107 bytes."""
    return f"/proc/self/fd/{os.open(folder, os.O_PATH)}/{SOCKET}"


def _installation() -> list[str]:
    """Of Python, and of ddrep: another one, as in a rule's own environment, has other versions."""
    return [sys.prefix, __file__]


def _job(caller: socket.socket) -> None:
    """A command as its caller has it. Its status goes to the caller."""
    _, streams, *_ = socket.recv_fds(caller, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    encoding = sys.stdout.encoding
    sys.stdout, sys.stderr = (
        open(number, "w", encoding=encoding, buffering=1, closefd=False)  # noqa: SIM115 until the end
        for number in (1, 2)
    )
    installation, arguments, folder, env = json.loads(caller.makefile(encoding="utf-8").readline())
    if installation != _installation():
        return
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["ddrep", *arguments]
    caller.sendall(b"taken\n")
    threading.Thread(target=_listen, args=(caller,), daemon=True).start()
    status = 1
    try:
        status = importlib.import_module("ddrep.cli").main(arguments)
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
    caller.sendall(f"{status}\n".encode())


def _listen(caller: socket.socket) -> None:
    """Pass on what the caller hears. One that is killed takes its job with it, as it would if it did the work itself.

    A scheduler that signals all processes of an allocation reaches the job by itself as well: of those two it shall
    hear one, for a second one ends it without saving.
    """
    first, job = True, threading.main_thread().ident or 0
    while number := caller.recv(1):
        time.sleep(0.1 * first)
        if not (first and stopping.asked()):
            signal.pthread_kill(job, number[0])
        first = False
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]))
    except OSError as e:  # as of a file system that has no sockets
        print(f"ddrep: {sys.argv[1]}: {e.strerror or e}; every job starts by itself, seconds later", file=sys.stderr)
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)
    os._exit(0)  # for all that has been imported takes a second to be taken down
