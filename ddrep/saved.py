"""What a file of weights says of itself: one typed model a kind of file, read and written here.

Without torch until weights are wanted, for settings are held against files before anything runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from ddrep.config import explain
from ddrep.config.base import Section
from ddrep.errors import UserError
from ddrep.files import check_readable, load_tensors, read_metadata, save_tensors, written_whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    N = TypeVar("N", bound=nn.Module)

MOST_JSON = 2**24
"""Bytes of a JSON file."""
LONGEST = 400
"""Characters that a message quotes of a header, which may be anything."""


class Saved(BaseModel):
    """Base of what a file says: of its safetensors metadata each field is a string, text as it is and all else as JSON,
    or all fields are in one. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    KEY: ClassVar[str] = ""
    """The string with all fields; empty where each has its own."""
    FORMAT: ClassVar[str] = ""
    """Which kind of file it is; empty for one that does not say."""
    WHAT: ClassVar[str]
    """Such a file in messages, as in "a denoiser"."""
    HOW: ClassVar[str]
    """How one is made."""

    @classmethod
    def parsed(cls, path: Path, text: Mapping[str, str]) -> Self:
        """Of the metadata of a file. Raises UserError naming the file, the key and what was expected."""
        key, given = "", {}
        fields = {cls.KEY: None} if cls.KEY else {name: field.annotation for name, field in cls.model_fields.items()}
        try:
            for key, kind in fields.items():
                if key in text:
                    given[key] = text[key] if kind in (str, str | None) else from_json(text[key])
            return cls.model_validate(given.get(cls.KEY) if cls.KEY else given)
        except ValidationError as e:
            why = f"{cls.KEY}: {explain(e)}" if cls.KEY else explain(e)
        except ValueError as e:  # no JSON, or one nested too deeply
            why = f"{key}: {e}"
        said = " ".join(why.split())[:LONGEST]
        raise UserError(f"{path}: {cls.WHAT} with a broken header ({said}); {cls.HOW}")

    def text(self) -> dict[str, str]:
        """The metadata; equal models give equal strings, those that files have always had."""
        parts = {self.KEY: self} if self.KEY else {name: getattr(self, name) for name in type(self).model_fields}
        head = {"format": self.FORMAT} if self.FORMAT else {}
        return head | {name: _spelled(part) for name, part in parts.items() if part is not None}


def _spelled(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Section):
        return value.model_dump_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.dumps(dataclasses.asdict(value))
    if isinstance(value, BaseModel):  # what need not be there is not written as null
        wanted = type(value).model_fields
        value = {k: v for k, v in value.model_dump().items() if v is not None or wanted[k].is_required()}
    return json.dumps(value, sort_keys=True)


S = TypeVar("S", bound=Saved)
M = TypeVar("M")


def read_json(path: Path, kind: type[M], expected: str) -> M:
    """A JSON file as a typed model or dataclass. Raises UserError naming file and key; `expected` says how one is
    made."""
    check_readable(path, expected)
    try:
        if path.stat().st_size > MOST_JSON:
            raise UserError(f"{path}: {path.stat().st_size} bytes; expected {expected}")
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except ValidationError as e:
        raise UserError(f"{path}: {explain(e)}; expected {expected}") from None


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with written_whole(path) as (draft,):
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")


def save(path: Path, content: Saved, weights: Mapping[str, Tensor]) -> None:
    """Write a file, whole or not at all."""
    with written_whole(path) as (draft,):
        save_tensors(weights, draft, content.text())


def header(path: Path, kind: type[S]) -> S:
    """What a file says of itself; no weights are read, and no torch is imported. Raises UserError for other files."""
    return kind.parsed(path, read_metadata(path, [kind.FORMAT], f"{kind.WHAT}; {kind.HOW}"))


def load(path: Path, kind: type[S], build: Callable[[S], N], device: str | torch.device = "cpu") -> tuple[S, N]:
    """What a file says, and the network that `build` makes of that with the file's weights, in evaluation mode.

    Raises UserError for any other file, and for weights that are not those of the network or not finite.
    """
    content, weights, net = checked(path, kind, build)
    types = {name: t.dtype for name, t in net.state_dict().items()}
    net.load_state_dict({name: t.to(device, types[name], copy=True) for name, t in weights.items()}, assign=True)
    return content, net.eval().requires_grad_(False)


def checked(path: Path, kind: type[S], build: Callable[[S], N]) -> tuple[S, dict[str, Tensor], N]:
    """What a file says, its weights, and the network without any that they fit. Raises UserError as `load`."""
    weights, text = load_tensors(path, kind.FORMAT, f"{kind.WHAT}; {kind.HOW}")
    content = kind.parsed(path, text)
    try:
        with without_weights(len(weights)):
            net = build(content)
    except UserError as e:
        raise UserError(f"{path}: {e}; {kind.HOW}") from None
    if fault := next(_faults(net.state_dict(), weights), None):
        raise UserError(f"{path}: {fault}; {kind.HOW}")
    return content, weights, net


@contextlib.contextmanager
def without_weights(tensors: int) -> Iterator[None]:
    """Networks made within compute nothing for sizes that the weights do not have, and have about so many tensors at
    most: a few words of a header may ask for layers that take hours to make. Raises UserError for more."""
    import torch

    made = itertools.count()

    def count(*_: object) -> None:
        if next(made) > 2 * tensors + 100:  # some are made twice
            raise UserError(f"more layers by the header than the file's {tensors} tensors are of")

    hook = torch.nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            yield
    finally:
        hook.remove()


def _faults(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Why the weights are not those of a network, whose own tensors are `expected`."""
    for name, tensor in expected.items():
        if name not in weights:
            yield f"no tensor {name}, which such a network has"
        elif weights[name].shape != tensor.shape:
            yield f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)} by the header"
        elif weights[name].is_floating_point() != tensor.is_floating_point():
            yield f"{name} is of {weights[name].dtype}, expected {tensor.dtype}"
        elif not weights[name].to(tensor.dtype).isfinite().all():
            yield f"{name} has values that are not finite"
    if not any(tensor.any() for tensor in weights.values()):
        yield "all weights are 0"
    yield from (f"a tensor {name[:LONGEST]!r}, which no such network has" for name in weights if name not in expected)
