"""The verbs by name, read off the sources of this room: `ddrep --help` imports none, and a job its own alone."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

MODULES = (
    "init", "plan", "config", "stages", "exchange", "guidance", "evaluation", "sample", "guidance_reporting",
    "reporting",
)  # fmt: skip
"""Of this room, in the order of `ddrep --help`."""


class Entry(NamedTuple):
    """Where a verb is, the first paragraph of what it says of itself, and what its module says of all that it has."""

    module: str
    name: str
    help: str
    group: str

    def load(self) -> Any:
        """The verb's class."""
        return getattr(import_module(f"ddrep.cli.{self.module}"), self.name)


def verbs() -> dict[str, Entry]:
    """Name on the command line -> verb: each class that is no base of another."""
    sources = {module: ast.parse((Path(__file__).parent / f"{module}.py").read_bytes()) for module in MODULES}
    classes = {
        node.name: (module, node)
        for module, tree in sources.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    bases = {ast.unparse(base) for _, node in classes.values() for base in node.bases}
    groups = {module: _help(tree).partition(":")[0].rstrip(".") for module, tree in sources.items()}
    leaves = ((name, *found) for name, found in classes.items() if name not in bases)
    return {_kebab(name): Entry(module, name, _help(node), groups[module]) for name, module, node in leaves}


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()


def _help(node: ast.ClassDef | ast.Module) -> str:
    return " ".join((ast.get_docstring(node) or "").split())
