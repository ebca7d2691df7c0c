"""A copy of the workflow in a temporary folder, Snakemake run in it, and its plans."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from ddrep import warm

REPO = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def environment() -> dict[str, str]:
    """Snakemake looks for modules in its folder first, where a tree has but files of ddrep: the package is this one."""
    return {**os.environ, "PYTHONPATH": str(REPO)}


@dataclass(frozen=True)
class Job:
    """One output in Snakemake's summary."""

    output: str
    rule: str
    status: str
    pending: bool


@dataclass(frozen=True)
class Tree:
    """A folder with Snakefile, workflow and config.yaml."""

    path: Path
    checked: bool = True
    """Whether files, data and networks are held against the settings, as they always are outside of tests."""

    def snakemake(self, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
        """Run Snakemake here; `path`, whose `ddrep` is another, goes in front of PATH."""
        env = {**environment(), "PATH": os.pathsep.join(filter(None, [path, str(BIN), os.environ["PATH"]]))}
        env |= {warm.FOLDER: ""} if path else {}
        unchecked = [sys.executable, str(Path(__file__).parent / "unchecked.py")]
        command = [*([str(BIN / "snakemake")] if self.checked else unchecked), *arguments]
        return subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=3600)

    def start(self, *arguments: str, log: IO[str]) -> subprocess.Popen[str]:
        """Start Snakemake here; what it says goes to `log`."""
        command = [str(BIN / "snakemake"), *arguments]
        return subprocess.Popen(
            command, cwd=self.path, env=environment(), stdout=log, stderr=subprocess.STDOUT, text=True
        )

    def configure(self, **settings: Any) -> None:
        """Change top-level keys of config.yaml."""
        file = self.path / "config.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **settings}))

    def ask(self, overlays: list[dict[str, Any]]) -> list[tuple[int, str]]:
        """Exit status, and summary or complaint, under each overlay (a --configfile over config.yaml)."""
        questions = []
        for number, overlay in enumerate(overlays):
            file = self.path / f"overlay{number}.yaml"
            file.write_text(yaml.safe_dump(overlay))
            questions.append(["--configfile", file.name])
        cores = os.cpu_count() or 1
        shares = [self._start_asking(questions[first::cores]) for first in range(min(cores, len(questions)))]
        answers: dict[int, tuple[int, str]] = {}
        for first, process in enumerate(shares):
            told, _ = process.communicate()
            assert process.returncode == 0
            answers |= {first + cores * i: tuple(answer) for i, answer in enumerate(json.loads(told))}
        return [answers[number] for number in range(len(overlays))]

    def _start_asking(self, questions: list[list[str]]) -> subprocess.Popen[str]:
        with tempfile.TemporaryFile("w+") as asked:
            json.dump(questions, asked)
            asked.seek(0)
            how = [] if self.checked else ["unchecked"]
            command = [sys.executable, str(Path(__file__).parent / "plans.py"), *how]
            return subprocess.Popen(
                command, cwd=self.path, env=environment(), stdin=asked, stdout=subprocess.PIPE, text=True
            )

    def plans(self, overlays: list[dict[str, Any]]) -> list[list[Job]]:
        """The summary under each overlay."""
        return [_jobs(*answer) for answer in self.ask(overlays)]


def _jobs(status: int, summary: str) -> list[Job]:
    assert status == 0, summary
    lines = [line.split("\t") for line in summary.splitlines() if line.count("\t") == 5]
    return [Job(line[0], line[2], line[4], line[5] != "no update") for line in lines[1:]]


def copy_workflow(path: Path, checked: bool = True) -> Tree:
    for name in ("Snakefile", "config.yaml", "environment.yml"):
        shutil.copy(REPO / name, path / name)
    shutil.copytree(REPO / "workflow", path / "workflow")
    return Tree(path, checked)


def link_networks(path: Path) -> None:
    """The embedded networks where config.yaml looks for them."""
    folder = path / "ddrep/data/embedded"
    folder.mkdir(parents=True)
    for name in ("denoiser", "evaluator", "segmenter"):
        (folder / f"{name}.safetensors").symlink_to(REPO / f"ddrep/data/embedded/{name}.safetensors")
