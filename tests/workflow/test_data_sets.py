"""A data set is an input: what was made of other files is planned again, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddrep.data.shards import read_shards
from tests.workflow.test_replanning import downstream, finish, rules
from tests.workflow.tree import REPO, Tree, copy_workflow

CLASSES, EACH = ("ant", "bee", "cat"), 12
DATA = {"kind": "image-folder", "image_folder": {"root": "images", "size": 8, "channels": 1}}
EXPERIMENT: dict[str, Any] = {
    "experiment": "own", "data": DATA, "parts": ["attributes", "augmentation"],
    "attributes": {"groups": [{"name": "flies", "having": ["bee"]}]},
    "table4": [{"mix": [False], "sources": ["real", "real-soft", "ours", "probe-rejection"], "scales": [0, 1]}],
    "table5": {"labels": [2], "scale": 1},
    "figures": {"figure3_classes": [0, 1]}, "evaluation": {"evaluator": None, "segmenter": None},
}  # fmt: skip
Change = tuple[Callable[[Path], Any], Callable[[Path], Any]]
READERS = {"labelled_images", "held_out_images", "attribute_images", "attribute_examples"}


def following(started: set[str]) -> set[str]:
    """What follows, where there are no images without labels and no other generator, and no fitted grid."""
    absent = {"unlabelled_images", "labelled_shard", "pretrain_generator", "fitted_grid"}
    return (
        downstream(started)
        - absent
        - {f"{of}_{rule}" for of in ("attribute", "mask") for rule in ("latent_judge", "generated")}
    )


def write_image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def images(root: Path) -> None:
    for split, each in (("train", EACH), ("test", 4)):
        for number, name in enumerate(CLASSES):
            for i in range(each):
                write_image(root / split / name / f"{i}.png", number * 20 + i + (100 if split == "test" else 0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A tree in which everything has been made, of an image folder."""
    path = tmp_path_factory.mktemp("own")
    images(path / "images")
    return finish(path, EXPERIMENT)


def planned(tree: Tree, **overlay: Any) -> set[str]:
    return rules([job for job in tree.plans([overlay])[0] if job.pending])


def add(name: str) -> Change:
    """A change that adds an image, and how it is undone."""

    def remove(root: Path) -> None:
        (root / name).unlink()
        for folder in (root / name).relative_to(root).parents:
            if folder.name and not any((root / folder).iterdir()):
                (root / folder).rmdir()

    return lambda root: write_image(root / name, 200), remove


def move(name: str, away: str) -> Change:
    return lambda root: (root / name).rename(root / away), lambda root: (root / away).rename(root / name)


@pytest.mark.parametrize(
    "change",
    [add("train/ant/more.png"), move("train/ant/3.png", "held"), add("train/dog/1.png"), add("val/ant/1.png")],
    ids=["a file more", "a file less", "a class more", "a split more"],
)
def test_other_files_plan_what_is_made_of_them(finished: Tree, change: Change) -> None:
    do, undo = change
    assert planned(finished) == set()
    do(finished.path / "images")
    assert planned(finished) == following(READERS)
    said = finished.snakemake("--dry-run", "--cores", "1")
    assert "files" in said.stdout + said.stderr and "Params have changed" in said.stdout + said.stderr
    undo(finished.path / "images")
    assert planned(finished) == set()


def test_what_is_not_of_the_set_plans_nothing(finished: Tree) -> None:
    write_image(finished.path / "images/unlabelled/1.png", 3)
    (finished.path / "images/notes.txt").write_text("mine", encoding="utf-8")
    (finished.path / "images/train/ant/.DS_Store").write_bytes(b"x")
    assert planned(finished) == set()


def test_pretraining_images_are_tracked(tmp_path: Path) -> None:
    (tmp_path / "mine.idx").write_bytes(b"1")
    denoiser = {"kind": "pretrain", "pretrain": {"images": "mine.idx"}}
    images(tmp_path / "images")
    tree = finish(tmp_path, {**EXPERIMENT, "denoiser": denoiser})
    assert planned(tree) == set()
    (tmp_path / "mine.idx").write_bytes(b"22")
    of_masks = {"mask_guide", "mask_shard", "mask_score", "table2", "figure2"}
    assert planned(tree) == following({"pretrain"}) - of_masks


def test_touched_files_count_by_times_alone(tmp_path: Path) -> None:
    images(tmp_path / "images")
    tree = finish(tmp_path, {**EXPERIMENT, "digest": "contents", "parts": ["augmentation"]})
    os.utime(tmp_path / "images/train/ant/1.png")
    assert planned(tree) == set()
    write_image(tmp_path / "images/train/ant/1.png", 77)
    assert planned(tree) == following({"labelled_images", "held_out_images"})
    assert planned(tree, digest="times") == following({"labelled_images", "held_out_images"})


def test_a_set_that_was_mended_leaks_nothing(tmp_path: Path) -> None:
    """The shard of train is made, validation's is refused for a broken file; the user removes it and calls again."""
    images(tmp_path / "images")
    tree = copy_workflow(tmp_path)
    os.symlink(REPO / "ddrep", tmp_path / "ddrep")
    tree.configure(
        **{
            **EXPERIMENT,
            "data": {"kind": "image-folder", "image_folder": {"root": "images", "size": 28, "channels": 1}},
            "parts": ["augmentation"],
        }
    )
    shards = ["results/own/subset0/real.tar", "results/own/data/validation.tar", "results/own/data/test.tar"]
    call = [*shards, "--cores", "1", "--keep-going", "--quiet", "all"]
    assert tree.snakemake(*call).returncode == 0
    held = read_shards([tmp_path / shards[1]])
    broken = tmp_path / "images/train/ant" / f"{held.keys[0].rpartition('-')[2]}.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert tree.snakemake(*call).returncode != 0
    broken.unlink()
    done = tree.snakemake(*call)
    assert done.returncode == 0, done.stderr
    parts = [read_shards([tmp_path / shard]) for shard in shards]
    pixels = [{image.tobytes() for image in part.images} for part in parts]
    assert not pixels[0] & pixels[1] and not pixels[0] & pixels[2] and not pixels[1] & pixels[2]
    assert len(parts[0]) + len(parts[1]) == len(CLASSES) * EACH - 1
