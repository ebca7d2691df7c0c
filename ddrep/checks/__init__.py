"""What is checked before anything runs: an experiment's settings against its files, data and networks.

A check is a function from `Facts` to complaints, and is in a list below. Together they take some tenths of a second:
they read names, lists and headers, no image and no weights, and import no torch but for an unusual architecture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from ddrep.checks import images, networks, paths, runs
from ddrep.checks.facts import Facts
from ddrep.config import Experiment
from ddrep.errors import UserError

CHECKS: tuple[Callable[[Facts], Iterator[str]], ...] = (
    images.labels,
    images.sizes,
    networks.unconditional,
    networks.blocks,
    networks.pools,
    networks.generators,
    networks.steps,
    networks.inception,
    networks.architectures,
    images.classes_of_figures,
    images.examples,
    images.holdout,
    images.masks_are_there,
    images.oracle_has_images,
    images.evaluator,
    images.segmenter,
    runs.labelled_subsets,
    runs.blocks,
    runs.labels,
    runs.unlabelled,
)
"""What is wrong."""
REMARKS: tuple[Callable[[Facts], Iterator[str]], ...] = (runs.below_chance, images.garments)
"""What is allowed, but hardly meant."""


def check(experiment: Experiment, absent: bool = True) -> None:
    """Raise UserError with all complaints about an experiment, in one line; a line on standard error for each remark.

    absent: whether a file or folder that is not there is one of them; what hangs on it is not checked.
    """
    facts = Facts(experiment)
    found = [*paths.results(experiment), *(paths.absent(experiment) if absent else ()), *paths.unlike(experiment)]
    found += [complaint for each in CHECKS for complaint in each(facts)]
    if complaints := list(dict.fromkeys([*found, *facts.complaints])):
        raise UserError("; ".join(" ".join(complaint.split()) for complaint in complaints))
    for remark in (remark for each in REMARKS for remark in each(facts)):
        print(f"ddrep: warning: {remark}", file=sys.stderr)
