"""The methods of Tables 1 and 2: each declared once, and made of it settings, jobs, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from ddrep.registry import Registry


@dataclass(frozen=True)
class Method:
    """How images are drawn that have an attribute, or show a mask."""

    name: str
    steered: bool = False
    """Whether the guide's gradient steers each step (paper, eq. 10 and 13)."""
    refused: bool = False
    """Whether images are refused that the guide does not believe: below Table 1's threshold; for a mask all but one."""
    reads: Literal["features", "pixels", "latents"] = "features"
    """What its guide reads of an image: a denoiser's features of it, the image itself, or the latent behind it."""
    generator: str = ""
    """Which generator draws, in `generators` of config.yaml; empty for the denoiser."""
    one_pass: bool = False
    """Whether an image is one pass of its generator's network, and has no steps."""
    masks: bool = True
    """Whether it draws for masks (Table 2) as for attributes (Table 1)."""


METHODS: Registry[Method] = Registry("method")
"""In the order of the tables."""
METHODS.add(Method("unguided"))
METHODS.add(Method("rejection", refused=True, masks=False))
METHODS.add(Method("ddim-i", steered=True, reads="pixels"))
METHODS.add(Method("ours", steered=True))
METHODS.add(Method("diffae", refused=True, reads="latents", generator="diffae"))
METHODS.add(Method("d2c", refused=True, reads="latents", generator="d2c", masks=False))
METHODS.add(Method("nvae", refused=True, reads="latents", generator="nvae", one_pass=True, masks=False))


def for_masks() -> tuple[str, ...]:
    """Names of the methods of Table 2."""
    return tuple(name for name, method in METHODS.items() if method.masks)


def generators() -> tuple[str, ...]:
    """Names of the generators beside the denoiser."""
    return tuple(dict.fromkeys(method.generator for method in METHODS.values() if method.generator))


def guided() -> tuple[str, ...]:
    """Names of the methods by which the denoiser draws."""
    return tuple(name for name, method in METHODS.items() if not method.generator)


def generated() -> tuple[str, ...]:
    """Names of the methods by which another generator draws."""
    return tuple(name for name, method in METHODS.items() if method.generator)


def _draws_for_masks(name: str) -> str:
    if not METHODS[name].masks:
        raise ValueError(f"{name} does not draw for masks; expected of {', '.join(for_masks())}")
    return name


MethodName = Annotated[str, AfterValidator(METHODS.known)]
MaskMethodName = Annotated[MethodName, AfterValidator(_draws_for_masks)]
