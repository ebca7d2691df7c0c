import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddrep.errors import UserError
from ddrep.files import written_whole
from ddrep.training import parallel
from ddrep.training.loop import LoopConfig, cosine_with_warmup, step_seed, train

STEPS = 12


class Killed(Exception):
    pass


def _network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))


def _train(state=None, kill_at=None, kill_in="loss", net=None, **settings):
    """Train the network by AdamW with noise, dropout and batch statistics; `kill_at`: the step to die at."""
    net = net or _network()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.1, fused=True)

    def loss_at(step: int) -> torch.Tensor:
        if step == kill_at and kill_in == "loss":
            raise Killed
        x = torch.randn(8, 4)
        return (net(x) - x[:, :2]).square().mean()

    def on_step(step: int, ema: nn.Module) -> None:
        if step == kill_at and kill_in == "on_step":
            raise Killed

    cfg = LoopConfig(STEPS, seed=5, save_every=0.0, **({"ema_decay": 0.9, "clip": 0.5} | settings))
    factor = cosine_with_warmup(STEPS, 3)
    ema = train(net, optimizer, loss_at, cfg, lr_factor=factor, state=state, on_step=on_step)
    return {**{f"net.{k}": v for k, v in net.state_dict().items()}, **ema.state_dict()}


def _equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("ema_decay", [0.9, 0.0])
@pytest.mark.parametrize("kill_in", ["loss", "on_step"])
@pytest.mark.parametrize("kill_at", [1, 6, STEPS - 1])
def test_a_killed_run_ends_in_the_weights_of_an_unbroken_one(kill_at, kill_in, ema_decay, tmp_path):
    unbroken = _train(ema_decay=ema_decay)
    state = tmp_path / "state" / "run.pt"
    with pytest.raises(Killed):
        _train(state, kill_at, kill_in, ema_decay=ema_decay)
    assert state.exists() == (kill_at > 1 or kill_in == "loss")
    torch.manual_seed(99)  # what came before the resumption must not matter
    assert _equal(_train(state, ema_decay=ema_decay), unbroken)
    assert list(state.parent.iterdir()) == [state], "kept until the caller has its result, and no draft is left"
    assert _equal(_train(state, ema_decay=ema_decay), unbroken), "a caller killed before it wrote trains no more"


def test_two_kills_are_as_good_as_one(tmp_path):
    for kill_at in (4, 9):
        with pytest.raises(Killed):
            _train(tmp_path / "run.pt", kill_at)
    assert _equal(_train(tmp_path / "run.pt"), _train())


def test_a_resumed_run_does_only_what_is_left(tmp_path):
    with pytest.raises(Killed):
        _train(tmp_path / "run.pt", kill_at=7)
    net, seen = _network(), []

    def loss_at(step: int) -> torch.Tensor:
        seen.append(step)
        return net(torch.randn(8, 4)).square().mean()

    optimizer = torch.optim.AdamW(net.parameters(), 1e-2, fused=True)
    train(net, optimizer, loss_at, LoopConfig(STEPS, seed=5, ema_decay=0.9), state=tmp_path / "run.pt")
    assert seen == list(range(7, STEPS))


@pytest.mark.parametrize("kind", ["truncated", "garbage", "empty", "another network", "no state", "a tensor"])
def test_a_state_that_does_not_fit_is_named_in_one_line(kind, tmp_path):
    state = tmp_path / "run.pt"
    with pytest.raises(Killed):
        _train(state, kill_at=7)
    content = state.read_bytes()
    if kind == "truncated":
        state.write_bytes(content[: len(content) // 2])
    elif kind == "garbage":
        state.write_bytes(b"garbage" * 100)
    elif kind == "empty":
        state.write_bytes(b"")
    elif kind == "a tensor":
        torch.save(torch.zeros(3), state)
    elif kind == "no state":
        torch.save({"weights": torch.zeros(3)}, state)
    net = nn.Sequential(nn.Linear(4, 2)) if kind == "another network" else None
    with pytest.raises(UserError) as caught:
        _train(state, net=net)
    assert str(caught.value).startswith(f"{state}: ") and "\n" not in str(caught.value)
    assert state.exists(), "it is the user's to remove"


def test_the_ema_is_its_weighted_sum():
    net = nn.Linear(3, 1, bias=False)
    trail = [net.weight.detach().double().clone()]
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def keep(step: int, ema: nn.Linear) -> None:
        trail.append(net.weight.detach().double().clone())

    cfg = LoopConfig(20, seed=0, ema_decay=0.6)
    ema = train(net, optimizer, lambda step: net(torch.randn(4, 3)).square().mean(), cfg, on_step=keep)
    decays = [min(0.6, (1 + k) / (10 + k)) for k in range(20)]
    shares = [1.0, *(1 - d for d in decays)]
    expected = sum(share * math.prod(decays[k:]) * w for k, (share, w) in enumerate(zip(shares, trail, strict=True)))
    assert len(trail) == 21 and 0.6 in decays and decays[0] == 0.1
    torch.testing.assert_close(ema.weight.double(), expected, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(ema.weight, net.weight)
    assert not ema.weight.requires_grad


def test_the_ema_takes_buffers_as_they_are():
    out = _train()
    assert torch.equal(out["1.running_mean"], out["net.1.running_mean"]) and out["1.num_batches_tracked"] == STEPS


def test_without_ema_the_network_itself_comes_back():
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    assert train(net, optimizer, lambda step: net(torch.ones(1, 2)).sum(), LoopConfig(1, seed=0)) is net


def test_each_step_draws_from_its_own_seed():
    net, drawn = nn.Linear(1, 1), []

    def loss_at(step: int) -> torch.Tensor:
        drawn.append(torch.rand(2))
        return net(torch.rand(1, 1)).sum()

    train(net, torch.optim.SGD(net.parameters(), 0.0), loss_at, LoopConfig(3, seed=11))
    for step, value in enumerate(drawn):
        assert torch.equal(value, torch.rand(2, generator=torch.Generator().manual_seed(step_seed(11, step))))
    seeds = {step_seed(seed, step) for seed in range(20) for step in range(1000)}
    assert len(seeds) == 20_000 and step_seed(2**62, 10**6) < 2**63


@pytest.mark.parametrize("clip", [0.0, 0.3, 1e6])
def test_the_gradient_is_clipped_to_its_norm(clip):
    net, factor = nn.Linear(3, 2), torch.tensor([1.0, -2.0, 3.0])
    before = {k: v.clone() for k, v in net.state_dict().items()}
    train(net, torch.optim.SGD(net.parameters(), 1.0), lambda step: net(factor).sum(), LoopConfig(1, seed=0, clip=clip))
    gradient = {"weight": factor.expand(2, 3), "bias": torch.ones(2)}
    norm = math.sqrt(sum(g.square().sum() for g in gradient.values()))
    scale = min(1.0, clip / norm) if clip else 1.0
    for name, g in gradient.items():
        torch.testing.assert_close(before[name] - net.state_dict()[name], g * scale, rtol=1e-4, atol=1e-6)


def test_each_step_takes_the_learning_rate_times_its_factor(tmp_path):
    trail, factors = [], [1.0, 0.5, 0.0, 2.0, 0.25, 1.0]

    def go(kill_at: int | None) -> None:
        net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(net.weight)

        def loss_at(step: int) -> torch.Tensor:
            if step == kill_at:
                raise Killed
            return net(torch.ones(1, 1)).sum()

        optimizer = torch.optim.SGD([{"params": [net.weight], "lr": 0.1}])
        cfg = LoopConfig(6, seed=0, save_every=0.0)
        keep = lambda step, ema: trail.append(net.weight.item())  # noqa: E731
        train(net, optimizer, loss_at, cfg, lr_factor=factors.__getitem__, state=tmp_path / "s.pt", on_step=keep)

    with pytest.raises(Killed):
        go(kill_at=4)
    go(kill_at=None)
    moved = [a - b for a, b in zip([0.0, *trail], trail, strict=False)]
    assert moved == pytest.approx([0.1 * f for f in factors], abs=1e-6)


def test_the_cosine_is_torchs_behind_the_warm_up():
    steps, warmup = 50, 10
    factors = [cosine_with_warmup(steps, warmup)(step) for step in range(steps)]
    assert factors[:warmup] == pytest.approx([(i + 1) / warmup for i in range(warmup)])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup)
    for factor in factors[warmup:]:
        assert factor == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()
    assert cosine_with_warmup(steps, 0)(0) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_before_it_spoils_the_weights(value):
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)

    def loss_at(step: int) -> torch.Tensor:
        return net(torch.ones(1, 2)).sum() * (value if step == 2 else 1.0)

    with pytest.raises(UserError, match="at step 2; lower the learning rate"):
        train(net, optimizer, loss_at, LoopConfig(5, seed=0))
    assert all(torch.isfinite(p).all() for p in net.parameters())


def _train_with_bad_steps(bad, state=None, kill_at=None):
    """Weights, EMA and losses of 12 steps of which `bad` (step: "loss" or "gradient") are not finite."""
    torch.manual_seed(0)
    net, losses = nn.Linear(3, 1), torch.empty(STEPS, dtype=torch.float64)

    def loss_at(step: int) -> torch.Tensor:
        if step == kill_at:
            raise Killed
        loss = net(torch.randn(4, 3)).square().mean()
        if bad.get(step) == "gradient":  # the loss as it is, and sqrt's infinite slope at 0
            return loss + (net.weight.sum() * 0).sqrt()
        return loss * (math.nan if step in bad else 1.0)

    cfg = LoopConfig(STEPS, seed=5, ema_decay=0.9, clip=math.inf, patience=3, save_every=0.0)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    ema = train(net, optimizer, loss_at, cfg, state=state, losses=losses)
    steps = optimizer.state[net.weight]["step"].item()
    return {**{f"net.{k}": v for k, v in net.state_dict().items()}, **ema.state_dict()}, losses, steps


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_single_steps_without_a_finite_loss_are_skipped(kind, caplog):
    good, all_losses, _ = _train_with_bad_steps({})
    weights, losses, steps = _train_with_bad_steps(dict.fromkeys([3, 4, 9], kind))
    assert losses.isnan().nonzero().flatten().tolist() == [3, 4, 9] and steps == STEPS - 3
    assert torch.equal(losses[:3], all_losses[:3]) and not _equal(weights, good)
    assert all(value.isfinite().all() for value in weights.values())
    assert [record.args for record in caplog.records if "skipped" in record.msg] == [(4, 1), (5, 2), (10, 3)]


def test_several_steps_in_a_row_without_a_finite_loss_stop_it(tmp_path):
    bad = dict.fromkeys([2, 3, 7, 8, 9], "loss")
    said = r"^training: the loss or its gradient is not finite for 3 steps in a row, at step 9; lower .*precision\)$"
    with pytest.raises(UserError, match=said):
        _train_with_bad_steps(bad)
    with pytest.raises(Killed):
        _train_with_bad_steps(bad, tmp_path / "s.pt", kill_at=9)
    with pytest.raises(UserError, match=said):  # those before the interruption count
        _train_with_bad_steps(bad, tmp_path / "s.pt")
    assert all(v.isfinite().all() for v in torch.load(tmp_path / "s.pt")["net"].values()), "the last good weights"


def test_losses_and_skipped_steps_outlive_a_kill(tmp_path):
    bad = dict.fromkeys([3, 4, 9], "loss")
    weights, losses, _ = _train_with_bad_steps(bad)
    with pytest.raises(Killed):
        _train_with_bad_steps(bad, tmp_path / "s.pt", kill_at=5)
    resumed, again, _ = _train_with_bad_steps(bad, tmp_path / "s.pt")
    assert _equal(resumed, weights) and torch.equal(again.nan_to_num(), losses.nan_to_num())


def test_a_loss_may_come_in_parts():
    x = torch.randn(6, 3)
    trained = []
    for parts in ([slice(0, 6)], [slice(0, 4), slice(4, 6)]):
        net = nn.Linear(3, 2)
        nn.init.ones_(net.weight), nn.init.zeros_(net.bias)
        losses = torch.empty(2, dtype=torch.float64)
        loss_at = lambda step, net=net, parts=parts: (net(x[p]).square().sum() / 6 for p in parts)  # noqa: E731
        train(net, torch.optim.SGD(net.parameters(), 0.1), loss_at, LoopConfig(2, 0, clip=1.0), losses=losses)
        trained.append([*net.parameters(), losses])
    torch.testing.assert_close(trained[1], trained[0])


def _draft(state, pid: int) -> Path:
    """What process `pid` would call its draft of the state, as files.py names it for this one."""
    with written_whole(state) as (draft,):
        name = draft.name
        draft.touch()
    return state.with_name(name.replace(f"-{os.getpid()}-", f"-{pid}-"))


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for name in ("s.pt", "other.pt"):
        _draft(tmp_path / name, int(gone.stdout)).write_bytes(b"half")
        (tmp_path / name).unlink()
    with pytest.raises(Killed):
        _train_with_bad_steps({}, tmp_path / "s.pt", kill_at=2)
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 2 and "s.pt" in left and any(name.startswith(".other-") for name in left)


SAVER = """
import runpy, sys
from pathlib import Path
from typing import Any
from ddrep.training import loop

def slow_save(content, draft):
    save(content, draft)
    print("writing", flush=True)
    sys.stdin.readline()

save, loop.torch.save = loop.torch.save, slow_save
train = runpy.run_path(sys.argv[1])["_train"]
print(sorted(train(Path(sys.argv[2])))[0], flush=True)
"""


def test_a_second_job_of_the_same_training_leaves_the_firsts_draft(tmp_path):
    """Two Snakemakes, or one that was killed while its job lives on: the first is writing when the second begins."""
    state, env = tmp_path / "run.pt", {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipe = [sys.executable, "-c", SAVER, __file__, str(state)], subprocess.PIPE
    first = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert first.stdout and first.stdout.readline() == "writing\n"
    unbroken, second = _train(), _train(state)
    assert _equal(second, unbroken) and len(list(tmp_path.iterdir())) == 2, "its own state, and the first's draft"
    said, complaint = first.communicate("go on\n" * STEPS)
    assert first.returncode == 0, complaint
    assert said.splitlines()[-1].startswith("0."), "the name of a weight"
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"] and _equal(_train(state), unbroken)


def test_processes_that_read_different_states_read_again(tmp_path, monkeypatch):
    """Another job saved a later step when one of two processes had read: weights of two steps must not be mixed."""
    state, seen = tmp_path / "run.pt", []
    with pytest.raises(Killed):
        _train(state, kill_at=7)
    later = tmp_path / "later.pt"
    with pytest.raises(Killed):
        _train(later, kill_at=9)

    def minimum(step: int, device: torch.device) -> int:
        seen.append(step)
        if len(seen) == 2:  # both directions of the first comparison; the other process is at step 9
            os.replace(later, state)
        return min(step, 9) if step > 0 else min(step, -9)

    monkeypatch.setattr(parallel, "minimum", minimum)
    assert _equal(_train(state), _train()) and seen == [7, -7, 9, -9]


def test_records_outlive_a_kill_with_the_state_they_belong_to(tmp_path):
    def go(kill_at: int | None) -> list[tuple[int, float]]:
        net, records = nn.Linear(1, 1), []

        def loss_at(step: int) -> torch.Tensor:
            if step == kill_at:
                raise Killed
            return net(torch.ones(1, 1)).sum()

        keep = lambda step, ema: records.append((step, step / 3))  # noqa: E731
        optimizer, cfg = torch.optim.SGD(net.parameters(), 0.1), LoopConfig(6, seed=0, save_every=0.0)
        train(net, optimizer, loss_at, cfg, state=tmp_path / "s.pt", on_step=keep, records=records)
        return records

    for kill_at in (2, 5):
        with pytest.raises(Killed):
            go(kill_at)
    assert go(None) == [(step, step / 3) for step in range(1, 7)]


def test_a_state_of_another_user_is_not_called_broken(tmp_path):
    (tmp_path / "s.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        _train(tmp_path / "s.pt")


STATES: dict[str, Any] = {
    "a tensor": torch.zeros(3),
    "nothing": None,
    "a list": [1, 2],
    "no step": {"net": {}},
    "a step beyond the end of numbers": {"step": math.inf},
    "a step that is text": {"step": "x"},
    "no network": {"step": 1, "net": None, "optimizer": None},
}


@pytest.mark.parametrize("kind", [*STATES, "a pipe", "cut"])
def test_what_is_no_state_is_one_line(kind, tmp_path):
    state = tmp_path / "run.pt"
    if kind == "a pipe":
        os.mkfifo(state)
    else:
        torch.save(STATES.get(kind, {"step": 1}), state)
    if kind == "cut":
        state.write_bytes(state.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"run\.pt: not the state of this training, or broken; remove it"):
        _train(state)


WHOLE_BUT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "weights that are no numbers": lambda content: content["net"]["0.weight"].fill_(math.nan),
    "an average without numbers": lambda content: content["ema"]["0.weight"].fill_(math.nan),
    "no first moment": lambda content: content["optimizer"]["state"][0].pop("exp_avg"),
    "a moment of another size": lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(2)),
    "a moment that is none": lambda content: content["optimizer"]["state"][0].update(exp_avg_sq=None),
    "a step below zero": lambda content: content["optimizer"]["state"][0]["step"].fill_(-1),
    "a parameter too many": lambda content: content["optimizer"]["state"].update({99: {}}),
    "fewer losses than steps": lambda content: content.update(losses=content["losses"][:-1]),
}  # fmt: skip


@pytest.mark.parametrize("change", WHOLE_BUT.values(), ids=WHOLE_BUT.keys())
def test_a_state_that_no_training_writes_is_one_line(change, tmp_path):
    state = tmp_path / "run.pt"
    with pytest.raises(Killed):
        _train(state, kill_at=7)
    content = torch.load(state, weights_only=True)
    change(content)
    torch.save(content, state)
    with pytest.raises(UserError, match=r"run\.pt: not the state of this training, or broken; remove it"):
        _train(state)


def test_the_settings_of_an_optimiser_are_those_of_the_run(tmp_path):
    state = tmp_path / "run.pt"
    with pytest.raises(Killed):
        _train(state, kill_at=7)
    content = torch.load(state, weights_only=True)
    content["optimizer"]["param_groups"][0] |= {"betas": (0.1, 0.1), "eps": None}
    torch.save(content, state)
    assert _equal(_train(state), _train())


def test_moments_whose_numbers_lie_in_one_place_are_numbers_of_their_own(tmp_path):
    state = tmp_path / "run.pt"
    with pytest.raises(Killed):
        _train(state, kill_at=7)
    content = torch.load(state, weights_only=True)
    moments = content["optimizer"]["state"][0]
    moments["exp_avg"] = torch.zeros(1).expand(moments["exp_avg"].shape)
    torch.save(content, state)
    assert all(t.isfinite().all() for t in _train(state).values())
