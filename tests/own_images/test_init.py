"""`ddrep init` as it is called: lists, an experiment file that passes the checks, and the lines to run."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from ddrep import cli
from ddrep.checks import check
from ddrep.config import load
from ddrep.data.lists import rows
from ddrep.data.readers import labelled
from tests import tiny
from tests.own_images.folders import folder, save
from tests.workflow.tree import copy_workflow

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_workflow(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is done tomorrow, whatever this one is; what the first test spends on the forecast is spared."""
    monkeypatch.setattr("ddrep.own_images.init._forecast", lambda *_: SimpleNamespace(elapsed=24 * 3600))
    monkeypatch.setattr("ddrep.own_images.init._say_what_next", lambda *_: None)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["init", *arguments]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddrep: ")]
    return line


def test_from_a_folder_to_an_experiment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Colours, and unlabelled images of which one is a held-out image and one is broken."""
    folder(here / "my pets", {"cat": 10, "dog": 6})
    folder(here / "more", {"x": 5})
    (here / "more/broken.png").write_bytes(b"no")
    assert cli.main(["init", "my pets", "--unlabelled", "more"]) == 0
    said = capsys.readouterr().out
    assert "my pets: folder of 16 images in 2 classes" in said and "broken, and left out: 1 of 6 files" in said
    lines = [f"    {line} --configfile my-pets.yaml\n" for line in (f"snakemake --cores {CORES}", "ddrep status")]
    assert said.endswith("".join(lines))
    assert "my-pets.yaml written. On " in said and "pretrain" in said.partition("Of all jobs one after another: ")[2]
    made = load(Path("config.yaml"), Path("my-pets.yaml"))
    check(made)
    assert made.experiment == "my-pets" and made.parts == ("augmentation",) and made.synthesis.threshold == 0.7
    sizes = {split: len(labelled(made.data, split, 0, 0)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 9, "validation": 2, "test": 5}
    assert made.denoiser.pretrain.data
    assert labelled(made.denoiser.pretrain.data, "train", 0, 0).images.shape == (5, 32, 32, 3)
    assert "my-pets.yaml, my-pets.csv, my-pets-unlabelled.csv: there already" in complaint(capsys, "my pets")


def test_a_denoiser_says_the_size(here: Path, slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    folder(here / "pets", {"cat": 6, "dog": 6})
    tiny.denoiser().save(Path("d.safetensors"))
    assert cli.main(["init", "pets", "--denoiser", "d.safetensors", "--out", "mine.yaml"]) == 0
    made = load(Path("config.yaml"), Path("mine.yaml"))
    assert made.classifier.epochs == 10  # where 40 and 20 would take longer than an afternoon
    assert made.experiment == "mine" and made.denoiser.file.path == Path("d.safetensors")
    assert (made.data.section.size, made.data.section.channels) == (8, 1)
    assert "unlabelled" not in capsys.readouterr().out


def test_what_it_cannot_begin_with(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is one line, and nothing is written."""
    before = sorted(path.name for path in here.iterdir())
    assert "gone: nothing there; expected a folder of images" in complaint(capsys, "gone")
    save(here / "one/cat/0.png")
    assert "one: 0 classes can be used; expected 2 or more, with 2 images of train" in complaint(capsys, "one")
    folder(here / "few", {"cat": 9, "dog": 3})
    assert "few: 1 classes can be used" in complaint(capsys, "few")
    (here / "Snakefile").rename(here / "elsewhere")
    assert "Snakefile: not in this folder; call `ddrep init` where" in complaint(capsys, "few")
    (here / "elsewhere").rename(here / "Snakefile")
    assert sorted(path.name for path in here.iterdir()) == sorted([*before, "one", "few"])


def test_what_ends_early_leaves_nothing_and_can_be_called_again(
    here: Path, slow: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images are unpacked, and lists written, before the last thing that can go wrong."""
    with tarfile.open(here / "pets.tar", "w") as tar:
        for i, path in enumerate(folder(here / "pets", {"0": 5, "1": 5}).rglob("*.png")):
            (here / "cls").write_text(path.parent.name)
            tar.add(path, f"{i}.png")
            tar.add(here / "cls", f"{i}.cls")
    before = set(here.iterdir())
    assert "gone: expected a folder of images" in complaint(capsys, "pets.tar", "--unlabelled", "gone")
    for error, status in ((KeyboardInterrupt(), 130), (OSError(28, "no space left on device", "pets.yaml"), 2)):

        def fails(*_: object, error: BaseException = error) -> None:
            assert Path("pets.csv").exists() and Path("pets-images").exists()
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("ddrep.own_images.init._forecast", fails)
            assert cli.main(["init", "pets.tar"]) == status
        assert set(here.iterdir()) == before
    assert cli.main(["init", "pets.tar"]) == 0


def test_a_list_beside_the_workflow_is_not_to_be_removed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pets.csv").write_text("path,label\n")
    assert "pets.csv: is the set itself, and would be replaced; give another --out" in complaint(capsys, "pets.csv")


def test_grey_images_without_others(here: Path, slow: None, capsys: pytest.CaptureFixture[str]) -> None:
    for path in folder(here / "pets", {"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2}).glob("*/*/*.png"):
        Image.open(path).convert("L").resize((28, 30)).save(path)
    assert cli.main(["init", "pets"]) == 0
    assert "the denoiser will be trained on the 10 labelled ones, and copy them" in capsys.readouterr().out
    made = load(Path("config.yaml"), Path("pets.yaml"))
    check(made)
    assert (made.data.section.size, made.data.section.channels) == (28, 1)
    assert made.denoiser.pretrain.data and made.denoiser.pretrain.data.section == made.data.section
    splits = {row["path"]: row["split"] for row in rows(Path("pets.csv"), ("path", "label", "split"))}
    assert {splits[name] for name in splits if name.startswith("test/")} == {"test"}


@pytest.mark.parametrize("options, said", [
    (["--denoiser", "d.safetensors", "--size", "64"], "--size 64: with --denoiser, which says the size of the images"),
    (["--denoiser", "d.safetensors", "--unlabelled", "few"], "--unlabelled: with --denoiser, so that none is trained"),
    (["--out", "mine.csv"], "--out mine.csv: expected a name that ends in .yaml"),
])  # fmt: skip
def test_options_that_contradict_each_other(
    options: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(here / "few", {"a": 5, "b": 5})
    before = set(here.iterdir())
    assert said in complaint(capsys, "few", *options) and set(here.iterdir()) == before


@pytest.mark.parametrize("name", ["nl\nseed: 7 #x", "x\x7f", "x\u2028y", "lat\udce9n"])
def test_a_name_that_no_experiment_file_can_hold(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(here / name, {"a": 5, "b": 5})
    assert "a name with characters that are no text; rename it" in complaint(capsys, name)
    assert not list(here.glob("*.yaml"))[1:], "but config.yaml"
