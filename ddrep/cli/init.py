"""The verbs about an experiment as a whole: to begin one with own images, to check it, to see how far it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic_settings import CliPositionalArg

from ddrep.cli.base import Light
from ddrep.cli.outputs import Output
from ddrep.config import load


class Init(Light):
    """Look at a set of images, and write an experiment that fits it: an image folder with or without train and test, a
    WebDataset, a Hugging Face data set of Parquet or Arrow files, or a CSV file of paths and labels."""

    does = "own_images.init:run"
    images: CliPositionalArg[Path]
    """The set."""
    unlabelled: Path | None = None
    """Folder of images without labels (or a CSV file with the column path) to pretrain the denoiser on."""
    denoiser: Path | None = None
    """A denoiser (.safetensors) to start from, instead of pretraining one; it says the size of the images."""
    size: Annotated[int, Ge(28), Le(256)] | None = None
    """Width and height in pixels; by default what fits the images and this machine."""
    out: Annotated[Path, Output(suffixes=(".yaml", ".yml"))] | None = None
    """Experiment file (.yaml) to write, and lists of its name beside it; the default is the set's name."""


class Status(Light):
    """Say how far an experiment is: what is done, running, failed (with its complaint) and left, and for how long."""

    configfile: list[Path] = []
    """Overlays on config.yaml, in their order, as for snakemake: --configfile a.yaml b.yaml."""
    watch: bool = False
    """Say it again every 30 seconds, until all is done."""
    cores: Annotated[int, Ge(1)] | None = None
    """Cores it runs on; the default is all of this machine's."""
    gpus: Annotated[int, Ge(0)] | None = None
    """GPUs it runs on; the default is all of this machine's."""

    def run(self) -> None:
        experiment, startup = load(Path("config.yaml"), *self.configfile), time.process_time()
        from ddrep.planning.status import run

        run(experiment, self.cores, self.gpus, startup, self.watch)


class Check(Light):
    """Say what is wrong with an experiment before it runs; nothing is said where nothing is."""

    configfile: CliPositionalArg[list[Path]] = []
    """Experiment files, over config.yaml."""

    def run(self) -> None:
        from ddrep.checks import check

        check(load(Path("config.yaml"), *self.configfile))


class Recover(Light):
    """After Snakemake was killed: wait until nothing of the experiment runs any more, unlock its folder, keep what has
    finished meanwhile, and say how to go on."""

    configfile: list[Path] = []
    """Overlays on config.yaml, in their order, as for snakemake: --configfile a.yaml b.yaml."""
    cancel: bool = False
    """End what runs, here and in SLURM, instead of waiting for it; it goes on from where it was."""

    def run(self) -> None:
        experiment = load(Path("config.yaml"), *self.configfile)
        from ddrep.planning.recover import run

        run(experiment, self.configfile, self.cancel)
