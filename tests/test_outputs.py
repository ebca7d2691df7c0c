"""Where a verb writes is looked at before it works; and what the machine complains of later is one line as well."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ddrep import cli
from ddrep.cli.outputs import marks
from tests import tiny
from tests.test_cli import VERBS

VALUES = {"number": "1", "of": "attribute", "method": "ours", "steps": "5", "attribute": "a", "index": "0"}
NUMBERED = {"table": "3"}
NAMED = {verb: ["--stage.config.attribute=a", "--stage.config.having=b"] for verb in ("attribute", "score-attribute")}
REPO = Path(__file__).parents[1]


def arguments(verb: str, **given: str) -> list[str]:
    """A whole call: what must be given, with inputs that are not there, and `given`."""
    words, positional = [verb, *NAMED.get(verb, [])], []
    for name, field in VERBS[verb].model_fields.items():
        if name in given or not field.is_required() or name == "stage":
            continue
        value = NUMBERED.get(verb, VALUES[name]) if name in VALUES else f"{name}.in"
        if name in OUTPUTS[verb]:
            value = f"{name}{SUFFIXES[verb, name]}"
        if "CliPositional" in repr(field.metadata):
            positional.append(value)
        else:
            words += [f"--{name.replace('_', '-')}", value]
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}={value}"]
    return [*words, *positional]


OUTPUTS = {verb: {name for name, _ in marks(model.model_construct())} for verb, model in VERBS.items()}
MARKS = {(verb, name): mark for verb, model in VERBS.items() for name, mark in marks(model.model_construct())}
SUFFIXES = {place: mark.suffixes[0] if mark.suffixes else ".out" for place, mark in MARKS.items()}
FILES = sorted(place for place, mark in MARKS.items() if mark.kind == "file")


def _called(capsys: pytest.CaptureFixture[str], call: list[str]) -> str:
    """The line on standard error; nothing but a log is written."""
    before = set(Path().rglob("*"))
    assert cli.main(call) == 2
    said = capsys.readouterr()
    assert said.out == "" and {path.name for path in set(Path().rglob("*")) - before} <= {"log"}
    lines = [line for line in said.err.splitlines() if line.startswith("ddrep: ")]
    assert len(lines) == 1 and "Traceback" not in said.err
    return lines[0].removeprefix("ddrep: ")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(REPO.joinpath("config.yaml").read_text("utf-8"), "utf-8")


def test_every_option_that_is_said_to_be_written_is_declared() -> None:
    """The help says "to write", or "to make"; `log` and `pool` besides."""
    for verb, model in VERBS.items():
        told = {name for name, field in model.model_fields.items() if " to write" in str(field.description)}
        assert told <= OUTPUTS[verb] and OUTPUTS[verb] - told <= {"log", "pool", "out"}, verb
        assert verb in ("plan", "status", "check", "recover") or "out" in OUTPUTS[verb]


@pytest.mark.parametrize("verb, name", FILES)
def test_a_folder_is_no_name_for_an_output(verb: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(f"folder{SUFFIXES[verb, name]}")
    folder.mkdir()
    said = _called(capsys, arguments(verb, **{name: str(folder)}))
    assert said == f"--{name.replace('_', '-')} {folder}: {folder} is a folder; expected the name of a file"


BAD: dict[str, tuple[str, str]] = {
    "no name": ("", "is a folder"),
    "here": (".", "is a folder"),
    "the root": ("/", "is a folder"),
    "below a file": ("file/x", "file is not a folder"),
    "far below a file": ("file/a/b/x", "file is not a folder"),
    "below a link to nothing": ("nowhere/x", "nowhere is not a folder"),
    "where nothing can be made": ("/proc/a/x", "nothing can be written in /proc"),
    "too long a name": ("x" * 300, "file name too long"),
    "a device": ("/dev/null", "is a device or a pipe"),
    "a pipe": ("pipe", "is a device or a pipe"),
    "as /dev/stdout, of a file": ("stream", "is a device or a pipe"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("verb", ["data", "import", "classify", "table"])
def test_places_where_no_file_can_be_made(kind: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    Path("nowhere").symlink_to("gone")
    os.mkfifo("pipe")
    place, fault = BAD[kind]
    with Path("file").open(encoding="utf-8") as file:
        Path("stream").symlink_to(f"/proc/self/fd/{file.fileno()}")
        assert fault in _called(capsys, arguments(verb, out=place))
    if fault != "is a device or a pipe":  # which a log may go to
        assert fault in _called(capsys, arguments(verb, out="good", log=place))


@pytest.mark.parametrize("verb, name", [place for place in FILES if MARKS[place].suffixes])
@pytest.mark.parametrize("given", ["grid", "grid.", "grid.txt", "a.b/grid", ".png"])
def test_a_writer_that_goes_by_the_suffix_is_given_one(
    verb: str, name: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.b").mkdir()
    said = _called(capsys, arguments(verb, **{name: given}))
    assert said.endswith(f"{given}: expected a name that ends in {SUFFIXES[verb, name]}, which says the format")


ALIKE = [
    ("finetune", {"out": "a.png", "grid": "a.png"}, "--grid writes a.png too"),
    ("finetune", {"out": "a.out", "history": "./x/../a.out"}, "--history writes a.out too"),
    ("finetune", {"out": "a.png", "grid": "link/a.png"}, "--grid writes a.png too"),
    ("synthesize", {"out": "a.parquet"}, "--out writes a.parquet too"),
    ("figure4", {"out": "a.png", "table": "a.pdf"}, "a.pdf is read as well"),
    ("sample", {"denoiser": "a.png", "out": "a.png"}, "a.png is read as well"),
    ("rejection", {"train": "t.tar", "report": "link/t.tar"}, "link/t.tar is read as well"),
    ("pretrain", {"stage": '{"config": {"images": "i.gz"}}', "out": "i.gz"}, "i.gz is read as well"),
    ("costs", {"out": "log", "log": "log"}, "--out writes log too"),
    ("evaluator", {"log": "train.in"}, "train.in is read as well"),
]


@pytest.mark.parametrize("verb, given, fault", ALIKE)
def test_no_file_is_named_twice(
    verb: str, given: dict[str, str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x").mkdir()
    Path("link").symlink_to(".")
    call = arguments(verb, **given)
    if "denoiser" in given:  # a positional one
        call = [given["denoiser"] if word == "denoiser.in" else word for word in arguments(verb, out=given["out"])]
    assert fault in _called(capsys, call)


def test_a_new_folder_is_new_and_a_pool_is_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("there").mkdir()
    Path("file").touch()
    assert "is there already; give the name of a new folder" in _called(capsys, arguments("export", out="there"))
    assert "is not a folder; give the name of one" in _called(capsys, arguments("synthesize", pool="file"))
    asked = arguments("synthesize", pool="there", finetuned="finetuned.in")
    assert "finetuned.in: no such file" in _called(capsys, asked)


@pytest.mark.parametrize("option", ["out", "log", "grid", "history"])
def test_a_folder_of_another_user(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() != 0:
        pytest.skip("another user is played by root alone")
    with tempfile.TemporaryDirectory() as here:  # tmp_path is in a folder of root's alone
        monkeypatch.chdir(here)
        for folder, mode in ((".", 0o755), ("theirs", 0o755), ("ours", 0o777)):
            Path(folder).mkdir(exist_ok=True)
            Path(folder).chmod(mode)
        outputs = {"out": "ours/o", "log": "ours/log", "grid": "ours/g.png", "history": "ours/h"}
        call = arguments("finetune", **(outputs | {option: "theirs/new/x.png"}))
        code = (
            "import os, sys, ddrep.cli.call; from ddrep import cli; cli.verbs()['finetune'].load(); os.setuid(65534); "
        )
        code += f"sys.exit(cli.main({call!r}))"  # whose user may not read all of Python's own files
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2 and not list(Path("theirs").iterdir())
        fault = "nothing can be written in theirs (permission denied); give another folder"
        assert done.stderr.splitlines()[-1] == f"ddrep: --{option} theirs/new/x.png: {fault}"


@pytest.fixture
def ddrep() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Real commands, ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **options: Any) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        started.append(subprocess.Popen([sys.executable, "-m", "ddrep", *words], **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _wait_for(text: str, log: Path) -> None:
    end = time.monotonic() + 600
    while not (log.exists() and text in log.read_text(encoding="utf-8")):
        assert time.monotonic() < end, log
        time.sleep(0.05)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_command_says_one_line(ddrep: Callable[..., subprocess.Popen[str]], processes: int) -> None:
    """Ctrl-C in a terminal: the kernel tells every process of the group."""
    from ddrep.data.shards import write_shard

    tiny.denoiser().save(Path("d.safetensors"))
    write_shard(Path("t.tar"), tiny.images())
    write_shard(Path("v.tar"), dataclasses.replace(tiny.images(), images=255 - tiny.images().images))
    stage = '{"config": {"steps": 1000000, "batch": 8}}'
    inputs = ["--stage", stage, "--denoiser", "d.safetensors", "--train", "t.tar", "--validation", "v.tar"]
    outputs = ["--out", "o.safetensors", "--grid", "g.png", "--history", "h.parquet", "--log", "log"]
    options = ["--processes", str(processes), "--threads", "1"]
    process = ddrep("finetune", *inputs, *outputs, *options, start_new_session=True)
    _wait_for("step 100/", Path("log"))
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (130, "", "ddrep: interrupted; the same command goes on\n")
    assert "Traceback" not in Path("log").read_text(encoding="utf-8")


def test_an_interrupt_of_the_first_process_ends_the_others(ddrep: Callable[..., subprocess.Popen[str]]) -> None:
    import psutil

    from ddrep.data.shards import write_shard

    tiny.denoiser().save(Path("d.safetensors"))
    write_shard(Path("t.tar"), tiny.images())
    write_shard(Path("v.tar"), dataclasses.replace(tiny.images(), images=255 - tiny.images().images))
    inputs = ["--denoiser", "d.safetensors", "--train", "t.tar", "--validation", "v.tar"]
    outputs = ["--out", "o.safetensors", "--grid", "g.png", "--history", "h.parquet", "--log", "log"]
    process = ddrep("finetune", *inputs, *outputs, "--processes", "2", "--threads", "1")
    _wait_for("step 100/", Path("log"))
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    _, alive = psutil.wait_procs(family, 20)
    assert alive == []


def test_a_reader_that_has_gone_is_no_error(ddrep: Callable[..., subprocess.Popen[str]]) -> None:
    row = {"attribute": "a", "reads": "pixels", "subset": 0, "seed": 0, "t": 100.0, "accuracy": 50.0, "n": 9}
    pd.DataFrame([row]).to_parquet("rows.parquet")
    table = ["robustness-table", "rows.parquet", "--out", "t.parquet", "--markdown", "t.md", "--log", "log"]
    for words, status in ((table, 141), (["--help"], 0)):
        read, write = os.pipe()
        os.close(read)
        process = ddrep(*words, stdout=write)
        os.close(write)
        assert process.wait(60) == status and process.stderr and process.stderr.read() == ""
    assert Path("t.md").exists()


def test_a_full_disk_met_late_is_one_line(ddrep: Callable[..., subprocess.Popen[str]]) -> None:
    tiny.denoiser().save(Path("d.safetensors"))
    limit = "import resource, sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); from ddrep.cli import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        limit,
        "sample",
        "d.safetensors",
        "--steps",
        "2",
        "--images",
        "100",
        "--out",
        "g.png",
    ]
    here = {path.name for path in Path().iterdir()}
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr and last.startswith("ddrep: ")
    assert "file too large" in last.lower() and {path.name for path in Path().iterdir()} == here


def test_a_log_that_cannot_be_written_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    tiny.denoiser().save(Path("d.safetensors"))
    said = _called(capsys, ["sample", "d.safetensors", "--steps", "2", "--out", "g.png", "--log", "/dev/full"])
    assert said == "/dev/full: no space left on device; mend that, and give the same command again"


def test_after_a_call_messages_go_where_they_went_before(capsys: pytest.CaptureFixture[str]) -> None:
    """A log that is full, or in a folder that has gone since, is no trouble for the process's next call."""
    before = cli.log.handlers[:]
    tiny.denoiser().save(Path("d.safetensors"))
    sample = ["sample", "d.safetensors", "--steps", "2", "--out", "g.png"]
    assert cli.main([*sample, "--log", "/dev/full"]) == 2 and cli.main([*sample, "--log", "log"]) == 0
    assert cli.log.handlers == before
    said = Path("log").read_text()
    cli.log.warning("a message of the process's own")
    assert said and Path("log").read_text() == said


def test_a_full_standard_output_is_one_line(ddrep: Callable[..., subprocess.Popen[str]]) -> None:
    row = {"attribute": "a", "reads": "pixels", "subset": 0, "seed": 0, "t": 100.0, "accuracy": 50.0, "n": 9}
    pd.DataFrame([row]).to_parquet("rows.parquet")
    table = ["robustness-table", "rows.parquet", "--out", "t.parquet", "--markdown", "t.md", "--log", "log"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        process = ddrep(*table, stdout=full)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 2 and said.count("\n") == 1 and "no space left on device" in said.lower()
        process = ddrep("config", stdout=full)  # longer than a buffer: the verb itself meets it
        assert process.communicate(timeout=60)[1].startswith("ddrep: standard output: no space left on device; ")
        assert process.returncode == 2
        assert ddrep("data", "--split", "dev", "--out", "o.tar", stderr=full).wait(60) == 2


def test_what_is_nested_too_deeply_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nested too deeply" in _called(capsys, arguments("data", stage='{"config":' * 5000 + "{}" + "}" * 5000))


LOCALES = {"C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ASCII": {"PYTHONIOENCODING": "ascii"}}


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", ["größe.safetensors".encode(), b"gr\xf6\xdfe.safetensors"], ids=["UTF-8", "Latin-1"])
def test_names_of_any_encoding_are_said_and_logged(name: bytes, locale: str) -> None:
    command: list[str | bytes] = [sys.executable, "-m", "ddrep", "sample", name, "--out", "g.png", "--log", "log"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **LOCALES[locale]})
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"no such file" in done.stderr
    log = Path("log").read_text(encoding="utf-8").splitlines()
    assert len(log) == 2 and "no such file" in log[1] and "safetensors" in log[0]
