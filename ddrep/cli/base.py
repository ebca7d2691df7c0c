"""What all verbs share: threads, the log, and a stage that may be left out by hand."""

from __future__ import annotations

import logging
import resource
import shlex
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, model_validator

from ddrep.cli.outputs import Output, check_outputs, marks, to_lock
from ddrep.config.base import merge
from ddrep.locks import held
from ddrep.stopping import WRITTEN

Workers = Annotated[int, Ge(1), Le(1024)]
"""Threads or processes."""
log = logging.getLogger("ddrep")


class Verb(BaseModel):
    """Base of all verbs."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    does: ClassVar[str]
    """MODULE:FUNCTION of ddrep, whose parameters are the options; imported when it is called, for that takes time."""
    threads: Workers | None = None
    """CPU threads for torch; the default is torch's own."""
    log: Annotated[Path | None, Output("log")] = None
    """File for progress messages, instead of standard error."""

    @classmethod
    def by_hand(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The stage, as far as it is not told: that of the workflow under config.yaml, of the member that `options` (as
        they are given) name or, where they name none, of the one that the verb's help says."""
        default = cls.model_fields["stage"].default
        return default.model_dump() if isinstance(default, BaseModel) else {}

    @model_validator(mode="before")
    @classmethod
    def _stage_by_hand(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "stage" not in cls.model_fields or not isinstance(told := given.get("stage", {}), dict):
            return given
        return {**given, "stage": merge(cls.by_hand(given), told)}

    @model_validator(mode="after")
    def _stage_is_of_this_code(self) -> Self:
        if (stage := self.options.get("stage")) and stage.stage:
            from ddrep.derived import check_version

            check_version(stage)
        return self

    def cli_cmd(self) -> None:
        """Run the verb: outputs, logging and threads first, for they are the same for all. One that is to write nothing
        says nothing of itself."""
        writes = any(getattr(self, name) is not None for name, _ in marks(self))
        check_outputs(self, "log")
        with held(to_lock(self, "log")):
            log_to(self.log)
            if writes:
                log.info("ddrep %s", shlex.join(sys.argv[1:]))
            check_outputs(self, *(name for name, _ in marks(self)))
            with held(to_lock(self, "file", "new folder")):
                self.set_up()
                self.run()
            if writes:
                log.info("peak memory %d MB", peak_memory())
                log.info(WRITTEN)

    def set_up(self) -> None:
        from ddrep.device import set_threads

        set_threads(self.threads)

    @property
    def options(self) -> dict[str, Any]:
        """By name, those that are the verb's own."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in Verb.model_fields}

    def run(self) -> None:
        """Call what the verb `does` with its options, by their names."""
        module, _, name = self.does.partition(":")
        function = getattr(import_module(f"ddrep.{module}"), name)
        options = self.options
        if "stage" not in signature(function).parameters:  # whose section is empty: there to have a version
            options.pop("stage", None)
        function(**options)


def peak_memory() -> int:
    """Of this process, in MB of 2^20 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


class Light(Verb):
    """Base of the verbs that do without torch, whose import takes longer than their work."""

    def set_up(self) -> None:
        pass


def log_to(path: Path | None, mode: Literal["w", "a"] = "w") -> None:
    """Progress messages to a file begun anew ("w") or gone on with ("a"), or to standard error.

    Warnings go to standard error as well as to a file: nobody reads the log of a job that succeeds.
    """
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open(mode, encoding="utf-8").close()
    # Always appending, for the processes of one command write to one file.
    # Names of files need not be text: what cannot be encoded is written as its numbers.
    handler = _LogFile(path, "a", "utf-8", errors="backslashreplace") if path else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler, _warnings()] if path else [handler]
    log.setLevel(logging.INFO)


class _LogFile(logging.FileHandler):
    """A log that cannot be written ends the command: costs are read from it, and nobody would see what went wrong."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        raise OSError(getattr(error, "errno", None), getattr(error, "strerror", str(error)), self.baseFilename)


def _warnings() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.levelno == logging.WARNING)
    handler.setFormatter(logging.Formatter("ddrep: warning: %(message)s"))
    return handler
