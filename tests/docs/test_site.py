"""The site, built by the command of `make docs`: every warning, of a link that leads nowhere above all, is an error."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ddrep
from ddrep.cli.index import verbs
from ddrep.config.writing import config_yaml

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that it is built into."""
    command = re.search(r"^docs:.*\n\t\.venv/bin/(.*) build/docs$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert command
    out = tmp_path_factory.mktemp("site")
    program = Path(sys.executable).parent / command[1].split()[0]
    done = subprocess.run(
        [program, *command[1].split()[1:], out], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0 and not done.stdout, done.stdout
    return out


def page(site: Path, name: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", (site / f"{name}.html").read_text(encoding="utf-8")))


def keys(table: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every setting with a value, as in a.b.c."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from keys(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_every_setting_is_there_with_its_default(site: Path) -> None:
    """A table's own, which need not be that of its type: of a guide of masks, and of one of attributes."""
    text, config = page(site, "docs/settings"), yaml.safe_load(config_yaml())
    assert len(config) > 20
    parts = {name: text.partition(f"\n{name}¶\n")[2].partition("¶")[0] for name in config}
    for name, table in config.items():
        known = list(keys(table)) if isinstance(table, dict) else []
        assert parts[name] or name in text.split("\n")
        assert [key for key in known if key not in parts[name].split("\n")] == []
    rows = [re.search(r"^sampling\.scale\n(.*)\n(.*)$", parts[name], re.MULTILINE) for name in ("attributes", "masks")]
    said = [float(row[2]) for row in rows if row]
    assert said == [config[name]["sampling"]["scale"] for name in ("attributes", "masks")] and said[0] != said[1]


def test_every_command_is_there_with_its_options(site: Path) -> None:
    _, *parts = page(site, "docs/commands").split("usage: ddrep ")
    said = {part.split()[0]: part.lower().replace("-", "_") for part in parts}
    assert list(said) == list(verbs())
    for name, verb in verbs().items():
        options = [field.alias or option for option, field in verb.load().model_fields.items()]
        assert [option for option in options if option not in said[name]] == []


def test_every_name_of_the_python_api_is_there(site: Path) -> None:
    text = (site / "docs/api.html").read_text(encoding="utf-8")
    assert [name for name in ddrep.__all__ if f'id="ddrep.{name}"' not in text] == []


def test_no_page_asks_anything_of_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    loads = re.compile(r'(?:<script[^>]* src|<link[^>]* href|<img[^>]* src)="(https?:)?//')
    assert len(pages) > 30 and [p.name for p in pages if loads.search(p.read_text(encoding="utf-8"))] == []
