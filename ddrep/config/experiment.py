"""The whole of config.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import StringConstraints, model_validator

from ddrep.config.base import Section
from ddrep.config.data import Data
from ddrep.config.evaluation import Evaluation
from ddrep.config.guidance import Attributes, Masks, Robustness, Table1, Table2
from ddrep.config.stages import (
    Classifier,
    DenoiserChoice,
    Features,
    FineTune,
    Head,
    PixelHead,
    Sampling,
    Synthesis,
)
from ddrep.config.tables import Figures, Runs, Table3, Tables

Part = Literal["augmentation", "attributes", "masks"]


class Experiment(Section):
    """The whole of config.yaml."""

    experiment: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name; results go to results/NAME."""
    seed: Annotated[int, Ge(0)] = 0
    parts: tuple[Part, ...] = ("augmentation",)
    """Which parts of the paper to make: augmentation (Tables 3 and 4, Figures 1, 3 and 4), attributes (Table 1 and what
    guides make of x0hat), masks (Table 2, Figure 2)."""
    digest: Literal["times", "contents"] = "times"
    """How changed data sets are noticed: by names, sizes and times of their files, or by names and contents, for which
    all of them are read at every call."""
    data: Data = Data()
    denoiser: DenoiserChoice = DenoiserChoice()
    finetune: FineTune = FineTune()
    features: Features = Features()
    rejection: Head = Head()
    pixel_rejection: PixelHead = PixelHead()
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    classifier: Classifier = Classifier()
    attributes: Attributes = Attributes()
    masks: Masks = Masks()
    evaluation: Evaluation = Evaluation()
    robustness: Robustness = Robustness()
    table1: Table1 = Table1()
    table2: Table2 = Table2()
    table3: Table3 = Table3()
    table4: tuple[Runs, ...] = (Runs(),)
    tables: Tables = Tables()
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _has_attributes(self) -> Experiment:
        if "attributes" in self.parts and not self.attributes.groups:
            raise ValueError("attributes.groups: empty; name one attribute at least, or leave attributes out of parts")
        return self
