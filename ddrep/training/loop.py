"""One resumable training loop for every network here: step seeds, EMA, clipping, checkpoints, progress."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ddrep import stopping
from ddrep.config import Pretrain, PretrainNVAE
from ddrep.errors import UserError
from ddrep.files import remove_abandoned, written_whole
from ddrep.training import parallel

log = logging.getLogger("ddrep")
N = TypeVar("N", bound=nn.Module)

SILENCE = 30.0
"""Seconds after which a line of the log is due."""
PATIENCE = 5
"""`LoopConfig.patience` for networks without batch statistics."""


@dataclass(frozen=True)
class LoopConfig:
    """What the loop itself needs; the optimiser's settings are in the optimiser."""

    steps: int
    seed: int
    ema_decay: float = 0.0
    """0 for none. The decay warms up as min(decay, (1 + step) / (10 + step))."""
    clip: float = 0.0
    """Largest gradient norm; 0 for no clipping, inf to look at the norm alone."""
    patience: int = 1
    """Steps in a row without a finite loss (and norm) at which training stops; if there are fewer, they are skipped.

    1 for networks with BatchNorm, whose statistics such a step has spoiled.
    """
    save_every: float = 60.0
    """Seconds between checkpoints; does not change the result."""
    log_every: int = 100


def step_seed(seed: int, step: int) -> int:
    """Seed of the global generator at one step, so that noise and dropout resume where they stopped."""
    return (seed * 1_000_003 + step) % 2**63


def cosine_with_warmup(steps: int, warmup: int) -> Callable[[int], float]:
    """Learning-rate factor of a step: linear warm-up, then half a cosine down to 0."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


def averaged(
    net: N, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor | Iterable[Tensor]],
    cfg: Pretrain | PretrainNVAE, *, seed: int, state: Path | None,
) -> N:  # fmt: skip
    """The EMA of a network that is trained without labels, as its section says; see `train`."""
    loop = LoopConfig(cfg.steps, seed, cfg.ema_decay, clip=cfg.clip or math.inf, patience=PATIENCE)
    factor = cosine_with_warmup(cfg.steps, cfg.warmup)
    return train(net.train(), optimizer, loss_at, loop, lr_factor=factor, state=state)


@stopping.saving()
def train(
    net: N, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor | Iterable[Tensor]], cfg: LoopConfig, *,
    lr_factor: Callable[[int], float] = lambda step: 1.0, state: Path | None = None,
    on_step: Callable[[int, N], None] | None = None, losses: Tensor | None = None, records: list | None = None,
) -> N:  # fmt: skip
    """Minimise `loss_at(step)` for cfg.steps steps and return the EMA of `net` (or `net` itself without EMA).

    `loss_at`: one loss, or partial losses, of which the graph of one at a time is in memory.
    `state`: file of the unfinished run, read if it is there; the caller removes it once the result is safe. Whatever
    `loss_at` draws from the global generator is seeded a step, so an interrupted run gives bitwise the weights of an
    unbroken one on a CPU. Asked to stop, it saves it and raises `Stopped`.
    `on_step(step, ema)` is called behind every step (1-based), under the EMA weights.
    `records`: what `on_step` appends to it is kept in the state; filled with what was there before an interruption.
    `losses` (cfg.steps,): filled with the loss of each step, also of those before an interruption; nan where skipped.
    Of several processes (ddrep.training.parallel) the first has the EMA, calls `on_step` and writes the state.
    Raises UserError when there is no finite loss for cfg.patience steps in a row.
    """
    first_process = parallel.rank() == 0
    ema = copy.deepcopy(net).requires_grad_(False) if cfg.ema_decay and first_process else net
    losses = torch.empty(cfg.steps, dtype=torch.float64) if losses is None else losses
    records = [] if records is None else records
    base_lrs = [g["lr"] for g in optimizer.param_groups]
    first = _resume(state, net, ema, optimizer, losses, records) if state else 0
    saved, started = time.monotonic(), time.monotonic()
    progress = _Progress(losses, first, cfg.log_every)
    for step in range(first, cfg.steps):
        torch.manual_seed(step_seed(cfg.seed, step))
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr * lr_factor(step)
        losses[step] = _update(net, optimizer, loss_at, step, cfg.clip)
        if losses[step].isnan():
            _skip(losses[: step + 1], cfg.patience)
        elif ema is not net:
            _follow(ema, net, min(cfg.ema_decay, (1 + step) / (10 + step)))
        progress.at(step + 1)
        if on_step and first_process:
            on_step(step + 1, ema)
        last = stopping.asked()
        if state and first_process and (last or time.monotonic() - saved > cfg.save_every):
            _save(state, step + 1, net, ema, optimizer, losses, records)
            saved = time.monotonic()
        stopping.stop_if(last)
    if state and first_process and time.monotonic() - started > cfg.save_every:
        _save(state, cfg.steps, net, ema, optimizer, losses, records)
    return ema


class _Progress:
    """Lines of the log that say where training is: every so many steps, and where these take long every SILENCE."""

    def __init__(self, losses: Tensor, first: int, every: int):
        self.losses, self.first, self.every = losses, first, every
        self.started = self.said = time.monotonic()
        self.since = first

    def at(self, step: int) -> None:
        """After as many steps."""
        now = time.monotonic()
        if step % self.every and now - self.said < SILENCE:
            return
        steps, speed = len(self.losses), (step - self.first) / max(now - self.started, 1e-9)
        loss, left = self.losses[self.since : step].nanmean(), (steps - step) / speed / 60
        log.info("step %d/%d loss %.4f, %.2f steps/s, %.1f min left", step, steps, loss, speed, left)
        self.said, self.since = now, step


def _update(
    net: nn.Module, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor | Iterable[Tensor]], step: int,
    clip: float,
) -> float:  # fmt: skip
    """Take one step and return its loss; nan if it was not taken, for the loss or the gradient norm is not finite."""
    optimizer.zero_grad(set_to_none=True)
    parts, losses = loss_at(step), []
    for part in [parts] if isinstance(parts, Tensor) else parts:
        part.backward()
        losses.append(part.detach())
    loss = parallel.mean(torch.stack(losses).sum())
    norm = nn.utils.clip_grad_norm_(net.parameters(), clip) if clip else torch.zeros_like(loss)
    value, length = torch.stack([loss, norm]).tolist()  # together, for a GPU is waited for
    if not math.isfinite(value) or not math.isfinite(length):
        return math.nan
    optimizer.step()
    return value


def _skip(losses: Tensor, patience: int) -> None:
    """Say that the last step was skipped; UserError if it is one of `patience` in a row."""
    step, skipped = len(losses) - 1, losses.isnan()
    if len(losses) >= patience and skipped[-patience:].all():
        often = f" for {patience} steps in a row" if patience > 1 else ""
        raise UserError(
            f"training: the loss or its gradient is not finite{often}, at step {step}; lower the learning rate (lr),"
            " or train in fp32 (precision)"
        )
    log.warning("step %d: loss or gradient not finite, step skipped; %d so far", step + 1, skipped.sum())


@torch.no_grad()
def _follow(ema: nn.Module, net: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
    for mine, theirs in zip(ema.buffers(), net.buffers(), strict=True):
        mine.copy_(theirs)


def _save(
    state: Path, step: int, net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, losses: Tensor,
    records: list,
) -> None:  # fmt: skip
    with written_whole(state) as (draft,):
        content = {"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "records": records}
        content |= {"losses": losses[:step].clone()} | ({"ema": ema.state_dict()} if ema is not net else {})
        with draft.open("wb") as file:  # given the name, torch before 2.12 stumbles over a dot at its beginning
            torch.save(content, file)


def _resume(
    state: Path, net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer, losses: Tensor, records: list
) -> int:
    """Steps done by the run that left `state`. Every process reads it, and none goes on before the others have.

    Another job of the same training may be at work: what it writes stays, and if it has saved or ended while some of
    the processes had read and others not, all read again.
    """
    if parallel.rank() == 0:
        remove_abandoned(state)
    device = next(net.parameters()).device
    while True:
        content = _read(state)
        step = content["step"] if content else 0
        if parallel.minimum(step, device) == -parallel.minimum(-step, device):
            break
    if content:
        _restore(state, content, net, ema, optimizer, losses, records)
        log.info("resuming at step %d from %s", step, state)
    return step


def _read(state: Path) -> dict[str, Any] | None:
    """What `_save` wrote; None where there is no state."""
    if state.exists() and not state.is_file() and not state.is_dir():  # a pipe would be waited for
        raise _unfit(state)
    try:
        content = dict(torch.load(state, map_location="cpu", weights_only=True))
        return content | {"step": int(content["step"])}
    except FileNotFoundError:
        return None
    except (PermissionError, IsADirectoryError):  # it may be whole
        raise
    except Exception:  # of arbitrary bytes the reader makes errors of many types
        raise _unfit(state) from None


def _restore(
    state: Path, content: dict[str, Any], net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer,
    losses: Tensor, records: list,
) -> None:  # fmt: skip
    try:
        net.load_state_dict(content["net"])
        _restore_moments(optimizer, content["optimizer"]["state"])
        losses[: len(content["losses"])] = content["losses"]
        records[:] = content["records"]
        if ema is not net:
            ema.load_state_dict(content["ema"])
        weights = [*net.parameters(), *ema.parameters()]  # statistics may be spoilt, and settled at the end
        if len(content["losses"]) != content["step"] or not all(t.isfinite().all() for t in weights):
            raise ValueError
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError):
        raise _unfit(state) from None


def _restore_moments(optimizer: torch.optim.Optimizer, moments: dict[int, dict[str, Tensor]]) -> None:
    """What the optimiser has gathered of each parameter; its settings stay its own. Raises ValueError for what is no
    such thing, for the optimisers would stumble over it at their next step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    one = nn.Parameter(torch.zeros(1))
    one.grad = torch.zeros(1)
    like = type(optimizer)([one])  # type: ignore[call-arg]
    like.step()
    for i, found in moments.items():
        if found.keys() != like.state[one].keys():
            raise ValueError(i)
        for name, t in found.items():
            shape = () if name == "step" else parameters[i].shape
            if t.shape != shape or not t.is_floating_point() or not t.isfinite().all() or (name == "step" and t < 0):
                raise ValueError(name)
    # copies, for a tensor in a file may have all its numbers in one place
    own = {i: {name: t.clone() for name, t in found.items()} for i, found in moments.items()}
    optimizer.load_state_dict({"state": own, "param_groups": optimizer.state_dict()["param_groups"]})


def _unfit(state: Path) -> UserError:
    return UserError(f"{state}: not the state of this training, or broken; remove it to start again")
