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
from ddrep.config.evaluation import Evaluation, Evaluator, Oracle, Segmenter
from ddrep.config.experiment import Experiment
from ddrep.config.generators import (
    AutoencoderNetwork,
    Contrast,
    D2CChoice,
    DiffAEChoice,
    Generated,
    GeneratedMasks,
    GeneratedShard,
    Generators,
    LatentJudge,
    LatentMapNetwork,
    LatentTraining,
    NVAEChoice,
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
    Guided,
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
    DenoiserChoice,
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
from ddrep.config.tables import (
    AccuracyTable,
    Copies,
    Figure1,
    Figure2,
    Figure3,
    Figures,
    JudgeScore,
    Runs,
    Table3,
    Table5,
    Tables,
)

__all__ = [
    "CELEBA_19", "AccuracyTable", "AttributeImages", "AttributeScores", "Attributes", "AutoencoderNetwork", "CelebA",
    "CelebAMaskHQ", "Classifier", "Contrast", "Copies", "CsvFile", "D2CChoice", "Data", "DenoiserChoice",
    "DenoiserFile", "DiffAEChoice", "EmbeddedData", "EmbeddedMasks", "Evaluation", "Evaluator", "EvenSampling",
    "Experiment", "Features", "FewShot", "Figure1", "Figure2", "Figure3", "Figures", "FineTune", "FitGrid", "Generated",
    "GeneratedMasks", "GeneratedShard", "Generators", "GuidanceTable", "Guide", "GuideTraining", "Guided",
    "GuidedShard", "Head", "ImageFolder", "JudgeScore", "LatentJudge", "LatentMapNetwork", "LatentTraining",
    "MaskData", "Masks", "Mix", "NVAEChoice", "Network", "Oracle", "PixelHead", "Pretrain", "PretrainD2C",
    "PretrainDiffAE", "PretrainNVAE", "Probe", "ProbeReading", "Robustness", "Runs", "Sampling", "Section",
    "Segmenter", "Shard", "Stage", "Synthesis", "Table1", "Table2", "Table3", "Table5", "Tables", "Tap", "Taps",
    "TinyImageNet", "Training", "Unlabelled", "UnlabelledImages", "VAENetwork", "WebDatasetFiles", "explain", "load",
    "merge", "parse", "read_yaml", "subset_seed",
]  # fmt: skip
