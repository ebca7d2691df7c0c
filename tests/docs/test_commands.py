"""The commands that README and docs name: verbs, options, calls of Snakemake and targets of make that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

from docs.generated import helps

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").rglob("*.md"))]
CODE = re.compile(r"^```sh\n(?P<block>.*?)^```$|^ {4}(?P<line>[^\n]*)$|`(?P<span>[^`]+)`", re.MULTILINE | re.DOTALL)


def commands(page: Path, program: str) -> Iterator[tuple[str, str]]:
    """First word after `program` and the rest of the line, of blocks of shell, indented lines and code in sentences."""
    for line in calls(page, program):
        yield from re.findall(r"^([a-z][\w-]*)(.*)", line)


def calls(page: Path, program: str) -> Iterator[str]:
    """All that follows `program`."""
    for code in CODE.finditer(page.read_text(encoding="utf-8").replace("\\\n", "")):
        text = code["block"] or code["line"] or code["span"] or ""
        yield from re.findall(rf"^(?:\$ )?{program} (.*)", text, re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    return helps()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_commands_have_their_verbs_and_options(page: Path, said: dict[str, str]) -> None:
    for verb, rest in commands(page, "ddrep"):
        assert verb in said
        options = re.findall(r"--[a-z][\w.-]*", rest.partition(" #")[0])
        assert [o for o in options if not re.search(rf"{re.escape(o)}(?![\w.-])", said[verb])] == []


def test_enough_are_looked_at() -> None:
    assert len({verb for page in PAGES for verb, _ in commands(page, "ddrep")}) > 20


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for page in PAGES for target, _ in commands(page, "make")}
    assert {"demo", "docs", "install", "test"} <= named <= targets


def test_calls_of_snakemake_have_its_options_and_profiles_that_are_there() -> None:
    """Files of the reader's own stand for any; a target that is no file is a rule's name."""
    told = [line for page in PAGES for line in calls(page, "snakemake") if "..." not in line]
    # README says of one call that it fails, as tests/workflow/test_form.py finds.
    called = [line for line in told if not line.endswith("--resources gpu=4 all")]
    rules = re.findall(r"^(?:rule|use rule \w+ as) (\w+)", _workflow(), re.MULTILINE)
    for line in called:
        given, unknown = get_argument_parser().parse_known_args(shlex.split(line, comments=True))
        assert unknown == [], line
        assert given.workflow_profile is None or (REPO / given.workflow_profile / "config.yaml").is_file(), line
        assert {target for target in given.targets if "/" not in target} <= set(rules), line
    assert len(called) > 15 and len(told) == len(called) + 1


def _workflow() -> str:
    return "\n".join(
        path.read_text(encoding="utf-8") for path in [REPO / "Snakefile", *REPO.glob("workflow/rules/*.smk")]
    )
