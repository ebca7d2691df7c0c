"""What is known of an experiment before anything is made: how many images there are, and the denoiser's network.

Nothing is refused: what a missing file would tell is taken from what else is known, or left out, with a remark.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ddrep.checks.sets import counts, image_shape, made_counts
from ddrep.config import Experiment
from ddrep.data.listing import SPLITS
from ddrep.denoiser.importers import published
from ddrep.denoiser.network import DenoiserFile, UNetConfig, network_of
from ddrep.errors import UserError
from ddrep.saved import header


@dataclass(frozen=True)
class Sizes:
    """`image`: height, width, channels; `splits`: split -> images of each class, of one labelled subset, if known."""

    image: tuple[int, int, int]
    splits: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        return len(self.splits.get("train", ()))


def sizes_of(experiment: Experiment) -> tuple[Sizes, list[str]]:
    """Sizes, and what is to be remarked on them."""
    data, results = experiment.data, Path("results", experiment.experiment)
    if experiment.parts == ("masks",):
        return Sizes(image_shape(experiment.masks.data)), []
    try:
        return Sizes(image_shape(data), counts(data, experiment.seed)), []
    except (UserError, OSError) as e:
        made = [results / name for name in ("subset0/real.tar", "data/validation.tar", "data/test.tar")]
        if all(path.is_file() for path in made):
            return Sizes(image_shape(data), dict(zip(SPLITS, map(made_counts, made), strict=True))), []
        unknown = f"how many images there are is not known, and what depends on it left out: {e}"
        return Sizes(image_shape(data)), [f"{unknown}; or make {' and '.join(map(str, made))} first"]


def denoiser_of(experiment: Experiment, image: tuple[int, int, int]) -> tuple[UNetConfig | None, list[str]]:
    """The unconditional network, and what is to be remarked on it."""
    if experiment.denoiser.kind == "pretrain":
        return network_of(experiment.denoiser.pretrain.network, image[0], image[2]), []
    path = experiment.denoiser.file.path
    try:
        return header(path, DenoiserFile).network, []
    except UserError as e:
        name, network = published(path.stem, image[0]) or ("", None)
        instead = f"planned with the network of {name}" if network else "its disk and time are left out"
        return network, [f"denoiser.file.path: {e}; {instead}"]
