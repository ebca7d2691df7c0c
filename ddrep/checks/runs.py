"""Settings of the tables: that there is something to tabulate, of labelled subsets that there are."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from ddrep.checks import sets
from ddrep.checks.facts import Facts
from ddrep.config import Data, MaskData, explain
from ddrep.data.readers import has_unlabelled, reader_of, with_labels
from ddrep.derived import unlabelled_of
from ddrep.runs import shards_asked, table4_runs
from ddrep.sources import of_origin


def labelled_subsets(facts: Facts) -> Iterator[str]:
    e = facts.experiment
    asked: list[tuple[bool, str, tuple[int, ...], Data | MaskData]] = [
        (facts.attributes, "table1", e.table1.subsets, e.data),
        (facts.masks, "table2", e.table2.subsets, e.masks.data),
        (facts.augments, "table3", e.table3.subsets, e.data),
        (facts.augments and bool(e.table5.labels), "table5", e.table5.subsets, e.data),
        *((facts.augments, f"table4.{number}", block.subsets, e.data) for number, block in enumerate(e.table4)),
    ]
    for used, table, subsets, data in asked:
        if used and max(subsets) >= (count := sets.subsets(data)):
            has = f"subsets 0..{count - 1}" if count > 1 else "only subset 0"
            yield f"{table}.subsets: no subset {max(subsets)}; data of kind {data.kind} has {has}"


def blocks(facts: Facts) -> Iterator[str]:
    """Every block of Table 4 has runs, and there is one."""
    e = facts.experiment
    if not facts.augments:
        return
    if not e.table4:
        yield "table4: empty; expected a block of runs, or parts without augmentation"
    for number, block in enumerate(e.table4):
        if not table4_runs(e.model_copy(update={"table4": (block,)})):
            yield f"table4.{number}: no runs; scale 0 belongs to source real, the others to all but real"


def labels(facts: Facts) -> Iterator[str]:
    """There are as many labelled images of each class as Table 5 asks for."""
    e = facts.experiment
    if not facts.augments or not e.table5.labels:
        return
    most = max(e.table5.labels)
    try:
        with_labels(e.data, most)
    except ValidationError as error:
        yield f"table5.labels: {explain(error)}"
        return
    there = facts.data.train if facts.data and not reader_of(e.data).with_labels else None
    if there and most > min(there):
        yield f"table5.labels: {most} asked for, but the smallest class has {min(there)} labelled images; name fewer"


def unlabelled(facts: Facts) -> Iterator[str]:
    """Where a source wants images without labels, there are some, and enough."""
    e, wants = facts.experiment, of_origin("unlabelled")
    asked = {of: scale for (of, source), scale in shards_asked(e).items() if source in wants} if facts.augments else {}
    if not asked:
        return
    of, scale = max(asked.items(), key=lambda one: one[1])
    data = unlabelled_of(e, of)
    if not has_unlabelled(data):
        yield (
            f"table3.sources, table4: {', '.join(wants)}, but data of kind {e.data.kind} has no images without labels; "
            "leave it out, or name them in denoiser.pretrain.data, of kind unlabelled"
        )
    elif facts.data and (there := facts.unlabelled(data)) is not None:
        n = e.synthesis.per_class * len(facts.data.classes)
        if scale * n > there:
            advice = f"ask for scales up to {there // n}" if there >= n else "leave it out"
            yield (
                f"table3.sources, table4: {scale}x of {', '.join(wants)} are {scale * n} images, but there are {there} "
                f"without labels; give more, or {advice}"
            )


def below_chance(facts: Facts) -> Iterator[str]:
    """A warning: such a threshold keeps what the rejection classifier takes for another class."""
    e = facts.experiment
    if facts.augments and facts.data and e.synthesis.threshold < 1 / len(facts.data.classes):
        yield (
            f"synthesis.threshold: {e.synthesis.threshold:g} is below chance, which is "
            f"{1 / len(facts.data.classes):.2g} for {len(facts.data.classes)} classes: almost nothing is refused"
        )
