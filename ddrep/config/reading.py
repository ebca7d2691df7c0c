"""config.yaml and its overlays, merged and checked."""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ddrep.config.base import merge
from ddrep.config.experiment import Experiment
from ddrep.errors import UserError

NAMED, LONGEST = 20, 200
"""Complaints that a message names, and characters of each thing that it quotes."""
MOST_BYTES, MOST_ITEMS, DEEPEST = 2**18, 10**5, 50
"""Of a file of settings: its size, what it holds when aliases are followed, and tables within tables."""


def parse(raw: dict[str, Any], where: str = "config") -> Experiment:
    """A merged configuration -> Experiment. Raises UserError naming every key that is wrong, in one line."""
    try:
        return Experiment.model_validate(raw)
    except ValidationError as e:
        raise UserError(f"{where}: {explain(e)}") from None
    except UnicodeEncodeError as e:  # which pydantic does not say of a key
        raise UserError(f"{where}: {e.object[:LONGEST]!r}: a character that no text has") from None


def explain(error: ValidationError) -> str:
    """The complaints of a ValidationError in one line: `key: what was expected, got what`."""
    items = error.errors(include_url=False)
    more = [f"and {len(items) - NAMED} more"] if len(items) > NAMED else []
    return "; ".join([*(_complaint(dict(item)) for item in items[:NAMED]), *more])


def _complaint(item: dict[str, Any]) -> str:
    key = ".".join(str(part)[:LONGEST] for part in item["loc"]) or "(whole)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or see config.yaml for the names"
    if item["type"] == "missing":
        return f"{key}: missing; add it"
    said = item["msg"].removeprefix("Value error, ")[: 5 * LONGEST]
    return f"{key}: {said}, got {_given(item['input'], said)}"


def _given(value: Any, said: str) -> str:
    """What is there; of a section whose settings do not fit each other, those that the complaint names."""
    named = [key for key in value if re.search(rf"\b{re.escape(str(key))}\b", said)] if isinstance(value, dict) else []
    return ", ".join(f"{key} {_QUOTED.repr(value[key])}" for key in named) or _QUOTED.repr(value)


class _Quoted(reprlib.Repr):
    """What was given, as far as a message has room for it: through aliases a short file may hold 10^9 items."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, LONGEST, LONGEST
        self.maxlist = self.maxtuple = self.maxdict = 8

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**LONGEST else f"a number of {x.bit_length()} bits"  # Python refuses the longest


_QUOTED = _Quoted()


def load(*files: Path) -> Experiment:
    """The experiment of config.yaml and the overlays after it. Raises UserError."""
    raw: dict[str, Any] = {}
    for path in files:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a table of settings")
        raw = merge(raw, content)
    return parse(raw, " + ".join(map(str, files)))


def read_yaml(path: Path) -> Any:
    """A file of settings. Raises UserError for what YAML would take in silence, as a key given twice."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is a folder, a pipe or a device; expected a file of settings")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes; expected settings, of at most {MOST_BYTES}")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 at byte {e.start}; save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{path}: nested deeper than {DEEPEST}; see config.yaml for the settings") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as e:  # of tags that say what is not
        raise UserError(f"{path}: not valid YAML ({' '.join(str(e).split())[: 2 * LONGEST]})") from None


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses what YAML 1.1 takes for something else than people do: a key given twice (it takes the
    last), 1:30 (90, in base 60) and 012 (10, in base 8). And it bounds what aliases of aliases stand for."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise RecursionError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is not None and _size(node, {}) > MOST_ITEMS:
            raise yaml.YAMLError(f"aliases that stand for more than {MOST_ITEMS} items")
        return None if node is None else self.construct_document(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        if twice := [name for name, n in names.items() if n > 1]:
            raise yaml.YAMLError(f"{twice[0][:LONGEST]} is given twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> Any:
        said, line = self.construct_scalar(node), node.start_mark.line + 1
        if len(said) > LONGEST:
            raise yaml.YAMLError(f"a number of {len(said)} characters, line {line}")
        whole = node.tag == INT
        found = super().construct_yaml_int(node) if whole else super().construct_yaml_float(node)
        if ":" in said or (whole and OCTAL.fullmatch(said)):
            raise yaml.YAMLError(f"{said} is {found} to YAML; write a decimal number, line {line}")
        return found


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
OCTAL = re.compile(r"[-+]?0[0-7_]+")
for _tag in (INT, FLOAT):
    _Loader.add_constructor(_tag, _Loader.construct_number)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Items of a tree with its aliases followed. Raises RecursionError for one that is within itself."""
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
