"""config.yaml as it is written from the models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ddrep import cli
from ddrep.config import Experiment, load
from ddrep.config.writing import WIDTH, flow

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "config.yaml").read_text(encoding="utf-8")


def test_config_yaml_is_what_the_verb_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config"]) == 0
    assert capsys.readouterr().out == TEXT, "ddrep config --out config.yaml"
    assert cli.main(["config", "--out", str(tmp_path / "c.yaml")]) == 0
    assert (tmp_path / "c.yaml").read_text(encoding="utf-8") == TEXT


def test_it_is_the_default_experiment_to_the_letter() -> None:
    assert load(REPO / "config.yaml").model_dump_json() == Experiment().model_dump_json()


def test_it_is_no_wider_than_code() -> None:
    assert [line for line in TEXT.splitlines() if len(line) > WIDTH or line != line.rstrip()] == []


def _sections(section: BaseModel) -> Iterator[BaseModel]:
    yield section
    for _, value in section:
        items = value if isinstance(value, tuple) else (value,)
        yield from (inner for item in items if isinstance(item, BaseModel) for inner in _sections(item))


def test_every_description_stands_in_it() -> None:
    said = " ".join(" ".join(TEXT.replace("#", " ").split()).split())
    sections = list(_sections(Experiment()))
    for section in sections:
        for name, field in type(section).model_fields.items():
            assert " ".join((field.description or "").split()).removesuffix(".") in said, name
    assert len(sections) > 30


@pytest.mark.parametrize("place", ["data", "masks.data"])
def test_the_tables_of_other_kinds_are_there_as_comments(place: str) -> None:
    """With all keys, and the defaults as they are."""
    section: Any = Experiment()
    for name in place.split("."):
        section = getattr(section, name)
    indent = "  " * len(place.split("."))
    lines = TEXT.split(f"\n{indent[2:]}data:")[1].split("\n")[1:]
    lines = lines[: next(i for i, line in enumerate(lines) if not line.startswith(indent))]
    block = "\n".join(line.removeprefix(f"{indent}# ") for line in lines if line.startswith(f"{indent}# "))
    tables = yaml.safe_load(block)
    assert set(tables) == set(type(section).model_fields) - {"kind", "labels", "embedded"}
    for name, content in tables.items():
        chosen = type(section).model_validate({"kind": name.replace("_", "-"), name: content})
        table = getattr(chosen, name)
        assert set(content) == set(type(table).model_fields), name
        required = {key: content[key] for key, field in type(table).model_fields.items() if field.is_required()}
        assert type(table).model_validate(required) == table, name


@given(st.floats(min_value=0, allow_infinity=False) | st.integers() | st.booleans() | st.none() | st.text())
def test_values_are_read_back(value: Any) -> None:
    """Numbers as the models read them: YAML 1.1 takes 1e-3 for text."""
    (read,) = yaml.safe_load(f"[{flow(value)}]")
    assert (float(read) if isinstance(value, float) else read) == value
