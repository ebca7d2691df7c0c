"""The workflow's form: lint, format, the documented calls, and what a bad configuration says."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddrep.config import load
from ddrep.runs import table4_runs
from tests.workflow.tree import BIN, REPO, Tree, environment


def test_lint(tree: Tree) -> None:
    done = tree.snakemake("--lint")
    assert done.returncode == 0, done.stderr


def test_format() -> None:
    done = subprocess.run(
        [BIN / "snakefmt", "--check", "Snakefile", "workflow"], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_a_shell_could_misread_is_quoted() -> None:
    """By Snakemake's :q alone: an apostrophe in a path ends a quotation that is written by hand.

    Words and names of files are quoted by ddrep.rules.
    """
    placeholders = set()
    for file in sorted((REPO / "workflow/rules").glob("*.smk")):
        for lines in re.findall(r"""shell:\n((?:\s+(?:".*"|'.*')\n?)+)""", file.read_text(encoding="utf-8")):
            command = re.sub(r"{{|}}", "", ast.literal_eval(f"({lines})"))
            assert "'" not in command, command
            placeholders |= set(re.findall(r"{(.*?)}", command))
    assert {name for name in placeholders if not name.endswith(":q")} == {
        "threads", "params.cores", "params.words", "params.files"
    }  # fmt: skip


def test_a_path_that_a_shell_could_misread_is_only_a_path(tree: Tree) -> None:
    """A real job with evaluation.evaluator in a folder of an awkward name, and without Inception's weights."""
    path = tree.path / "it's; touch pwned; $(touch pwned) `touch pwned` \"x" / "'; touch pwned; '.safetensors"
    path.parent.mkdir()
    shutil.copy(REPO / "ddrep/data/embedded/evaluator.safetensors", path)
    tree.configure(parts=["masks"], evaluation={"evaluator": str(path), "segmenter": None})
    done = tree.snakemake("--cores", "1", "results/fashion-demo/masks/test.npz", "--printshellcmds")
    assert done.returncode == 0, done.stderr
    assert (tree.path / "results/fashion-demo/masks/test.npz").is_file()
    assert not list(tree.path.rglob("pwned")) and "--inception" not in done.stderr


def test_an_environment_in_a_folder_of_an_awkward_name(tree: Tree) -> None:
    """Snakemake's Python, by another name of its folder, which goes into every job's PATH."""
    folder = tree.path / "v$(touch pwned) 'x\" {y}"
    folder.mkdir()
    for name in ("python", "snakemake", "ddrep"):
        (folder / name).symlink_to(BIN / name)
    code = f"import sys; sys.executable = {str(folder / 'python')!r}; from snakemake.cli import main; main()"
    command: list[str | Path] = [BIN / "python", "-c", code, "--cores", "1", "results/fashion-demo/masks/test.tar"]
    tree.configure(parts=["masks"])
    env = {**environment(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tree.path, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert (tree.path / "results/fashion-demo/masks/test.tar").is_file() and not list(tree.path.rglob("pwned"))


CALLS = {
    "default": "--cores 8 --resources gpu=4",
    "target first": "all --cores 8 --resources gpu=4",
    "profile": "--workflow-profile workflow/profiles/local",
    "cluster": "--workflow-profile workflow/profiles/slurm",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_documented_calls_plan_everything(tree: Tree, call: str) -> None:
    done = tree.snakemake(*call.split(), "--dry-run", "--quiet", "rules")
    assert done.returncode == 0, done.stderr
    counts = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line.strip()}
    assert counts["all"] == "1"
    demo = load(REPO / "config.yaml")
    assert counts["classifier"] == str(len(table4_runs(demo)))
    assert counts["classifier_on_synthetic_alone"] == str(len(demo.table3.sources))


def test_on_a_cluster_every_quick_rule_shares_a_job() -> None:
    """A rule without a GPU takes seconds: one that the profile's groups lack waits in the queue by itself."""
    text = "\n".join(path.read_text() for path in sorted((REPO / "workflow/rules").glob("*.smk")))
    rules = re.findall(r"^(?:use rule (\w+) as (\w+) with|rule (\w+)):\n(.*?)(?=^\S|\Z)", text, re.M | re.S)
    parents = {name or new: (parent, body) for parent, name, new, body in rules}
    groups = yaml.safe_load((REPO / "workflow/profiles/slurm/config.yaml").read_text())["groups"]

    def gpu(name: str) -> bool:
        parent, body = parents[name]
        return "on_gpu(" in body or "gpu=" in body or ("growing(" not in body and gpu(parent))

    quick = {name for name in parents if not gpu(name)}
    assert len(quick) > 15 and {name for name, group in groups.items() if group == "closing"} <= quick
    assert quick - set(groups) == {name for name in parents if name.endswith(("_images", "_examples"))}


@pytest.mark.parametrize("call", ["--unlock", "--dag", "--rulegraph", "--summary", "--list-rules"])
def test_what_computes_nothing_wants_no_cores(tree: Tree, call: str) -> None:
    done = tree.snakemake(call)
    assert done.returncode == 0, done.stderr


def test_a_target_after_resources_is_read_as_a_resource(tree: Tree) -> None:
    """Why the README puts `all` first: once this passes, Snakemake has mended it."""
    done = tree.snakemake("--cores", "8", "--resources", "gpu=4", "all", "--dry-run")
    assert done.returncode != 0
    assert "all" in done.stderr


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"finetune": {"stepz": 3}}, "finetune.stepz: unknown key"),
    "unknown table": ({"fine_tune": {}}, "fine_tune: unknown key"),
    "not a number": ({"finetune": {"lr": "fast"}}, "finetune.lr: Input should be a valid number"),
    "out of range": ({"synthesis": {"threshold": 1.5}}, "synthesis.threshold: Input should be less than or equal to 1"),
    "name with a slash": ({"experiment": "a/b"}, "experiment: "),
    "no such denoiser": (
        {"denoiser": {"file": {"path": "gone.safetensors"}}},
        "denoiser.file.path: no file gone.safetensors",
    ),
    "a denoiser of another kind": (
        {"denoiser": {"file": {"path": "ddrep/data/embedded/evaluator.safetensors"}}},
        "denoiser.file.path: ddrep/data/embedded/evaluator.safetensors: of another format (ddrep.evaluator/1)",
    ),
    "no such data": (
        {"data": {"kind": "image-folder", "image_folder": {"root": "gone"}}},
        "data.image_folder.root: no folder gone",
    ),
    "no such class": ({"figures": {"figure3_classes": [9, 10]}}, "figures.figure3_classes: no class 10"),
    "no such architecture": ({"table3": {"architecture": "resnet-18"}}, "table3.architecture: architecture resnet-18"),
    "the same run twice": ({"table1": {"seeds": [0, 0]}}, "table1.seeds: expected each once, 0 is there 2 times"),
    "the same method twice": ({"table2": {"methods": ["ours", "ours"]}}, "table2.methods: expected each once, ours"),
    "no sources": ({"table3": {"sources": []}}, "table3.sources: Tuple should have at least 1 item"),
    "no such evaluator": ({"evaluation": {"evaluator": "gone.safetensors"}}, "evaluation.evaluator: no file gone"),
    "no table for kind": ({"data": {"kind": "image-folder"}}, "data: kind is image-folder"),
}


def test_bad_configuration_is_one_line_before_any_job(tree: Tree) -> None:
    tree.configure(finetune={"stepz": 3})
    done = tree.snakemake("--cores", "2")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "ddrep: config: finetune.stepz: unknown key; remove it or see config.yaml for the names\n"
    assert not (tree.path / "results").exists()


def test_every_kind_of_bad_configuration(tree: Tree) -> None:
    answers = tree.ask([settings for settings, _ in BAD.values()])
    for (status, said), (_, complaint) in zip(answers, BAD.values(), strict=True):
        assert status == 2
        assert [line for line in said.splitlines() if complaint in line and line.startswith("ddrep: ")], said
        assert "Traceback" not in said
