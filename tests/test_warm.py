"""Commands that are forked from a warm process, beside the same that do the work themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ddrep import warm
from ddrep.config import FineTune, Stage
from ddrep.stopping import AGAIN
from tests.test_stopping import images_to_train_on

DDREP = [sys.executable, "-m", "ddrep"]
DATA = ["data", "--split", "validation", "--threads", "1", "--log", "log", "--out"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """In which commands find a warm process: in a folder whose path is longer than a socket's may be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("x" * 120)))
        patched.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.delenv(warm.FOLDER, raising=False)
        warm.start(warm.WORTH)
        env = dict(os.environ)
    folder, server = Path(env[warm.FOLDER]), warm._server
    assert server and server.stdin and folder.stat().st_mode & 0o777 == 0o700
    os.environ.pop(warm.FOLDER, None)
    wait_for(lambda: (folder / warm.SOCKET).exists())
    yield env
    server.stdin.close()
    assert server.wait(60) == 0 and not folder.exists()


def wait_for(holds: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def call(words: Sequence[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DDREP, *words], env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def training(here: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A fine-tune of many steps that goes on, and the process that was forked for it."""
    images_to_train_on()
    stage = Stage[FineTune](seed=4, config=FineTune(steps=10**6, batch=8, warmup=2))
    inputs = ["--denoiser", "base.safetensors", "--train", "train.tar", "--validation", "validation.tar"]
    outputs = ["--out", "x.safetensors", "--grid", "x.png", "--history", "x.parquet", "--log", "log"]
    words = ["finetune", "--stage", stage.model_dump_json(), *inputs, *outputs]
    with subprocess.Popen([*DDREP, *words], env=environment, stderr=subprocess.PIPE, text=True) as caller:
        wait_for(lambda: Path("log").exists() and "step 1" in Path("log").read_text(encoding="utf-8"))
        parents = {pid: int(status.split()[3]) for pid, status in processes().items()}
        server = warm._server
        assert server
        (job,) = (pid for pid, parent in parents.items() if parent == server.pid)
        yield caller, job
        for pid in (caller.pid, job):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes() -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            found[int(entry.name)] = (entry / "stat").read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize(
    "words", [["--version"], [*DATA, "x.tar"], ["data", "--split", "dev", "--log", "log", "--out", "x.tar"], ["dada"]]
)
def test_a_command_says_and_writes_the_same(words: list[str], here: Path, environment: dict[str, str]) -> None:
    said, files = [], []
    for env in (environment, environment | {warm.FOLDER: ""}):
        done = call(words, env)
        said.append((done.returncode, done.stdout, done.stderr))
        files.append({path.name: path.read_bytes() for path in here.iterdir() if path.name != "log"})
        for path in here.iterdir():
            path.unlink()
    assert said[0] == said[1] and files[0] == files[1]
    assert ("x.tar" in files[0]) == (said[0][0] == 0 and words[0] == "data")


@pytest.mark.parametrize("number", warm.HEARD)
def test_a_signal_reaches_the_job(number: signal.Signals, training: tuple[subprocess.Popen[str], int]) -> None:
    caller, job = training
    caller.send_signal(number)
    _, said = caller.communicate(timeout=60)
    assert caller.returncode == (130 if number == signal.SIGINT else AGAIN), said
    assert "the same command goes on" in said
    wait_for(lambda: job not in processes(), 10)


def test_a_signal_to_all_processes_counts_once(training: tuple[subprocess.Popen[str], int]) -> None:
    """As schedulers send it: a second one would end the job before it has saved."""
    caller, job = training
    state = lambda: list(Path(".ddrep/state").glob("finetune*"))  # noqa: E731
    assert not state()
    for pid in (caller.pid, job):
        os.kill(pid, signal.SIGTERM)
    _, said = caller.communicate(timeout=60)
    assert caller.returncode == AGAIN and "the same command goes on" in said
    assert state()


def test_a_caller_that_is_killed_takes_its_job_along(training: tuple[subprocess.Popen[str], int]) -> None:
    caller, job = training
    caller.kill()
    wait_for(lambda: job not in processes(), 10)


def test_a_job_that_is_killed_says_so(training: tuple[subprocess.Popen[str], int], environment: dict[str, str]) -> None:
    caller, job = training
    os.kill(job, signal.SIGKILL)
    assert caller.wait(60) == 128 + signal.SIGKILL
    assert call(["--version"], environment).returncode == 0, "the others' process goes on"


def test_another_installation_does_the_work_itself(
    here: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(warm.FOLDER, environment[warm.FOLDER])
    monkeypatch.setattr(sys, "prefix", "/another")
    assert warm.hand_over(["--version"]) is None
    monkeypatch.setenv(warm.FOLDER, str(here))
    assert warm.hand_over(["--version"]) is None, "where no process is"


def test_where_no_socket_can_be_made_one_line_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    (folder / warm.SOCKET).mkdir(parents=True)
    server = subprocess.run(
        [sys.executable, "-m", "ddrep.warm", str(folder)],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
    )
    line = f"ddrep: {folder}: Address already in use; every job starts by itself, seconds later\n"
    assert (server.returncode, server.stderr, folder.exists()) == (0, line, False)
