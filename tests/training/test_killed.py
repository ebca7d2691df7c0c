"""SIGKILL of real `ddrep finetune` processes, at random steps and at the worst moments of a step."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch

from ddrep.cli import main
from ddrep.config import FineTune, Stage
from ddrep.data.shards import write_shard
from ddrep.files import sha256
from ddrep.training import finetune
from tests import tiny

STEPS = 12
DRIVER = """
import itertools, os, signal, sys
from ddrep.cli import main
from ddrep.training import finetune, loop

step, moment = int(sys.argv[1]), sys.argv[2]
finetune.MARGIN_EVERY = 3
clock = itertools.count(0, 100)
loop.time.monotonic = lambda: float(next(clock))  # every step is past the time for a checkpoint
update, save = loop._update, loop.torch.save

def dying_update(net, optimizer, loss_at, at, clip):
    if (at, "before the step") == (step, moment):
        os.kill(os.getpid(), signal.SIGKILL)
    loss = update(net, optimizer, loss_at, at, clip)
    if (at, "between weights and EMA") == (step, moment):
        os.kill(os.getpid(), signal.SIGKILL)
    return loss

def dying_save(content, file):
    if (content["step"], "while the checkpoint is written") == (step + 1, moment):
        file.write(b"half of it")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, file)

loop._update, loop.torch.save = dying_update, dying_save
sys.exit(main(sys.argv[3:]))
"""


def _inputs() -> None:
    """A denoiser and images in the current folder."""
    tiny.denoiser(dropout=0.3).save(Path("base.safetensors"))
    write_shard(Path("train.tar"), tiny.images())
    write_shard(Path("validation.tar"), tiny.images("validation", per_class=5))


def _command(name: str, log: str) -> list[str]:
    stage = Stage[FineTune](seed=4, config=FineTune(steps=STEPS, batch=8, warmup=2, ema_decay=0.5, flip=True))
    inputs = ["--denoiser", "base.safetensors", "--train", "train.tar", "--validation", "validation.tar"]
    outputs = ["--out", f"{name}.safetensors", "--grid", f"{name}.png", "--history", f"{name}.parquet"]
    return ["finetune", "--stage", stage.model_dump_json(), *inputs, *outputs, "--log", log]


def _start(driver: str, step: int, moment: str, log: str, name: str = "killed") -> subprocess.Popen[bytes]:
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", driver, str(step), moment, *_command(name, log)]
    return subprocess.Popen(command, env=os.environ | threads)


def _ends_as_if_nothing_had_been(name: str = "killed") -> None:
    for suffix in (".safetensors", ".png"):
        assert sha256(Path(f"{name}{suffix}")) == sha256(Path(f"whole{suffix}"))
    history = pd.read_parquet(f"{name}.parquet")
    assert history["step"].tolist() == [3, 6, 9, 12] and history.equals(pd.read_parquet("whole.parquet"))
    assert list(Path().glob(".ddrep/state/*")) == [], "drafts of the killed are removed as well"
    assert [path for path in Path().iterdir() if path.name.startswith(".") and path.name != ".ddrep"] == []


def test_killed_at_three_random_steps_it_ends_bitwise_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finetune, "MARGIN_EVERY", 3)
    _inputs()
    assert main(_command("whole", "whole.log")) == 0
    chance = random.Random(20)
    moments = chance.sample(["before the step", "between weights and EMA", "while the checkpoint is written"], 3)
    for step, moment in zip(sorted(chance.sample(range(1, STEPS), 3)), moments, strict=True):
        assert _start(DRIVER, step, moment, "killed.log").wait() == -signal.SIGKILL, f"{moment} {step}"
        assert not list(tmp_path.glob("killed.[sp]*"))
        assert len(list(tmp_path.glob(".ddrep/state/finetune-*.pt"))) == 1
    assert _start(DRIVER, -1, "never", "killed.log").wait() == 0
    assert f"resuming at step {step}" in (tmp_path / "killed.log").read_text()
    _ends_as_if_nothing_had_been()


START = """
from pathlib import Path
from time import sleep
resume = loop._resume

def slow_update(*given):
    while moment == "first" and not Path("go").exists():
        sleep(0.01)
    sleep(0.3)
    return dying_update(*given)

def slow_save(content, file):
    save(content, file)
    sleep(0.2)

def late_resume(state, *given):
    if moment == "second":
        Path("go").touch()
        while not list(state.parent.glob(".*")):
            sleep(0.01)
    done = resume(state, *given)
    Path(f"ready-{moment}").touch()
    return done

loop._update, loop.torch.save, loop._resume = slow_update, slow_save, late_resume
"""
RACER = DRIVER.replace("loop._update, loop.torch.save = dying_update, dying_save", START)
"""The second begins while the first writes its state; both are slow enough to be met while they train."""


def test_two_jobs_of_one_training_race_and_are_killed_at_random(tmp_path, monkeypatch):
    """Of one state, as they would be beside one another but for the locks of outputs, each saving at every step."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finetune, "MARGIN_EVERY", 3)
    _inputs()
    assert main(_command("whole", "whole.log")) == 0
    chance, logs = random.Random(8), [Path("0.log"), Path("1.log")]
    for _ in range(2):
        jobs = _race(logs)
        while not list(Path(".ddrep/state").glob("finetune-*.pt")):  # on a slow machine the first takes a while
            assert all(job.poll() is None for job in jobs)
            time.sleep(0.02)
        for job in chance.sample(jobs, 2):
            time.sleep(chance.uniform(0.3, 0.7))
            job.kill()
            assert job.wait() == -signal.SIGKILL
        (state,) = Path(".ddrep/state").glob("finetune-*.pt")
        assert 0 < torch.load(state, weights_only=True)["step"] < STEPS
    assert [job.wait() for job in _race(logs)] == [0, 0]
    assert all("resuming at step" in log.read_text() for log in logs)
    for name in ("killed", "second"):
        _ends_as_if_nothing_had_been(name)


def _race(logs: list[Path]) -> list[subprocess.Popen[bytes]]:
    """Two jobs of one training, both in it."""
    for file in [*Path().glob("ready-*"), Path("go")]:
        file.unlink(missing_ok=True)
    first, second = logs
    jobs = [_start(RACER, -1, "first", first.name), _start(RACER, -1, "second", second.name, "second")]
    while len(list(Path().glob("ready-*"))) < 2:
        assert all(job.poll() is None for job in jobs)
        time.sleep(0.02)
    return jobs
