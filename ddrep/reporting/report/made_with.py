"""What was run, and with what: settings, versions, commit, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

import ddrep
from ddrep.config import Experiment
from ddrep.device import cpu_info

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pandas", "snakemake")


def settings(experiment: Experiment) -> tuple[str, str]:
    """As YAML: what differs from the defaults of config.yaml, and everything."""
    whole, default = experiment.model_dump(mode="json"), Experiment().model_dump(mode="json")
    return _yaml(different(whole, default)), _yaml(whole)


def different(content: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """The keys whose values differ, of tables their own."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        there = default.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            found |= {key: rest} if (rest := different(value, there)) else {}
        elif value != there or key not in default:
            found[key] = value
    return found


def _yaml(content: dict[str, Any]) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=90)) if content else ""


def facts(experiment: Experiment) -> dict[str, str]:
    """In the order of the page."""
    return {
        "Experiment": experiment.experiment,
        "Parts": ", ".join(experiment.parts),
        "Data": experiment.data.kind,
        "Seed": str(experiment.seed),
        "ddrep": f"{ddrep.__version__}{_commit()}",
        "Python": platform.python_version(),
        "Packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "Machine that made this page": _machine(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not there)"


def _commit() -> str:
    """Of the code, where it lies in a git repository."""
    folder = Path(ddrep.__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {name.stdout.strip()}{' with changes' if changes.stdout.strip() else ''}"


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{platform.system()} on {cpu_info('model name') or platform.machine()}, {os.cpu_count()} cores{gpu}"
