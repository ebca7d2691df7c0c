"""`ddrep` for tests of whole workflows: each command is a process of its own, forked from one that has imported all.

Most of what small jobs take is the import of torch, some seconds a job, which says nothing of the workflow. Tests of
processes themselves (killed, told to end, on a cluster) call the installed command.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import traceback

import ddrep
from ddrep import cli

BESIDE = ("matplotlib.pyplot", "sklearn.linear_model", "sklearn.model_selection", "timm", "torchvision")
"""What verbs import once they run."""


def serve(name: str) -> None:
    for module in pkgutil.walk_packages(ddrep.__path__, "ddrep."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for beside in BESIDE:
        importlib.import_module(beside)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(64)
        listener.settimeout(10)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        tests = os.getppid()
        while os.getppid() == tests:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                os._exit(_run(client))
            client.close()


def _run(client: socket.socket) -> int:
    """A command as its caller has it: streams, folder and environment. Its status goes to the caller."""
    _, streams, *_ = socket.recv_fds(client, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115 until the end
    arguments, here, env = json.load(client.makefile(encoding="utf-8"))
    os.chdir(here)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["ddrep", *arguments]
    status = 1
    try:
        status = cli.main()
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    client.sendall(bytes([status]))
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
