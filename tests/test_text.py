"""Text is UTF-8 whatever the locale, in what is written here and in what is read."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddrep.config import load
from ddrep.errors import UserError

REPO = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPO / "ddrep").rglob("*.py"))

TEXT = {"read_text": 0, "write_text": 1, "open": 2}
"""Functions that take an encoding, and how many arguments may come before it."""
OTHERS = {"Image", "os", "tarfile"}
"""Modules whose `open` is of no text."""


def _left_to_the_locale(call: ast.Call) -> bool:
    """Whether it reads or writes text and names no encoding. ruff's PLW1514 sees only what is plainly a Path."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
    if name not in TEXT or owner in OTHERS:
        return False
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    if name == "open" and {"rb", "wb", "ab", "r+b"} & set(modes):
        return False
    named = any(word.arg == "encoding" for word in call.keywords)
    return not named and (name == "open" or len(call.args) <= TEXT[name])


def _calls() -> Iterator[tuple[Path, ast.Call]]:
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        yield from ((file, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_no_text_is_left_to_the_locale() -> None:
    found = [f"{file.relative_to(REPO)}:{call.lineno}" for file, call in _calls() if _left_to_the_locale(call)]
    assert len(SOURCES) > 60 and found == []


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1251", "gbk"])
def test_a_configuration_in_another_encoding_is_one_line(encoding: str, tmp_path: Path) -> None:
    names = {"latin-1": "größe", "utf-16": "größe", "cp1251": "размер", "gbk": "大小"}
    (tmp_path / "c.yaml").write_bytes(f"experiment: {names[encoding]}\n".encode(encoding))
    with pytest.raises(UserError, match=rf"^{tmp_path}/c.yaml: not UTF-8 at byte \d+; save it as UTF-8$"):
        load(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["seed: 2000-13-01", "seed: 2000-02-31", "seed: !!float x"])
def test_a_value_that_yaml_cannot_make_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{tmp_path}/c.yaml: not valid YAML \(.+\)$"):
        load(tmp_path / "c.yaml")


CODE = """
from pathlib import Path
from ddrep.config import load
print(ascii(load(Path({base!r}), Path("c.yaml")).data.image_folder.root.name))
"""


def test_a_configuration_is_read_as_utf_8_in_any_locale(tmp_path: Path) -> None:
    text = "data: {kind: image-folder, image_folder: {root: größe, size: 8}}"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    code = CODE.format(base=str(REPO / "config.yaml"))
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout == "'gr\\xf6\\xdfe'\n", done.stderr
