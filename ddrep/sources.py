"""The sources of training images: each declared once, and made of it settings, jobs, tables, figures and README's list.

A file that calls `SOURCES.add` adds one; the classifiers on it then stand in Tables 3 and 4 and in Figure 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from ddrep.registry import Registry


@dataclass(frozen=True)
class Style:
    """A line of Figure 4. The colours are Okabe and Ito's, which people of all colour visions tell apart; the dashes
    tell them in grey."""

    colour: str
    dashes: Any = "-"
    width: float = 1.3
    shift: float = 0.0
    """To the side, in scales: keeps the spreads of several lines apart."""
    band: bool = False
    """The spread over runs as a band; else as bars."""


@dataclass(frozen=True)
class Judge:
    """Who says how likely a candidate is of its class: a classifier of a labelled subset, in a folder of this name."""

    name: str
    jobs: tuple[str, ...]
    """The stages that make it, and its threshold: a job of each for every labelled subset."""
    matched: bool = False
    """Its threshold is the one at which it accepts as large a share as `rejection` does, not the configured one."""

    @property
    def classifier(self) -> str:
        """Its file, relative to the folder of the labelled subset."""
        return f"{self.name}/classifier.safetensors"

    @property
    def threshold(self) -> str | None:
        """The file of its own threshold, likewise; None where the configured one counts."""
        return f"{self.name}/threshold.json" if self.matched else None


REJECTION = Judge("rejection", ("features", "rejection"))
PROBE = Judge("probe", ("probe",))
PIXEL_REJECTION = Judge("pixel-rejection", ("pixel-rejection", "pixel-threshold"), matched=True)


@dataclass(frozen=True)
class Source:
    """Where the training images of a classifier come from."""

    name: str
    about: str
    """What it is, for README: Markdown that follows the name."""
    style: Style
    origin: Literal["labelled", "finetuned", "pretrained", "unlabelled"] = "finetuned"
    """What its images are: the labelled ones alone; beside them, images that the fine-tuned denoiser drew, each of a
    class; that the pretrained one drew, of none; or real ones without labels. The class of images without one is the
    judge's most probable."""
    scaled: bool = True
    """Whether it has scales 1x, 2x, ...; else scale 0 alone."""
    equal_steps: bool = False
    """Of labelled images alone: trained for as many steps as these and images of its scale would be."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Settings of section `sampling` that are its own, whatever the configuration says."""
    guidance: float = 0.0
    """w where section `sampling` has none, of a source that is one for its guidance."""
    judge: Judge = REJECTION
    filtered: bool = True
    """Whether the judge's verdict counts: a source that keeps every candidate is judged as well, for the record."""
    labels: Literal["hard", "soft"] = "hard"
    """What the student is told of its images: their class, or the judge's probabilities of all."""
    headline: int = 0
    """Its place among those that the report's answer is of, from 1; 0: none. By what was found elsewhere
    (docs/evidence): no result of an experiment may choose what is said of it."""
    figures: tuple[int, ...] = ()
    """Which of Figures 1 and 3 show its images."""

    @property
    def has_shards(self) -> bool:
        """Of images beside the labelled ones."""
        return self.origin != "labelled"

    @property
    def images(self) -> str:
        """What these images are called, with the name of the source."""
        kind = "real images without labels" if self.origin == "unlabelled" else "synthetic images"
        return f"{kind} ({self.name})"

    @property
    def labelled(self) -> str:
        """The shard of labelled images that its classifiers see, relative to the folder of the labelled subset."""
        return "real.tar" if self.has_shards or self.labels == "hard" else f"{self.judge.name}/real.tar"


SOURCES: Registry[Source] = Registry("source")
"""In the order of the tables: each is compared with those before it. The paper's method is `ours`; what comes after it
goes beyond the paper."""

SOURCES.add(
    Source("real", "the labelled images alone", Style("#000000"), origin="labelled", scaled=False),
    Source(
        "real-equal-steps",
        "the same, trained for as many steps as real + kx: longer training is not better data",
        Style("#777777", (0, (1, 1.2)), 1.5, 0.1),
        origin="labelled",
        equal_steps=True,
    ),
    Source(
        "real-soft",
        "the same, with the probes' probabilities as their labels: the control of all sources with soft labels",
        Style("#999999", (0, (4, 1.2, 1, 1.2)), 1.5, 0.14),
        origin="labelled",
        equal_steps=True,
        judge=PROBE,
        labels="soft",
    ),
    Source(
        "improved-ddpm",
        "the fine-tuned denoiser, no guidance, no rejection",
        Style("#56B4E9", (0, (3, 1.5, 1, 1.5, 1, 1.5)), shift=-0.1),
        sampling={"guidance_scale": 0.0, "unconditional": "row"},
        filtered=False,
        figures=(1,),
    ),
    Source(
        "classifier-free",
        "with classifier-free guidance (w = 0.75 where `sampling` has none), no rejection",
        Style("#0072B2", (0, (3, 1.5, 1, 1.5)), shift=-0.05),
        guidance=0.75,
        filtered=False,
        figures=(1,),
    ),
    Source(
        "pixel-rejection",
        "the fine-tuned denoiser, and rejection by a CNN on *pixels* at the same acceptance rate: the control",
        Style("#009E73", (0, (5, 1.5)), shift=0.05),
        judge=PIXEL_REJECTION,
    ),
    Source(
        "ours",
        "the fine-tuned denoiser, and rejection by a CNN on *denoiser features*: the paper's method",
        Style("#D55E00", width=2.4, band=True),
        headline=3,
        figures=(1, 3),
    ),
    Source(
        "probe-rejection",
        "the same candidates, and rejection by linear probes on several blocks of the denoiser",
        Style("#CC79A7", (0, (5, 1.5, 1, 1.5)), 1.5, 0.12),
        judge=PROBE,
    ),
    Source(
        "unlabelled-soft",
        "real images without labels, with the probes' probabilities: what a synthetic image is worth beside a real one",
        Style("#332288", (0, (2, 1)), 1.5, 0.16),
        origin="unlabelled",
        judge=PROBE,
        filtered=False,
        labels="soft",
        headline=1,
    ),
    Source(
        "probe-soft",
        "the same candidates, all of them, with the probes' probabilities as their labels",
        Style("#B8860B", width=2.0, shift=-0.12),
        judge=PROBE,
        filtered=False,
        labels="soft",
    ),
    Source(
        "unconditional-soft",
        "images of the *pretrained* denoiser, neither fine-tuned nor guided, with the probes' probabilities",
        Style("#117733", width=2.0, shift=-0.16),
        origin="pretrained",
        sampling={"guidance_scale": 0.0, "unconditional": "row"},
        judge=PROBE,
        filtered=False,
        labels="soft",
        headline=2,
    ),
)


def with_shards() -> tuple[str, ...]:
    """Names of the sources that have shards."""
    return tuple(name for name, source in SOURCES.items() if source.has_shards)


def of_origin(origin: str) -> tuple[str, ...]:
    """Names of the sources whose images are of this origin."""
    return tuple(name for name, source in SOURCES.items() if source.origin == origin)


def controls(source: str) -> tuple[str, ...]:
    """Names of the sources of labelled images alone that a gain of `source` has to survive: it could be none at all,
    that of longer training or, with soft labels, that of the judge's labels alone. None for such a source itself."""
    its = SOURCES[source]
    return tuple(
        name
        for name, other in SOURCES.items()
        if its.has_shards and not other.has_shards and other.labels in ("hard", its.labels)
    )


def judges() -> tuple[str, ...]:
    """Names of the judges, the paper's first."""
    return tuple(dict.fromkeys(source.judge.name for source in SOURCES.values() if source.has_shards))


def headlines() -> list[str]:
    """Names of the sources that the report's answer is of, the first one first."""
    places = {name: source.headline for name, source in SOURCES.items() if source.headline}
    return sorted(places, key=lambda name: places[name])


def in_figure(number: int) -> tuple[str, ...]:
    """Names of the sources whose images Figure 1 or 3 shows."""
    return tuple(name for name, source in SOURCES.items() if number in source.figures)


def _has_shards(name: str) -> str:
    if not SOURCES[name].has_shards:
        raise ValueError(f"{name} has no images beside the labelled ones; expected of {', '.join(with_shards())}")
    return name


SourceName = Annotated[str, AfterValidator(SOURCES.known)]
SyntheticName = Annotated[SourceName, AfterValidator(_has_shards)]
