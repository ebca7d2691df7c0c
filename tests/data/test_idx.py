import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest

from ddrep.data.idx import idx_bytes, read_idx, read_images, write_idx
from ddrep.errors import UserError


def test_bytes_are_the_published_format() -> None:
    # http://yann.lecun.com/exdb/mnist: magic, sizes, then the values, all big-endian
    assert idx_bytes(np.array([[1, 2, 255]], np.uint8)) == bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 255])
    assert idx_bytes(np.array([1, -2], np.int32)) == bytes([0, 0, 12, 1, 0, 0, 0, 2]) + struct.pack(">ii", 1, -2)


@pytest.mark.parametrize("array", [np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([[70_000, -1]], np.int32)])
def test_round_trip(tmp_path, array) -> None:
    write_idx(tmp_path / "a.gz", array)
    back = read_idx(tmp_path / "a.gz")
    assert back.dtype == array.dtype and back.flags.writeable
    np.testing.assert_array_equal(back, array)


def test_equal_arrays_give_equal_files(tmp_path) -> None:
    array = np.arange(100, dtype=np.uint8)
    write_idx(tmp_path / "a.gz", array)
    write_idx(tmp_path / "b.gz", array.copy())
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_reads_uncompressed_files(tmp_path) -> None:
    (tmp_path / "a").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    assert read_idx(tmp_path / "a").tolist() == [7, 9]


GOOD = idx_bytes(np.arange(200, dtype=np.uint8))
BROKEN = {
    "empty": b"",
    "not gzip": b"hello",
    "gzip cut short": gzip.compress(GOOD)[:-20],
    "gzip with a flipped byte": gzip.compress(GOOD, 0)[:40] + b"\xff" + gzip.compress(GOOD, 0)[41:],
    "deflate error": gzip.compress(GOOD)[:10] + b"\xff" * 30,
    "values missing": gzip.compress(GOOD[:-1]),
    "values left over": gzip.compress(GOOD + b"\0"),
    "header cut short": gzip.compress(GOOD[:6]),
    "floats": gzip.compress(bytes([0, 0, 13, 1, 0, 0, 0, 0])),
}


SHAPES = [(0, 8, 8), (2, 0, 0), (2, 8, 9), (2, 8, 8, 2), (2, 1, 8, 8, 1), (8, 8), (8,), ()]


@pytest.mark.parametrize("array", [*(np.ones(s, np.uint8) for s in SHAPES), np.ones((2, 8, 8), np.int32)], ids=str)
def test_arrays_that_are_no_images_are_named(array, tmp_path) -> None:
    write_idx(tmp_path / "a.gz", array)
    with pytest.raises(UserError, match=rf"a\.gz: {array.dtype} .*; expected an IDX file of bytes: square images"):
        read_images(tmp_path / "a.gz")


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 1), (1, 8, 8, 3)])
def test_images_are_read_as_they_are(shape, tmp_path) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / "a.gz", array)
    np.testing.assert_array_equal(read_images(tmp_path / "a.gz"), array)


CLAIMS = struct.pack(">HBB3I", 0, 8, 3, 10**9, 1000, 1000)


@pytest.mark.parametrize("name", ["a", "a.gz"])
def test_what_a_header_claims_is_not_read_where_the_file_cannot_hold_it(name, tmp_path) -> None:
    """Here 10^15 bytes of which ten million are there: they would be read until the memory is full."""
    content = CLAIMS + bytes(10**7)
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"at most after the header, expected 1000000000000000\)"):
        read_idx(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_named(tmp_path, content) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.gz: not a whole IDX file"):
        read_idx(tmp_path / "a.gz")


def test_a_folder_or_a_pipe_is_one_line(tmp_path) -> None:
    (tmp_path / "a.gz").mkdir()
    with pytest.raises(UserError, match=r"a\.gz: not a whole IDX file .*\(a folder\)"):
        read_idx(tmp_path / "a.gz")
    os.mkfifo(tmp_path / "b.gz")
    with pytest.raises(UserError, match=r"b\.gz: not a whole IDX file .*\(not a regular file\)"):
        read_idx(tmp_path / "b.gz")


@pytest.mark.parametrize("shape", [(10,), (2**31, 2**31, 2**31)])
def test_no_more_is_unpacked_than_the_header_says(tmp_path, shape) -> None:
    """A bomb of 300 MB in 300 kB, and a header that claims more than any memory has."""
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    content = header + bytes(300 << 20 if shape == (10,) else 100)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content, 1))
    del content
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.gz: not a whole IDX file"):
        read_idx(tmp_path / "a.gz")
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_missing_file(tmp_path) -> None:
    with pytest.raises(UserError, match=r"a\.gz: no such file"):
        read_idx(tmp_path / "a.gz")
