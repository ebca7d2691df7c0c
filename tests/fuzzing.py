"""What the fuzz tests share: how many cases, bytes and values changed at random, and what counts as refused.

Few cases in CI; `DDREP_FUZZ=100000 pytest tests/test_fuzz*.py` for as many as there is time for.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ddrep.errors import UserError

CASES = int(os.environ.get("DDREP_FUZZ", "0"))


def fuzzed(cases: int) -> Callable[[Any], Any]:
    """So many in CI, the same each time; otherwise as many as are asked for, others each time."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=CASES or cases, deadline=None, derandomize=not CASES, suppress_health_check=quiet)


@contextlib.contextmanager
def refused_in_one_line(*names: str, most: int = 5000) -> Iterator[None]:
    """The block ends well, or in a UserError of one line with one of `names`, if there are any."""
    try:
        yield
    except UserError as e:
        said = str(e)
        assert "\n" not in said and len(said) < most and (not names or any(name in said for name in names))


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some bytes of a file replaced, more often at its beginning and end; its end cut off, a piece of it twice."""
    at = st.floats(0, 1, exclude_max=True)
    bytes_at = draw(st.lists(st.tuples(at, st.integers(0, 255)), max_size=8))
    edges = draw(st.lists(st.tuples(st.integers(-512, 511), st.integers(0, 255)), max_size=4))
    cut, twice = draw(st.none() | at), draw(st.none() | st.tuples(at, at))

    def changed(content: bytes) -> bytes:
        spoilt = bytearray(content)
        for where, byte in [(int(share * len(content)), byte) for share, byte in bytes_at] + edges:
            if -len(spoilt) <= where < len(spoilt):
                spoilt[where] = byte
        if twice:
            start, end = sorted(int(share * len(content)) for share in twice)
            spoilt[end:end] = spoilt[start : min(end, start + 4096)]
        return bytes(spoilt if cut is None else spoilt[: int(cut * len(spoilt))])

    return changed


SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 20) | st.sampled_from([64, 100, 999, 1000, 2**16, 2**40, 10**400])
    | st.integers() | st.floats() | st.text(max_size=8)
)  # fmt: skip


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


VALUES = st.recursive(SCALARS, _containers, max_leaves=6)


def changed_tree(data: st.DataObject, tree: Any) -> Any:
    """A table or list with a value anywhere in it replaced by any other, dropped, or one more beside it."""
    tree = copy.deepcopy(tree)
    at, path = tree, list[Any]()
    while isinstance(at, dict | list) and at and (not path or data.draw(st.integers(0, 3))):
        path.append(data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at)))))
        at = at[path[-1]]
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    how = data.draw(st.sampled_from(["replaced"] * 4 + ["dropped", "added"]))
    if not path or how == "added":
        if isinstance(inner, dict):
            inner[data.draw(st.text(max_size=8))] = data.draw(VALUES)
        else:
            inner.append(data.draw(VALUES))
    elif how == "dropped":
        del inner[path[-1]]
    else:
        inner[path[-1]] = data.draw(VALUES)
    return tree
