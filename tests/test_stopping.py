"""SIGTERM and SIGUSR1 of real commands: they save, end with the status for "again", and go on to the same bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from ddrep import stopping
from ddrep.cli import main
from ddrep.config import FineTune, Sampling, Shard, Stage, Synthesis
from ddrep.data.shards import write_shard
from ddrep.files import sha256
from ddrep.locks import lock_of
from ddrep.sampling.sampler import image_seed, sample
from ddrep.stopping import AGAIN, SIGNALS, Stopped
from tests import tiny
from tests.sampling.test_synthesis import CLASSES, _judge

STEPS, BATCH = 12, 2
SLOW = """
import sys, time
from pathlib import Path
from ddrep.cli import main
from ddrep.sampling import early
from ddrep.sampling.pool import Pool
from ddrep.training import loop

early.KEPT, early.MOST = 60, 200

update, add = loop._update, Pool.add

def slowly(of, name):
    def slow(*given):
        done = of(*given)
        Path(name).open("a").write("x")
        time.sleep(float(sys.argv[1]))
        return done
    return slow

loop._update, Pool.add = slowly(update, "steps"), slowly(add, "batches")
sys.exit(main(sys.argv[2:]))
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a command in this test's folder, each of whose steps and batches takes some seconds more."""
    monkeypatch.chdir(tmp_path)
    started: list[subprocess.Popen[str]] = []

    def begin(words: Sequence[str], seconds: float = 0.0) -> subprocess.Popen[str]:
        env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SLOW, str(seconds), *words]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def finetune(name: str) -> list[str]:
    stage = Stage[FineTune](seed=4, config=FineTune(steps=STEPS, batch=8, warmup=2, ema_decay=0.5, flip=True))
    inputs = ["--denoiser", "base.safetensors", "--train", "train.tar", "--validation", "validation.tar"]
    outputs = ["--out", f"{name}.safetensors", "--grid", f"{name}.png", "--history", f"{name}.parquet"]
    return ["finetune", "--stage", stage.model_dump_json(), *inputs, *outputs, "--log", f"{name}.log"]


def images_to_train_on() -> None:
    tiny.denoiser(dropout=0.3).save(Path("base.safetensors"))
    write_shard(Path("train.tar"), tiny.images())
    write_shard(Path("validation.tar"), tiny.images("validation", per_class=5))


def synthesize(name: str, early: bool = False) -> list[str]:
    settings = Synthesis(per_class=6, shards_per_scale=1, threshold=0.2, max_attempts=50, early_refusal=0.05 * early)
    shard = Shard(sampling=Sampling(steps=4, eta=1.0, guidance_scale=0.5), synthesis=settings)
    inputs = [
        "--pretrained",
        "pretrained.safetensors",
        "--finetuned",
        "finetuned.safetensors",
        "--judge",
        "judge.safetensors",
    ]
    options = ["--index", "0", "--batch", str(BATCH), "--pool", f"pool-{name}", "--log", f"{name}.log"]
    stage = Stage[Shard](seed=7, config=shard).model_dump_json()
    return ["synthesize", "--stage", stage, *inputs, *options, "--out", f"{name}.tar"]


def networks_to_draw_with() -> None:
    tiny.denoiser().save(Path("pretrained.safetensors"))
    finetuned = tiny.denoiser(CLASSES + 1, seed=1)
    finetuned.save(Path("finetuned.safetensors"))
    labels = [i % CLASSES for i in range(60)]
    seeds = [image_seed(7, c, 2, i) for i, c in enumerate(labels)]
    images = sample(finetuned, seeds, Sampling(steps=4, eta=1.0, guidance_scale=0.5), labels)
    _judge(Path("judge.safetensors"), Path("pretrained.safetensors"), "features", images)


def after(name: str, times: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many steps or batches are done."""
    while not (Path(name).exists() and Path(name).stat().st_size >= times):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


def told(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """It says in one line that it will go on."""
    assert process.stderr
    said = process.stderr.read()
    assert (process.wait(), said) == (AGAIN, f"ddrep: interrupted by {number.name}; the same command goes on\n")
    assert [path for path in Path().rglob(".*") if path.name != ".ddrep"] == [], "neither drafts nor locks are left"


@pytest.mark.parametrize("number", SIGNALS)
def test_training_saves_after_the_step_and_goes_on_bitwise(start: Start, number: signal.Signals) -> None:
    images_to_train_on()
    assert main(finetune("whole")) == 0
    process = start(finetune("stopped"), 0.2)
    after("steps", 3, process)
    process.send_signal(number)
    told(process, number)
    (state,) = Path(".ddrep/state").glob("finetune-*.pt")
    done = torch.load(state, weights_only=True)["step"]
    assert done == Path("steps").stat().st_size and 3 <= done < STEPS and not list(Path().glob("stopped.[sp]*"))
    assert start(finetune("stopped")).wait() == 0
    assert f"resuming at step {done}" in Path("stopped.log").read_text()
    for suffix in (".safetensors", ".png"):
        assert sha256(Path(f"stopped{suffix}")) == sha256(Path(f"whole{suffix}"))
    assert pd.read_parquet("stopped.parquet").equals(pd.read_parquet("whole.parquet"))
    assert list(Path(".ddrep/state").iterdir()) == []


DRAWN = {"SIGTERM": (signal.SIGTERM, False), "SIGUSR1": (signal.SIGUSR1, False), "early": (signal.SIGTERM, True)}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_shard_keeps_the_batch_and_goes_on_bitwise(start: Start, kind: str) -> None:
    number, early = DRAWN[kind]
    networks_to_draw_with()
    assert start(synthesize("whole", early)).wait() == 0
    Path("batches").unlink()
    drawn = len(list(Path("pool-whole").rglob("*.npz")))
    process = start(synthesize("stopped", early), 0.2)
    after("batches", 2, process)
    process.send_signal(number)
    told(process, number)
    kept = len(list(Path("pool-stopped").rglob("*.npz")))
    assert 2 <= kept < drawn and not Path("stopped.tar").exists()
    assert start(synthesize("stopped", early)).wait() == 0
    for suffix in (".tar", ".parquet"):
        assert sha256(Path(f"stopped{suffix}")) == sha256(Path(f"whole{suffix}"))


def test_a_second_signal_does_not_wait(start: Start) -> None:
    images_to_train_on()
    process = start(finetune("stopped"), 1000)
    after("steps", 1, process)
    process.terminate()
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    told(process, signal.SIGTERM)


def test_a_command_that_waits_for_another_ends_at_once(start: Start) -> None:
    images_to_train_on()
    first = start(finetune("stopped"), 1000)
    after("steps", 1, first)
    second = start([*finetune("stopped"), "--threads", "1"])
    assert second.stderr and f"waiting for process {first.pid}" in second.stderr.readline()
    second.terminate()
    assert second.wait() == AGAIN and lock_of(Path("stopped.safetensors")).exists()


@pytest.mark.parametrize("all_of_them", [True, False], ids=["all processes are told", "the first is told"])
def test_several_processes_end_together(start: Start, all_of_them: bool) -> None:
    import psutil

    images_to_train_on()
    process = start([*finetune("stopped")[:2], '{"config": {"steps": 1000000, "batch": 8}}',
                     *finetune("stopped")[3:], "--processes", "2", "--threads", "1"])  # fmt: skip
    while "step " not in (Path("stopped.log").read_text() if Path("stopped.log").exists() else ""):
        assert process.poll() is None
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    (os.killpg if all_of_them else os.kill)(process.pid, signal.SIGTERM)
    told(process, signal.SIGTERM)
    assert psutil.wait_procs(family, 20)[1] == []


@pytest.mark.parametrize("interrupt, status", [(Stopped("SIGTERM"), AGAIN), (KeyboardInterrupt(), 130)])
def test_an_error_that_an_interrupt_ends_in_is_the_interrupt(
    interrupt: KeyboardInterrupt, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in torch.save, whose writer closes with an error of its own."""

    def interrupted(**_: object) -> None:
        try:
            raise interrupt
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")

    monkeypatch.setattr("ddrep.generators.importers.run", interrupted)
    monkeypatch.setattr("ddrep.device.set_threads", lambda threads: None)
    assert main(["import-diffae", "last.ckpt", "--out", str(tmp_path / "d"), "--log", str(tmp_path / "log")]) == status


@pytest.mark.parametrize("number", [signal.SIGINT, *SIGNALS])
def test_an_error_that_an_interrupt_became_is_the_interrupt(number: signal.Signals) -> None:
    """Seen of safetensors, which reads tensors by calls that swallow it and end in a ValueError without a context."""

    def swallow() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(10)
        raise ValueError("could not determine the shape")

    with pytest.raises(KeyboardInterrupt) as caught, stopping.heard():
        swallow()
    assert isinstance(caught.value, Stopped) == (number != signal.SIGINT)
    with pytest.raises(ValueError, match="of its own"), stopping.heard():
        raise ValueError("of its own")
