import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddrep.errors import UserError
from ddrep.sampling.pool import Pool

SHAPE = (3, 8, 8)


def _batch(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)


def test_another_command_finds_what_was_added(tmp_path):
    first, other = Pool(tmp_path, "key", 3, SHAPE), Pool(tmp_path, "key", 3, SHAPE)
    images = _batch(5)
    first.add([(0, 0), (0, 1), (2, 0)], images[:3])
    first.add([(1, 7), (2, 1)], images[3:])
    with other.locked():
        assert other.images.keys() == first.images.keys() == {(0, 0), (0, 1), (2, 0), (1, 7), (2, 1)}
    for attempt, image in zip([(0, 0), (0, 1), (2, 0), (1, 7), (2, 1)], images, strict=True):
        np.testing.assert_array_equal(other.images[attempt], image)


@pytest.mark.parametrize(("key", "shard"), [("another", 3), ("key", 4)])
def test_candidates_of_other_settings_or_shards_are_not_seen(key, shard, tmp_path):
    Pool(tmp_path, "key", 3, SHAPE).add([(0, 0)], _batch(1))
    pool = Pool(tmp_path, key, shard, SHAPE)
    pool.refresh()
    assert pool.images == {}


def test_one_command_draws_at_a_time(tmp_path):
    pool = Pool(tmp_path, "key", 0, SHAPE)
    with (pool.folder / "lock").open("a") as f:
        with pool.locked(), pytest.raises(BlockingIOError):
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and the lock is given back


def _spoil(content: bytes, how: str) -> bytes:
    if how == "another array file":
        return b"\x93NUMPY garbage"
    middle = len(content) // 2
    return {
        "empty": b"",
        "truncated": content[:middle],
        "garbage": b"garbage" * 100,
        "flipped": content[: middle - 50] + bytes(255 - b for b in content[middle - 50 : middle]) + content[middle:],
    }[how]


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "flipped", "another array file"])
def test_a_broken_file_is_dropped_and_the_others_stay(how, tmp_path):
    pool = Pool(tmp_path, "key", 0, SHAPE)
    pool.add([(0, 0), (0, 1)], _batch(2))
    (broken,) = pool.folder.glob("*.npz")
    pool.add([(1, 0)], _batch(1, seed=1))
    broken.write_bytes(_spoil(broken.read_bytes(), how))
    again = Pool(tmp_path, "key", 0, SHAPE)
    again.refresh()
    assert again.images.keys() == {(1, 0)} and not broken.exists()
    again.add([(0, 0), (0, 1)], _batch(2))
    assert broken.exists(), "the same candidates have the same file"


def test_the_draft_of_a_killed_command_is_not_read(tmp_path):
    pool = Pool(tmp_path, "key", 0, SHAPE)
    pool.add([(0, 0)], _batch(1))
    (file,) = pool.folder.glob("*.npz")
    draft = file.rename(file.with_name(f".{file.stem}-0123abcd-123-456.npz"))
    again = Pool(tmp_path, "key", 0, SHAPE)
    again.refresh()
    assert again.images == {} and draft.exists()


ODD = {
    "one array": None,
    "attempts of one number": (np.zeros(2, np.int64), _batch(2)),
    "too few attempts": (np.zeros((1, 2), np.int64), _batch(2)),
    "attempts that are no numbers": (np.array([["a", "b"]]), _batch(1)),
    "images of another size": (np.zeros((1, 2), np.int64), np.zeros((1, 16, 16, 3), np.uint8)),
    "grey images": (np.zeros((1, 2), np.int64), np.zeros((1, 8, 8, 1), np.uint8)),
    "images in floats": (np.zeros((1, 2), np.int64), np.zeros((1, 8, 8, 3), np.float32)),
    "no images": (np.zeros((0, 2), np.int64), np.zeros(0, np.uint8)),
    "objects": (np.array([[0, None]], object), _batch(1)),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_batch_of_this_pools_images_is_drawn_again(kind, tmp_path):
    pool = Pool(tmp_path, "key", 0, SHAPE)
    path = pool.folder / "odd.npz"
    with path.open("wb") as f:
        content = ODD[kind]
        np.save(f, _batch(1)) if content is None else np.savez(f, attempts=content[0], images=content[1])
    pool.refresh()
    assert pool.images == {} and not path.exists()


def test_a_folder_in_the_place_of_a_batch_is_one_line(tmp_path):
    pool = Pool(tmp_path, "key", 0, SHAPE)
    (pool.folder / "odd.npz").mkdir()
    with pytest.raises(UserError, match=r"odd.npz: not a file; remove it"):
        pool.refresh()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_in_the_place_of_the_lock_is_one_line(make, tmp_path):
    pool = Pool(tmp_path, "key", 0, SHAPE)
    make(pool.folder / "lock")
    with pytest.raises(UserError, match="lock: not a file; remove it"), pool.locked():
        pass


def test_a_full_disk_names_the_batch_and_leaves_none(tmp_path):
    """The limit on a file's size is met as the end of a disk is: while the file is written."""
    code = f"""
import resource, signal
import numpy as np
from pathlib import Path
from ddrep.sampling.pool import Pool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
pool = Pool(Path("."), "key", 0, {SHAPE})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
pool.add([(0, i) for i in range(200)], np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), np.uint8))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large: 'key/00000/")
    assert not list(tmp_path.rglob("*.npz"))
