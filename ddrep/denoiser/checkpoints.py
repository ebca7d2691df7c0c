"""The weights in a file of others: which of its state dicts, under which prefix, averaged or as trained.

Trainers wrap a network (`module.`, `_orig_mod.`, `model.diffusion_model.`) and put its state dict beside an optimizer's
and an EMA's. Nothing of that is known by name here but how each U-Net begins: what stands before is the prefix.
"""

from __future__ import annotations

import dataclasses
import logging
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddrep.errors import UserError, some
from ddrep.files import check_readable, is_zip

log = logging.getLogger("ddrep")

ADM, HO, DIFFUSERS = "time_embed.0.weight", "temb.dense.0.weight", "time_embedding.linear_1.weight"
"""A tensor by which each U-Net is known: of OpenAI, of ermongroup/ddim, of diffusers."""
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of a name that torch puts in wherever a layer is compiled, sharded or checkpointed."""
AVERAGED = re.compile(r"ema|ema[a-z]+|[a-z]+ema|averaged?|avg|shadow")
RAW = {"online", "raw"}
DEEPEST = 5
"""Entries within entries that are looked into."""


@dataclass(frozen=True)
class Weights:
    """A U-Net's tensors by its own names, and where in the file they were."""

    tensors: dict[str, Tensor]
    entry: str = ""
    """As in Python, without the quotation marks: "state_dict", "[4]"; empty for the file itself."""
    prefix: str = ""
    """What stands before each name."""
    averaged: bool = False
    """Whether a name says that they are an average (EMA) of those trained."""
    others: tuple[str, ...] = ()
    """Names in the same state dict that are of no U-Net."""

    @property
    def first(self) -> str:
        return next(first for first in (ADM, HO, DIFFUSERS) if first in self.tensors)

    def __str__(self) -> str:
        where = self.entry or "the file's own state dict"
        return where + (f", {self.prefix}*" if self.prefix else "") + (" (EMA)" if self.averaged else "")


def read_weights(file: Path) -> Weights:
    """The weights of the one U-Net in a file of PyTorch or safetensors, the averaged ones where both are there.

    On the CPU, mapped if the file's layout allows; nothing in it is run. Raises UserError, which says what is there.
    """
    content = read_content(file)
    if not isinstance(content, dict | list | tuple):
        raise UserError(f"{file}: holds a {type(content).__name__}; expected a state dict of tensors by name")
    found = list(_weights(content))
    chosen = [weights for weights in found if weights.averaged] or found
    if len(chosen) > 1:
        names = "; ".join(map(str, chosen))
        raise UserError(f"{file}: a U-Net in each of {names}: nothing tells which; save the one you want by itself")
    if not chosen:
        raise UserError(f"{file}: {_told(content)}; expected a U-Net's state dict, with {ADM} (OpenAI) or {HO} (ddim)")
    _check(file, chosen[0])
    left = [str(weights) for weights in found if weights is not chosen[0]]
    left += [f"what is no U-Net's: {some(chosen[0].others, 3)}"] if chosen[0].others else []
    log.info("%s: weights of %s%s", file, chosen[0], f"; left: {', '.join(left)}" if left else "")
    return chosen[0]


def check_finite(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError for a tensor with NaN or infinite numbers: they would spread to every image."""
    for name, t in weights.items():
        if not t.float().isfinite().all():  # of 8 bits torch does not say it
            raise UserError(f"{file}: {name}: holds NaN or infinite numbers; take an earlier checkpoint")


def check_plain(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError for tensors that are no plain arrays of real numbers."""
    kinds: dict[str, Callable[[Tensor], bool]] = {
        "meta": lambda t: t.is_meta, "quantized": lambda t: t.is_quantized, "complex": lambda t: t.is_complex(),
        "sparse": lambda t: t.layout is not torch.strided,
    }  # fmt: skip
    for kind, is_one in kinds.items():
        if odd := [name for name, t in weights.items() if is_one(t)]:
            raise UserError(f"{file}: {some(odd, 3)}: {kind} tensors; expected plain ones: save the weights themselves")


def read_content(file: Path, inert: str = "\0") -> Any:
    """What a file of PyTorch or safetensors holds, mapped if its layout allows; nothing in it is run.

    inert: Python objects whose names begin so are read as empty ones, and not refused. Raises UserError.
    """
    check_readable(file, "a published checkpoint (.pt, .pth, .safetensors) or a folder of diffusers")
    with file.open("rb") as f:
        begins = f.read(9)
    if file.suffix == ".safetensors" or begins[8:] == b"{":
        try:
            with safe_open(file, framework="pt") as f:
                form = (f.metadata() or {}).get("format", "")
                tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as e:
            raise UserError(f"{file}: truncated, or not a safetensors file ({e}); fetch it again") from None
        if form.startswith("ddrep."):
            raise UserError(f"{file}: is of ddrep already ({form}); a denoiser of it needs no import")
        return tensors
    return _unpickled(file, begins.startswith(b"PK\x03\x04"), inert)


class _Inert:
    """Stands for an object of a trainer, such as a callback, of which nothing is wanted."""

    def __init__(self, *args: Any, **options: Any) -> None:
        pass


def _unpickled(file: Path, begins_as_zip: bool, inert: str) -> Any:
    mappable = is_zip(file)
    if begins_as_zip and not mappable:
        raise UserError(f"{file}: truncated: its end is missing; fetch it again")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file) if mappable else []
        stand_ins: list[Any] = [(_Inert, name) for name in names if name.startswith(inert)]
        # torch's remarks on odd pickles: one line says all
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mappable)
    except Exception as e:  # of arbitrary bytes the reader makes errors of many types
        reason = f"not a readable PyTorch checkpoint ({type(e).__name__}); fetch it again"
        if isinstance(e, pickle.UnpicklingError) and "GLOBAL" in str(e):
            reason = (
                "refused: it holds Python objects, which can run code when loaded; expected a state dict of tensors: "
                "whoever made the file can save that alone"
            )
        raise UserError(f"{file}: {reason}") from None


def _weights(value: Any, entry: str = "", depth: int = 0, last: bool = False) -> Iterator[Weights]:
    """Every U-Net in an object made of dicts and lists. last: of those in a list it is the last, which is the EMA's."""
    if isinstance(value, list | tuple) and depth < DEEPEST:
        parts = [list(_weights(part, f"{entry}[{i}]", depth + 1)) for i, part in enumerate(value)]
        several = sum(map(bool, parts)) > 1
        for part in parts:
            final = several and part is next(filter(None, reversed(parts)))
            yield from (dataclasses.replace(w, averaged=w.averaged or final) for w in part)
    elif isinstance(value, dict):
        yield from _in_dict({k: v for k, v in value.items() if isinstance(k, str)}, entry)
        for key, part in value.items() if depth < DEEPEST else ():
            if isinstance(part, dict | list | tuple):
                yield from _weights(part, f"{entry}.{key}".lstrip("."), depth + 1)


def _in_dict(state: Mapping[str, Any], entry: str) -> Iterator[Weights]:
    """The U-Nets whose tensors are in the dict itself, by the prefix of their names."""
    bare = {".".join(part for part in name.split(".") if part not in WRAPPERS): v for name, v in state.items()}
    names = bare if len(bare) == len(state) else dict(state)
    ends = [name.removesuffix(first) for name in names for first in (ADM, HO, DIFFUSERS) if name.endswith(first)]
    prefixes = sorted({end for end in ends if not end or end.endswith(".")}, key=lambda end: (-len(end), end))
    found: list[Weights] = []
    for prefix in prefixes:
        own = {k[len(prefix) :]: v for k, v in names.items() if k.startswith(prefix)}
        names = {k: v for k, v in names.items() if not k.startswith(prefix)}
        found.append(Weights(own, entry, prefix, _is_average(entry, prefix)))
        if prefix and (ema := _of_lightning(own, prefix, state)):
            module = prefix.partition(".")[0]
            names = {k: v for k, v in names.items() if not k.startswith(f"{module}_ema.")}
            found.append(Weights(ema, entry, f"{module}_ema.", averaged=True))
    yield from (dataclasses.replace(weights, others=tuple(names)) for weights in found)


def _of_lightning(raw: Mapping[str, Any], prefix: str, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The EMA that latent-diffusion's LitEma keeps in the same state dict: of `model.a.b` as `model_ema.ab`."""
    module, _, rest = prefix.partition(".")
    theirs = {name: f"{module}_ema.{(rest + name).replace('.', '')}" for name in raw}
    return {name: state[key] for name, key in theirs.items()} if all(key in state for key in theirs.values()) else None


def _is_average(entry: str, prefix: str) -> bool:
    """By the last word that says either, for `ema.online_model.` is what the EMA follows."""
    words = [word for word in re.split(r"[^a-z]+", f"{entry}.{prefix}".lower()) if word]
    says = [word not in RAW for word in words if word in RAW or AVERAGED.fullmatch(word)]
    return bool(says) and says[-1]


def _check(file: Path, weights: Weights) -> None:
    odd = [k for k, v in weights.tensors.items() if not (isinstance(v, Tensor) and v.is_floating_point())]
    if odd:
        raise UserError(f"{file}: {some(odd, 3)}: not floating-point tensors; expected a U-Net's state dict")
    if any(name.startswith("first_stage_model.") for name in weights.others):
        raise UserError(f"{file}: holds a first_stage_model: its denoiser is one of latents, not of images")
    check_plain(file, weights.tensors)


def _told(content: Any) -> str:
    """What there is instead of a U-Net: the first names of the largest state dict, or of the file."""
    tensors = lambda pair: sum(isinstance(v, Tensor) for v in pair[1].values())  # noqa: E731
    entry, state = max(_dicts(content), key=tensors, default=("", {}))
    if not state:
        return f"holds a {type(content).__name__} without a tensor"
    return f"holds {some(map(str, state), 3)}" + (f" in {entry}" if entry else "")


def _dicts(value: Any, entry: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    if isinstance(value, dict):
        yield entry, value
        parts = [(f"{entry}.{key}".lstrip("."), part) for key, part in value.items()]
    else:
        parts = [(f"{entry}[{i}]", part) for i, part in enumerate(value)]
    for name, part in parts if depth < DEEPEST else ():
        if isinstance(part, dict | list | tuple):
            yield from _dicts(part, name, depth + 1)
