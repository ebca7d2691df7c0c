"""Files that are whole, and say what none of ours says: values, tensors and members changed at random.

Each is read, and does what it is for, or is refused in one line; see tests/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from ddrep.config import Features, ProbeReading, Sampling, Tap, Taps, WebDatasetFiles
from ddrep.data.listing import read
from ddrep.data.masks import read_masked_shards
from ddrep.data.readers.webdataset import webdataset
from ddrep.data.shards import read_shards, write_shard
from ddrep.data.tars import encode_png
from ddrep.denoiser.denoiser import Denoiser
from ddrep.files import save_tensors, sha256, tensors_on_disk
from ddrep.generators.files import load_generator
from ddrep.generators.import_nvae import import_nvae
from ddrep.generators.importers import import_diffae
from ddrep.generators.judge import LatentJudge
from ddrep.generators.judge import build as build_judge
from ddrep.generators.network import LatentJudgeFile
from ddrep.networks import architectures
from ddrep.networks.classifiers import build_classifier, load_classifier
from ddrep.networks.guides import Guide
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.networks.metadata import ClassifierMeta, FeaturesFile
from ddrep.own_images.unpack import unpack
from ddrep.sampling.sampler import sample
from ddrep.saved import save
from ddrep.training.judges import _read_features
from tests import tiny
from tests.fuzzing import VALUES, changed_tree, fuzzed, refused_in_one_line
from tests.generators.test_diffae import checkpoint as published_diffae
from tests.generators.test_nvae import checkpoint as published_nvae
from tests.generators.tiny_d2c import d2c
from tests.generators.tiny_diffae import diffae
from tests.generators.tiny_nvae import nvae
from tests.test_fuzz import IMAGES, KEYS, checkpoint, imported, labelled, masks, state

DENOISER = "denoiser.safetensors"
PROBES = ProbeReading(taps=(Tap(block="middle", timestep=10), Tap(block="up1", timestep=500)), pool=1, noises=1)
TAPS = Taps(blocks=("middle",), timesteps=(500,))


def network(made: Any, meta: Any) -> Callable[[Path], None]:
    """A writer of such a network, untrained, and of the denoiser that it listens to."""

    def write(path: Path) -> None:
        tiny.denoiser().save(path.with_name(DENOISER))
        about = meta | ({"denoiser_sha256": sha256(path.with_name(DENOISER))} if "denoiser_sha256" in meta else {})
        said = made.META.model_validate(about)
        torch.manual_seed(0)
        made(architectures.build(said), said).save(path)

    return write


def _classifier(path: Path) -> None:
    meta = ClassifierMeta(architecture="test_resnet", stem="small", image_shape=(1, 8, 8), classes=("a", "b"))
    save(path, meta, build_classifier("test_resnet", "small", 1, 2).state_dict())


def latent_judge(path: Path, size: int = 0) -> None:
    d2c().save(of := path.with_name("generator.safetensors"))
    meta = LatentJudgeFile(classes=("a", "b"), latent=32, size=size, generator_sha256=sha256(of))
    save(path, meta, build_judge(meta).state_dict())


def features(path: Path, images: int = 4) -> None:
    meta = FeaturesFile(settings=Features(), denoiser_sha256="0" * 64).text()
    for array in tensors_on_disk(path, (images, 2, 2, 2), "features", "mirrored", metadata=meta).values():
        array[:] = 0.5
        array.flush()


def _judged(kind: Any) -> Callable[[Path], object]:
    return lambda path: kind.load(path, path.with_name(DENOISER)).probabilities(IMAGES)


def _guided(path: Path) -> object:
    guide = Guide.load(path, path.with_name(DENOISER))
    shape = (8, 8) if guide.meta.of == "mask" else ()
    return guide.log_likelihood(torch.zeros(2, 1, 8, 8), torch.zeros(2, *shape, dtype=torch.long))


def _sampled(path: Path) -> object:
    made = Denoiser.load(path)
    cfg = Sampling(steps=2, guidance_scale=0.0)
    return sample(made, [0], cfg, [0] if made.classes else None, None)


def _generated(path: Path) -> object:
    made = load_generator(path)
    latents = made.latents([1, 2], 2)
    made.encode(IMAGES)
    return made.images(latents, [1, 2], Sampling(steps=2, guidance_scale=0.0))


def _classified(path: Path) -> object:
    net, meta = load_classifier(path)
    return net(torch.zeros(2, *meta.image_shape)) if max(meta.image_shape) < 100 else None


def _of_latents(path: Path) -> object:
    judge = LatentJudge.load(path, path.with_name("generator.safetensors"))
    return judge.probabilities(torch.zeros(2, judge.meta.latent))


def _of_masks(path: Path) -> object:
    judge = LatentJudge.load(path, path.with_name("generator.safetensors"), "mask")
    return judge.log_likelihood(torch.zeros(2, judge.meta.latent), np.zeros((2, 8, 8), np.uint8))


SIZES: dict[str, Any] = {"channels": 32, "num_classes": 2, "hidden": 4, "denoiser_sha256": ""}
ON_FEATURES = SIZES | {"kind": "features", "features": Features(timesteps=(10,), pool=1)}
ON_PIXELS = {"kind": "pixels", "channels": 1, "num_classes": 2, "hidden": 4, "image_shape": (1, 8, 8)}
ON_PROBES: dict[str, Any] = {"kind": "probe", "channels": 64, "widths": (32, 32), "num_classes": 2}
ON_PROBES |= {"denoiser_sha256": "", "probes": PROBES}
GUIDE: dict[str, Any] = {"classes": ("a", "b"), "image_shape": (1, 8, 8), "denoiser_sha256": "", "hidden": 4}
GUIDE_A = GUIDE | {"of": "attribute", "reads": "features", "taps": TAPS, "channels": 32}
GUIDE_M = GUIDE | {"of": "mask", "reads": "pixels", "taps": None, "channels": 1}
MEASURE: dict[str, Any] = {"image_shape": (8, 8, 1), "classes": ("a", "b"), "width": 4, "provenance": {"seed": 1}}
WEIGHTS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "denoiser": (lambda p: tiny.denoiser().save(p), _sampled),
    "class-conditional denoiser": (lambda p: tiny.denoiser(3).save(p), _sampled),
    "judge": (network(Judge, ON_FEATURES), _judged(Judge)),
    "pixel judge": (network(Judge, ON_PIXELS), _judged(Judge)),
    "probes": (network(Judge, ON_PROBES), _judged(Judge)),
    "guide": (network(Guide, GUIDE_A), _guided),
    "guide of masks": (network(Guide, GUIDE_M), _guided),
    "evaluator": (network(Evaluator, MEASURE | {"name": "e"}), lambda p: Evaluator.load(p).probabilities(IMAGES)),
    "segmenter": (network(Segmenter, MEASURE), lambda p: Segmenter.load(p).label_maps(IMAGES)),
    "classifier": (_classifier, _classified),
    "diffae": (lambda p: diffae().save(p), _generated),
    "d2c": (lambda p: d2c().save(p), _generated),
    "nvae": (lambda p: nvae().save(p), _generated),
    "judge of latents": (latent_judge, _of_latents),
    "judge of masks' latents": (partial(latent_judge, size=4), _of_masks),
    "features": (features, _read_features),
}  # fmt: skip


def _other_text(data: st.DataObject, text: dict[str, str]) -> dict[str, str]:
    """Metadata of which a string, or a value anywhere in the JSON of one, is another."""
    whole = text[key := data.draw(st.sampled_from(sorted(text)))]
    how = data.draw(st.sampled_from(["value"] * 6 + ["text", "dropped", "added"]))
    try:
        tree = json.loads(whole)
    except ValueError:
        tree = None
    if how == "dropped":
        return {name: value for name, value in text.items() if name != key}
    if how == "added":
        return text | {data.draw(st.text(max_size=8)): data.draw(st.text(max_size=8))}
    if how == "text" or not isinstance(tree, dict | list):
        return text | {key: data.draw(st.text(max_size=20))}
    return text | {key: json.dumps(changed_tree(data, tree))}


DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64]
DTYPES += [torch.float8_e4m3fn]


def _other_tensors(data: st.DataObject, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of which one is missing, renamed, twice there, or of another shape, type or value."""
    name = data.draw(st.sampled_from(sorted(tensors)))
    rest, t = {key: value for key, value in tensors.items() if key != name}, tensors[name]
    size = st.integers(0, 9)
    made: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "dropped": dict,
        "renamed": lambda: {data.draw(st.text(max_size=30)): t},
        "twice": lambda: {name: t, f"{name}.{data.draw(size)}": t.clone()},
        "shape": lambda: {name: torch.zeros(data.draw(st.lists(size, max_size=5)))},
        "flat": lambda: {name: t.flatten()},
        "type": lambda: {name: t.to(data.draw(st.sampled_from(DTYPES)))},
        "value": lambda: {name: torch.full_like(t, data.draw(st.sampled_from([np.nan, np.inf, 1e30, -1, 0])))
                          if t.is_floating_point() else torch.full_like(t, -(2**62))},
    }  # fmt: skip
    return rest | made[data.draw(st.sampled_from(sorted(made)))]()


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_say_anything_are_used_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    """What they hold is what the loader promises, so what is not refused works."""
    write, use = WEIGHTS[kind]
    write(path := tmp_path / "whole.safetensors")
    use(path)
    tensors = load_file(path)
    with safe_open(path, framework="np") as file:
        text: dict[str, str] = file.metadata()

    @fuzzed(10)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        of = data.draw(st.sampled_from(["text", "text", "tensors"]))
        other = _other_text(data, text) if of == "text" else text
        save_tensors(tensors if of == "text" else _other_tensors(data, tensors), tmp_path / "f.safetensors", other)
        with refused_in_one_line(), torch.no_grad():
            use(tmp_path / "f.safetensors")

    one()


def _odd_tensors() -> list[Any]:
    """What a file of torch's may hold beside plain numbers."""
    quantized = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    tensors = [torch.ones(2, 2).to_sparse(), torch.ones(2, 2, device="meta"), torch.ones(1).expand(2**20, 2**20)]
    return [*tensors, quantized, torch.tensor(1.0), torch.zeros(0, 3), torch.nn.Parameter(torch.ones(2, 2))]


def _other_content(data: st.DataObject, content: dict[str, Any]) -> dict[str, Any]:
    """A file of torch's with a value anywhere in it replaced, of which tensors are likelier to be other tensors."""
    name = next((name for name in ("state_dict", "net", "ema") if name in content), "")
    how = data.draw(st.sampled_from(["tensors", "tensors", "odd", "value"]))
    if how == "value":
        made: dict[str, Any] = changed_tree(data, content)
        return made
    state = content[name] if name else content
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if how == "odd":
        other = state | {data.draw(st.sampled_from(sorted(tensors))): data.draw(st.sampled_from(_odd_tensors()))}
    else:
        other = _other_tensors(data, tensors)
    return content | {name: other} if name else other


def _of_torch(write: Callable[[Path], object], suffix: str = "pt") -> Callable[[Path], dict[str, Any]]:
    def content(folder: Path) -> dict[str, Any]:
        write(path := folder / f"whole.{suffix}")
        found = torch.load(path, weights_only=False)
        return found | {"args": vars(found["args"])} if "args" in found else found

    return content


CHECKPOINTS: dict[str, tuple[Callable[[Path], dict[str, Any]], Callable[[Path], object]]] = {
    "adm": (_of_torch(checkpoint), imported),
    "wrapped": (lambda folder: {"epoch": 1, "state_dict": _of_torch(checkpoint)(folder)}, imported),
    "diffae": (_of_torch(published_diffae), import_diffae),
    "nvae": (_of_torch(published_nvae), import_nvae),
    "state": (_of_torch(state), lambda path: state(path, 4)),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_any_content_are_imported_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    write, use = CHECKPOINTS[kind]
    content = write(tmp_path)

    @fuzzed(5)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        other = _other_content(data, content)
        if isinstance(other.get("args"), dict):
            other["args"] = argparse.Namespace(**other["args"])
        torch.save(other, tmp_path / "c.pt")
        with refused_in_one_line("c.pt", "training: the loss"):  # of weights that are numbers, but absurd
            use(tmp_path / "c.pt")

    one()


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


ARRAYS = st.sampled_from([
    np.array([0.5, 0.5], np.float16), np.array([[0.5, 0.5]]), np.array(1), np.array(["a", "b"]), np.array([None, 1]),
    np.array([np.nan, 1]), np.array([1 + 0j, 0]), np.array([b"a", b"b"]), np.array([True, False]), np.zeros((0, 2)),
    np.zeros(2, [("a", "f4")]), np.array(["2020-01-01", "2020-01-02"], "M8[D]"), np.array([2**63, 0], "u8"),
])  # fmt: skip
PNGS = st.sampled_from([
    IMAGES[0, ..., 0], IMAGES[0, :4, :5, 0], np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 255, np.uint8),
    np.zeros((8, 8), bool), np.zeros((8, 8), np.uint16),
])  # fmt: skip
CONTENTS = st.binary(max_size=20) | st.integers().map(lambda n: str(n).encode())
CONTENTS |= VALUES.map(lambda value: json.dumps(value).encode()) | ARRAYS.map(_npy) | PNGS.map(encode_png)
NAMES = st.text(max_size=12) | st.sampled_from([
    "__shard__", "k0.png", "k1.cls", "./k1.cls", "../k1.png", "/k2.png", "a/k0.png", "k0.PNG", "k0.mask.png",
    "k1.soft.npy", ".png", "k0", "k9.png", "k9.cls", "k0.png/", "x" * 300 + ".png", "__k__.cls", "k 0.jpg",
    "\udcff.png",
])  # fmt: skip
PAX = ["path", "linkpath", "size", "mtime", "hdrcharset", "uid", "charset"]
PAX += [f"GNU.sparse.{name}" for name in ("size", "map", "major", "minor", "realsize", "name", "numblocks", "offset")]
KINDS = [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
KINDS += [tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"Z"]


Members = list[tuple[tarfile.TarInfo, bytes]]


def _sized(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def _other_member(data: st.DataObject, member: tarfile.TarInfo, content: bytes) -> Members:
    """What stands in its place: it with another name, content, type, size or header, nothing, or one more."""
    how = data.draw(st.sampled_from(["name", "content", "type", "size", "dropped", "added", "pax"]))
    if how == "dropped":
        return []
    if how == "added":
        return [(member, content), _sized(data.draw(NAMES), data.draw(CONTENTS))]
    if how == "name":
        member.name = data.draw(NAMES)
    elif how == "content":
        content = data.draw(CONTENTS)
        member.size = len(content)
    elif how == "type":
        member.type, member.linkname = data.draw(st.sampled_from(KINDS)), data.draw(NAMES)
    elif how == "size":
        member.size = data.draw(st.integers(-(2**33), 2**33) | st.sampled_from([-512, -1024, -1, 2**62]))
    else:
        values = st.text(max_size=9) | st.integers(-2000, 2**40).map(str)
        member.pax_headers = data.draw(st.dictionaries(st.sampled_from(PAX), values, max_size=3))
    return [(member, content)]


def _other_tar(data: st.DataObject, whole: bytes) -> bytes:
    """Some members are others, in another order, and what it says of itself may be anything."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        members = [(each, tar.extractfile(each).read()) for each in tar]  # type: ignore[union-attr]
    for _ in range(data.draw(st.integers(1, 3)) if members else 0):
        i = data.draw(st.integers(0, len(members) - 1)) if members else 0
        members[i : i + 1] = _other_member(data, *members[i]) if members else []
    if data.draw(st.integers(0, 3)) == 2:
        said = json.dumps(changed_tree(data, {"classes": ["a", "b"], "images": 6})).encode()
        members = [_sized("__shard__", said), *members[1:]]
    if members and data.draw(st.integers(0, 3)) == 2:
        members.append(members.pop(data.draw(st.integers(0, len(members) - 1))))
    return _packed(members, data.draw(st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))))


def _packed(members: Members, form: Literal[1, 2]) -> bytes:
    """Headers may say anything, but for what tarfile cannot write."""
    content = io.BytesIO()
    for member, inside in members:
        with contextlib.suppress(ValueError, OverflowError):
            content.write(member.tobuf(form, "utf-8", "surrogateescape") + inside + bytes(-len(inside) % 512))
    return content.getvalue() + bytes(1024)


def _unpacked(path: Path) -> object:
    shutil.rmtree(out := path.with_name("out"), ignore_errors=True)
    return unpack(path.suffix, [path], out)


def _webdataset(path: Path) -> object:
    cfg = WebDatasetFiles(train=(path,), test=(path.with_name("test.tar"),), size=8, channels=1)
    return read(webdataset(cfg, 0), "train")


TARS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "shard": (lambda p: write_shard(p, labelled()), lambda p: read_shards([p])),
    "soft labels": (lambda p: write_shard(p, labelled(soft=True)), lambda p: read_shards([p])),
    "masks": (masks, lambda p: read_masked_shards([p])),
    "webdataset": (lambda p: write_shard(p, labelled()), _webdataset),
    "unpacked": (lambda p: write_shard(p, labelled()), _unpacked),
}


@pytest.mark.parametrize("kind", TARS)
def test_tars_of_any_members_are_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    write, reader = TARS[kind]
    write(tmp_path / "whole.tar")
    other = labelled()
    write_shard(tmp_path / "test.tar", type(other)(255 - IMAGES, other.labels, KEYS, other.classes))
    whole = (tmp_path / "whole.tar").read_bytes()
    reader(tmp_path / "whole.tar")

    @fuzzed(20)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        (tmp_path / "t.tar").write_bytes(_other_tar(data, whole))
        with refused_in_one_line("t.tar", "data.webdataset"):
            reader(tmp_path / "t.tar")

    one()
