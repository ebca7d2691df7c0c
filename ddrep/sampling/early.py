"""Early refusal: candidates that the judge will refuse are told by their x0hat before the last step, and stopped.

After some of the steps the source's own judge looks at x0hat; a candidate to whose class it gives less than `least` is
refused there. Steps and `least` are chosen on a pilot of candidates of noise of their own, so that no more than a share
of those that would be kept is lost in the mean over pilots (split conformal: `least` is, of the n kept ones' least p,
the k-th smallest, k = share (n + 1)). Of the attempts every `AUDITED`th is drawn to its end whatever the checks say, to
measure the loss.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddrep import stopping
from ddrep.data.batches import finite, to_uint8, to_unit
from ddrep.networks.judges import Judge
from ddrep.sampling.engine import Tally, but_blank, hopeless
from ddrep.sampling.pool import Attempt, Pool
from ddrep.sampling.rows import in_rows
from ddrep.sampling.slots import Slots
from ddrep.saved import read_json, write_json

log = logging.getLogger("ddrep")

KEPT, MOST, AT_ONCE, PILOT_SHARD = 480, 6000, 128, -1
"""The pilot: candidates that are to be kept, and drawn at most and at once; the shard number of their noise, which no
shard has."""
CHECKS = 2
"""At most."""
AUDITED = 16
Seed = Callable[[Attempt], int]


@dataclass(frozen=True)
class Checks:
    """When a candidate is looked at, and the least p of its class with which it goes on."""

    steps: tuple[int, ...] = ()
    """Numbers of steps taken."""
    least: float = 0.0
    pilot: int = 0
    kept: int = 0
    """Of the pilot."""
    saved: float = 0.0
    """Share of the steps of the pilot's refused candidates that the checks save."""


def own_p(judge: Judge, images: Tensor, labels: Sequence[int]) -> np.ndarray:
    """What the judge gives the class of each image (N, C, H, W) in [-1, 1], (N,)."""
    p = in_rows(lambda x: judge.net(judge.inputs(x)).double().softmax(dim=1), images)
    return p[torch.arange(len(p)), torch.as_tensor(labels, dtype=torch.long, device=p.device)].cpu().numpy()


def stored_p(judge: Judge, images: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The same of stored images, uint8 (N, H, W, C); -1 of one of one level all over. Raises UserError for a judge that
    gives what is not finite, which is neither below a threshold nor above it."""
    p = own_p(judge, to_unit(images, next(judge.net.parameters()).device), labels)
    return but_blank(finite(torch.from_numpy(p), judge.name).numpy(), images)


@torch.no_grad()
def pilot(slots: Slots, judge: Judge, seed: Seed, classes: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """p of x0hat after each step (N, steps), and of the image (N,), of as many candidates as `KEPT` are kept of."""
    early: list[np.ndarray] = []
    final: list[np.ndarray] = []
    kept = drawn = 0
    while kept < KEPT and drawn < MOST:
        part = [(i % classes, i // classes) for i in range(drawn, drawn + AT_ONCE)]
        labels = [label for label, _ in part]
        slots.start(part, [seed(attempt) for attempt in part])
        p = []
        for _ in range(slots.cfg.steps):
            slots.advance()
            p.append(own_p(judge, slots.x0, labels))
        early.append(np.stack(p, axis=1))
        final.append(stored_p(judge, to_uint8(slots.images, slots.denoiser.name), labels))
        slots.free(torch.ones(len(part), dtype=torch.bool, device=slots.x.device))
        kept, drawn = kept + int((final[-1] >= threshold).sum()), drawn + len(part)
        log.info("pilot of early refusal: %d candidates drawn, %d of %d kept", drawn, kept, KEPT)
    return np.concatenate(early), np.concatenate(final)


def calibrate(early: np.ndarray, final: np.ndarray, threshold: float, share: float) -> Checks:
    """Up to `CHECKS` steps, and the least p, that save the most steps while the share of kept ones lost is `share`.

    A third of the candidates chooses the steps, the others then say what least p they allow: one set for both would
    lose more than it says. early (N, steps): p of x0hat after each; final (N,): of the image. `least` is not above the
    threshold of acceptance, so what is refused early is below it. No checks where too few are kept to tell.
    """
    (n, steps), kept = early.shape, final >= threshold
    first = n // 3
    told, rest, best = kept[:first], kept[first:], Checks(pilot=n, kept=int(kept.sum()))
    rank = int(share * (rest.sum() + 1))
    if not rank or told.all() or not told.any():
        return best
    for chosen in itertools.chain(*(itertools.combinations(range(1, steps), k) for k in range(1, CHECKS + 1))):
        p = early[:first, [step - 1 for step in chosen]]
        least = _least(p[told], int(share * told.sum()) + 1, threshold)
        saved = share_saved(p[~told] < least, chosen, steps)
        if saved > best.saved:
            best = replace(best, steps=chosen, saved=saved)
    if not best.steps:
        return best
    p = early[first:, [step - 1 for step in best.steps]]
    least = _least(p[rest], rank, threshold)
    return replace(best, least=least, saved=share_saved(p[~rest] < least, best.steps, steps))


def _least(p: np.ndarray, rank: int, threshold: float) -> float:
    """p (N, checks) of kept ones -> the rank-th smallest of their least."""
    return min(threshold, float(np.sort(p.min(axis=1))[rank - 1]))


def share_saved(caught: np.ndarray, checks: Sequence[int], steps: int) -> float:
    """Share of the steps that are not taken, where bool (N, checks) says which check catches a candidate."""
    taken = np.where(caught.any(axis=1), np.array(checks)[caught.argmax(axis=1)], steps)
    return 1 - float(taken.mean()) / steps


def checks_of(
    file: Path, slots: Slots, judge: Judge, seed: Seed, classes: int, threshold: float, share: float
) -> Checks:
    """Those of a pilot, which is drawn unless another command has left its result in `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.is_file():
            early, final = pilot(slots, judge, seed, classes, threshold)
            found = calibrate(early, final, threshold, share)
            write_json(file, asdict(found))
        checks = read_json(file, Checks, "checks as a pilot leaves them; remove it, and they are found anew")
    if not checks.steps:
        log.warning("%s: of %d candidates %d are kept; nothing is refused early", file, checks.pilot, checks.kept)
    log.info("early refusal: %s", checks)
    return checks


@dataclass
class Outcome:
    """What became of an attempt."""

    p: float = 0.0
    """Of its class: of the image, or of x0hat where it was stopped."""
    refused_at: int = 0
    """Steps taken when the checks refused it; 0 if they did not."""
    stopped: bool = False
    """An audited one is not."""


@dataclass
class Filling:
    """Which attempts a shard still wants, and what became of those that were made.

    No more are on their way than are wanted if all are accepted, so that none is accepted in vain.
    """

    tallies: Sequence[Tally]
    quota: int
    budget: int
    known: dict[Attempt, Outcome] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)
    """Attempts of each class."""
    hopes: dict[int, int] = field(default_factory=dict)
    """Those of each class that are accepted or on their way."""
    given_up: bool = False
    """Whether the budget will not do for a class (ddrep.sampling.engine.hopeless)."""

    def next(self) -> Attempt | None:
        """The next attempt to make, of the class that has made the fewest; None if no more are wanted, at least now."""
        wanting = [
            (self.begun.get(t.label, 0), t.label)
            for t in self.tallies
            if self.hopes.get(t.label, 0) < self.quota and self.begun.get(t.label, 0) < self.budget
        ]
        if not wanting or self.given_up:
            return None
        attempt, label = min(wanting)
        self.begun[label] = attempt + 1
        self.hopes[label] = self.hopes.get(label, 0) + 1
        return label, attempt

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        self.known[attempt] = outcome
        (tally,) = (t for t in self.tallies if t.label == attempt[0])
        if outcome.p < tally.threshold:
            self.hopes[tally.label] -= 1  # now as many as will be accepted if all on their way are
            self.given_up |= hopeless(self.hopes[tally.label], self.begun[tally.label], self.quota, self.budget)

    def tell(self) -> None:
        """The tallies what they are to know."""
        for tally in self.tallies:
            tally.p = [self.known[tally.label, i].p for i in range(self.begun.get(tally.label, 0))]


@torch.no_grad()
def fill(slots: Slots, most: int, pool: Pool, judge: Judge, seed: Seed, checks: Checks, filling: Filling) -> None:
    """Make attempts, `most` at once, until every class has its quota, or one will not have it within its budget."""
    fresh: dict[Attempt, np.ndarray] = {}
    told: dict[Attempt, int] = {}
    """Audited ones that the checks would have refused, and where."""
    drawn = 0
    with pool.locked(), stopping.saving():
        while not stopping.asked():
            drawn += _begin(slots, most, pool, judge, seed, filling)
            if not slots.attempts:
                break
            slots.advance()
            _check(slots, judge, checks, filling, told)
            fresh |= _finish(slots, judge, filling, told)
            if len(fresh) >= most:
                pool.add(list(fresh), np.stack(list(fresh.values())))
                log.info("%d candidates drawn or refused early", len(filling.known))
                fresh = {}
        if fresh:
            pool.add(list(fresh), np.stack(list(fresh.values())))
    log.info("%d candidates, %d of them drawn now", len(filling.known), drawn)
    filling.tell()


def _begin(slots: Slots, most: int, pool: Pool, judge: Judge, seed: Seed, filling: Filling) -> int:
    """Fill the free slots; what lies in the pool needs none, but where its audit is wanted. Returns how many."""
    begun = 0
    while len(slots.attempts) < most and (attempt := filling.next()) is not None:
        if attempt in pool.images and not audited(attempt):
            (p,) = stored_p(judge, pool.images[attempt][None], [attempt[0]])
            filling.ended(attempt, Outcome(float(p)))
        else:
            slots.start([attempt], [seed(attempt)])
            begun += 1
    return begun


def audited(attempt: Attempt) -> bool:
    return attempt[1] % AUDITED == AUDITED - 1


def _check(slots: Slots, judge: Judge, checks: Checks, filling: Filling, told: dict[Attempt, int]) -> None:
    """Refuse what the judge gives too little, of those whose number of steps is a check's."""
    due = [i for i, taken in enumerate(slots.taken.tolist()) if taken in checks.steps]
    gone = torch.zeros(len(slots.attempts), dtype=torch.bool, device=slots.x.device)
    if not due:
        return
    for i, p in zip(due, own_p(judge, slots.x0[due], [slots.attempts[i][0] for i in due]), strict=True):
        attempt, taken = slots.attempts[i], int(slots.taken[i])
        if p < checks.least and audited(attempt):
            told.setdefault(attempt, taken)
        elif p < checks.least:
            filling.ended(attempt, Outcome(float(p), taken, stopped=True))
            gone[i] = True
    slots.free(gone)


def _finish(slots: Slots, judge: Judge, filling: Filling, told: dict[Attempt, int]) -> dict[Attempt, np.ndarray]:
    """Judge and take out those that have taken all steps; their images, uint8."""
    done = slots.taken == slots.cfg.steps
    rows: list[int] = done.nonzero()[:, 0].tolist()
    if not rows:
        return {}
    attempts = [slots.attempts[i] for i in rows]
    images = to_uint8(slots.images[rows], slots.denoiser.name)
    for attempt, p in zip(attempts, stored_p(judge, images, [label for label, _ in attempts]), strict=True):
        filling.ended(attempt, Outcome(float(p), told.get(attempt, 0)))
    slots.free(done)
    return dict(zip(attempts, images, strict=True))
