"""What a command of the workflow is told, as canonical JSON, and the version of the code it was made for."""

from __future__ import annotations

import hashlib
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from ddrep.config.base import Seed

C = TypeVar("C", bound=BaseModel)


class Stage(BaseModel, Generic[C]):
    """What a command of the workflow is told: its section, the seed, and the version of the code it was made for."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    stage: str = ""
    """Name of the stage, written by the workflow; leave it out by hand."""
    version: int = 0
    """Version of the stage's code, written by the workflow; leave it out by hand."""
    seed: Seed = 0
    """The experiment's seed, or the labelled subset's."""
    files: str = ""
    """Digest of the data set that the stage reads, written by the workflow; leave it out by hand."""
    config: C
    """The stage's section of config.yaml."""

    @model_serializer(mode="wrap")
    def _without_empty_files(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what is made without a data set is named as it was before there were digests
        return {key: value for key, value in handler(self).items() if key != "files" or value}

    @model_validator(mode="before")
    @classmethod
    def _defaults_by_hand(cls, given: Any) -> Any:
        return {"config": {}, **given} if isinstance(given, dict) else given


def subset_seed(seed: int, subset: int) -> int:
    """The seed of all that a labelled subset has to itself: fine-tune, heads, candidates, classifiers, guides.

    Shared by all sources of a subset, which are compared on the same noise, and by no two subsets, which are to be
    independent repeats. Subset 0 has the experiment's own, 0..2^32-1 the others.
    """
    if not subset:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/subset{subset}".encode()).digest()[:4], "big")
