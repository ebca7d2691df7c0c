from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.tree import Tree, copy_workflow, environment, link_networks


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The workflow as it is, with the embedded networks."""
    link_networks(tmp_path)
    return copy_workflow(tmp_path)


CLIENT = """#!/bin/sh
'''exec' "{python}" -IS "$0" "$@"
' '''
import json, os, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect("\\0{name}")  # a name that is no path, for these may be too long
    socket.send_fds(server, [b"-"], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder to put in front of PATH, whose `ddrep` has imported everything before it is called: see warm.py."""
    folder = tmp_path_factory.mktemp("warm")
    name, client = f"ddrep-tests-{os.getpid()}", folder / "ddrep"
    client.write_text(CLIENT.format(python=sys.executable, name=name), encoding="utf-8")
    client.chmod(0o755)
    command = [sys.executable, str(Path(__file__).with_name("warm.py")), name]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout and server.stdout.readline() == "ready\n"
        try:
            yield str(folder)
        finally:
            server.terminate()
