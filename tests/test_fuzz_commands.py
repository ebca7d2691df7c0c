"""Commands with options of any value, on files of any kind, and settings of any structure: status 0, or 2 and one line.

What takes long is asked to stop, as a scheduler does (75). See tests/test_fuzz.py.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import ddrep
from ddrep import cli, stopping
from ddrep.cli.base import Verb
from ddrep.cli.evaluation import Segmenter as SegmenterVerb
from ddrep.cli.guidance import GuideMasks, ScoreMasks
from ddrep.cli.guidance_reporting import Figure2
from ddrep.cli.index import verbs
from ddrep.cli.outputs import marks
from ddrep.config import AttributeScores, load
from ddrep.data.idx import write_idx
from ddrep.data.masks import MaskedImages, write_masked_shard
from ddrep.data.shards import write_shard, write_unlabelled, write_with_attempts
from ddrep.evaluation.scores import save_features
from ddrep.networks.guides import Guide
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.reporting import copies, judges, labels, tables
from ddrep.reporting.guidance import ROBUSTNESS, SCORES
from ddrep.reporting.report.page import render
from ddrep.reporting.report.results import Results
from ddrep.rows import Kind
from tests import tiny
from tests.fuzzing import VALUES, changed_tree, fuzzed, refused_in_one_line
from tests.reporting.report import make_results
from tests.test_fuzz import IMAGES, KEYS, labelled
from tests.test_fuzz_content import GUIDE_A, GUIDE_M, MEASURE, ON_FEATURES, ON_PIXELS, features, latent_judge, network

LIMIT = 2.0
"""Seconds until a command is asked to stop."""
VERBS: dict[str, type[Verb]] = {name: verb.load() for name, verb in verbs().items() if name != "recover"}
"""All but the one that ends processes."""
SMALL = {
    "steps": 2, "epochs": 1, "batch": 4, "images": 2, "per_class": 1, "max_attempts": 2, "examples": 2, "warmup": 1,
    "folds": 2, "best": 2, "width": 4, "hidden": 4, "noises": 1, "train_images": 40, "test_images": 20, "queue": 8,
}  # fmt: skip
"""Settings at which all is done at once."""
OWN = {
    "denoiser": "denoiser.safetensors", "pretrained": "denoiser.safetensors", "finetuned": "conditional.safetensors",
    "judge": "judge.safetensors", "pixel_judge": "pixels.safetensors", "guide": "guide.safetensors",
    "guides": "guide.safetensors", "generator": "d2c.safetensors", "evaluator": "evaluator.safetensors",
    "segmenter": "segmenter.safetensors", "masks": "masks.tar", "attempts": "shard.parquet", "mask": "mask.png",
    "configfile": "settings.yaml", "unlabelled": "images", "features": "features.safetensors", "file": "d.pt",
    "rows": "rows.parquet", "table": "rows.parquet", "files": "rows.parquet", "reports": "report.json",
    "threshold_file": "threshold.json", "latents": "d.pt",
}  # fmt: skip
"""What fits an option; of others, most are shards."""
OF_MASKS = {"shard.tar": "masks.tar", "guide.safetensors": "guide-m.safetensors"}
"""What fits the verbs of masks."""
OTHERS = [
    "shard.tar", "masks.tar", "guide-m.safetensors", "latents.safetensors", "features.npz", "junk", "empty", "folder",
    "images", "gone", "gone/x", "pipe", "link", "shard.parquet", "grid.json", "settings.yaml", "shard.tar/x", "", ".",
    "mask.png", "list.csv", "x" * 300, "a\nb", "\0", "\udcff",
]  # fmt: skip
OUT = ["o.tar", "o.png", "o.npz", "o.safetensors", "o.parquet", "o.json", "o.csv", "new", "folder", "folder/o.png"]
OUT += ["gone/o.tar", "shard.tar/o.tar", "pipe", "loop", "old.tar", "", ".", "x" * 300 + ".png"]
TEXTS = {
    "junk": b"\0junk\xff" * 99, "empty": b"", "settings.yaml": b"seed: 1\n", "config.yaml": b"experiment: demo\n",
    "grid.json": b'{"levels": [9, 1], "cost": 1.0, "cost_even": 1.0, "denoiser_sha256": ""}', "Snakefile": b"",
    "threshold.json": b'{"threshold": 0.5}', "report.json": b'{"tried": [{"block": "up1", "timestep": 9, "top1": 5}]}',
}  # fmt: skip
ROW: dict[str, Kind] = ROBUSTNESS | SCORES[1] | SCORES[2] | tables.ROW | judges.ROW | copies.ROW | labels.LINE
EXAMPLES: dict[Kind, Any] = {"text": "ours", "flag": True, "whole": 1, "number": 0.5, "number or nan": np.nan}
"""A row that is of all tables, by the kinds of their columns."""


def _fill(folder: Path) -> None:
    """Small files of all kinds, and some of none."""
    tiny.denoiser().save(folder / "denoiser.safetensors")
    tiny.denoiser(3, num_res_blocks=1).save(folder / "conditional.safetensors")
    network(Judge, ON_FEATURES)(folder / "judge.safetensors")
    network(Judge, ON_PIXELS)(folder / "pixels.safetensors")
    network(Guide, GUIDE_A)(folder / "guide.safetensors")
    network(Guide, GUIDE_M)(folder / "guide-m.safetensors")
    network(Evaluator, MEASURE | {"name": "e"})(folder / "evaluator.safetensors")
    network(Segmenter, MEASURE)(folder / "segmenter.safetensors")
    latent_judge(folder / "latents.safetensors")
    shutil.copy(folder / "generator.safetensors", folder / "d2c.safetensors")
    rows = {"key": KEYS, "class": np.arange(6) % 2, "accepted": True, "p": 0.9, "seed": np.arange(6)}
    rows |= {"attempt": np.arange(6) // 2, "evaluations": 2}
    write_with_attempts(folder / "shard.tar", labelled(), pd.DataFrame(rows))
    write_shard(folder / "old.tar", labelled())
    write_unlabelled(folder / "unlabelled.tar", labelled())
    write_masked_shard(folder / "masks.tar", MaskedImages(IMAGES, IMAGES[..., 0] // 200, KEYS, ("a", "b")))
    write_idx(folder / "images.idx.gz", IMAGES[..., 0])
    torch.save(tiny.denoiser(in_channels=3, out_channels=3).net.state_dict(), folder / "d.pt")
    runs = [{name: EXAMPLES[kind] for name, kind in ROW.items()} | {"seed": seed} for seed in range(2)]
    pd.DataFrame(runs).to_parquet(folder / "rows.parquet")
    features(folder / "features.safetensors", 6)
    pd.DataFrame({"key": KEYS, "label": 1, "prediction": 1}).to_parquet(folder / "rows.predictions.parquet")
    save_features(folder / "features.npz", "x", np.ones((4, 3)), np.arange(4))
    for name, content in TEXTS.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    Image.fromarray(IMAGES[0, ..., 0] // 200).save(folder / "mask.png")
    names = [f"images/{label}/{i}.png" for label in "ab" for i in range(3)]
    for name, image in zip(names, IMAGES, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / name)
    (folder / "list.csv").write_text("path,label,split\n" + "".join(f"{name},{name[7]},train\n" for name in names))


def _small(section: Any) -> Any:
    if isinstance(section, dict):
        section |= {"images": "images.idx.gz"} if section.get("images", 0) is None else {}
        return {k: min(v, SMALL[k]) if k in SMALL and isinstance(v, int) else _small(v) for k, v in section.items()}
    return section


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """A verb with most of its options, each of a value that fits it, or of any other."""
    name = draw(st.sampled_from(sorted(VERBS)))
    verb, args = VERBS[name], [name]
    writes = {option for option, _ in marks(verb.model_construct())}
    given = draw(st.data())
    for option, field in verb.model_fields.items():
        missing = draw(st.integers(0, 39 if field.is_required() else 3)) == 3
        if option in ("watch", "processes", "log") or (missing and option not in ("stage", "out")):
            continue
        flag = f"--{(field.alias or option).replace('_', '-')}"
        many = "list" in str(field.annotation)
        values = [
            _value(given, verb, option, field, option in writes) for _ in range(draw(st.integers(1, 3)) if many else 1)
        ]
        positional = any("CliPositionalArg" in str(mark) for mark in field.metadata)
        for value in values:
            if value is True or value is False:
                args.append(flag if value else f"--no-{flag[2:]}")
            else:
                args.append(value if positional else f"{flag}={value}")
    return args


def _value(data: st.DataObject, verb: type[Verb], option: str, field: FieldInfo, written: bool) -> Any:
    kind, odd = str(field.annotation), data.draw(st.integers(0, 11)) == 5
    if option == "stage":
        return _stage(data, verb, field, odd)
    if written:
        return data.draw(st.sampled_from(OUT)) if odd else f"{option}{_suffix(option, field)}"
    if "Path" in kind:
        own = OWN.get(option, "shard.tar")
        fits = OF_MASKS.get(own, own) if verb in (GuideMasks, ScoreMasks, SegmenterVerb, Figure2) else own
        return data.draw(st.sampled_from(OTHERS)) if odd else fits
    if odd:
        return data.draw(st.text(max_size=5) | st.integers().map(str) | st.floats().map(str))
    if "bool" in kind:
        return data.draw(st.booleans())
    if choices := [value for value in get_args(field.annotation) if isinstance(value, str)]:
        return data.draw(st.sampled_from(choices))
    if option == "number":
        return data.draw(st.sampled_from("12345"))
    if "int" in kind or "float" in kind:
        return "1" if option == "threads" else str(data.draw(st.integers(0, 4)))
    return data.draw(st.sampled_from(["a", "b", "train", "test", "ours", "resnet18", "test_resnet"]))


def _suffix(option: str, field: FieldInfo) -> str:
    suffixes = [mark.suffixes for mark in field.metadata if getattr(mark, "suffixes", ())]
    return suffixes[0][0] if suffixes else ".png" if option == "grid" else ".tar"


def _stage(data: st.DataObject, verb: type[Verb], field: FieldInfo, odd: bool) -> str:
    """Its section by hand, but small; odd: with a value that is another."""
    if odd and data.draw(st.integers(0, 3)) == 2:
        return json.dumps(data.draw(VALUES))
    by_hand = verb.by_hand({}) if verb.__name__ != "Report" else {}
    kind: Any = field.annotation
    section = kind.model_fields["config"].annotation
    made = by_hand.get("config") or (section().model_dump(mode="json") if _is_whole(section) else {})
    made |= {"attribute": "x", "having": ["a"]} if section is AttributeScores else {}
    tree = json.loads(json.dumps({"config": _small(made), "seed": 0}, default=str))
    return json.dumps(changed_tree(data, tree) if odd else tree)


def _is_whole(section: type[BaseModel]) -> bool:
    return not any(each.is_required() for each in section.model_fields.values())


CELLS: list[list[Any]] = [
    [], [0], [1, 0], [-1], [2**63], [0.5], [1e308, -1e308], [np.nan], [np.inf], [None], ["a", "b"], ["a\nb"],
    [True, None], [b"a"], [[1]], [{"a": 1}], [pd.Timestamp(0)], ["real", "ours"], ["features", "pixels"], [5, 50, 500],
]  # fmt: skip
OTHER_ROWS = st.dictionaries(
    st.sampled_from([*ROW, "key", "class", "attempt", "p", "accepted"]), st.sampled_from(CELLS)
)
"""Columns that hold other things, or are not there."""


def _change_rows(path: Path, rows: dict[str, list[Any]]) -> None:
    table = pd.read_parquet(path)
    for name in table.columns.intersection(list(rows)):
        if rows[name]:
            table[name] = pd.Series((rows[name] * len(table))[: len(table)])
        else:
            del table[name]
    path.unlink()
    table.to_parquet(path)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[None]:
    """After LIMIT seconds, where a verb hears it."""

    def ask(*_: Any) -> None:
        if signal.getsignal(signal.SIGTERM) is stopping._on_signal:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_commands_of_any_options_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in pkgutil.walk_packages(ddrep.__path__, "ddrep."):  # one whose import is interrupted is never whole
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    (whole := tmp_path / "whole").mkdir()
    _fill(whole)
    monkeypatch.setattr("ddrep.device.set_threads", lambda threads: None)  # which a process may do but once

    @fuzzed(20)
    @given(commands(), st.none() | OTHER_ROWS)
    def one(args: list[str], rows: dict[str, list[Any]] | None) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(here := tmp_path / "here", ignore_errors=True)
        shutil.copytree(whole, here, symlinks=True, copy_function=os.link)
        os.mkfifo(here / "pipe")
        for name in ("rows.parquet", "shard.parquet") if rows else ():
            _change_rows(here / name, rows or {})
        monkeypatch.chdir(here)
        said, printed = io.StringIO(), io.StringIO()
        with _asked_to_stop(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            status = cli.main(args)
        lines = said.getvalue().splitlines()
        assert status in (0, 2, stopping.AGAIN), args
        assert status == 0 or (lines[-1].startswith("ddrep: ") and "Traceback" not in said.getvalue()), said.getvalue()

    one()


def test_a_report_of_tables_that_hold_anything_is_made_or_refused_in_one_line(tmp_path: Path) -> None:
    whole = make_results.write_all(tmp_path)
    names = sorted(str(path.relative_to(whole.folder)) for path in whole.folder.rglob("*.parquet"))
    said = sorted(str(path.relative_to(whole.folder)) for path in whole.folder.rglob("*.json"))

    @fuzzed(15)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        shutil.rmtree(here := tmp_path / "here", ignore_errors=True)
        shutil.copytree(whole.folder, here, copy_function=os.link)
        path = here / data.draw(st.sampled_from([*names, *said]))
        if path.suffix == ".json":
            other = changed_tree(data, json.loads(path.read_text()))
            path.unlink()
            path.write_text(json.dumps(other))
        else:
            column = st.sampled_from(list(pd.read_parquet(path).columns))
            _change_rows(path, data.draw(st.dictionaries(column, st.sampled_from(CELLS), min_size=1, max_size=3)))
        with refused_in_one_line(path.name, "no source of images"):
            render(Results(whole.experiment, here))

    one()


WORDS = st.sampled_from([
    "!!python/object:os.system", "&a", "*a", "<<", "<<: *a", "[", "]", "{", "}", "|", ">", "? ", "- ", ": ", "0x1F",
    "1:30:00", "2020-13-45", "2020-01-01", "!!binary x", "!!set", "!!omap", "!!int", "!!float", ".nan", "-.inf",
    "%YAML 1.1", "---", "...", "1e400", "\t", "\0", "yes", "~", "null", "'", '"', "\\", "#", "@", "`", "\x85", "=",
    "\ufeff", "data", "seed", "experiment", "kind", "table4", "sources", "synthesis", "1", "-1", "0.5", "ours", "é",
])  # fmt: skip


def test_settings_of_any_structure_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Lines of anything that means something to YAML, or tables within tables."""
    words = st.lists(WORDS | st.text(max_size=5), max_size=5)
    lines = st.builds(lambda n, join, all: "  " * n + join.join(all), st.integers(0, 4), st.sampled_from(" :"), words)

    @fuzzed(60)
    @given(st.lists(lines).map("\n".join) | VALUES.map(json.dumps))
    def one(text: str) -> None:
        (path := tmp_path / "settings.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        with refused_in_one_line("settings.yaml", most=20_000):
            load(path)

    one()
