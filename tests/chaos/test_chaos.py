"""A small experiment whose jobs and whose Snakemake are killed, and whose disk is full, at random moments.

It ends in the bytes of an undisturbed run, and nothing that had finished is done again.

DDREP_CHAOS=100 asks for as many troubles, about a quarter of them full disks; without it there is one of each kind.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ddrep.files import sha256
from ddrep.stopping import WRITTEN
from tests.workflow.disturbed import jobs, with_inputs
from tests.workflow.tree import BIN, Tree, copy_workflow, environment

RESULTS = Path("results/chaos")
TARGET = f"{RESULTS}/tables/table4.parquet"
KINDS = ("snakemake", "job", "snakemake and a job", "disk")
ROOM = 2**27
"""Bytes of the disk that is filled."""


def tree_of(path: Path) -> Tree:
    path.mkdir()
    tree = copy_workflow(path)
    with_inputs(tree)
    return tree


def start(tree: Tree) -> subprocess.Popen[str]:
    call = [TARGET, *["--workflow-profile", "workflow/profiles/local", "--cores", "2", "--quiet", "progress"]]
    with (tree.path / "snakemake.log").open("a") as log:
        return tree.start(*call, log=log)


def finished(tree: Tree) -> dict[Path, tuple[int, int]]:
    """Inode and time of what jobs have written that have ended well."""
    found = {}
    for log in (tree.path / RESULTS / "logs").rglob("*.log"):
        lines = log.read_text(errors="replace").splitlines()
        if lines and lines[-1].endswith(WRITTEN):
            words = lines[0].split()
            named = [words[i + 1] for i, word in enumerate(words) if word in ("--out", "--predictions", "--report")]
            for path in (tree.path / name for name in named):
                if path.exists():
                    found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def contents(tree: Tree) -> dict[str, str]:
    """Digests of all results that are not times."""
    files = [path for path in (tree.path / RESULTS).rglob("*") if path.is_file() and path.name != "costs.parquet"]
    kept = [path for path in files if not {"logs", "benchmarks", "pool"} & set(path.parts)]
    return {str(path.relative_to(tree.path)): sha256(path) for path in kept}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = tree_of(tmp_path_factory.mktemp("undisturbed") / "tree")
    assert start(tree).wait() == 0, (tree.path / "snakemake.log").read_text()
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """One whose results lie on a disk of their own, where that can be had."""
    tree = tree_of(tmp_path / "tree")
    results = tree.path / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(results)]
    mounted = os.getuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    yield tree
    for process in jobs(tree):
        process.kill()
    if mounted:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def trouble(tree: Tree, kind: str, snakemake: subprocess.Popen[str], chance: random.Random) -> bool:
    """Wait for a job, and a moment; then do it. False if all was over before."""
    while not jobs(tree):
        if snakemake.poll() is not None:
            return False
        time.sleep(0.1)
    time.sleep(chance.uniform(0, 6))
    if snakemake.poll() is not None:
        return False
    if kind == "disk":
        fill_for_a_while(tree.path / "results", chance.uniform(2, 8))
        return True
    if "job" in kind and (running := jobs(tree)):
        chance.choice(running).kill()
    if "snakemake" in kind:
        snakemake.kill()
    return True


def fill_for_a_while(folder: Path, seconds: float) -> None:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # no space left
        while True:  # jobs write at the same time
            file.write(bytes(2**20))
    time.sleep(seconds)
    ballast.unlink()


def recover(tree: Tree, cancel: bool) -> str:
    command = [str(BIN / "ddrep"), "recover", *["--cancel"] * cancel]
    done = subprocess.run(command, cwd=tree.path, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert jobs(tree) == [] and "go on with: snakemake --workflow-profile" in done.stdout
    return done.stdout


def disturbed(
    tree: Tree, troubles: int, chance: random.Random, expected: dict[str, str]
) -> tuple[dict[str, int], int, str]:
    """Run to the end, again and again, through so many troubles, each time to what is expected: how many of each kind
    there were, how many finished files were written again, and what `ddrep recover` said."""
    before: dict[Path, tuple[int, int]] = {}
    done, redone, said = dict.fromkeys(KINDS, 0), 0, ""
    mounted = os.path.ismount(tree.path / "results")
    kinds = [kind for kind in KINDS if kind != "disk" or mounted]
    planned = [kinds[i % len(kinds)] if troubles < 10 else chance.choice(kinds) for i in range(troubles)]
    while True:
        snakemake = start(tree)
        kind = planned[0] if planned else ""
        if kind and trouble(tree, kind, snakemake, chance):
            planned.pop(0)
            done[kind] += 1
        status = snakemake.wait()
        said += recover(tree, chance.random() < 0.5)
        now = finished(tree)
        redone += sum(now.get(path) != there for path, there in before.items())
        before = now
        if status == 0:
            assert contents(tree) == expected
            if not planned:
                return done, redone, said
            shutil.rmtree(tree.path / RESULTS)  # all over again, for there is more to come
            before = {}


def test_chaos(tree: Tree, undisturbed: Tree) -> None:
    troubles = int(os.environ.get("DDREP_CHAOS", "4"))
    began = time.monotonic()
    done, redone, said = disturbed(tree, troubles, random.Random(troubles), contents(undisturbed))
    print(f"{done}, {redone} files written again, {time.monotonic() - began:.0f} s\n{said}", file=sys.stderr)
    assert (tree.path / "snakemake.log").read_text().count("Traceback") == 0
    assert redone == 0
    assert not list((tree.path / "results").rglob(".*")), "neither drafts nor locks are left"


def test_results_in_an_object_store_equal_those_of_a_local_run(
    tmp_path: Path, undisturbed: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server that speaks S3, here by moto; a second call finds nothing left to do."""
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        for name in ("ACCESS_KEY", "SECRET_KEY"):
            monkeypatch.setenv(f"SNAKEMAKE_STORAGE_S3_{name}", "any")
        tree = tree_of(tmp_path / "tree")
        where = ["--default-storage-provider", "s3", "--default-storage-prefix", "s3://bucket/of-mine"]
        for expected in ("Storing in storage", "Nothing to be done"):
            done = tree.snakemake(TARGET, *where, *f"--cores 2 --storage-s3-endpoint-url={url}".split())
            assert done.returncode == 0 and expected in done.stdout + done.stderr, done.stdout + done.stderr
        stored = boto3.resource("s3", aws_access_key_id="any", aws_secret_access_key="any", endpoint_url=url)
        for each in stored.Bucket("bucket").objects.all():
            path = tmp_path / "stored" / Path(each.key).relative_to("of-mine")
            path.parent.mkdir(parents=True, exist_ok=True)
            stored.Bucket("bucket").download_file(each.key, str(path))
        assert contents(Tree(tmp_path / "stored")) == contents(undisturbed)
        assert not (tree.path / RESULTS / "tables").exists()
    finally:
        server.stop()
