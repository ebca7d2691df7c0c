"""pyproject.toml (ranges), requirements.lock (exact pins) and environment.yml (conda) hold the same set."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
DEV = PROJECT["optional-dependencies"]["dev"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
CUDA = re.compile("nvidia-|cuda-")


def by_name(lines: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(line) for line in lines]
    names = [canonicalize_name(each.name) for each in requirements]
    assert len(set(names)) == len(names), "a name is there twice"
    return dict(zip(names, requirements, strict=True))


def lock() -> dict[str, Requirement]:
    lines = (REPO / "requirements.lock").read_text().splitlines()
    return by_name([line for line in lines if line and not line.startswith("#")])


def conda() -> dict[str, SpecifierSet]:
    lines = yaml.safe_load((REPO / "environment.yml").read_text())["dependencies"]
    names = [line.partition(" ") for line in lines]
    return {CONDA_NAMES.get(name, name): SpecifierSet(range_) for name, _, range_ in names}


def test_every_pin_is_exact() -> None:
    assert [str(each) for each in lock().values() if not re.fullmatch(r"==[\w.]+", str(each.specifier))] == []


@pytest.mark.parametrize("line", PROJECT["dependencies"] + DEV)
def test_pins_are_within_the_ranges(line: str) -> None:
    wanted = Requirement(line)
    pin = lock()[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(str(pin.specifier).removeprefix("=="))


def test_lock_holds_what_the_project_needs_and_nothing_else() -> None:
    """The oracle: the metadata of the installed packages, followed from pyproject.toml."""
    todo = [Requirement(line) for line in PROJECT["dependencies"] + DEV]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen or CUDA.match(name):
            continue
        seen.add((name, extras))
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                todo.append(needed)
    assert {name for name, _ in seen} == set(lock())


def test_conda_has_the_same_ranges() -> None:
    ranges = {name: each.specifier for name, each in by_name(PROJECT["dependencies"]).items()}
    assert conda() == {"python": SpecifierSet(PROJECT["requires-python"]), "pip": SpecifierSet(), **ranges}


def test_the_environment_of_sdm_conda_has_ddrep() -> None:
    """Its file lacks it, as a path in there would be read from another folder: the script beside it adds it."""
    named = {name for file in (REPO / "workflow/rules").glob("*.smk")
             for name in re.findall(r'conda:\n +"(.*)"', file.read_text())}  # fmt: skip
    assert named == {"../../environment.yml"}
    comment, command = (REPO / "environment.post-deploy.sh").read_text().splitlines()
    assert comment.startswith("#") and command == "pip install --no-deps -e ."
    assert command in (REPO / "environment.yml").read_text()


def test_makefile_and_project_name_the_same_python() -> None:
    assert "sys.version_info < (3, 11)" in (REPO / "Makefile").read_text()
    assert PROJECT["requires-python"] == ">=3.11"


def test_version_is_the_packages() -> None:
    import ddrep

    assert PROJECT["version"] == ddrep.__version__


def test_embedded_files_are_packaged() -> None:
    patterns = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packaged = {
        path.relative_to(REPO)
        for package, globs in patterns.items()
        for pattern in globs
        for path in REPO.joinpath(package.replace(".", "/")).glob(pattern)
        if path.is_file() and path.suffix != ".py"
    }
    tracked = subprocess.run(["git", "ls-files", "ddrep"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert packaged == {Path(name) for name in tracked.splitlines() if not name.endswith(".py")}
