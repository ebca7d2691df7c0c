"""Names are UTF-8 whatever the locale: a shard's class names do not depend on the shell that it was made in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddrep.data.shards import read_shards
from tests.data import replicas

NAMES = ("Größe", "猫", "naïve café")
LOCALES = {"en_US.ISO-8859-1": ("en_US", "ISO-8859-1"), "zh_CN.GBK": ("zh_CN", "GBK"), "C": None, "C.UTF-8": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of locales, made as anyone may."""
    folder = tmp_path_factory.mktemp("locales")
    for name, source in LOCALES.items():
        if source and shutil.which("localedef"):
            language, characters = source
            subprocess.run(["localedef", "-i", language, "-f", characters, str(folder / name)], capture_output=True)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Under a name that is not ASCII either; files and lists as well."""
    root = tmp_path / "Bücher 猫"
    for split, count in (("train", 3), ("test", 1)):
        for number, name in enumerate(NAMES):
            for i in range(count):
                replicas.save(root / split / name / f"ü{i}.png", 40 * number + i + 10 * (split == "test"))
    return root


def run(locale: str, made: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    if LOCALES[locale] and not (made / locale).is_dir():
        pytest.skip(f"no locale {locale}: install localedef and the locales' sources (Debian: locales)")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8", "PYTHONIOENCODING"))}
    env |= {"LOCPATH": str(made), "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return subprocess.run([sys.executable, "-m", "ddrep", *args], env=env, capture_output=True)


@pytest.mark.parametrize("locale", LOCALES)
def test_class_names_are_those_on_the_disk(locale: str, made: Path, root: Path, tmp_path: Path) -> None:
    stage = json.dumps({"config": {"kind": "image-folder", "image_folder": {"root": str(root), "size": 8}}})
    out, log = tmp_path / "test.tar", tmp_path / "test.log"
    done = run(locale, made, "data", "--stage", stage, "--split", "test", "--out", str(out), "--log", str(log))
    assert done.returncode == 0, done.stderr
    test = read_shards([out])
    assert test.classes == tuple(sorted(NAMES)) and sorted(test.images[:, 0, 0, 0].tolist()) == [10, 50, 90]


@pytest.mark.parametrize("locale", LOCALES)
def test_tars_lists_and_words_are_read_alike(locale: str, made: Path, tmp_path: Path) -> None:
    home = tmp_path / "ü猫"
    home.mkdir()
    tar = replicas.tar(home / "ü.tar", {f"猫/{name}": it for name, it in replicas.samples(range(4)).items()})
    test = replicas.tar(home / "t.tar", {"ü.png": replicas.png(9), "ü.cls": b"1"})
    tars = {"train": [str(tar)], "test": [str(test)], "size": 8, "classes": ["猫", "犬"]}
    tiny = replicas.tiny_imagenet(home)
    (tiny / "words.txt").write_text("n01443537\tPoisson doré\nn02124075\t猫\nn03126707\tGröße\n", encoding="utf-8")
    cases = {
        ("猫", "犬"): {"kind": "webdataset", "webdataset": tars},
        ("Poisson doré", "猫", "Größe"): {
            "kind": "tiny-imagenet",
            "tiny_imagenet": {**replicas.TINY, "path": str(tiny)},
        },
    }
    for classes, data in cases.items():
        out = tmp_path / "out.tar"
        stage = json.dumps({"config": data})
        done = run(locale, made, "data", "--stage", stage, "--split", "test", "--out", str(out))
        assert done.returncode == 0, done.stderr
        assert read_shards([out]).classes == classes


@pytest.mark.parametrize("locale", LOCALES)
def test_class_names_that_are_not_utf8_are_one_line(locale: str, made: Path, root: Path, tmp_path: Path) -> None:
    os.rename(os.fsencode(root / "train/Größe"), os.fsencode(root / "train") + b"/Gr\xf6\xdfe")
    stage = json.dumps({"config": {"kind": "image-folder", "image_folder": {"root": str(root), "size": 8}}})
    log = tmp_path / "test.log"
    done = run(locale, made, "data", "--stage", stage, "--out", str(tmp_path / "o.tar"), "--log", str(log))
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 1 and not (tmp_path / "o.tar").exists()
    assert b"the name of the class folder Gr\\udcf6\\udcdfe is not UTF-8; rename it" in lines[0]
