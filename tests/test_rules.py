"""What the rules share, by Snakemake's own lists."""

from __future__ import annotations

import contextlib
import inspect
import shlex

import pytest
from snakemake.iocontainers import Namedlist

from ddrep.config import Experiment
from ddrep.derived import told
from ddrep.errors import UserError
from ddrep.rules import check_call, constrained, files, growing, on_gpu, params

AWKWARD = "it's; touch pwned $(x) {y}"


def named(unnamed: list[str], **given: str | list[str]) -> Namedlist[str]:
    made: Namedlist[str] = Namedlist(toclone=unnamed)
    for name, paths in given.items():
        first = len(made)
        made.extend([paths] if isinstance(paths, str) else paths)
        made._set_name(name, first, end=None if isinstance(paths, str) else len(made))
    return made


def test_resources_grow_with_attempts() -> None:
    asked = on_gpu(2000, 30)
    assert asked["gpu"] == 1 and (asked["mem_mb"](None, 3), asked["runtime"](None, attempt=2)) == (6000, 60)
    assert set(growing(1, 1)) == {"mem_mb", "runtime"}


def test_files_are_options_by_their_names() -> None:
    input = named(["b", AWKWARD], shard="s.tar", beside=["x", "y"], evaluator=[])
    output = named([], out="o.tar", features_out="f.npz", beside="o.parquet")
    line = files(None, input, output)
    assert shlex.split(line) == ["--shard", "s.tar", "--out", "o.tar", "--features-out", "f.npz", "b", AWKWARD]
    assert files(None, named([]), named([], out="o")) == "--out o"


def test_words_are_quoted_and_left_untracked() -> None:
    made = params(Experiment(experiment="x"), "finetune", "classify --architecture {source} --n {n} --gpus {gpu}", n=2)
    wildcards, resources = Namedlist(fromdict={"source": AWKWARD, "subset": "1"}), Namedlist(fromdict={"gpu": 3})
    said = made["words"](wildcards, None, resources)
    assert shlex.split(said) == ["classify", "--architecture", AWKWARD, "--n", "2", "--gpus", "3"]
    assert "output" in inspect.signature(made["words"]).parameters, "by which Snakemake knows what it need not track"
    assert params(Experiment(experiment="x"), "features")["words"](wildcards, None, resources) == "features"


def test_the_stage_is_that_of_the_wildcards_and_what_is_given() -> None:
    e = Experiment(experiment="x")
    wildcards = Namedlist(fromdict={"subset": "1"})
    assert params(e, "finetune")["stage"](wildcards) == told("finetune", e, {"subset": "1"})
    assert params(e, "guidance-tables", number=2)["stage"](wildcards) == told("guidance-tables", e, {"number": "2"})


def test_pathvars_are_constrained() -> None:
    assert constrained({"a": r"\d+"}, x="<y>/{a}.tar") == {"x": r"<y>/{a,\d+}.tar"}
    with pytest.raises(KeyError):
        constrained({}, x="{a}")


@pytest.mark.parametrize("words, twice", [
    (["/bin/snakemake", "--configfile", "a.yaml", "b.yaml"], False),
    (["/bin/snakemake", "--configfile", "a.yaml", "--configfile=b.yaml"], True),
    (["/lib/snakemake/__main__.py", "--configfiles", "a.yaml", "--configfile", "b.yaml"], True),
    (["/bin/ddrep", "recover", "--configfile", "a.yaml", "--configfile", "b.yaml"], False),
])  # fmt: skip
def test_files_of_which_snakemake_would_take_the_last_alone(words: list[str], twice: bool) -> None:
    with pytest.raises(UserError, match="give all files behind one") if twice else contextlib.nullcontext():
        check_call(words)
