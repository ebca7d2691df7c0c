"""`ddrep VERB` by hand, with no stage, does what the workflow does under config.yaml."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml

from ddrep import cli
from ddrep.cli.base import Verb
from ddrep.methods import METHODS, for_masks, generators
from ddrep.sources import with_shards
from tests.test_cli import VERBS
from tests.workflow.tree import copy_workflow, link_networks

STAGED = {verb for verb, model in VERBS.items() if "stage" in model.model_fields} - {"report"}
"""But for the verb whose stage is the whole experiment, whatever that is."""
OTHERS = {
    "attribute": r"footwear/train\.tar|long-sleeves/train\.tar",
    "data": "/subset0-10/",
    "synthesize": "/improved-ddpm/|/classifier-free/|-soft/",
    "info": "/improved-ddpm/|/classifier-free/|-soft/",
    "classify": "/mix/",
    "guide": r"/pixels\.safetensors",
    "guide-attribute": "/unguided/|/rejection/",
    "generate-attribute": "/d2c/",
    "generate-masks": r"/50\.tar",
    "guide-masks": r"/unguided/|/50\.tar",
}
"""Outputs of members that no option of the verb names: their sections are others than the one by hand."""
MORE = {
    "denoiser": {"kind": "pretrain"},
    "evaluation": {"evaluator": None, "segmenter": None},
    "table1": {"methods": [*METHODS]},
    "table2": {"methods": [*for_masks()]},
    "generators": {name: {"kind": "pretrain"} for name in generators()},
    "table3": {"sources": [*with_shards()]},
    "table5": {"labels": [10]},
}
"""The stages that the demo takes from files or leaves out, and all sources and methods."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The arguments of `ddrep` in the demo's jobs: one of each verb, stage, and member that options name."""
    path = tmp_path_factory.mktemp("tree")
    link_networks(path)
    (path / "made.yaml").write_text(yaml.safe_dump(MORE))
    tree = copy_workflow(path, checked=False)
    more = "results/fashion-demo/grid.json"  # asked for without sampling.grid, which is synthesize's as well
    done = tree.snakemake("all", more, "--dry-run", "--printshellcmds", "--cores", "2", "--configfile", "made.yaml")
    assert done.returncode == 0, done.stderr
    commands = (shlex.split(command) for command in re.findall(r"^Shell command: ddrep (.*)$", done.stdout, re.M))
    distinct = {}
    for command in commands:
        if "--stage" in command and command[0] in STAGED:
            named = (option for option in ("--stage", "--split", "--of", "--source", "--number") if option in command)
            other = re.search(OTHERS.get(command[0], "(?!)"), command[command.index("--out") + 1]) is not None
            distinct[command[0], other, *(command[command.index(option) + 1] for option in named)] = command
    return list(distinct.values())


def understood(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Section and seed of a verb that is called so."""
    verbs: list[Any] = []
    monkeypatch.setattr(Verb, "cli_cmd", verbs.append)
    assert cli.main(arguments) == 0
    (verb,) = verbs
    return verb.stage.config.model_dump_json(), verb.stage.seed


def test_every_verb_by_hand_does_what_the_workflow_does(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    met = set()
    for call in calls:
        at, out = call.index("--stage"), call[call.index("--out") + 1]
        by_hand, told = call[:at] + call[at + 2 :], json.loads(call[at + 1])["config"]
        for name in {"attribute", "having"} & set(told):  # which have no default
            by_hand += [f"--stage.config.{name}", told[name] if name == "attribute" else json.dumps(told[name])]
        same = understood(call, monkeypatch) == understood(by_hand, monkeypatch)
        assert same != bool(re.search(OTHERS.get(call[0], "(?!)"), out)), call
        met |= {call[0]} if same else set()
    assert met == STAGED


@pytest.mark.parametrize("verb", ["attribute", "score-attribute"])
def test_what_has_no_default_is_asked_for_in_one_line(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = ["--out", "x.tar", "--method", "ours", "--steps", "2", "--shard", "a", "--features-out", "x.npz"]
    assert cli.main([verb, *(needed if verb == "score-attribute" else needed[:2])]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(f"{verb}.stage.config.{name}: missing; add it".replace("-", "_") in said.replace("-", "_")
               for name in ("attribute", "having"))  # fmt: skip
