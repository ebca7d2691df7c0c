"""config.yaml as `ddrep config` writes it: every setting at its default, and what the models say of it as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from ddrep.config import Experiment
from ddrep.config.base import Section

WIDTH = 120
HEAD = """\
The embedded experiment, complete, in minutes on two cores: every setting at its default, as `ddrep config` writes it.
To change something, edit it here or, better, give a file with what differs:
`snakemake --cores 8 --configfile mine.yaml` merges its tables over these, and replaces its lists and values.
Give each such file a name of its own under `experiment`, or it works in the same results folder.
"""


def config_yaml() -> str:
    """The text of config.yaml; read back, it is the default experiment."""
    experiment, lines, before = Experiment(), [f"# {line}" for line in HEAD.splitlines()], False
    for name, field in Experiment.model_fields.items():
        value = getattr(experiment, name)
        plain = not isinstance(value, Section) and not _are_tables(value)
        lines += [] if plain and before else [""]
        lines += _entry(name, value, field, WIDTH)
        before = plain
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, field: FieldInfo, width: int) -> Iterator[str]:
    """The lines of a setting; of a table that is not there, an example as a comment."""
    if value is None and field.examples:
        yield from (f"# {line}" for line in _commented(f"{name}: {field.examples[0]}", _said(field), width - 2))
    elif value is None and (kinds := [kind for kind in get_args(field.annotation) if _is_section(kind)]):
        yield from (f"# {line}" for line in _entry(name, _example(kinds[0]), field, width - 2))
    elif isinstance(value, Section):
        yield from _commented(f"{name}:", field.description or str(type(value).__doc__), width)
        yield from (f"  {line}" for line in _table(value, width - 2))
    elif _are_tables(value):
        yield from _commented(f"{name}:", _said(field), width)
        yield from (f"  {line}" for line in _items(value, width - 2))
    else:
        lines = textwrap.wrap(f"{name}: {flow(value)}", width, subsequent_indent="  ", break_long_words=False)
        yield from _commented("\n".join(lines), _said(field), width)


def _table(section: Section, width: int) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        yield from _entry(name, getattr(section, name), field, width)


def _items(sections: tuple[Section, ...], width: int) -> Iterator[str]:
    """A list of tables: a line each, where all have room; else what their keys mean is said of the first."""
    short = [f"- {flow(section)}" for section in sections]
    if max(map(len, short)) <= width:
        yield from short
        return
    for number, section in enumerate(sections):
        lines = (f"{name}: {flow(value)}" for name, value in section) if number else _table(section, width - 2)
        yield from (f"{'  ' if i else '- '}{line}" for i, line in enumerate(lines))


def _commented(entry: str, said: str, width: int) -> Iterator[str]:
    """A comment stands on the line of its setting, if there is room; else above it."""
    said = " ".join(said.split())
    line = f"{entry} # {said.removesuffix('.')}"
    if said and len(line) <= width and "\n" not in entry:
        yield line
        return
    yield from (f"# {part}" for part in textwrap.wrap(said, width - 2, break_on_hyphens=False))
    yield from entry.splitlines()


def _said(field: FieldInfo) -> str:
    """What is said of a setting: its description, and its choices where that does not name them."""
    choices = [str(choice) for choice in get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    said = field.description or ""
    if all(choice in said for choice in choices):
        return said
    return f"{said.removesuffix('.')}: {', '.join(choices[:-1])} or {choices[-1]}".removeprefix(": ")


def flow(value: Any) -> str:
    """A value on one line, as YAML 1.1 reads it; small numbers as 1e-3, which the models read as such."""
    if isinstance(value, Section):
        return f"{{{', '.join(f'{name}: {flow(item)}' for name, item in value)}}}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(flow, value))}]"
    if isinstance(value, float) and 0 < value < 0.01:
        return f"{Decimal(repr(value)):e}"
    if isinstance(value, float) and value >= 10 and value.is_integer():
        return str(int(value))
    plain = value if isinstance(value, bool | int | float | None) else str(value)
    return yaml.safe_dump([plain], default_flow_style=True, width=float("inf"))[1:-2]


def _example(section: type[Section]) -> Section:
    """A section with an example of what has no default."""
    fields = section.model_fields.items()
    return section.model_construct(**{name: field.examples[0] for name, field in fields if field.examples})


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _are_tables(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Section)
