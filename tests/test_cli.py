"""The command line: what a wrong call says, running by hand, and its agreement with the workflow's calls."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from PIL import Image

from ddrep import cli
from ddrep.cli.base import Verb
from ddrep.cli.call import repeated
from ddrep.cli.index import MODULES, verbs
from ddrep.config import Section, Stage
from ddrep.data.shards import read_shards
from ddrep.derived import STAGES
from ddrep.errors import UserError, complaint

REPO = Path(__file__).resolve().parents[1]
VERBS: dict[str, type[Verb]] = {name: verb.load() for name, verb in verbs().items()}
EXCHANGE = {"import", "import-diffae", "import-nvae", "export", "export-data"}
BY_HAND = {"init", "check", "status", "recover", "config", "sample"} | EXCHANGE
"""Verbs about a whole experiment, that write config.yaml, that are between the workflow's files and those of others, or
look at them."""

WRONG = {
    "no such verb": (["tabel"], "tabel: no such verb (there is: table, label)"),
    "no verb": ([], "no verb is given"),
    "no such option": (["data", "--outt", "x"], "unrecognized arguments: --outt"),
    "an option is missing": (["data"], "data: --out missing; ddrep data --help says what is expected"),
    "no files": (["table"], "required: ROWS"),
    "not a number": (["data", "--out", "x.tar", "--threads", "many"], "data.threads: Input should be a valid integer"),
    "out of range": (
        ["data", "--out", "x.tar", "--stage.config.embedded.per-class", "51"],
        "embedded.per_class: Input",
    ),
    "a stage's unknown key": (
        ["data", "--out", "x.tar", "--stage", '{"config": {"knd": 1}}'],
        "config.knd: unknown key",
    ),
    "a stage that is a list": (["data", "--out", "x.tar", "--stage", "[]"], "stage: Input should be"),
    "a stage that is null": (["data", "--out", "x.tar", "--stage", "null"], "stage"),
    "no threads": (["data", "--out", "x.tar", "--threads", "0"], "data.threads: Input should be greater than"),
    "a name with half a character": (
        ["classify", "--out", "x.parquet", "--predictions", "y", "--test", "z", "--source", "\udcff"],
        r"\udcff",
    ),
    "a stage that is not JSON": (["data", "--out", "x.tar", "--stage", "kind"], '"data"'),
    "no such split": (["data", "--out", "x.tar", "--split", "dev"], "split dev: expected one of train"),
    "no such denoiser": (["features", "--denoiser", "gone", "--images", "gone", "--out", "x"], "gone: no such"),
}


def test_the_verbs_are_all_classes_that_no_other_builds_on() -> None:
    rooms = [vars(importlib.import_module(f"ddrep.cli.{name}")) for name in MODULES]
    classes = {each for room in rooms for each in room.values() if isinstance(each, type) and issubclass(each, Verb)}
    assert set(VERBS.values()) == {each for each in classes if not each.__subclasses__()}


def test_the_list_of_verbs_needs_no_library() -> None:
    """A user waits for it: pydantic alone would take longer than all of its work."""
    call = "import sys; from ddrep.cli import main; main(['--help']); print({'pydantic', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True).stdout
    assert [verb for verb in VERBS if f"\n  {verb} " not in said and f"\n  {verb}\n" not in said] == []
    assert said.endswith("set()\n")


def test_an_environment_variable_with_a_verbs_name_means_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", '{"split": "dev"}')
    assert cli.main(["data", "--out", str(tmp_path / "x.tar"), "--log", str(tmp_path / "log")]) == 0


@pytest.mark.parametrize("arguments, line", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call_is_one_line_and_status_2(
    arguments: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--log", "log"] if arguments[:1] and arguments[0] in VERBS else arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ddrep: ") and said.err.count("\n") == 1
    assert line in said.err
    assert {path.name for path in tmp_path.iterdir()} <= {"log"}


@pytest.mark.parametrize("said", ["", "CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: out of memory\nX"])
def test_too_little_memory_is_one_line(said: str) -> None:
    error = RuntimeError(said) if said else MemoryError()
    line = complaint(error)
    assert line and line.startswith("not enough memory") and "\n" not in line
    assert complaint(RuntimeError("CUDA error: misaligned address")) is None, "a defect keeps its traceback"


def test_a_library_that_cannot_be_loaded_is_one_line() -> None:
    """Under `ulimit -v`, torch."""
    said = "libtorch_cpu.so: failed to map segment from shared object"
    advice = "allow more memory (ulimit -v), or install it anew"
    assert complaint(ImportError(said)) == f"a library cannot be loaded ({said}); {advice}"
    assert complaint(ImportError("cannot import name 'x'")) is None


def test_control_characters_of_a_name_are_shown() -> None:
    """A terminal would obey them."""
    assert complaint(UserError("a\x1b[2J\x00\x9bb.csv: no rows")) == r"a\x1b[2J\x00\x9bb.csv: no rows"
    line = complaint(FileNotFoundError(2, "No such file or directory", "a\nb\x07"))
    assert line == r"a b\x07: no such file or directory; mend that, and give the same command again"


def test_results_of_an_older_version_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    stage = {"stage": "data", "version": STAGES["data"].version + 1, "seed": 0, "config": {}}
    assert cli.main(["data", "--out", "x.tar", "--stage", json.dumps(stage)]) == 2
    assert f"data is at version {STAGES['data'].version}, not {stage['version']}; plan again" in capsys.readouterr().err


def test_by_hand_without_a_stage(tmp_path: Path) -> None:
    out, log = tmp_path / "test.tar", tmp_path / "logs" / "test.log"
    options = ["--split", "test", "--out", str(out), "--log", str(log), "--stage.config.embedded.test-images", "20"]
    assert cli.main(["data", *options]) == 0
    assert len(read_shards([out])) == 20
    assert log.is_file()


def test_the_line_in_the_log_runs_again(tmp_path: Path) -> None:
    """Quoted JSON and all: the log's first line is a command for a shell."""
    stage = '{"config": {"embedded": {"test_images": 10}}}'
    command = [
        sys.executable,
        "-m",
        "ddrep",
        "data",
        "--stage",
        stage,
        "--split",
        "test",
        "--out",
        "a.tar",
        "--log",
        "a.log",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    first = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").unlink()
    line = (tmp_path / "a.log").read_text().splitlines()[0].partition(" ddrep ")[2]
    subprocess.run(f"{sys.executable} -m ddrep {line}", shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "a.tar").read_bytes() == first


def test_a_failure_is_in_the_log_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    assert cli.main(["data", "--out", str(tmp_path / "x.tar"), "--split", "dev", "--log", str(log)]) == 2
    assert capsys.readouterr().err.strip() in log.read_text()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_option_has_its_help(verb: str) -> None:
    assert VERBS[verb].__doc__
    for name, field in VERBS[verb].model_fields.items():
        assert field.description or name == "stage", f"{verb} --{name}"


def test_warnings_are_seen_where_a_job_has_a_log(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (8, 8), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
    (tmp_path / "images/notes.txt").touch()
    stage = {"config": {"kind": "image-folder", "image_folder": {"root": "images", "size": 8, "channels": 1}}}
    command = [sys.executable, "-m", "ddrep", "data", "--stage", json.dumps(stage), "--out", "a.tar", "--log", "a.log"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 0 and line.startswith("ddrep: warning: images: notes.txt: not used")
    assert "notes.txt: not used" in (tmp_path / "a.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", [name for name, model in VERBS.items() if hasattr(model, "does")])
def test_what_a_verb_does_takes_its_options_by_their_names_and_types(verb: str) -> None:
    """Which mypy cannot see: the verb calls it with its fields as they come."""
    module, _, name = VERBS[verb].does.partition(":")
    function = getattr(importlib.import_module(f"ddrep.{module}"), name)
    taken = {key: hint for key, hint in get_type_hints(function).items() if key != "return"}
    options = VERBS[verb].model_fields.keys() - Verb.model_fields.keys()
    given = {key: hint for key, hint in get_type_hints(VERBS[verb]).items() if key in options}
    if "stage" not in taken:
        assert given.pop("stage", Stage[Section]) is Stage[Section], "an empty section tells nothing"
    assert taken.keys() == given.keys()
    if "stage" in taken:
        section, expected = (each.pop("stage").model_fields["config"].annotation for each in (given, taken))
        assert issubclass(section, expected)
    parameters = signature(function).parameters.values()
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters if each.name != "stage")
    assert {key: _spelt(hint) for key, hint in taken.items()} == {key: _spelt(hint) for key, hint in given.items()}


def _spelt(hint: object) -> object:
    """A sequence is taken where a list is given, any text where one of some is."""
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return frozenset(map(_spelt, get_args(hint)))
    if get_origin(hint) is Sequence:
        return list[get_args(hint)]  # type: ignore[misc]
    return str if get_origin(hint) is Literal else hint


def test_several_experiment_files_are_given_as_to_snakemake() -> None:
    words = ["status", "--configfile", "a.yaml", "b.yaml", "--watch", "--configfile", "c.yaml", "--cores", "2"]
    told = [word for name in ("a", "b") for word in ("--configfile", f"{name}.yaml")]
    assert repeated(words) == ["status", *told, "--watch", "--configfile", "c.yaml", "--cores", "2"]
    assert repeated(["check", "a.yaml", "b.yaml"]) == ["check", "a.yaml", "b.yaml"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_spoil_nothing(closed: str, tmp_path: Path) -> None:
    """As of a daemon: what is written is whole, and what is wrong still ends with 2."""
    call = f"{sys.executable} -m ddrep config --out {tmp_path}/out.yaml {closed}"
    assert subprocess.run(["sh", "-c", call], cwd=REPO).returncode == 0
    assert (tmp_path / "out.yaml").read_bytes() == (REPO / "config.yaml").read_bytes()
    assert subprocess.run(["sh", "-c", f"{sys.executable} -m ddrep nonsense {closed}"], cwd=REPO).returncode == 2


@pytest.mark.parametrize("channels, status", [("1", 0), ("2", 2)])
def test_a_choice_of_numbers_is_given_by_hand(
    channels: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (f"{split}/{label}/{i}" for split in ("train", "test") for label in "ab" for i in range(3)):
        (tmp_path / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(hash(name) % 2**32).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    key = "--stage.config.image-folder"
    words = ["--stage.config.kind", "image-folder", f"{key}.root", str(tmp_path), f"{key}.size", "8"]
    out = tmp_path / "out.tar"
    assert cli.main(["data", *words, f"{key}.channels", channels, "--out", str(out)]) == status, capsys.readouterr().err
    assert out.exists() == (status == 0)


@pytest.mark.parametrize("verb", ["check", "config"])
def test_a_verb_that_writes_no_file_says_nothing_of_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb]) == 0 and capsys.readouterr().err == ""
