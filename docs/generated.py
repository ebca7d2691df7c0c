"""The parts of the site that are made of the code: the settings of the typed configuration, and the commands' help."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, get_args
from unittest.mock import patch

from pydantic.fields import FieldInfo
from pydantic_settings import CliSettingsSource

from ddrep.cli.call import Base, command
from ddrep.cli.index import verbs
from ddrep.config import Experiment, Section
from ddrep.config.writing import flow

HEAD = "| setting | kind | default | meaning |\n|---|---|---|---|\n"
MANY = 10**9
"""From which a bound says nothing to a reader."""
BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}


def commands() -> str:
    """A section a verb, with what its `--help` prints."""
    return "\n\n".join(f"## ddrep {name}\n\n```text\n{said}```" for name, said in helps().items())


def helps() -> dict[str, str]:
    """By verb, what its `--help` prints on 100 columns."""
    with patch.dict(os.environ, COLUMNS="100"):  # which argparse asks for, as it would a terminal
        return {name: _help(command(name, verb.load())) for name, verb in verbs().items()}


def _help(one: type[Base]) -> str:
    parser: Any = CliSettingsSource(one).root_parser
    (subparsers,) = parser._subparsers._group_actions
    (verb,) = subparsers.choices.values()
    return str(verb.format_help())


def settings() -> str:
    """A section for each table of config.yaml, with a row for each setting in it, and one for those outside of any."""
    plain, parts, experiment = list[str](), list[str](), Experiment()
    for name, field in Experiment.model_fields.items():
        first, *rows = _rows("", Experiment, name, experiment)
        if rows:
            parts.append(f"## {name}\n\n{_said(field)}\n\n{HEAD}" + "\n".join(rows))
        else:
            plain.append(first)
    return "\n\n".join([f"## Outside of any table\n\n{HEAD}" + "\n".join(plain), *parts])


def _rows(above: str, model: type[Section], name: str, table: Section | None) -> Iterator[str]:
    """A setting's row and, of a table, those of the settings in it. table: that which it is in, at its defaults."""
    field, inner = model.model_fields[name], _sections(model.model_fields[name].annotation)
    value = getattr(table, name) if table else None if field.is_required() else field.default
    default = "must be given" if table is None and field.is_required() else f"`{flow(value)}`"
    kind = _kind(model.model_json_schema()["properties"][name])
    yield f"| `{above}{name}` | {kind} | {'' if inner else _cell(default)} | {_said(field)} |"
    for section in inner:
        for each in section.model_fields:
            prefix = f"{above}{name}." if model is not Experiment else ""
            yield from _rows(prefix, section, each, value if isinstance(value, section) else None)


def _said(field: FieldInfo) -> str:
    return _cell(field.description or next((str(each.__doc__) for each in _sections(field.annotation)), ""))


def _sections(kind: Any) -> list[type[Section]]:
    """The tables that a setting holds: itself, or those of a list."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return [kind]
    return [section for each in get_args(kind) for section in _sections(each)]


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in words: its type and range, or its choices."""
    if "$ref" in schema:
        return "table"
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items') or schema['prefixItems'][0])}"
    bounds = [f"{word} {schema[key]:,}" for key, word in BOUNDS.items() if schema.get(key, MANY) < MANY]
    return " ".join([schema["type"], *bounds])


def _cell(text: str) -> str:
    return re.sub(r"([|<*])", r"\\\1", " ".join(text.split()))
