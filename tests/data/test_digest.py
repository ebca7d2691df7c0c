import os
import random
import shutil
from pathlib import Path

import pytest

from ddrep import config
from ddrep.data.digest import digest, places, unchanged
from ddrep.data.readers import READERS, Reader
from ddrep.derived import stage_json, told
from ddrep.errors import UserError
from ddrep.training.generators import TRAININGS

NAMES = ["train/a/1.png", "train/a/2.png", "train/b/3.png", "test/a/4.png"]


def write(root: Path, names: list[str] = NAMES) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        os.utime(path, ns=(10**18, 10**18))
    return root


def of(*where: Path, by: str = "times") -> str:
    digest.cache_clear()
    return digest(where, by)


@pytest.mark.parametrize("by", ["times", "contents"])
def test_the_same_files_in_another_order_and_place(tmp_path: Path, by: str) -> None:
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    assert of(write(tmp_path / "x"), by=by) == of(write(tmp_path / "y", shuffled), by=by)
    assert of(tmp_path / "x", by=by).startswith(f"{by}: 4 files, {sum(map(len, NAMES))} bytes")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/a/2.png").unlink(),
        lambda root: (root / "train/a/5.png").touch(),
        lambda root: (root / "train/a/2.png").rename(root / "train/b/2.png"),
        lambda root: (root / "train/a/2.png").rename(root / "train/a/9.png"),
        lambda root: write(root, ["train/c/6.png"]),
        lambda root: (root / "train/a/2.png").write_bytes(b"longer than it was before"),
        lambda root: os.replace(shutil.copy(root / "train/b/3.png", root / "copy"), root / "train/a/2.png"),
        lambda root: (root / "train/b").rename(root / "train/ba"),
    ],
)
@pytest.mark.parametrize("by", ["times", "contents"])
def test_any_change_shows(tmp_path: Path, change, by: str) -> None:
    before = of(write(tmp_path), by=by)
    change(tmp_path)
    assert of(tmp_path, by=by) != before


def test_times_and_contents_differ_in_what_they_notice(tmp_path: Path) -> None:
    before = {by: of(write(tmp_path), by=by) for by in ("times", "contents")}
    os.utime(tmp_path / NAMES[0])
    assert of(tmp_path, by="times") != before["times"] and of(tmp_path, by="contents") == before["contents"]
    (tmp_path / NAMES[0]).write_bytes(b"train/a/1.pnG")  # as long, at the old time
    os.utime(tmp_path / NAMES[0], ns=(10**18, 10**18))
    assert of(tmp_path, by="times") == before["times"] and of(tmp_path, by="contents") != before["contents"]


def test_hidden_files_do_not_count_and_links_do(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole")
    before = of(whole)
    (whole / "train/.DS_Store").write_bytes(b"x")
    (whole / "train/a/._1.png").write_bytes(b"x")
    assert of(whole) == before
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train").symlink_to(whole / "train")
    shutil.copytree(whole / "test", linked / "test")
    assert of(linked) == before


def test_links_that_lead_back_or_nowhere_and_what_is_no_file(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "train/again").symlink_to(root)
    (root / "train/a/gone.png").symlink_to(root / "nowhere")
    os.mkfifo(root / "train/a/pipe.png")
    for by in ("times", "contents"):  # ends, and opens no pipe
        assert of(root, by=by).startswith(f"{by}: 6 files")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    folder = os.fsencode(write(tmp_path)) + b"/train/\xe9"
    before = of(tmp_path)
    os.mkdir(folder)
    open(folder + b"/\xff.png", "wb").close()
    assert of(tmp_path) != before


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.zip: No such file or directory; expected"):
        of(tmp_path / "gone.zip")


def test_where_each_kind_lies(tmp_path: Path) -> None:
    write(tmp_path, [*NAMES, "unlabelled/7.png", "notes.txt", "tars/1.tar", "tars/.2.tar", "tars/readme", "3.tar"])
    tables = {
        "image_folder": config.ImageFolder(root=tmp_path),
        "webdataset": config.WebDatasetFiles(train=(tmp_path / "tars",), test=(tmp_path / "3.tar",)),
    }
    assert list(places(config.Data(kind="webdataset", **tables))) == [tmp_path / "tars/1.tar", tmp_path / "3.tar"]
    data = config.Data(kind="image-folder", **tables)
    assert list(places(data)) == [tmp_path / "test", tmp_path / "train"]
    assert list(places(config.AttributeImages(data=data, attribute="a", having=("b",)))) == list(places(data))
    assert list(places(config.Data())) == list(places(config.MaskData())) == list(places(config.Pretrain())) == []
    assert list(places(config.Pretrain(images=tmp_path / "gone.gz"))) == []


@pytest.mark.parametrize("section", [config.Pretrain, *TRAININGS])
def test_whatever_is_pretrained_knows_where_its_images_lie(section: type[config.UnlabelledImages], tmp_path: Path):
    """Or changed images would train nothing anew."""
    write(tmp_path, ["notes.txt"])
    assert places(section(images=tmp_path / "notes.txt")) == (tmp_path / "notes.txt",)
    data = config.Data(kind="unlabelled", unlabelled=config.Unlabelled(path=tmp_path, size=8, channels=1))
    assert places(section(data=data)) == (tmp_path,)


def test_every_kind_of_data_has_its_places() -> None:
    """A new table is not forgotten: all but the embedded ones lie somewhere."""
    paths = Reader("of nothing", config.Section).paths
    assert [name for name, reader in READERS.items() if reader.paths is paths] == ["embedded"]
    tables = set(config.MaskData.model_fields) - {"kind", "embedded"}
    kinds = {str(config.MaskData.model_fields[name].annotation).split(".")[-1].split(" ")[0] for name in tables}
    source = Path(__file__).parents[2].joinpath("ddrep/data/digest.py").read_text(encoding="utf-8")
    assert kinds and all(f"case {kind}(" in source for kind in kinds), kinds


def test_a_set_that_changes_while_it_is_read(tmp_path: Path) -> None:
    root = write(tmp_path / "images")
    data = config.Data(kind="image-folder", image_folder=config.ImageFolder(root=root))
    experiment = config.Experiment(experiment="x", data=data)
    planned = told("data", experiment, {})
    stage = config.Stage[config.Data].model_validate_json(planned)
    with unchanged(stage):
        pass
    with (
        pytest.raises(
            UserError, match=r"images/test, .*images/train: planned for times: 4 files, .*; now times: 5 files, .*again"
        ),
        unchanged(stage),
    ):
        (root / "train/a/5.png").touch()
    with pytest.raises(UserError, match="run snakemake again"), unchanged(stage):
        raise AssertionError("not begun")
    digest.cache_clear()
    assert told("data", experiment, {}) != planned
    with unchanged(config.Stage[config.Data](config=data)):  # by hand nothing is compared
        (root / "train/a/6.png").touch()


def test_embedded_data_have_no_digest() -> None:
    experiment = config.Experiment(experiment="x")
    assert told("data", experiment, {}) == stage_json("data", experiment.data, 0)
    assert "files" not in config.Stage[config.Data](config=experiment.data).model_dump_json()
