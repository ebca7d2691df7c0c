"""The import order of docs/architecture.md, the sizes of files and functions, and the documents beside the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[1]
FILES = sorted(REPO.joinpath("ddrep").rglob("*.py"))
PAGES = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(REPO)) for path in sorted(REPO.glob("docs/**/*.md")))]


def order() -> list[str]:
    """Rooms in the order in which they may import one another."""
    text = REPO.joinpath("docs/architecture.md").read_text(encoding="utf-8").partition("## Import order")[2]
    block = re.search(r"^    .*?\n\n", text, re.M | re.S)
    assert block
    return re.findall(r"\w+", block[0])


def room(module: str) -> str:
    return module.split(".")[1]


def imports(file: Path) -> Iterator[str]:
    """Modules of ddrep that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ddrep":
            yield from [node.module] if "." in node.module else [f"ddrep.{each.name}" for each in node.names]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPO)))
def test_imports_go_one_way(file: Path) -> None:
    rooms = order()
    mine = room(".".join(file.relative_to(REPO).with_suffix("").parts))
    if mine in ("__init__", "__main__"):
        return
    assert [each for each in imports(file) if rooms.index(room(each)) > rooms.index(mine)] == []


def test_every_room_has_its_place() -> None:
    rooms = {path.stem for path in REPO.joinpath("ddrep").iterdir() if path.suffix in ("", ".py")}
    rooms = {name for name in rooms if not name.startswith("_")}
    assert set(order()) == rooms and len(order()) == len(rooms)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPO)))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 50] == [] and text.count("\n") <= 350


@pytest.mark.parametrize("name", PAGES)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    text = REPO.joinpath(name).read_text(encoding="utf-8")
    here = REPO.joinpath(name).parent
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not here.joinpath(link).exists()] == []
    paths = re.findall(r"`((?:ddrep|tests|workflow|benchmarks|tools|docs)/[\w./-]+)`", text)
    assert [path for path in paths if not REPO.joinpath(path).exists()] == []


def test_hooks_before_a_commit_are_the_linters_of_make() -> None:
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", REPO.joinpath("Makefile").read_text(encoding="utf-8"), re.M)
    hooks = yaml.safe_load(REPO.joinpath(".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert lint and all(hook["entry"] in lint[1] for hook in hooks)
