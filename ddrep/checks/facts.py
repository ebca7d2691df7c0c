"""What the checks look at: an experiment, and what its data and its denoiser turn out to be, found once and when asked.

What cannot be found is None; why, is a complaint of its own (`ddrep.checks.images`, `ddrep.checks.networks`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from ddrep.checks import paths, sets
from ddrep.checks.headers import idx_image
from ddrep.config import Data, Experiment, Pretrain
from ddrep.data.readers import Known, known, reader_of, unlabelled_images
from ddrep.denoiser.network import DenoiserFile, ScheduleConfig, network_of
from ddrep.errors import UserError, some
from ddrep.networks.metadata import EvaluatorMeta, MeasureMeta, SegmenterMeta
from ddrep.saved import header

T = TypeVar("T")


class Facts:
    """Of one experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        parts = set(experiment.parts)
        self.augments, self.attributes, self.masks = (name in parts for name in ("augmentation", "attributes", "masks"))
        self.labelled = self.augments or self.attributes
        self.complaints: list[str] = []
        """Why something could not be found."""

    def _found(self, key: str, find: Callable[[], T]) -> T | None:
        """What `find` returns, if the paths of `key` are there; else None, and perhaps a complaint."""
        if not paths.readable(self.experiment, key):
            return None
        try:
            return find()
        except UserError as e:
            self.complaints.append(str(e) if str(e).startswith(key.split(".")[0] + ".") else f"{key}: {e}")
        except OSError as e:
            self.complaints.append(f"{key}: {e.filename} cannot be read ({e.strerror}); mend that")
        return None

    @cached_property
    def data(self) -> Known | None:
        """The labelled images; None as well where no part wants them."""
        data = self.experiment.data
        if not self.labelled:
            return None
        return self._found(f"data.{data.table}", lambda: known(data, self.experiment.seed))

    def unlabelled(self, data: Data) -> int | None:
        """How many images a set without labels has."""
        key = f"data.{data.table}" if data.kind == self.experiment.data.kind else "denoiser.pretrain.data"
        return self._found(key, lambda: unlabelled_images(data, self.experiment.seed))

    @cached_property
    def having(self) -> dict[str, tuple[int, ...]]:
        """Attribute -> images of train without and with it, where these are known and the data has its classes."""
        if not self.attributes or self.data is None:
            return {}
        groups = self.experiment.attributes.having.items()
        found = {name: self._having(f"attributes.groups.{name}", classes, self.data) for name, classes in groups}
        return {name: counts for name, counts in found.items() if counts}

    def _having(self, key: str, classes: tuple[str, ...], there: Known) -> tuple[int, ...] | None:
        data = self.experiment.data
        by_attribute = reader_of(data).with_attribute
        if by_attribute and len(classes) > 1:
            self.complaints.append(f"{key}: expected one of the data set's attributes, got {', '.join(classes)}")
        elif by_attribute:
            one = data.with_section(by_attribute(data.section, classes[0]))
            found = self._found(key, lambda: known(one, self.experiment.seed))
            return found.train if found else None
        elif unknown := [name for name in classes if name not in there.classes]:
            self.complaints.append(
                f"{key}: no class {unknown[0]}; the data has {some(there.classes)}: "
                "name groups of its classes, or set parts: [augmentation]"
            )
        elif there.train is not None:
            with_it = sum(n for name, n in zip(there.classes, there.train, strict=True) if name in classes)
            return sum(there.train) - with_it, with_it
        return None

    @cached_property
    def denoiser(self) -> DenoiserFile | None:
        """The unconditional denoiser, which is there or will be trained."""
        section = self.experiment.denoiser
        if section.kind == "file":
            return self._found("denoiser.file.path", lambda: header(section.file.path, DenoiserFile))
        shape = self._pretraining(section.pretrain)
        if shape is None:
            return None
        schedule = ScheduleConfig(section.pretrain.schedule, section.pretrain.num_steps)
        network = self._found("denoiser.pretrain", lambda: network_of(section.pretrain.network, shape[0], shape[2]))
        return DenoiserFile(network=network, schedule=schedule, provenance={}, classes=()) if network else None

    def _pretraining(self, section: Pretrain) -> tuple[int, int, int] | None:
        """Height, width and channels of the images to pretrain on."""
        images, data, key = section.images, section.data, "denoiser.pretrain.data"
        if images:
            return self._found("denoiser.pretrain.images", lambda: idx_image(images))
        if data:
            there = self._found(key, lambda: (known(data, self.experiment.seed),))
            return sets.image_shape(data) if there else None
        self.complaints.append(f"denoiser.pretrain.images: none; name an IDX file of unlabelled images, or {key}")
        return None

    def measure(self, kind: str) -> MeasureMeta | None:
        """The evaluator or segmenter of the configuration."""
        path, meta = getattr(self.experiment.evaluation, kind), EvaluatorMeta if kind == "evaluator" else SegmenterMeta
        return self._found(f"evaluation.{kind}", lambda: header(path, meta)) if path else None
