"""What a job will cost: the words in which each stage says, beside its `run`, what it passes through which network.

A stage's `cost` is a function from a `Job` to a `Cost` that names its verbs; `ddrep.planning` walks the jobs and sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from ddrep.denoiser.network import UNetConfig

DENOISER, ENCODER, INCEPTION = "denoiser", "encoder", "inception"
"""Networks; others have the name of the verb that trains them, guides that of `Job.part` and what they read."""
TRAINING, GUIDED = "/training", "/guided"
"""Behind a network's name: passes with one backward each, to the weights or to the image."""
Passes = Counter[str]
"""Images through each network."""
M = TypeVar("M", bound=BaseModel)


def times(n: int, passes: Passes, suffix: str = "") -> Passes:
    """The passes, n times; with `suffix` behind the names."""
    return Passes({name + suffix: n * count for name, count in passes.items()})


@dataclass(frozen=True)
class Cost:
    """Of one job. `look`: passes for each image that the network which it trains, or reads for one, looks at; `disk`:
    bytes of what it writes beside shards, if they are many."""

    passes: Passes
    look: Passes = field(default_factory=Passes)
    disk: int = 0


@dataclass(frozen=True)
class Wanted:
    """The candidates of a job that draws some."""

    images: tuple[int, ...]
    """Of each class, to be kept."""
    budget: int
    """Most attempts at a class."""
    pool: tuple[object, ...]
    """What determines a candidate beside its class and attempt: jobs of the same pool share theirs."""


@dataclass(eq=False)
class Job:
    """A job as the workflow plans it, and what those before it will have made."""

    rule: str
    verb: str
    """Of its `ddrep VERB`; "" for a target."""
    wildcards: Mapping[str, str]
    inputs: Mapping[str, tuple[str, ...]]
    """Paths by name, of those without one by "", as are `outputs`."""
    outputs: Mapping[str, tuple[str, ...]]
    stage: Mapping[str, Any]
    """What --stage tells it; empty where nothing is passed through a network."""
    threads: int
    gpus: int
    rank: int
    """Place of its rule in the workflow."""
    after: tuple[Job, ...]
    """The jobs it waits for."""
    log: str = ""
    benchmark: str = ""
    network: UNetConfig | None = None
    """The denoiser's, if it is known."""
    shards: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Path -> images of each class, of what is made before it."""
    looks: dict[str, Passes] = field(default_factory=dict)
    """Path of a network, or of features -> `Cost.look`."""
    judged: int = 0
    """Candidates that it looks at, if it draws any, and"""
    drawn: int = 0
    """those among them that no job before it has drawn."""

    @property
    def refuses(self) -> bool:
        """Whether it draws more candidates than it keeps."""
        config = self.stage.get("config", {})
        return bool(config.get("synthesis", config).get("threshold"))

    @property
    def part(self) -> str:
        """Section of the experiment that a guide belongs to."""
        return "attributes" if "attribute" in self.wildcards else "masks"

    def config(self, model: type[M]) -> M:
        """The section that it is told."""
        return model.model_validate(self.stage["config"])

    def of_class(self, name: str = "") -> tuple[int, ...]:
        """Images of each class in the input `name`, or in those without a name."""
        return tuple(map(sum, zip(*(self.shards.get(path, ()) for path in self.inputs.get(name, ())), strict=True)))

    def images(self, name: str = "") -> int:
        """Images in the input `name`, or in those without a name."""
        return sum(sum(self.shards.get(path, ())) for path in self.inputs.get(name, ()))

    def look(self, *names: str) -> Passes:
        """Passes for each image that all networks among these inputs look at."""
        paths = [path for name in names for path in self.inputs.get(name, ())]
        return sum((self.looks.get(path, Passes()) for path in paths), Passes())


COSTS: dict[str, Callable[[Job], Cost]] = {}
"""By verb; those that are not among them pass no network."""
DRAWS: dict[str, Callable[[Job, int], Wanted]] = {}
"""By verb, of those that draw candidates: what they want, of so many classes."""
F = TypeVar("F", bound=Callable[..., Any])


def costs(*verbs: str) -> Callable[[F], F]:
    """Marks what jobs of these verbs cost."""
    return _kept(COSTS, verbs)


def draws(*verbs: str) -> Callable[[F], F]:
    """Marks which candidates jobs of these verbs want."""
    return _kept(DRAWS, verbs)


def _kept(registry: dict[str, Any], verbs: Sequence[str]) -> Callable[[F], F]:
    def keep(function: F) -> F:
        registry.update(dict.fromkeys(verbs, function))
        return function

    return keep
