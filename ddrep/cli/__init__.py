"""`ddrep VERB`: one verb for each rule of the workflow, its options made from the typed config.

Every import that costs time is inside the verb that needs it, for the workflow starts many short commands.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict, SettingsError

from ddrep.cli.base import log
from ddrep.cli.config import Config
from ddrep.cli.evaluation import Copies, Evaluator, ScoreJudge, Segmenter
from ddrep.cli.exchange import Export, ExportData, Import
from ddrep.cli.guidance import (
    Attribute,
    Guide,
    GuideAttribute,
    GuideMasks,
    RealFeatures,
    Robustness,
    ScoreAttribute,
    ScoreMasks,
)
from ddrep.cli.guidance_reporting import Figure2, GuidanceTable, RobustnessFigure, RobustnessTable
from ddrep.cli.init import Check, Init, Status
from ddrep.cli.plan import Plan
from ddrep.cli.reporting import (
    CopiesTable,
    Costs,
    Figure1,
    Figure3,
    Figure4,
    Figure5,
    JudgesTable,
    LabelsTable,
    ProbeFigure,
    Report,
    Table,
)
from ddrep.cli.sample import Sample
from ddrep.cli.stages import (
    Classify,
    Data,
    Features,
    Finetune,
    Info,
    Label,
    Masks,
    PixelRejection,
    PixelThreshold,
    Pretrain,
    Probe,
    Rejection,
    Synthesize,
)
from ddrep.config import explain
from ddrep.errors import complaint


class Ddrep(BaseSettings):
    """Labelled training images from an unconditional diffusion model."""

    model_config = SettingsConfigDict(
        cli_prog_name="ddrep",
        cli_enforce_required=False,
        cli_exit_on_error=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
    )
    init: CliSubCommand[Init]
    check: CliSubCommand[Check]
    status: CliSubCommand[Status]
    plan: CliSubCommand[Plan]
    config: CliSubCommand[Config]
    data: CliSubCommand[Data]
    masks: CliSubCommand[Masks]
    pretrain: CliSubCommand[Pretrain]
    import_: CliSubCommand[Import] = Field(alias="import")
    export: CliSubCommand[Export]
    export_data: CliSubCommand[ExportData]
    finetune: CliSubCommand[Finetune]
    features: CliSubCommand[Features]
    rejection: CliSubCommand[Rejection]
    pixel_rejection: CliSubCommand[PixelRejection]
    probe: CliSubCommand[Probe]
    synthesize: CliSubCommand[Synthesize]
    pixel_threshold: CliSubCommand[PixelThreshold]
    label: CliSubCommand[Label]
    info: CliSubCommand[Info]
    classify: CliSubCommand[Classify]
    attribute: CliSubCommand[Attribute]
    guide: CliSubCommand[Guide]
    guide_attribute: CliSubCommand[GuideAttribute]
    guide_masks: CliSubCommand[GuideMasks]
    real_features: CliSubCommand[RealFeatures]
    score_attribute: CliSubCommand[ScoreAttribute]
    score_masks: CliSubCommand[ScoreMasks]
    score_judge: CliSubCommand[ScoreJudge]
    copies: CliSubCommand[Copies]
    robustness: CliSubCommand[Robustness]
    guidance_table: CliSubCommand[GuidanceTable]
    robustness_table: CliSubCommand[RobustnessTable]
    robustness_figure: CliSubCommand[RobustnessFigure]
    figure2: CliSubCommand[Figure2]
    sample: CliSubCommand[Sample]
    table: CliSubCommand[Table]
    copies_table: CliSubCommand[CopiesTable]
    judges_table: CliSubCommand[JudgesTable]
    labels_table: CliSubCommand[LabelsTable]
    figure1: CliSubCommand[Figure1]
    figure3: CliSubCommand[Figure3]
    figure4: CliSubCommand[Figure4]
    figure5: CliSubCommand[Figure5]
    probe_figure: CliSubCommand[ProbeFigure]
    costs: CliSubCommand[Costs]
    report: CliSubCommand[Report]
    evaluator: CliSubCommand[Evaluator]
    segmenter: CliSubCommand[Segmenter]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main(args: list[str] | None = None) -> int:
    """Exit status: 0; 2 with one line on standard error for what the user can mend; 130 when interrupted.

    Where the reader of standard output has gone, as in `ddrep plan | head`, it ends without a word.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name of any locale is better seen as numbers than not at all
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(sys.argv[1:] if args is None else args)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _mute()
        return 128 + signal.SIGPIPE
    except OSError as e:
        _mute()
        return _say(f"standard output: {str(e.strerror).lower()}; what was to be printed is lost", 2)


def _mute() -> None:
    """Nothing more goes to standard output, which Python flushes again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: list[str]) -> int:
    try:
        CliApp.run(Ddrep, cli_args=args)
        return 0
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on", 128 + signal.SIGINT)
    except BrokenPipeError:
        raise
    except ValidationError as e:
        return _say(explain(e), 2)
    except SettingsError as e:
        return _say(" ".join(str(e).split()).split(" usage: ")[0], 2)
    except Exception as e:
        if message := complaint(e):
            return _say(message, 2)
        log.exception("ddrep: a defect, or a machine at its limits; please report it with these lines")
        raise


def _say(message: str, status: int) -> int:
    """One line on standard error, and in the log if that is a file: where either can be written."""
    with contextlib.suppress(OSError):
        if log.handlers and isinstance(log.handlers[0], logging.FileHandler):
            log.error("ddrep: %s", message)
    with contextlib.suppress(OSError):
        print(f"ddrep: {message}", file=sys.stderr, flush=True)
    return status
