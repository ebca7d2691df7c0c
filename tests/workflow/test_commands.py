"""The commands that the workflow plans: each rule's has a stage with a version, and options that its verb knows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from ddrep.derived import STAGES
from tests.test_cli import BY_HAND, VERBS
from tests.workflow.test_replanning import base
from tests.workflow.tree import Tree, copy_workflow, link_networks


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The words of every command of an experiment in which every rule has a job, but for `plan`."""
    path = tmp_path_factory.mktemp("tree")
    link_networks(path)
    tree = copy_workflow(path, checked=False)
    experiment = base("made here")
    experiment["table3"]["sources"].append("unlabelled-soft")
    tree.configure(**experiment)
    network = "results/fashion-demo/subset0/classifiers/resnet18/plain/ours/1x/0.safetensors"  # not of `all`
    done = tree.snakemake("--dry-run", "--printshellcmds", "--cores", "2", "--", "all", network)
    assert done.returncode == 0, done.stdout
    planned = set(re.findall(r"^(\w+) +\d+$", done.stdout, re.MULTILINE)) - {"total"}
    assert planned == set(_rules(tree)) - {"job", "plan"}
    return [shlex.split(line) for line in re.findall(r"^Shell command: ddrep (.*)$", done.stdout, re.MULTILINE)]


def _rules(tree: Tree) -> list[str]:
    return tree.snakemake("--list-rules").stdout.split()


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for at, word in enumerate(words):
        if word.startswith("--"):
            yield word.removeprefix("--"), words[at + 1]


def test_every_rule_has_a_stage_of_this_version(commands: list[list[str]]) -> None:
    told = [dict(_options(words)).get("stage", "{}") for words in commands]
    versions = {
        (found[1], int(found[2])) for stage in told if (found := re.search(r'"stage":"(.+)","version":(\d+)}$', stage))
    }
    assert len(told) > 90 and all('"version":' in stage for stage in told)
    assert versions == {(name, stage.version) for name, stage in STAGES.items()}, (
        "no stage without a rule, nor a rule without a stage"
    )


def test_the_workflow_calls_every_verb_by_options_that_it_has(commands: list[list[str]]) -> None:
    assert {words[0] for words in commands} == set(VERBS) - BY_HAND - {"plan"}
    for words in commands:
        fields = {name.replace("_", "-"): field for name, field in VERBS[words[0]].model_fields.items()}
        options = dict(_options(words))
        assert {"threads", "log", "stage"} <= set(options) <= set(fields), words
        positional = {name for name, field in fields.items() if "CliPositional" in repr(field.metadata)}
        required = {name for name, field in fields.items() if field.is_required()}
        assert required - positional <= set(options), words
        at_end = words[2 * len(options) + 1 :]
        assert bool(at_end) <= bool(positional) and not [word for word in at_end if word.startswith("--")], words
        stage: Any = fields["stage"].annotation
        TypeAdapter(stage).validate_json(options["stage"])
