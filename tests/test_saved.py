"""Files of networks: the bytes they have always had, and that any other content is one line."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file

from ddrep.config import Features, Taps
from ddrep.config.base import Share
from ddrep.data.embedded import FOLDER
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.network import DenoiserFile, ScheduleConfig, UNetConfig
from ddrep.denoiser.unet import UNet
from ddrep.errors import UserError
from ddrep.files import save_tensors, sha256, tensors_on_disk
from ddrep.generators.network import NVAEConfig, NVAEFile
from ddrep.generators.nvae import NVAE
from ddrep.networks.architectures import build
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.networks.metadata import EvaluatorMeta, FeaturesFile, GuideMeta, JudgeMeta, SegmenterMeta
from ddrep.saved import Saved, header, load, read_json, save
from ddrep.training.judges import _read_features
from tests import tiny
from tests.generators.tiny_nvae import nvae

DIGEST = "0" * 64
TAPS = Taps(blocks=("middle", "up1"), timesteps=(500,), noise="fixed")
SIZES: dict[str, Any] = {"num_classes": 3, "hidden": 4, "dropout": 0.2}
PROVENANCE = {"command": "ddrep", "seed": 1, "section": {"lr": 0.003}, "validation": {"n": 3, "miou": float("nan")}}
MEASURE: dict[str, Any] = {"width": 4, "classes": ("a", "Jäckchen"), "image_shape": (10, 9, 1)}


def guide(of: str, reads: str) -> GuideMeta:
    shown: dict[str, Any] = {"of": of, "reads": reads, "taps": TAPS if reads == "features" else None}
    shown |= {"classes": ("a", "Jäckchen")}
    shown |= {"hidden": 4, "channels": 2, "image_shape": (1, 8, 8), "denoiser_sha256": DIGEST}
    return GuideMeta.model_validate(shown)


DENOISER = DenoiserFile(
    network=UNetConfig(8, 1, 2, 32, (1, 1), 1, (4,), 2, num_classes=3),
    schedule=ScheduleConfig("linear", 4000, False),
    provenance={"seen": 3, "from": "Jäckchen"},
    classes=("a", "Jäckchen"),
)
FEATURES = Features(timesteps=(300, 800), pool=2)
FILES: dict[str, Saved] = {
    "denoiser": DENOISER,
    "evaluator": EvaluatorMeta(name="cnn", provenance=PROVENANCE, **MEASURE),
    "evaluator-untrained": EvaluatorMeta(name="cnn", **MEASURE),
    "guide-attribute-features": guide("attribute", "features"),
    "guide-attribute-pixels": guide("attribute", "pixels"),
    "guide-mask-features": guide("mask", "features"),
    "guide-mask-pixels": guide("mask", "pixels"),
    "judge-features": JudgeMeta(kind="features", features=FEATURES, denoiser_sha256=DIGEST, channels=2, **SIZES),
    "judge-pixels": JudgeMeta(kind="pixels", image_shape=(1, 8, 8), channels=1, **SIZES),
    "judge-pixels-older": JudgeMeta(kind="pixels", channels=1, **SIZES),
    "segmenter": SegmenterMeta(provenance=PROVENANCE, **MEASURE),
}
WRITTEN = {
    "denoiser": "d593c8395f3b055be486789e582d96a4b00ba2397e9ff287ef797039ea77f1e3",
    "evaluator": "ad4f53d9f797936d5b1e65b3842463e816908796c7fdcdbdaea9547381b1431c",
    "evaluator-untrained": "b3fbd13e66d48a60754e8d03f745ee3ac94655b029bfa5525169dcae806fa3d0",
    "guide-attribute-features": "6620d50b0f708ccef5cba6dffdfc2dd295be716f2472d9bed4747630d42c6fff",
    "guide-attribute-pixels": "2e2dcc5eb2700b2b9c39da780b29fc3561eb3aea0d29a911602437cfab30de7e",
    "guide-mask-features": "c546fdb6de15d540e192186cc0dce23dd03b7e98bee9e069b5f6bede0018e771",
    "guide-mask-pixels": "687ab0adf728b4a2763e136bcf8325311f8b3ab9d544a39b1b5a0134314f35ec",
    "judge-features": "8e704fbfba22088e2a6187119b78626d30bdbd3e9d1bca45daafa69328306354",
    "judge-pixels": "d90efc2cd80124158b30e20b5e2a8e332a7f7dec82b1916d5931cdc557a1d902",
    "judge-pixels-older": "e018daa056507caff5209280cf480aa678410282dd7a76488ac72a27b7541457",
    "segmenter": "21e43de39ff54584b60c67f213ae494b1c12954f431dd214b00b48efea0dcfe9",
}
"""SHA-256 of these files as commit 4af32cc wrote them, whose load and save were five, with the weights of `filled`."""


def filled(net: torch.nn.Module) -> torch.nn.Module:
    """With weights that are the same everywhere: 1/8 to 7/8."""
    for t in net.state_dict().values():
        t.copy_((torch.arange(t.numel()) % 7 + 1).reshape(t.shape) / 8)
    return net


def make(content: Saved) -> Any:
    """The network that a file describes."""
    return UNet(content.network) if isinstance(content, DenoiserFile) else build(content)  # type: ignore[arg-type]


def write(name: str, path: Path) -> Path:
    save(path, FILES[name], filled(make(FILES[name])).state_dict())
    return path


@pytest.mark.parametrize("name", WRITTEN)
def test_files_have_the_bytes_they_always_had(name: str, tmp_path: Path) -> None:
    """So files of old load as these do."""
    path = write(name, tmp_path / "first")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == WRITTEN[name]
    content, net = load(path, type(FILES[name]), make)
    assert header(path, type(FILES[name])).text() == content.text() == FILES[name].text()
    save(tmp_path / "second", content, net.state_dict())
    assert (tmp_path / "second").read_bytes() == path.read_bytes()
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_files_of_features_have_the_bytes_they_always_had(tmp_path: Path) -> None:
    about = FeaturesFile(settings=Features(), denoiser_sha256=DIGEST)
    arrays = tensors_on_disk(tmp_path / "f", (3, 2, 2, 2), "features", "mirrored", metadata=about.text())
    for array in arrays.values():
        array[:] = (np.arange(24) % 7 + 1).reshape(array.shape) / 8
        array.flush()
    digest = hashlib.sha256((tmp_path / "f").read_bytes()).hexdigest()
    assert digest == "458ef7bda90da79854e092c5b4fc3ea5b6889b5fd1cffab8b248ec2c6fe6ee4c"
    views, read = _read_features(tmp_path / "f")
    assert read == about
    for view, tensor in zip(views, load_file(tmp_path / "f").values(), strict=True):
        np.testing.assert_array_equal(view, tensor)


@pytest.mark.parametrize(
    ("kind", "file"), [(Denoiser, DenoiserFile), (Evaluator, EvaluatorMeta), (Segmenter, SegmenterMeta)]
)
def test_what_comes_with_ddrep_is_written_again_as_it_is(kind: Any, file: type[Saved], tmp_path: Path) -> None:
    """The denoiser's header is older than some of its keys, and all are in any order."""
    shipped, again = FOLDER / f"{kind.__name__.lower()}.safetensors", tmp_path / "again"
    kind.load(shipped).save(again)
    assert header(shipped, file) == header(again, file)
    sizes = [struct.unpack("<Q", path.read_bytes()[:8])[0] + 8 for path in (shipped, again)]
    assert shipped.read_bytes()[sizes[0] :] == again.read_bytes()[sizes[1] :]


def change(name: str, *keys: str, to: Any) -> Callable[[dict[str, str]], None]:
    """Replace what is at these keys of a part of the metadata, or take it out where `to` is ..."""

    def changed(text: dict[str, str]) -> None:
        content = json.loads(text[name])
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        if to is ...:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = to
        text[name] = json.dumps(content)

    return changed


def put(name: str, value: str | None) -> Callable[[dict[str, str]], None]:
    """Replace a part of the metadata, or take it out."""
    return lambda text: text.update({name: value}) if value is not None else text.__delitem__(name)


DEEP = "[" * 10**6
HOSTILE: list[tuple[str, Callable[[dict[str, str]], None], str]] = [
    ("denoiser", put("network", "null"), "network: Input should be a dictionary .* got None"),
    ("denoiser", put("network", None), "network: missing"),
    ("denoiser", put("network", DEEP), "network: recursion limit"),
    ("denoiser", put("network", "{"), "network: EOF"),
    ("denoiser", put("network", "1" * 10**5), "network: number out of range"),
    ("denoiser", put("classes", "5"), "classes: Input should be a valid tuple, got 5"),
    ("denoiser", put("provenance", "[]"), "provenance: Input should be a valid dictionary"),
    ("denoiser", change("network", "num_classes", to=10**12), "network.num_classes: .* got 1000000000000"),
    ("denoiser", change("network", "num_classes", to=4), "classes: 2 names, but the label table has 4 rows"),
    ("denoiser", change("network", "num_classes", to=2), r"label_emb.weight is \(3, 128\), expected \(2, 128\)"),
    ("denoiser", change("network", "num_res_blocks", to=10**9), "network.num_res_blocks: "),
    ("denoiser", change("network", "channel_mult", to=[1] * 10**5), "network.channel_mult: Tuple should have at most"),
    ("denoiser", change("network", "model_channels", to=33), "multiples of 32"),
    ("denoiser", change("network", "model_channels", to=2**16), "expected"),
    ("denoiser", change("network", "image_size", to=...), "network.image_size: missing"),
    ("denoiser", change("network", "depth", to=3), "network.depth: "),
    ("denoiser", change("schedule", "num_steps", to=0), "schedule.num_steps: .* greater than or equal to 1, got 0"),
    ("denoiser", change("schedule", "kind", to="x\ny"), "schedule.kind: "),
    ("judge-features", put("judge", "null"), "judge: "),
    ("judge-features", put("judge", None), "judge: "),
    ("judge-features", change("judge", "features", to=...), "judge: .*of features: expected features and"),
    ("judge-features", put("judge", DEEP), "judge: recursion limit"),
    ("judge-features", change("judge", "kind", to="latents"), "judge: kind: "),
    ("judge-features", change("judge", "num_classes", to=10**12), "num_classes: .* got 1000000000000"),
    ("judge-features", change("judge", "num_classes", to=5), r"is \(3, 4\), expected \(5, 4\)|expected \(5"),
    ("judge-features", change("judge", "features", "timesteps", to=[-1]), "features.timesteps.0: "),
    ("judge-features", change("judge", "dropout", to=float("nan")), "dropout: "),
    ("judge-features", change("judge", "hidden", to="wide"), "hidden: Input should be a valid integer"),
    ("judge-pixels", change("judge", "channels", to=...), "channels: missing"),
    ("judge-pixels", change("judge", "hidden", to=1), "expected"),
    ("guide-mask-features", change("guide", "taps", to=None), "guide: .*reads features: expected taps"),
    ("guide-mask-features", change("guide", "classes", to=5), "guide: classes: "),
    ("guide-mask-features", change("guide", "classes", to=[]), "guide: classes: Tuple should have at least 1"),
    ("guide-mask-pixels", change("guide", "of", to="attribute"), "no tensor|expected|a tensor"),
    ("evaluator", change("evaluator", "image_shape", to=[28, 28]), "evaluator: image_shape.2: missing"),
    ("evaluator", change("evaluator", "image_shape", to=[10**12, 28, 1]), "evaluator: image_shape.0: "),
    ("evaluator", change("evaluator", "width", to=-4), "evaluator: width: "),
    ("segmenter", change("segmenter", "name", to="x"), "segmenter: name: unknown key"),
]


@pytest.mark.parametrize(("name", "spoil", "says"), HOSTILE)
def test_a_header_that_is_wrong_is_one_line(
    name: str, spoil: Callable[[dict[str, str]], None], says: str, tmp_path: Path
) -> None:
    kind, text = type(FILES[name]), FILES[name].text()
    spoil(text)
    save_tensors(filled(make(FILES[name])).state_dict(), tmp_path / "f", text)
    with pytest.raises(UserError, match=says) as said:
        load(tmp_path / "f", kind, make)
    line = str(said.value)
    assert line.startswith(f"{tmp_path / 'f'}: ") and line.endswith(kind.HOW)
    assert "\n" not in line and len(line) < 1000


WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor], str], Any], str]] = {
    "missing": (lambda w, name: w.pop(name), "no tensor {}, which such a network has"),
    "not finite": (lambda w, name: w[name].view(-1)[:1].fill_(torch.nan), "{} has values that are not finite"),
    "of another shape": (lambda w, name: w.update({name: w[name][None].clone()}), "{} is .*, expected "),
    "beyond floats": (lambda w, name: w.update({name: w[name].double() * 1e300}), "{} has values that are not finite"),
    "complex": (lambda w, name: w.update({name: w[name].to(torch.complex64)}), "{} is of torch.complex64, expected"),
    "whole numbers": (lambda w, name: w.update({name: w[name].long()}), "{} is of torch.int64, expected"),
    "more": (lambda w, name: w.update({"extra": w[name].clone()}), "a tensor 'extra', which no such network has"),
}


@pytest.mark.parametrize("name", ["denoiser", "judge-pixels", "guide-mask-features", "evaluator", "segmenter"])
@pytest.mark.parametrize("spoil", WEIGHTS)
def test_weights_that_are_not_the_networks_are_one_line(name: str, spoil: str, tmp_path: Path) -> None:
    weights, (spoilt, says) = dict(filled(make(FILES[name])).state_dict()), WEIGHTS[spoil]
    which = [key for key, value in weights.items() if value.is_floating_point()][-1]
    spoilt(weights, which)
    save(tmp_path / "f", FILES[name], weights)
    with pytest.raises(UserError, match=says.format(which)) as said:
        load(tmp_path / "f", type(FILES[name]), make)
    assert str(said.value).startswith(f"{tmp_path / 'f'}: ") and str(said.value).endswith(FILES[name].HOW)


def test_a_header_that_asks_for_hours_of_layers_is_one_line(tmp_path: Path) -> None:
    """Each of these numbers is one that a network may have."""
    nvae().save(tmp_path / "f")
    asks = NVAEConfig(2**16, 1, 4, 1, 100, (100,) * 8, 100, 2)
    content = header(tmp_path / "f", NVAEFile).model_copy(update={"network": asks})
    save(tmp_path / "f", content, load_file(tmp_path / "f"))
    with pytest.raises(UserError, match=r"f: more layers by the header than the file's \d+ tensors are of; make one"):
        NVAE.load(tmp_path / "f")


def test_a_judge_of_other_features_than_its_own_is_one_line(tmp_path: Path) -> None:
    """Its header says of which timesteps they are, and how many channels it has learned of."""
    tiny.denoiser().save(tmp_path / "d")
    meta = FILES["judge-features"].model_copy(update={"denoiser_sha256": sha256(tmp_path / "d")})
    save(tmp_path / "f", meta, filled(make(meta)).state_dict())
    with pytest.raises(UserError, match="reads 2 channels of features, got 64; train one with"):
        Judge.load(tmp_path / "f", tmp_path / "d").probabilities(np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ("text", "shapes", "says"),
    [
        ({}, {}, "settings: missing"),
        ({"settings": "null"}, {}, "settings: "),
        ({"settings": DEEP}, {}, "settings: recursion limit"),
        ({"settings": '{"timesteps": [5000]}'}, {}, "settings.timesteps.0: "),
        ({"settings": "{}"}, {"features": (4, 2)}, r"expected shapes"),
        ({"settings": "{}"}, {"mirrored": (3, 2, 2, 2)}, r"expected shapes"),
        ({"settings": "{}"}, {"mirrored": None, "features": None, "other": (4, 2, 2, 2)}, "features"),
    ],
)
def test_features_that_are_none_are_one_line(
    text: dict[str, str], shapes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    shapes = {"features": (4, 2, 2, 2), "mirrored": (4, 2, 2, 2)} | shapes
    tensors = {name: torch.ones(shape) for name, shape in shapes.items() if shape}
    save_tensors(tensors, tmp_path / "f", {"denoiser_sha256": DIGEST, **text})
    with pytest.raises(UserError, match=says) as said:
        _read_features(tmp_path / "f")
    line = str(said.value)
    assert line.startswith(f"{tmp_path / 'f'}: ") and "`ddrep features`" in line and "\n" not in line


class Threshold(BaseModel):
    model_config = ConfigDict(strict=True)
    threshold: Share


JSON: dict[str, tuple[bytes, str]] = {
    "a list": (b"[]", "Input should be an object"),
    "no key": (b"{}", "threshold: missing"),
    "text": (b'{"threshold": "0.5"}', "threshold: Input should be a valid number"),
    "true": (b'{"threshold": true}', "threshold: Input should be a valid number"),
    "above": (b'{"threshold": 1.5}', "threshold: Input should be less than or equal to 1"),
    "not a number": (b'{"threshold": NaN}', "threshold: "),
    "beyond floats": (b'{"threshold": 1e400}', "threshold: "),
    "deep": (b"[" * 10**5, "recursion limit exceeded"),
    "binary": (b"\xff\xfe\0", "Invalid JSON"),
    "cut": (b'{"threshold": 0.', "Invalid JSON"),
    "empty": (b"", "is empty"),
}


@pytest.mark.parametrize("kind", JSON)
def test_json_that_is_none_is_one_line(kind: str, tmp_path: Path) -> None:
    content, says = JSON[kind]
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UserError, match=says) as said:
        read_json(tmp_path / "t.json", Threshold, "a threshold; make one")
    line = str(said.value)
    assert line.startswith(f"{tmp_path / 't.json'}: ") and line.endswith("expected a threshold; make one")
    assert "\n" not in line and len(line) < 1000


def test_json_is_read_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"threshold": 1, "more": [null]}')
    assert read_json(tmp_path / "t.json", Threshold, "").threshold == 1
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2**40)
    for name, says in (("pipe", "is a pipe"), ("endless", "is a pipe or a device"), ("huge", "1099511627776 bytes")):
        with pytest.raises(UserError, match=f"{name}: {says}"):
            read_json(tmp_path / name, Threshold, "a threshold")
