"""One listing of a WebDataset: each tar and member once, links followed, nothing passed over in silence."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddrep import cli
from tests.data import replicas
from tests.data.readers import SPLITS, complaint, reds, take


@pytest.fixture
def wds(tmp_path: Path) -> dict:
    """20 training samples in 2 tars, 4 test samples; the red value is the sample's number, the label its last bit."""
    for name, numbers in (("train/0", range(10)), ("train/1", range(10, 20)), ("test", range(100, 104))):
        replicas.tar(tmp_path / f"{name}.tar", replicas.samples(numbers))
    return {"train": [tmp_path / "train"], "test": [tmp_path / "test.tar"], "size": 8}


def test_a_tar_listed_twice_is_read_once(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    """https://github.com/webdataset/webdataset/issues/157 and 170"""
    before = {split: take("webdataset", wds, split) for split in SPLITS}
    (tmp_path / "other").mkdir()
    os.link(tmp_path / "train/1.tar", tmp_path / "other/hard.tar")
    (tmp_path / "soft.tar").symlink_to("train/0.tar")
    again = {
        "a folder and its tar": [tmp_path / "train/1.tar"],
        "another spelling": [tmp_path / "other/../train/0.tar", tmp_path / "train/./1.tar"],
        "relative": [Path(os.path.relpath(tmp_path / "train"))],
        "links": [tmp_path / "other", tmp_path / "soft.tar"],
    }
    for name, paths in again.items():
        for split in SPLITS:
            images = take("webdataset", {**wds, "train": [*wds["train"], *paths]}, split)
            np.testing.assert_array_equal(images.images, before[split].images, err_msg=name)
            np.testing.assert_array_equal(images.labels, before[split].labels, err_msg=name)
            assert any("read once" in line for line in log()), name


@pytest.mark.parametrize("other", ["test", "validation"])
def test_a_tar_in_two_splits_is_one_line(wds: dict, tmp_path: Path, other: str) -> None:
    table = {**wds, other: [*wds.get(other, []), tmp_path / "train/../train/1.tar"]}
    for split in SPLITS:
        said = complaint("webdataset", table, split)
        assert "train/../train/1.tar = " in said and f"(in {other} and train)" in said


def test_the_same_key_in_two_tars_is_two_samples(wds: dict, tmp_path: Path) -> None:
    replicas.tar(tmp_path / "train/2.tar", {"3.png": replicas.png(33), "3.cls": b"1"})
    parts = [reds(take("webdataset", wds, split)) for split in ("train", "validation")]
    assert sorted(parts[0] + parts[1]) == [*range(20), 33]


def linked(path: Path, **links: str) -> None:
    """Members a.png (of red 7), a.cls (1), and links of the given names."""
    replicas.tar(path, {"a.png": replicas.png(7), "a.cls": b"1", "b.png": replicas.png(8)})
    with tarfile.open(path, "a") as tar:
        for name, target in links.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.type, info.linkname = (tarfile.SYMTYPE if target.startswith("./") else tarfile.LNKTYPE), target
            tar.addfile(info)


@pytest.mark.parametrize("target", ["a.cls", "./a.cls"])
def test_labels_may_be_links(wds: dict, tmp_path: Path, target: str) -> None:
    linked(tmp_path / "test.tar", b_cls=target)
    test = take("webdataset", wds, "test")
    assert reds(test) == [7, 8] and test.labels.tolist() == [1, 1]


def test_images_may_be_links_and_are_read_once(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    linked(tmp_path / "test.tar", b_cls="a.cls", c_png="a.png", c_cls="b.cls")
    assert reds(take("webdataset", wds, "test")) == [7, 8]
    assert "test.tar:c = " in log()[-1]
    linked(tmp_path / "test.tar", b_cls="nothing.cls")
    assert "b.cls (a link to nothing.cls, which is no file of the tar)" in complaint("webdataset", wds)


def test_names_with_dots_are_shown(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    dotted = {"cat.v1.png": replicas.png(1), "cat.v1.cls": b"0"}
    replicas.tar(tmp_path / "test.tar", dotted)
    said = complaint("webdataset", wds)
    assert "no samples" in said and "where KEY ends at the first dot; there are cat.v1.png, cat.v1.cls" in said
    replicas.tar(tmp_path / "test.tar", dotted | {"x.png": replicas.png(5), "x.cls": b"0", "x.json": b"{}"})
    assert reds(take("webdataset", wds, "test")) == [5]
    assert "2 files have neither an image nor a cls beside them: cat.v1.png, cat.v1.cls" in log()[-1]


def test_hidden_tars_and_members_are_passed_over(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    before = take("webdataset", wds, "train").keys
    for name in (".00001.4242.tar", "._1.tar"):
        shutil.copy(tmp_path / "train/1.tar", tmp_path / "train" / name)
    assert take("webdataset", wds, "train").keys == before
    members = {"._a.png": b"\0\5\26\7", "a.png": replicas.png(3), "._a.cls": b"\0\5\26\7", "a.cls": b"1"}
    replicas.tar(tmp_path / "test.tar", members)
    assert reds(take("webdataset", wds, "test")) == [3]
    assert log() == []


def test_what_is_no_tar_is_named(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    (tmp_path / "train/2.tar.gz").touch()
    take("webdataset", wds, "train")
    assert "train/2.tar.gz: no tars, and not used" in log()[0]
    os.mkfifo(tmp_path / "train/z.tar")
    assert "z.tar (not a regular file)" in complaint("webdataset", wds)
    (tmp_path / "train/z.tar").unlink()
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.tgz").touch()
    said = complaint("webdataset", {**wds, "test": [tmp_path / "only"]})
    assert f"no *.tar in it, but {tmp_path}/only/a.tgz" in said


def test_a_tar_of_endless_zeros_is_not_read_to_its_end(wds: dict, tmp_path: Path) -> None:
    """A preallocated file that was never filled: 64 GiB that xz would take for its own."""
    (tmp_path / "train/2.tar").touch()
    os.truncate(tmp_path / "train/2.tar", 2**36)
    started = time.process_time()
    assert len(take("webdataset", wds, "train")) == 18
    assert time.process_time() - started < 5


def test_gzipped_tars(wds: dict, tmp_path: Path) -> None:
    before = take("webdataset", wds, "test")
    with tarfile.open(tmp_path / "test.tar.gz", "w:gz") as tar, tarfile.open(tmp_path / "test.tar") as plain:
        for member in plain:
            tar.addfile(member, plain.extractfile(member))
    after = take("webdataset", {**wds, "test": [tmp_path / "test.tar.gz"]}, "test")
    np.testing.assert_array_equal(after.images, before.images)
    whole = (tmp_path / "test.tar.gz").read_bytes()
    (tmp_path / "test.tar.gz").write_bytes(whole[:-40])
    assert "not a whole tar" in complaint("webdataset", {**wds, "test": [tmp_path / "test.tar.gz"]})


def test_a_tar_cut_or_broken_anywhere_is_refused(wds: dict, tmp_path: Path) -> None:
    whole = (tmp_path / "test.tar").read_bytes()
    with tarfile.open(tmp_path / "test.tar") as tar:
        starts = [member.offset for member in tar]
    for length in (*starts[1:], starts[2] + 100, starts[2] + 600):
        (tmp_path / "test.tar").write_bytes(whole[:length])
        assert "test.tar (not a whole tar file" in complaint("webdataset", wds)
    (tmp_path / "test.tar").write_bytes(whole[: starts[4]] + b"\x99" * 512 + whole[starts[4] + 512 :])
    assert "test.tar (not a whole tar file: cut short or broken at byte" in complaint("webdataset", wds)


LABELS = {
    "1000000000000": "cls is 1000000000000, expected 0..2",
    "9" * 5000: "cls is of 5000 bytes, expected an integer",
}


@pytest.mark.parametrize("label", LABELS, ids=["10^12", "5000 digits"])
def test_absurd_labels_are_one_line(wds: dict, tmp_path: Path, label: str) -> None:
    replicas.tar(tmp_path / "train/0.tar", replicas.samples(range(3)) | {"2.cls": label.encode()})
    (tmp_path / "train/1.tar").unlink()
    assert LABELS[label] in complaint("webdataset", wds)


@pytest.mark.parametrize("name", ["x.png", "x.cls"])
def test_sparse_members_are_not_read_whole(wds: dict, tmp_path: Path, name: str) -> None:
    """GNU tar's old sparse format: a header that says how much there would be."""
    with tarfile.open(tmp_path / "test.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for other, content in (("x.png", replicas.png(1)), ("x.cls", b"0")):
            info = tarfile.TarInfo(other)
            info.size = len(content)
            if other != name:
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
            header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
            header[483:495] = b"\x80" + (10**11).to_bytes(11, "big")  # as GNU tar writes what 11 octal digits cannot
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            tar.fileobj.write(bytes(header))
            tar.offset += 512
    said = complaint("webdataset", wds, "test")
    assert ("100000000000 bytes, expected at most" if name == "x.png" else "cls is of 100000000000 bytes") in said


def test_a_bad_name_does_not_stop_the_log(wds: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.makedirs(os.fsencode(tmp_path / "odd") + b"/\xe4")
    path = os.fsencode(tmp_path / "odd") + b"/\xe4/t.tar"
    shutil.copy(os.fsencode(tmp_path / "test.tar"), path)
    os.rename(tmp_path / "test.tar", tmp_path / "odd/test.tar")
    data = {k: [str(p) for p in v] if isinstance(v, list) else v for k, v in wds.items()}
    stage = json.dumps({"config": {"kind": "webdataset", "webdataset": {**data, "test": [os.fsdecode(path)[:-5]]}}})
    shutil.copy(path, path[:-5] + b"x.tar")
    with open(path[:-5] + b"bad.tar", "wb") as file:
        file.write(b"no tar")
    out, log = tmp_path / "o.tar", tmp_path / "o.log"
    assert cli.main(["data", "--stage", stage, "--split", "test", "--out", str(out), "--log", str(log)]) == 2
    assert (
        "bad.tar (not a whole tar file" in log.read_text(encoding="utf-8") and "Traceback" not in capfd.readouterr().err
    )
