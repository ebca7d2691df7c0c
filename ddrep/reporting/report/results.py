"""What an experiment has written so far, and what is still to be made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from annotated_types import MinLen
from pydantic import BaseModel, field_validator

from ddrep.config import Experiment
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.errors import LOGGED, UserError
from ddrep.files import tail
from ddrep.reporting.tables import read_cells
from ddrep.rows import Kind, read_rows
from ddrep.runs import REPORT, cost_jobs, targets
from ddrep.saved import read_json

TABLE4 = "tables/table4-summary.parquet"
EXPECTED = "a table of this experiment; make it anew"
ATTEMPTS: dict[str, Kind] = {"class": "whole", "p": "number", "accepted": "flag"}
OTHER_SIZE = re.compile(r"subset\d+-")
"""The folder of a labelled set that has its own number of labels a class (ddrep.runs.subset_of)."""


class Bin(BaseModel):
    """Of a judge's calibration."""

    n: int
    confidence: float
    accuracy: float


class Tried(BaseModel):
    """What a probe was worth."""

    block: str
    timestep: float
    cross_entropy: Annotated[dict[str, float], MinLen(1)]


class JudgeReport(BaseModel):
    """As ddrep.evaluation.judges and ddrep.training.probe write it; older ones have not all."""

    n: int = 0
    expected_calibration_error: float = 0.0
    calibration: list[Bin] = []
    confusion: list[list[int]] = []
    tried: list[Tried] = []

    @field_validator("confusion")
    @classmethod
    def _is_square(cls, confusion: list[list[int]]) -> list[list[int]]:
        if any(len(row) != len(confusion) for row in confusion):
            raise ValueError(f"expected {len(confusion)} numbers in each row, as there are rows")
        return confusion


@dataclass(frozen=True)
class Results:
    """The folder of an experiment's results: whatever is not there yet is None, or an empty list."""

    experiment: Experiment
    folder: Path

    def rows(self, path: Path, columns: Mapping[str, Kind]) -> pd.DataFrame | None:
        """Columns of a Parquet file. Raises UserError, as `read_rows` does."""
        return read_rows(path, columns, EXPECTED) if path.is_file() else None

    @cached_property
    def cells(self) -> pd.DataFrame | None:
        """The summary of Table 4."""
        path = self.folder / TABLE4
        return read_cells(path) if path.is_file() else None

    @cached_property
    def reports(self) -> dict[Path, dict[str, Any]]:
        """Of each judge's, what there is of `JudgeReport`. Raises UserError for one that is broken."""
        found = {}
        for path in self.files("subset*/*/report.json"):
            report = read_json(path, JudgeReport, "the report of a judge; make it anew")
            there = len(report.confusion)
            if self.labelled and there not in (0, classes := len(self.labelled.classes)):
                raise UserError(f"{path}: confusion: of {there} classes, the images have {classes}; make it anew")
            found[path] = report.model_dump(exclude_unset=True)
        return found

    @cached_property
    def labelled(self) -> LabelledImages | None:
        """The labelled images of the first subset that is there."""
        shards = self.files("subset*/real.tar")
        return read_shards(shards[:1]) if shards else None

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """A row for each attempt at an image of a source: class (its name), p, accepted, source."""
        paths = self.files("subset*/synthetic/*/*.parquet")
        parts = [read_rows(path, ATTEMPTS, EXPECTED).assign(source=path.parent.name) for path in paths]
        if not parts:
            return pd.DataFrame(columns=[*ATTEMPTS, "source"])
        table = pd.concat(parts, ignore_index=True)
        return table.assign(**{"class": table["class"].map(self.class_name)})

    @cached_property
    def progress(self) -> Progress:
        """A job is done when its benchmark is there, which Snakemake writes when it ends well."""
        jobs = cost_jobs(self.experiment)
        left = [job for job in jobs if not (self.folder / f"benchmarks/{job}.tsv").is_file()]
        of_stage, left_of = (Counter(job.partition("/")[0] for job in each) for each in (jobs, left))
        logs = {job: log for job in left if (log := self.folder / f"logs/{job}.log").is_file()}
        failed = {job: said[-1] for job, log in logs.items() if (said := LOGGED.findall(tail(log)))}
        asked = [path for path in targets(self.experiment) if path != REPORT]
        missing = [str(path) for path in asked if not (self.folder / path).exists()]
        stages = {stage: (n - left_of[stage], n) for stage, n in of_stage.items()}
        return Progress(stages, missing, failed)

    def class_name(self, number: int) -> str:
        """As the labelled images have it."""
        known = self.labelled.classes if self.labelled else ()
        return known[number] if number < len(known) else f"class {number}"

    def files(self, pattern: str) -> list[Path]:
        """Those that match, in the order of their names; not of Table 5's labelled sets of other sizes."""
        found = (path for path in self.folder.glob(pattern) if path.is_file())
        return sorted(path for path in found if not OTHER_SIZE.match(path.relative_to(self.folder).parts[0]))


@dataclass(frozen=True)
class Progress:
    """How far a run is, by its files alone."""

    stages: dict[str, tuple[int, int]]
    """Stage -> jobs done, and all of them."""
    missing: list[str]
    """Of what the experiment asks for, relative to its folder."""
    failed: dict[str, str]
    """Job that has ended in a line of its log -> that line."""

    @property
    def done(self) -> int:
        return sum(done for done, _ in self.stages.values())

    @property
    def jobs(self) -> int:
        return sum(jobs for _, jobs in self.stages.values())

    @property
    def finished(self) -> bool:
        return not self.missing
