"""The experiment as typed models: the only place where a setting has a name, a type and a default.

`config.yaml` and the overlays are read through `load`, by Snakemake and by the command line alike. Each stage of the
workflow is told of its own section and nothing else (`stage_json` of ddrep.derived).
"""

from __future__ import annotations

from ddrep.config.base import Section
from ddrep.config.data import (
    CelebA,
    CsvFile,
    Data,
    EmbeddedData,
    ImageFolder,
    TinyImageNet,
    Unlabelled,
    WebDatasetFiles,
)
from ddrep.config.evaluation import Evaluator, Oracle, Segmenter
from ddrep.config.experiment import Experiment
from ddrep.config.generators import (
    AutoencoderNetwork,
    Contrast,
    Generated,
    GeneratedMasks,
    GeneratedShard,
    LatentJudge,
    LatentMapNetwork,
    PretrainD2C,
    PretrainDiffAE,
    PretrainNVAE,
    VAENetwork,
)
from ddrep.config.guidance import (
    AttributeImages,
    Attributes,
    AttributeScores,
    GuidanceTable,
    Guide,
    GuidedShard,
    GuideTraining,
    Masks,
    Robustness,
    Table1,
    Table2,
    Taps,
)
from ddrep.config.masks import CELEBA_19, CelebAMaskHQ, EmbeddedMasks, FewShot, MaskData
from ddrep.config.reading import explain, load, merge, parse, read_yaml
from ddrep.config.stage import Stage, subset_seed
from ddrep.config.stages import (
    Classifier,
    DenoiserFile,
    EvenSampling,
    Features,
    FineTune,
    FitGrid,
    Head,
    Mix,
    Network,
    PixelHead,
    Pretrain,
    Probe,
    ProbeReading,
    Sampling,
    Shard,
    Synthesis,
    Tap,
    Training,
    UnlabelledImages,
)
from ddrep.config.tables import AccuracyTable, Copies, Figure1, Figure2, Figure3, Figures, JudgeScore, Runs
