"""What the data sets have in common: to complain about files, to hold some out, and to fill an array with the rest."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ddrep.data.disk import reason
from ddrep.errors import UserError, printable, some

log = logging.getLogger("ddrep")

HELD_OUT = 0.1
"""Share of each class's training images that is for validation where a data set has none of its own."""

Work = Iterable[tuple[int, Callable[[], np.ndarray]]]
"""Rows of an array, each with what makes its content."""


class Unusable(Exception):
    """Several files that one image is made of cannot be used: `args` are the complaints."""


def complain(where: object, complaints: Sequence[str], what: str, advice: str) -> None:
    """Raise UserError with all complaints in one line, if there are any: `where: N what: this, that; advice`."""
    if complaints:
        raise UserError(printable(f"{where}: {len(complaints)} {what}: {some(complaints)}; {advice}"))


def warn(message: str) -> None:
    """A line of the log for what is no error, but must not be passed over in silence."""
    log.warning("%s", printable(message))


def filled(where: object, names: Sequence[str], work: Work, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """uint8 (N, *shape), a row for each of `names`, and a complaint for each row that could not be made.

    A row that no item of `work` fills is a complaint as well. The array is the only copy of its content. Raises
    UserError if there is no memory for it.
    """
    try:
        array = np.empty((len(names), *shape), np.uint8)
    except (MemoryError, ValueError) as e:
        raise UserError(f"{where}: no memory for {len(names)} images of {shape} ({e}); choose a smaller size") from None
    complaints = {i: [f"{name} (not found again)"] for i, name in enumerate(names)}
    for i, make in work:
        try:
            array[i] = make()
            complaints[i] = []
        except Unusable as e:
            complaints[i] = list(e.args)
        except Exception as e:  # whatever a decoder raises for bytes that it did not expect
            complaints[i] = [f"{names[i]} ({reason(e)})"]
    return array, [each for i in range(len(names)) for each in complaints[i]]


def key(split: str, i: int, stem: str) -> str:
    """A key that a shard can hold, with the number of the image in its split."""
    return f"{split}-{i:06d}-{re.sub(r'[^A-Za-z0-9_-]', '_', stem)}"


def share(n: int, part: float = HELD_OUT) -> int:
    """How many of the n images of a class a part of them means: one at least."""
    return max(1, round(part * n))


def hold_out(
    labels: Sequence[int] | np.ndarray, count: Callable[[int], int], generator: Callable[[int], np.random.Generator]
) -> tuple[list[int], list[int]]:
    """Indices into `labels` that stay in train, and `count` of the images of each class held out, both ascending.

    count: of the number of its images; generator: of the class's number.
    """
    numbers = np.asarray(labels, np.int64)
    held = np.zeros(len(numbers), bool)
    for number in np.unique(numbers).tolist():
        where = np.flatnonzero(numbers == number)
        held[generator(number).permutation(where)[: count(len(where))]] = True
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()
