"""What a command of the workflow is told, as canonical JSON, and the version of the code it was made for."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from ddrep.config.base import Seed

VERSIONS = {
    "data": 2,
    "unlabelled": 1,
    "masks": 2,
    "pretrain": 1,
    "pretrain-diffae": 1,
    "pretrain-d2c": 1,
    "pretrain-nvae": 1,
    "finetune": 1,
    "fit-grid": 1,
    "attribute-images": 2,
    "guide": 1,
    "guided": 2,
    "latent-judge": 1,
    "generated": 1,
    "attribute-scores": 1,
    "mask-scores": 1,
    "real-features": 1,
    "robustness": 2,
    "robustness-figure": 1,
    "robustness-table": 1,
    "guidance-tables": 3,
    "features": 1,
    "rejection": 1,
    "pixel-rejection": 1,
    "probe": 2,
    "pixel-threshold": 2,
    "synthesis": 2,
    "label": 1,
    "judge-score": 1,
    "judges-table": 1,
    "copies": 1,
    "copies-table": 1,
    "classifier": 1,
    "tables": 5,
    "figure1": 2,
    "figure2": 2,
    "figure3": 2,
    "figure4": 2,
    "figure5": 1,
    "probe-figure": 1,
    "costs": 2,
    "report": 1,
    "evaluator": 1,
    "segmenter": 1,
}
"""Raised when ddrep's code changes what a stage computes: results of older versions are made anew."""

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

    @model_validator(mode="after")
    def _is_this_version(self) -> Stage[C]:
        if self.stage and self.version != VERSIONS.get(self.stage):
            raise ValueError(f"{self.stage} is at version {VERSIONS.get(self.stage)}, not {self.version}; plan again")
        return self


def subset_seed(seed: int, subset: int) -> int:
    """The seed of all that a labelled subset has to itself: fine-tune, heads, candidates, classifiers, guides.

    Shared by all sources of a subset, which are compared on the same noise, and by no two subsets, which are to be
    independent repeats. Subset 0 has the experiment's own, 0..2^32-1 the others.
    """
    if not subset:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/subset{subset}".encode()).digest()[:4], "big")


def stage_json(stage: str, config: BaseModel, seed: int, files: str = "") -> str:
    """The canonical JSON of a stage: equal exactly when the stage would do the same (inputs apart).

    files: digest of the data set that it reads, if any (ddrep.data.digest).
    """
    content = {"stage": stage, "version": VERSIONS[stage], "seed": seed, "config": config.model_dump(mode="json")}
    content |= {"files": files} if files else {}
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
