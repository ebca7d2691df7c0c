"""Locks of outputs: real processes, killed ones, and other machines' locks as this one sees them in a shared folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddrep import locks, processes
from ddrep.cli import main
from ddrep.data.shards import read_shards
from ddrep.locks import held, lock_of

HOLD = """
import sys, time
from pathlib import Path
from ddrep.locks import held
with held([Path(name) for name in sys.argv[2:]]):
    Path("held").touch()
    time.sleep(float(sys.argv[1]))
    Path("log").open("a").write("over\\n")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "POLL", 0.05)


Hold = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Start a process that holds the locks of outputs for some seconds; returns when it does."""
    started: list[subprocess.Popen[bytes]] = []

    def start(seconds: float, *outputs: str) -> subprocess.Popen[bytes]:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        started.append(subprocess.Popen([sys.executable, "-c", HOLD, str(seconds), *outputs], env=env))
        while not Path("held").exists():
            assert started[-1].poll() is None
            time.sleep(0.01)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def left_by(output: Path, age: float = 0.0, **changes: object) -> Path:
    """A lock as another process, or another machine, has left it."""
    here = {"host": socket.gethostname(), "machine": processes.host(), "boot": processes.boot(), "pid": os.getpid()}
    holder = here | {"started": processes.started(os.getpid()), "since": time.time(), "command": "ddrep data"} | changes
    lock = lock_of(output)
    lock.write_text(json.dumps(holder))
    os.utime(lock, (time.time() - age,) * 2)
    return lock


def test_a_second_process_waits_says_for_whom_and_goes_on(hold: Hold, caplog: pytest.LogCaptureFixture) -> None:
    first = hold(1.5, "a.tar", "a.parquet")
    with held([Path("a.parquet")]):
        assert Path("log").read_text() == "over\n"
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith(f"a.parquet: waiting for process {first.pid} on {socket.gethostname()} since ")
    assert first.wait() == 0 and not list(Path().glob(".*"))


def test_outputs_of_two_names_are_one(hold: Hold) -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real")
    hold(1.0, "real/a.tar")
    with held([Path("link/a.tar")]):
        assert Path("log").exists()


def test_the_lock_of_a_killed_holder_is_taken_at_once(hold: Hold) -> None:
    process = hold(1000, "a.tar")
    assert lock_of(Path("a.tar")).exists()
    process.kill()
    process.wait()
    began = time.monotonic()
    with held([Path("a.tar")]):
        assert json.loads(lock_of(Path("a.tar")).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 1 and not list(Path().glob(".*"))


Left = dict[str, tuple[int, dict[str, object]]]
DEAD: Left = {
    "another start of this machine": (0, {"boot": "another"}),
    "a process of this number that began at another time": (0, {"started": "1"}),
    "a process that is not there": (0, {"pid": 2**22}),
    "another machine, silent": (400, {"machine": "another", "host": "n7"}),
}


@pytest.mark.parametrize("kind", DEAD)
def test_a_dead_holders_lock_is_taken_away(kind: str) -> None:
    age, changes = DEAD[kind]
    lock = left_by(Path("a.tar"), age, **changes)
    with held([Path("a.tar")]):
        assert json.loads(lock.read_text())["machine"] == processes.host()
    assert not lock.exists()


LIVING: Left = {
    "this machine, silent": (10_000, {}),
    "another machine, heard of": (100, {"machine": "another", "host": "n7", "boot": "another", "pid": 2**22}),
}


@pytest.mark.parametrize("kind", LIVING)
def test_a_living_holder_is_waited_for(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    age, changes = LIVING[kind]
    lock, waited = left_by(Path("a.tar"), age, **changes), threading.Event()

    def end() -> None:
        waited.set()
        lock.unlink()

    threading.Timer(0.6, end).start()
    with held([Path("a.tar")]):
        assert waited.is_set()
    assert "a.tar: waiting for process" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1e30}', "\0\xff"])
def test_a_lock_that_says_nothing_goes_by_its_silence(content: str) -> None:
    lock = lock_of(Path("a.tar"))
    lock.write_text(content, encoding="latin-1")
    found = locks.look(lock)
    assert found and not found.dead and found.holder is None
    os.utime(lock, (time.time() - 400,) * 2)
    with held([Path("a.tar")]):
        pass
    assert not lock.exists()


def test_a_holder_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.05)
    with held([Path("a.tar")]):
        os.utime(lock_of(Path("a.tar")), (0, 0))
        time.sleep(0.5)
        assert abs(lock_of(Path("a.tar")).stat().st_mtime - time.time()) < 10


def test_of_many_that_find_a_dead_holder_one_at_a_time_has_the_lock(hold: Hold) -> None:
    """8 processes at once at an abandoned lock: none is within while another is."""
    code = """
import os, sys, time
from pathlib import Path
from ddrep import locks
locks.POLL = 0.01
print(flush=True)
sys.stdin.readline()
with locks.held([Path("a.tar")]):
    number = os.open("within", os.O_CREAT | os.O_EXCL)
    time.sleep(0.05)
    os.unlink("within")
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    left_by(Path("a.tar"), pid=2**22)
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    all_of_them = [subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe) for _ in range(8)]
    for each in all_of_them:
        assert each.stdout and each.stdout.readline()
    for each in all_of_them:
        assert each.stdin
        each.stdin.write(b"\n")
        each.stdin.close()
    assert [each.wait() for each in all_of_them] == [0] * 8
    assert not list(Path().glob(".*"))


def test_a_lock_that_is_anothers_by_now_is_left() -> None:
    with held([Path("a.tar")]):
        lock = left_by(Path("a.tar"), machine="another")
    assert lock.exists()


def test_folders_in_which_nothing_came_to_be_are_taken_away() -> None:
    with pytest.raises(RuntimeError), held([Path("new/folder/a.tar"), Path("new/b.tar")]):
        raise RuntimeError
    assert not Path("new").exists()
    with held([Path("new/a.tar")]):
        Path("new/a.tar").touch()
    assert [path.name for path in Path("new").iterdir()] == ["a.tar"]


def test_a_name_of_any_length_has_a_lock() -> None:
    with held([Path("x" * 255)]):
        assert len(list(Path().glob(".*.lock"))) == 1


def test_two_commands_of_one_output_and_one_log(hold: Hold) -> None:
    """Real commands: the second waits before it begins the first one's log anew, and both succeed."""
    words = ["data", "--split", "test", "--out", "a.tar", "--log", "log/a.log"]
    words += ["--stage.config.embedded.test-images", "20"]
    commands = [subprocess.Popen([sys.executable, "-m", "ddrep", *words]) for _ in range(2)]
    assert [command.wait() for command in commands] == [0, 0]
    assert len(read_shards([Path("a.tar")])) == 20
    assert Path("log/a.log").read_text().count(" ddrep data ") == 1, "the second's own log"
    assert {path.name for path in Path().rglob("*") if path.is_file()} == {"a.tar", "a.log"}


def test_a_verb_holds_all_that_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def look(**_: object) -> None:
        seen.append({path.name for path in Path().rglob(".*.lock")})

    monkeypatch.setattr("ddrep.sampling.synthesis.run", look)
    inputs = ["--judge", "j", "--pretrained", "p", "--finetuned", "f", "--pool", "pool", "--index", "0"]
    assert main(["synthesize", *inputs, "--out", "s/0.tar", "--log", "l.log"]) == 0
    assert seen == [{".0.tar.lock", ".0.parquet.lock", ".l.log.lock"}]
    assert main(["synthesize", *inputs, "--out", "s/0.tar", "--log", os.devnull]) == 0
    assert seen[1] == {".0.tar.lock", ".0.parquet.lock"}
