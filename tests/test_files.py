import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ddrep.denoiser.checkpoints import read_content
from ddrep.errors import UserError
from ddrep.files import (
    fingerprint,
    is_zip,
    load_tensors,
    save_tensors,
    sha256,
    state_path,
    tensors_from_disk,
    written_whole,
)


def test_nothing_is_there_before_the_end_and_only_the_output_after(tmp_path):
    out = tmp_path / "new" / "a.txt"
    with written_whole(out) as (draft,):
        draft.write_text("half")
        assert not out.exists() and draft.suffix == out.suffix and draft.parent == out.parent
    assert out.read_text() == "half" and [p.name for p in out.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_several_outputs_as_they_were(tmp_path):
    old, new = tmp_path / "old.tar", tmp_path / "new.parquet"
    old.write_text("before")
    with pytest.raises(RuntimeError), written_whole(old, new) as drafts:
        for draft in drafts:
            draft.write_text("half")
        raise RuntimeError
    assert old.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["old.tar"]


def test_several_outputs_appear_together(tmp_path):
    paths = tmp_path / "a.tar", tmp_path / "a.parquet"
    with written_whole(*paths) as drafts:
        for i, draft in enumerate(drafts):
            draft.write_text(str(i))
    assert [p.read_text() for p in paths] == ["0", "1"] and len(list(tmp_path.iterdir())) == 2


def test_a_folder_of_drafts_goes_too(tmp_path):
    with pytest.raises(RuntimeError), written_whole(tmp_path / "folder") as (draft,):
        draft.mkdir()
        (draft / "part").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_hashlibs(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    assert sha256(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_equal_tensors_and_metadata_give_equal_bytes(tmp_path):
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor([1, 2])}
    metadata = {str(k): json.dumps({"name": 'Jäckchen \u2603 "a/b"\n', "k": k}) for k in range(6)}
    for i in range(8):
        save_tensors(tensors, tmp_path / f"{i}.safetensors", metadata)
    assert len({sha256(path) for path in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "0.safetensors", framework="pt") as f:
        assert f.metadata() == metadata
    for name, value in load_file(tmp_path / "0.safetensors").items():
        assert torch.equal(value, tensors[name])


def test_fingerprints_tell_the_parts_apart():
    names = {fingerprint(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", ""))}
    assert len(names) == 5 and all(len(name) == 16 for name in names)


def test_unfinished_work_of_other_settings_or_inputs_lies_elsewhere():
    ours = state_path("finetune", '{"lr":1e-3}', "d1")
    others = {state_path("finetune", '{"lr":1e-3}', "d2"), state_path("finetune", '{"lr":1e-4}', "d1")}
    assert ours not in others | {state_path("pretrain", '{"lr":1e-3}', "d1")} and len(others) == 2
    assert ours == state_path("finetune", '{"lr":1e-3}', "d1") and not ours.is_absolute()


@pytest.fixture(params=[0o022, 0o027, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_output_has_the_mode_of_a_new_file(umask: int, tmp_path: Path) -> None:
    """safetensors writes files that are their owner's alone; a folder's files as well."""
    tensors = {"a": torch.zeros(2)}
    with written_whole(tmp_path / "a.safetensors", tmp_path / "b.txt", tmp_path / "folder") as (one, two, folder):
        save_tensors(tensors, one, {"format": "x"})
        two.write_text("b")
        (folder / "inner").mkdir(parents=True)
        save_tensors(tensors, folder / "inner" / "c.safetensors", {"format": "x"})
    for path in tmp_path.rglob("*"):
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == expected, path
    assert len(list(tmp_path.rglob("*"))) == 5


FORM = "a denoiser; make one with `ddrep pretrain`"


def _unreadable(kind: str, path: Path) -> None:
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not found")


WHAT_IS_THERE = {
    "nothing": "no such file",
    "a folder": "is a folder",
    "a pipe": "is a pipe or a device, not a file",
    "empty": "is empty",
    "text": "not a readable safetensors file",
}


@pytest.mark.parametrize("kind", WHAT_IS_THERE)
def test_what_is_no_file_of_tensors_is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    _unreadable(kind, path)
    with pytest.raises(UserError) as said:
        load_tensors(path, "form", FORM)
    assert str(said.value).startswith(f"{path}: {WHAT_IS_THERE[kind]}") and FORM in str(said.value)


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("another user is played by root alone")
    save_tensors({"a": torch.zeros(2)}, tmp_path / "f.safetensors", {"format": "form"})
    (tmp_path / "f.safetensors").chmod(0o600)
    code = f"""
import os
from pathlib import Path
from ddrep.errors import UserError
from ddrep.files import load_tensors
import safetensors.torch
os.setuid(65534)
try:
    load_tensors(Path("f.safetensors"), "form", {FORM!r})
except UserError as e:
    print(e)
"""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"f.safetensors: permission denied; expected {FORM}\n", done.stderr


WRITER = """
import sys
from pathlib import Path
from ddrep.files import written_whole
with written_whole(Path(sys.argv[1])) as (draft,):
    draft.write_text(sys.argv[2])
    print(draft.name, flush=True)
    sys.stdin.readline()
"""


def _writer(path: Path, text: str) -> tuple[subprocess.Popen[str], Path]:
    """A process in the middle of writing `text` to `path`, and its draft."""
    command = [sys.executable, "-c", WRITER, str(path), text]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, path.with_name(process.stdout.readline().strip())


def test_drafts_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    out, other = tmp_path / "a.b.txt", tmp_path / "a.txt"
    (killed, left), (living, kept), (elsewhere, unrelated) = _writer(out, "k"), _writer(out, "l"), _writer(other, "o")
    for process in (killed, elsewhere):
        process.kill()
        process.wait()
    with written_whole(out) as (draft,):
        draft.write_text("mine")
        assert len({draft, left, kept}) == 3 and not left.exists() and kept.exists() and unrelated.exists()
    living.communicate("go on\n")
    assert living.returncode == 0 and out.read_text() == "l"
    assert {path.name for path in tmp_path.iterdir()} == {out.name, unrelated.name}


def test_a_draft_whose_number_went_to_another_process_is_of_the_dead(tmp_path: Path) -> None:
    killed, left = _writer(tmp_path / "a.txt", "k")
    killed.kill()
    killed.wait()
    mine = left.rename(left.with_name(left.name.replace(f"-{killed.pid}-", f"-{os.getpid()}-")))
    with written_whole(tmp_path / "a.txt") as (draft,):
        assert not mine.exists() and draft != mine
        draft.touch()


def test_another_machines_draft_stays_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared disk nobody can tell whether a process of another machine lives, and numbers may be the same."""
    path = tmp_path / "a.txt"
    monkeypatch.setattr(socket, "gethostname", lambda: "node17")
    with written_whole(path) as (theirs,):
        theirs.write_text("theirs")
        monkeypatch.undo()
        with written_whole(path) as (mine,):
            mine.write_text("mine")
            assert theirs.exists() and mine != theirs
        assert path.read_text() == "mine"
    assert path.read_text() == "theirs"
    theirs.write_text("left")
    for age, there in ((80_000, True), (90_000, False)):
        os.utime(theirs, (time.time() - age,) * 2)
        with written_whole(path) as (mine,):
            mine.touch()
        assert theirs.exists() == there


def test_a_draft_of_a_draft_is_the_draft(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.tar") as (outer,), written_whole(outer) as (inner,):
        assert inner == outer
        inner.write_text("once")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 125 + ".tar", "grid", "a.b.c.tar", "run-20240101-1200-5.tar"])
def test_any_name_has_a_draft_with_its_suffix(name: str, tmp_path: Path) -> None:
    with written_whole(tmp_path / name) as (draft,):
        assert draft.suffix == Path(name).suffix and draft.name != name and draft.name.startswith(".")
        draft.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_two_long_names_have_two_drafts(tmp_path: Path) -> None:
    names = tmp_path / ("x" * 254 + "a"), tmp_path / ("x" * 254 + "b")
    with written_whole(*names) as drafts:
        for draft in drafts:
            draft.write_text(draft.name)
    assert len({path.read_text() for path in names}) == 2


FULL_DISK = """
import torch
from pathlib import Path
from ddrep.files import written_whole
try:
    with written_whole(Path("disk/s.pt")) as (draft,):
        torch.save({"a": torch.zeros(2**20)}, draft)
except OSError as e:
    print(e, list(Path("disk").iterdir()))
"""


def test_a_full_disk_is_called_one_whatever_the_writer_says(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=2m tmpfs disk || exit 77; exec "$0" -c "$1"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, sys.executable, FULL_DISK]
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("a small disk may not be mounted here")
    assert done.stdout == "[Errno 28] No space left on device: 'disk/s.pt' []\n", done.stderr


HEADERS = {
    "null": b"null",
    "number": b"5",
    "deep": b"[" * 100_000,
    "metadata a list": b'{"__metadata__": [1]}',
    "entry a string": b'{"__metadata__": {}, "a": "b"}',
    "no offsets": b'{"__metadata__": {}, "a": {"dtype": "F32", "shape": [1], "data_offsets": []}}',
    "huge offsets": b'{"__metadata__": {}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [9999996, 10000000]}}',
    "offsets of another size": b'{"__metadata__": {}, "a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}',
    "shape a string": b'{"__metadata__": {}, "a": {"dtype": "F32", "shape": "ab", "data_offsets": [0, 4]}}',
    "offsets reversed": b'{"__metadata__": {}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    "offsets negative": b'{"__metadata__": {}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    "offsets that are shared": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
    b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    "shape huge": b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}',
    "no images": b'{"a": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}}',
    "of integers": b'{"a": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}',
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_is_none_is_one_of_the_documented_errors(kind: str, tmp_path: Path) -> None:
    header = HEADERS[kind]
    (tmp_path / "f").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError):
        tensors_from_disk(tmp_path / "f")


def test_a_zip_whose_end_speaks_of_other_disks_is_none(tmp_path: Path) -> None:
    """Python raises an error of it."""
    with zipfile.ZipFile(path := tmp_path / "a.pt", "w") as archive:
        archive.writestr("a", b"1")
    assert is_zip(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-22] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 9) + whole[-22:])
    assert not is_zip(path)
    with pytest.raises(UserError, match=r"a.pt: truncated: its end is missing; fetch it again"):
        read_content(path)
