"""What a command of the workflow is told, as canonical JSON, and the version of the code it was made for."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ddrep.config.base import Seed

C = TypeVar("C", bound=BaseModel)


class Stage(BaseModel, Generic[C]):
    """What a command of the workflow is told: its section, the seed, and the version of the code it was made for."""

    # Described by Field, for pydantic looks each docstring up again for every section a stage is of: 0.2 s a command.
    model_config = ConfigDict(extra="forbid")
    stage: Annotated[str, Field(description="Name of the stage, written by the workflow; leave it out by hand.")] = ""
    version: Annotated[
        int, Field(description="Version of the stage's code, written by the workflow; leave it out by hand.")
    ] = 0
    seed: Annotated[Seed, Field(description="The experiment's seed, or the labelled subset's.")] = 0
    files: Annotated[
        str, Field(description="Digest of the data set it reads, written by the workflow; leave it out by hand.")
    ] = ""
    config: Annotated[C, Field(description="The stage's section of config.yaml.")]

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
