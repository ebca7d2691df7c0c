"""One resumable training loop for every network here: step seeds, EMA, clipping, checkpoints, progress."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddrep.errors import UserError
from ddrep.files import written_whole

log = logging.getLogger("ddrep")
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class LoopConfig:
    """What the loop itself needs; the optimiser's settings are in the optimiser."""

    steps: int
    seed: int
    ema_decay: float = 0.0
    """0 for none. The decay warms up as min(decay, (1 + step) / (10 + step))."""
    clip: float = 0.0
    """Largest gradient norm; 0 for no clipping."""
    save_every: float = 60.0
    """Seconds between checkpoints; does not change the result."""
    log_every: int = 100


def step_seed(seed: int, step: int) -> int:
    """Seed of the global generator at one step, so that noise and dropout resume where they stopped."""
    return (seed * 1_000_003 + step) % 2**63


def cosine_with_warmup(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(
    net: N,
    optimizer: torch.optim.Optimizer,
    loss_at: Callable[[int], Tensor],
    cfg: LoopConfig,
    *,
    lr_factor: Callable[[int], float] = lambda step: 1.0,
    state: Path | None = None,
    on_step: Callable[[int, N], None] | None = None,
) -> N:
    """Minimise `loss_at(step)` for cfg.steps steps and return the EMA of `net` (or `net` itself without EMA).

    `state`: file of the unfinished run, read if it is there; the caller removes it once the result is safe. Whatever
    `loss_at` draws from the global generator is seeded a step, so an interrupted run gives bitwise the weights of an
    unbroken one on a CPU.
    `on_step(step, ema)` is called behind every step (1-based), under the EMA weights.
    """
    ema = _ema_of(net) if cfg.ema_decay else net
    base_lrs = [g["lr"] for g in optimizer.param_groups]
    first = _resume(state, net, ema, optimizer) if state else 0
    saved, started, running = time.monotonic(), time.monotonic(), 0.0
    for step in range(first, cfg.steps):
        torch.manual_seed(step_seed(cfg.seed, step))
        for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = lr * lr_factor(step)
        loss = _update(net, optimizer, loss_at, step, cfg.clip)
        if ema is not net:
            _follow(ema, net, min(cfg.ema_decay, (1 + step) / (10 + step)))
        running = loss if step == first else 0.98 * running + 0.02 * loss
        if (step + 1) % cfg.log_every == 0:
            speed = (step + 1 - first) / (time.monotonic() - started)
            log.info("step %d/%d loss %.4f, %.2f steps/s", step + 1, cfg.steps, running, speed)
        if on_step:
            on_step(step + 1, ema)
        if state and time.monotonic() - saved > cfg.save_every:
            _save(state, step + 1, net, ema, optimizer)
            saved = time.monotonic()
    if state and time.monotonic() - started > cfg.save_every:
        _save(state, cfg.steps, net, ema, optimizer)
    return ema


def _update(
    net: nn.Module, optimizer: torch.optim.Optimizer, loss_at: Callable[[int], Tensor], step: int, clip: float
) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = loss_at(step)
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(f"training: the loss is {value} at step {step}; lower the learning rate")
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    return value


def _ema_of(net: N) -> N:
    return copy.deepcopy(net).requires_grad_(False)


@torch.no_grad()
def _follow(ema: nn.Module, net: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(net.parameters()), 1 - decay)
    for mine, theirs in zip(ema.buffers(), net.buffers(), strict=True):
        mine.copy_(theirs)


def _save(state: Path, step: int, net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with written_whole(state) as (draft,):
        content = {"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(content | ({"ema": ema.state_dict()} if ema is not net else {}), draft)


def _resume(state: Path, net: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not state.exists():
        return 0
    try:
        content = torch.load(state, weights_only=True)
        net.load_state_dict(content["net"])
        optimizer.load_state_dict(content["optimizer"])
        if ema is not net:
            ema.load_state_dict(content["ema"])
    except (RuntimeError, UnpicklingError, OSError, EOFError, KeyError, TypeError, ValueError):
        raise UserError(f"{state}: not the state of this training, or broken; remove it to start again") from None
    log.info("resuming at step %d from %s", content["step"], state)
    return content["step"]
