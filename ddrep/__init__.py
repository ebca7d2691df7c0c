"""Labelled training images from an unconditional diffusion model (Graikos et al., BMVC 2023).

`docs/api.md` is about these names. Each is imported when it is first used, for torch takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddrep.config import Sampling as Sampling
    from ddrep.data.batches import to_unit as to_unit
    from ddrep.data.torch_sets import Shards as Shards
    from ddrep.denoiser.denoiser import Denoiser as Denoiser
    from ddrep.errors import UserError as UserError
    from ddrep.networks.classifiers import load_classifier as load_classifier
    from ddrep.networks.judges import Judge as Judge
    from ddrep.rows import read_tables as read_tables
    from ddrep.sampling.sampler import sample as sample

__version__ = "0.1.0"
_MODULES = {
    "Denoiser": "denoiser.denoiser", "Judge": "networks.judges", "Sampling": "config", "Shards": "data.torch_sets",
    "UserError": "errors", "load_classifier": "networks.classifiers", "read_tables": "rows",
    "sample": "sampling.sampler", "to_unit": "data.batches",
}  # fmt: skip
"""Name -> the module of ddrep that has it."""
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}; it has {', '.join(_MODULES)}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
