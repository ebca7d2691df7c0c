"""What the workflow's rules share: resources that grow, what a stage is told, and commands made of names of files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from snakemake.io import AnnotatedString, strip_wildcard_constraints
from snakemake.rules import Rule
from snakemake.utils import AlwaysQuotedFormatter

from ddrep.config import Experiment
from ddrep.derived import told
from ddrep.errors import UserError
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


def any_of(names: Iterable[str]) -> str:
    """The constraint of a wildcard that is one of these."""
    return "|".join(map(re.escape, names))


def constrained(constraints: dict[str, str], **paths: str) -> dict[str, str]:
    """Pathvars, with constraints in them: Snakemake has none for the wildcards that come with a pathvar."""
    return {
        name: re.sub(r"{(\w+)}", lambda found: f"{{{found[1]},{constraints[found[1]]}}}", path)
        for name, path in paths.items()
    }


def resolve_first() -> None:
    """Have rules resolve their own pathvars before a path becomes one of the default storage, for which Snakemake 9.27
    knows those of the workflow alone."""
    modify = Rule.apply_path_modifier

    def resolved(rule: Rule, path: Any, modifier: Any, property: str) -> Any:
        text = rule.pathvars.apply(str(path))
        known = AnnotatedString(strip_wildcard_constraints(text) if property == "input" else text)
        known.flags = getattr(path, "flags", known.flags)
        return modify(rule, known, modifier, property)

    Rule.apply_path_modifier = resolved


def look_when_jobs_end(scheduler: Any) -> None:
    """Let Snakemake look for jobs to start when one has ended, not by the clock as well.

    Its limit of jobs a second, 100 unless told, sets a timer at each look, which ends in a look that sets another:
    after a thousand jobs it looks a thousand times a second (Snakemake 9.27). A limit that was asked for stays.
    """
    limit = getattr(scheduler, "job_rate_limiter", None)
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        scheduler.job_rate_limiter = None


def params(experiment: Experiment, stage: str, text: str = "", **given: Any) -> dict[str, Callable[..., str]]:
    """What a rule tells its command: the stage's JSON, and the words before it.

    text: a verb, if it is not the stage's name, and its options. In both, {name} is a wildcard or one of `given`; in
    the text {gpu} is the job's number of GPUs, too, and {subset} that of the subset alone. Snakemake tracks no param
    that may look at the output, so that other words alone make no result anew: versions do.
    """

    def of_stage(wildcards: Named) -> str:
        known = {**given, **dict(wildcards.items())}
        return told(stage.format_map(known), experiment, known)

    def words(wildcards: Named, output: Named, resources: Named) -> str:
        known = {**given, **dict(wildcards.items()), "gpu": resources.get("gpu")}
        if "subset" in known:
            known["subset"] = subset_of(known["subset"])[0]
        return AlwaysQuotedFormatter().format(text or stage, **known)

    return {"stage": of_stage, "words": words}


def check_call(words: Sequence[str]) -> None:
    """Raise UserError for a call of Snakemake with `--configfile` twice, of which it would take the last alone."""
    if "snakemake" not in words[0]:
        return
    if (times := sum(word.partition("=")[0] in ("--configfile", "--configfiles") for word in words)) > 1:
        raise UserError(
            f"--configfile: given {times} times, of which Snakemake takes the last alone; "
            "give all files behind one: --configfile a.yaml b.yaml"
        )


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
