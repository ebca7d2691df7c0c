"""Members of one kind by name: the thing that is declared once, and looked up by everything that is made of it."""

from __future__ import annotations

import difflib
import os
import re
import runpy
from typing import Protocol, TypeVar

from ddrep.errors import UserError


class Named(Protocol):
    @property
    def name(self) -> str: ...


M = TypeVar("M", bound=Named)


class Registry(dict[str, M]):
    """Name -> member, in the order of declaration. A name that is not there is a UserError that says which are."""

    def __init__(self, kind: str) -> None:
        """kind: what the members are called in messages, such as "source of images"."""
        super().__init__()
        self.kind = kind

    def add(self, *members: M) -> None:
        """Declare members. Raises ValueError if a name is taken, or is none for a part of a file's name."""
        for member in members:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_-]*", member.name):
                raise ValueError(
                    f"{self.kind} {member.name!r}: expected letters, digits, . + - and _, for files bear its name"
                )
            if member.name in self:
                raise ValueError(f"{self.kind} {member.name}: declared twice")
            self[member.name] = member

    def __missing__(self, name: str) -> M:
        raise UserError(self._unknown(name))

    def known(self, name: str) -> str:
        """`name` itself, for the types of settings. Raises ValueError, which pydantic tells with the key."""
        if name not in self:
            raise ValueError(self._unknown(name))
        return name

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return f"no {self.kind} {name}; {hint}there are {', '.join(self)}"


FILES = "DDREP_MEMBERS"
_declared: set[str] = set()


def declare_members() -> None:
    """Run the Python files that `DDREP_MEMBERS` lists, as PATH lists folders; each declares members of its own.

    By the environment, so that the jobs of a workflow know what the workflow knows. Raises UserError.
    """
    for path in os.environ.get(FILES, "").split(os.pathsep):
        if path and path not in _declared:
            try:
                runpy.run_path(path)
            except Exception as e:
                said = e.strerror if isinstance(e, OSError) else f"{type(e).__name__}: {e}"
                raise UserError(f"{FILES}: {path}: {said}; expected a file that declares members") from e
            _declared.add(path)
