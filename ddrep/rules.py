"""What the workflow's rules share: resources that grow, what a stage is told, and commands made of names of files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from snakemake.utils import AlwaysQuotedFormatter

from ddrep.config import Experiment
from ddrep.derived import told
from ddrep.runs import subset_of

Named = Any
"""Snakemake's list of which some items have names: wildcards, resources, input, output."""


def growing(mem_mb: int, minutes: int) -> dict[str, Any]:
    """Memory and time of a job, as much again at each attempt."""
    return {
        "mem_mb": lambda wildcards, attempt: mem_mb * attempt,
        "runtime": lambda wildcards, attempt: minutes * attempt,
    }


def on_gpu(mem_mb: int, minutes: int) -> dict[str, Any]:
    """The same, and a GPU."""
    return {"gpu": 1, **growing(mem_mb, minutes)}


def constrained(constraints: dict[str, str], **paths: str) -> dict[str, str]:
    """Pathvars, with constraints in them: Snakemake has none for the wildcards that come with a pathvar."""
    return {
        name: re.sub(r"{(\w+)}", lambda found: f"{{{found[1]},{constraints[found[1]]}}}", path)
        for name, path in paths.items()
    }


def params(experiment: Experiment, stage: str, text: str = "", **given: Any) -> dict[str, Callable[..., str]]:
    """What a rule tells its command: the stage's JSON, and the words before it.

    text: a verb, if it is not the stage's name, and its options; {name} is a wildcard, one of `given`, or the job's
    number of GPUs (gpu); {subset} is the number of the subset alone. Snakemake tracks no param that may look at the
    output, so that other words alone make no result anew: versions do.
    """

    def of_stage(wildcards: Named) -> str:
        return told(stage, experiment, {**given, **dict(wildcards.items())})

    def words(wildcards: Named, output: Named, resources: Named) -> str:
        known = {**given, **dict(wildcards.items()), "gpu": resources.get("gpu")}
        if "subset" in known:
            known["subset"] = subset_of(known["subset"])[0]
        return AlwaysQuotedFormatter().format(text or stage, **known)

    return {"stage": of_stage, "words": words}


def files(wildcards: Named, input: Named, output: Named) -> str:
    """A job's files as words of its command: --name FILE, then those without a name.

    Those named `beside` are left out: the command finds them beside others.
    """
    options = [*_options(input), *_options(output)]
    return shlex.join([*options, *input[: len(input) - sum(len(paths) for _, paths in _named(input))]])


def _options(paths: Named) -> Iterator[str]:
    for name, given in _named(paths):
        for path in given if name != "beside" else []:
            yield from (f"--{name.replace('_', '-')}", path)


def _named(paths: Named) -> list[tuple[str, list[str]]]:
    return [(name, [given] if isinstance(given, str) else list(given)) for name, given in paths.items()]
