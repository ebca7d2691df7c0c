"""SIGKILL of real `ddrep finetune` processes, at random steps and at the worst moments of a step."""

import os
import random
import signal
import subprocess
import sys

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

def dying_save(content, draft):
    if (content["step"], "while the checkpoint is written") == (step + 1, moment):
        draft.write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    save(content, draft)

loop._update, loop.torch.save = dying_update, dying_save
sys.exit(main(sys.argv[3:]))
"""


def test_killed_at_three_random_steps_it_ends_bitwise_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finetune, "MARGIN_EVERY", 3)
    tiny.denoiser(dropout=0.3).save(tmp_path / "base.safetensors")
    write_shard(tmp_path / "train.tar", tiny.images())
    write_shard(tmp_path / "validation.tar", tiny.images("validation", per_class=5))
    stage = Stage[FineTune](seed=4, config=FineTune(steps=STEPS, batch=8, warmup=2, ema_decay=0.5, flip=True))

    def command(name: str) -> list[str]:
        inputs = ["--denoiser", "base.safetensors", "--train", "train.tar", "--validation", "validation.tar"]
        outputs = ["--out", f"{name}.safetensors", "--grid", f"{name}.png", "--history", f"{name}.parquet"]
        return ["finetune", "--stage", stage.model_dump_json(), *inputs, *outputs, "--log", f"{name}.log"]

    def start(step: int, moment: str) -> int:
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": os.pathsep.join(sys.path)}
        driver = [sys.executable, "-c", DRIVER, str(step), moment, *command("killed")]
        return subprocess.run(driver, env=os.environ | threads).returncode

    assert main(command("whole")) == 0
    chance = random.Random(20)
    moments = chance.sample(["before the step", "between weights and EMA", "while the checkpoint is written"], 3)
    for step, moment in zip(sorted(chance.sample(range(1, STEPS), 3)), moments, strict=True):
        assert start(step, moment) == -signal.SIGKILL, f"{moment} {step}"
        assert not list(tmp_path.glob("killed.[sp]*"))
        assert len(list(tmp_path.glob(".ddrep/state/finetune-*.pt"))) == 1
    assert start(-1, "never") == 0
    assert f"resuming at step {step}" in (tmp_path / "killed.log").read_text()
    for suffix in (".safetensors", ".png"):
        assert sha256(tmp_path / f"killed{suffix}") == sha256(tmp_path / f"whole{suffix}")
    history = pd.read_parquet("killed.parquet")
    assert history["step"].tolist() == [3, 6, 9, 12] and history.equals(pd.read_parquet("whole.parquet"))
    assert list(tmp_path.glob(".ddrep/state/*")) == [], "drafts of the killed are removed as well"
