"""The whole of config.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import StringConstraints, model_validator

from ddrep.config.base import Section, Seed
from ddrep.config.data import Data
from ddrep.config.evaluation import Evaluation
from ddrep.config.generators import Generators
from ddrep.config.guidance import Attributes, Masks, Robustness, Table1, Table2
from ddrep.config.stages import (
    Classifier,
    DenoiserChoice,
    Features,
    FineTune,
    Head,
    PixelHead,
    Probe,
    Sampling,
    Synthesis,
)
from ddrep.config.tables import Copies, Figures, Runs, Table3, Table5, Tables

Part = Literal["augmentation", "attributes", "masks"]


class Experiment(Section):
    """The whole of config.yaml, which `ddrep config` writes from these defaults."""

    LATER = ("generators",)
    experiment: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "fashion-demo"
    """Name; results go to results/NAME."""
    seed: Seed = 0
    """Of everything but the runs of tables, which have their own seeds below."""
    parts: Annotated[tuple[Part, ...], MinLen(1)] = ("attributes", "masks", "augmentation")
    """Of the paper: Table 1 and what guides make of x0hat; Table 2 and Figure 2; Tables 3, 4 and Figures 1, 3, 4."""
    digest: Literal["times", "contents"] = "times"
    """By which a changed data set is noticed: its files' names, sizes and times; or their names and contents, for which
    all are read at every call."""
    data: Data = Data()
    denoiser: DenoiserChoice = DenoiserChoice()
    finetune: FineTune = FineTune()
    features: Features = Features()
    rejection: Head = Head()
    pixel_rejection: PixelHead = PixelHead()
    probe: Probe = Probe()
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    classifier: Classifier = Classifier()
    attributes: Attributes = Attributes()
    generators: Generators = Generators()
    masks: Masks = Masks()
    evaluation: Evaluation = Evaluation()
    robustness: Robustness = Robustness()
    table1: Table1 = Table1()
    table2: Table2 = Table2()
    table3: Table3 = Table3()
    table4: tuple[Runs, ...] = (
        Runs(mix=(False,), sources=("real", "ours", "probe-soft", "unconditional-soft"), scales=(0, 1, 3)),
        Runs(mix=(False,), sources=("real-equal-steps", "real-soft"), scales=(3,)),
        Runs(mix=(True,), sources=("real", "ours", "unconditional-soft"), scales=(0, 3)),
        Runs(mix=(False,), sources=("real-equal-steps", "real-soft", "unconditional-soft"), scales=(5,)),
    )
    """Real images with k x others: blocks of runs, each the product of its lists; scale 0 belongs to real, the others
    to all but real. The second block asks: is it the data, or the longer training, or the judge's labels? The last goes
    on to 5x, for Figure 4."""
    table5: Table5 = Table5()
    copies: Copies = Copies()
    tables: Tables = Tables()
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _has_attributes(self) -> Experiment:
        if "attributes" in self.parts and not self.attributes.groups:
            raise ValueError("attributes.groups: empty; name one attribute at least, or leave attributes out of parts")
        return self
