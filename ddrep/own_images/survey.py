"""What a set of images holds, which of them can be used, and in which split: looked at, and said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ddrep.data.listing import SPLITS
from ddrep.errors import UserError, printable, some
from ddrep.own_images.found import Picture, Pictures
from ddrep.own_images.looks import Look, look_at, near, near_any
from ddrep.own_images.splits import HELD_OUT, short_of, split
from ddrep.reporting.markdown import counted, grid

SHOWN = 12
"""Classes in the table of the summary: the largest, and the smallest."""
HALF_WIDTH = 0.98
"""Half of a 95% interval of an accuracy near one half, times the root of the number of images."""


@dataclass(frozen=True, kw_only=True)
class Seen(Picture):
    """A picture and its look."""

    look: Look


@dataclass(frozen=True)
class Survey:
    """Of a set. `chosen` are the images to be used, each with its split, none for unlabelled ones; `said` is what the
    summary says below its table."""

    pictures: Pictures
    seen: list[Seen]
    chosen: list[Seen]
    said: list[str]

    @property
    def classes(self) -> list[str]:
        return sorted({each.label for each in self.chosen})

    def of(self, name: str) -> list[Seen]:
        """The images of a split."""
        return [each for each in self.chosen if each.split == name]

    @property
    def text(self) -> str:
        """The summary."""
        head = f"{self.pictures.root}: {self.pictures.kind} of {len(self.seen):,} images"
        if self.pictures.classes:
            head += f" in {len(self.pictures.classes):,} classes"
        table = [_table(self)] if self.pictures.classes and self.seen else []
        return "\n".join([head, *table, *(f"- {line}" for line in self.said)])


def survey(pictures: Pictures, seed: int) -> Survey:
    """Look at a labelled set, and give each image that can be used its split."""
    seen = _look(pictures)
    said = [*pictures.remarks, *_empty(pictures), *_said_of(seen)]
    usable = _once([each for each in seen if not each.look.error], said)
    usable = _split(usable, bool(pictures.splits), seed, said)
    labels, splits = [each.label for each in usable], [each.split for each in usable]
    short = short_of(labels, splits)
    if short:
        lacking = [f"{label} ({why})" for label, why in short.items()]
        said.append(f"{counted(len(short), 'class')} left out, with too few images that can be used: {some(lacking)}; "
                    "needed are 2 of train, 1 of validation and 1 of test")  # fmt: skip
    chosen = [each for each in usable if each.label not in short]
    if tests := sum(each.split == "test" for each in chosen):
        said.append(f"{tests:,} test images: an accuracy is known to about "
                    f"{100 * HALF_WIDTH / tests**0.5:.0f} points either way")  # fmt: skip
    return Survey(pictures, seen, chosen, said)


def survey_unlabelled(pictures: Pictures, held_out: Sequence[Seen]) -> Survey:
    """Look at images to pretrain on; near copies of held-out ones are left out."""
    seen = _look(pictures)
    said = [*pictures.remarks, *_said_of(seen)]
    first = {each.look.digest: each for each in reversed([each for each in seen if not each.look.error])}
    chosen = list(reversed(first.values()))
    if copies := sum(not each.look.error for each in seen) - len(chosen):
        said.append(f"{copies:,} copies of others, left out")
    if chosen and held_out:
        near_them = near_any(_thumbs(chosen), _thumbs(held_out))
        if near_them.any():
            names = [each.name for each, is_near in zip(chosen, near_them, strict=True) if is_near]
            said.append(f"{len(names):,} copies or near copies of held-out images, left out: {some(names, 3)}")
        chosen = [each for each, is_near in zip(chosen, near_them, strict=True) if not is_near]
    if not chosen:
        raise UserError(f"{pictures.root}: none of {len(seen)} images can be used to pretrain on; name others")
    return Survey(pictures, seen, chosen, said)


def _look(pictures: Pictures) -> list[Seen]:
    looks = look_at([each.found for each in pictures.pictures])
    both = zip(pictures.pictures, looks, strict=True)
    return [Seen(each.found, each.label, each.split, look=look) for each, look in both]


def _empty(pictures: Pictures) -> list[str]:
    there = {each.label for each in pictures.pictures}
    empty = [name for name in pictures.classes if name not in there]
    return [f"{len(empty):,} classes without an image: {some(empty)}"] if empty else []


def _said_of(seen: Sequence[Seen]) -> Iterator[str]:
    """What is odd about images, and what is done about it."""
    if broken := [f"{each.name} ({each.look.error})" for each in seen if each.look.error]:
        yield f"broken, and left out: {len(broken):,} of {counted(len(seen), 'file')}: {some(broken)}"
    whole = [each.look for each in seen if not each.look.error]
    if not whole:
        return
    yield _sizes(whole)
    modes = Counter(look.mode for look in whole)
    counts = ", ".join(f"{n:,} {mode}" for mode, n in modes.most_common())
    yield f"modes: {counts}; {counted(sum(look.grey for look in whole), 'image')} without any colour"
    odd = {
        "of CMYK or another colour space, converted": sum(n for mode, n in modes.items() if mode in _CONVERTED),
        "of 16 bits, scaled to 8": sum(n for mode, n in modes.items() if mode.startswith("I")),
        "with transparency, laid on white": sum(look.transparent for look in whole),
        "animated or of several pages, of which the first counts": sum(look.frames > 1 for look in whole),
    }
    yield from (f"{n:,} {what}" for what, n in odd.items() if n)


_CONVERTED = {"CMYK", "YCbCr", "LAB", "HSV"}


def _sizes(looks: Sequence[Look]) -> str:
    sizes = np.array([look.size for look in looks])
    if (sizes == sizes[0]).all():
        return f"sizes: all {sizes[0, 0]}x{sizes[0, 1]}"
    (w, h), (least, most) = np.median(sizes, axis=0), (sizes.min(axis=0), sizes.max(axis=0))
    return f"sizes: from {least[0]}x{least[1]} to {most[0]}x{most[1]}, median {w:.0f}x{h:.0f}"


def _once(usable: Sequence[Seen], said: list[str]) -> list[Seen]:
    """Without copies of the same pixels: of a held-out image and others the held-out one stays; of two classes none."""
    groups: dict[bytes, list[Seen]] = defaultdict(list)
    for each in usable:
        groups[each.look.digest].append(each)
    several = [group for group in groups.values() if len(group) > 1]
    unsure = [group for group in several if len({each.label for each in group}) > 1]
    sure = [group for group in several if len({each.label for each in group}) == 1]
    if unsure:
        both = [_equal([f"{each.name} ({each.label})" for each in group]) for group in unsure]
        said.append(f"{counted(len(unsure), 'image')} in two classes, left out of all: {some(both)}")
    if sure:
        both = [_equal([each.name for each in group]) for group in sure]
        across = sum(len({each.split for each in group}) > 1 for group in sure)
        where = f", {across:,} of them across splits, where the held-out one stays" if across else ""
        said.append(f"{counted(len(sure), 'image')} there several times, used once{where}: {some(both, 3)}")
    left = {id(min(group, key=_held_out)) for group in sure} | {id(g[0]) for g in groups.values() if len(g) == 1}
    return [each for each in usable if id(each) in left]


def _equal(names: list[str], most: int = 4) -> str:
    """Names of copies, of which there may be as many as files."""
    more = [f"{len(names) - most:,} more"] if len(names) > most else []
    return " = ".join([*names[:most], *more])


def _held_out(each: Seen) -> int:
    order = ("test", "validation", "train", "")
    return order.index(each.split)


def _split(usable: list[Seen], given: bool, seed: int, said: list[str]) -> list[Seen]:
    """Each with its split; near copies in one, which for given splits means out of the less held-out ones."""
    if not usable:
        return []
    groups = near(_thumbs(usable)).tolist()
    several = [n for n in Counter(groups).values() if n > 1]
    if alike := sum(several):
        classes = {(group, each.label) for each, group in zip(usable, groups, strict=True)}
        mixed = sum(n > 1 for n in Counter(group for group, _ in classes).values())
        said.append(f"{alike:,} images are near copies of others (groups: {len(several):,}, "
                    f"{mixed:,} of them of several classes); each group is in one split")  # fmt: skip
    if not given:
        splits = split([each.label for each in usable], groups, HELD_OUT, seed)
        return [replace(each, split=name) for each, name in zip(usable, splits, strict=True)]
    return _apart(usable, groups, seed, said)


def _apart(usable: list[Seen], groups: list[int], seed: int, said: list[str]) -> list[Seen]:
    """Given splits, where a near copy of a more held-out image is left out, and validation is made if there is none."""
    most = dict.fromkeys(groups, 3)
    for each, group in zip(usable, groups, strict=True):
        most[group] = min(most[group], _held_out(each))
    kept = [(each, group) for each, group in zip(usable, groups, strict=True) if _held_out(each) == most[group]]
    if gone := len(usable) - len(kept):
        said.append(f"{gone:,} near copies of held-out images left out of the other splits")
    if any(each.split == "validation" for each, _ in kept):
        return [each for each, _ in kept]
    train = [(each, group) for each, group in kept if each.split == "train"]
    share = {"validation": HELD_OUT["validation"]}
    names = split([each.label for each, _ in train], [group for _, group in train], share, seed)
    said.append("no split validation: a tenth of each class of train is held out")
    made = [replace(each, split=name) for (each, _), name in zip(train, names, strict=True)]
    return [*made, *(each for each, _ in kept if each.split != "train")]


def _thumbs(seen: Sequence[Seen]) -> np.ndarray:
    return np.stack([each.look.thumb for each in seen if each.look.thumb is not None])


def _table(survey: Survey) -> str:
    """Images of each class, of the largest and the smallest where there are many."""
    files = Counter(each.label for each in survey.seen)
    there = Counter((each.label, each.split) for each in survey.chosen)
    order = sorted(survey.pictures.classes, key=lambda name: (-files[name], name))
    shown = order if len(order) <= SHOWN else [*order[: SHOWN - 3], *order[-3:]]
    counts = {name: (files[name], *(there[name, each] for each in SPLITS)) for name in shown}
    rows = [[printable(name), *(f"{n:,}" for n in counts[name])] for name in shown]
    if len(order) > SHOWN:
        rows.insert(SHOWN - 3, [f"({len(order) - SHOWN:,} more)", *[""] * 4])
    total = [f"{n:,}" for n in (len(survey.seen), *(len(survey.of(name)) for name in SPLITS))]
    return grid(["class", "files", *SPLITS], [*rows, ["all", *total]], 1)
