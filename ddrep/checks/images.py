"""Settings that depend on the images: which classes there are, how many of each, and of what size."""

from __future__ import annotations

from collections.abc import Iterator

from ddrep.checks import paths, sets
from ddrep.checks.facts import Facts
from ddrep.data import celebamask_hq
from ddrep.data.readers import reader_of
from ddrep.errors import UserError, some


def labels(facts: Facts) -> Iterator[str]:
    data = facts.experiment.data
    if facts.labelled and not reader_of(data).labels:
        yield f"data.kind: {data.kind} images have no classes; name them in denoiser.pretrain.data, labelled ones here"


def masks_are_there(facts: Facts) -> Iterator[str]:
    data = facts.experiment.masks.data
    if not facts.masks or not paths.readable(facts.experiment, "masks.data"):
        return
    try:
        sets.masked_set(data, facts.experiment.evaluation.segmenter is None)
    except UserError as e:
        yield f"masks.data: {e}"
    except OSError as e:
        yield f"masks.data: {e.filename} cannot be read ({e.strerror}); mend that"


def oracle_has_images(facts: Facts) -> Iterator[str]:
    """A segmenter that is trained here wants images of its own, of the same classes."""
    data = facts.experiment.masks.data
    if not facts.masks or facts.experiment.evaluation.segmenter or data.kind != "few-shot" or not data.few_shot:
        return
    if data.celebamask_hq is None:
        yield (
            "masks.data.celebamask_hq: none, where the oracle's images come from; "
            "add that table, or name a trained one in evaluation.segmenter"
        )
    elif differ := sorted(set(data.few_shot.classes) ^ set(celebamask_hq.CLASSES)):
        yield (
            f"masks.data.few_shot.classes: {some(differ)} not in both this set and celebamask_hq; "
            "expected the same names, or a trained segmenter in evaluation.segmenter"
        )


def classes_of_figures(facts: Facts) -> Iterator[str]:
    if not facts.augments or facts.data is None:
        return
    cfg, count = facts.experiment.figures, len(facts.data.classes)
    asked = {"figure1_class": (cfg.figure1_class,), "figure3_classes": cfg.figure3_classes or ()}
    for key, labels in asked.items():
        if wrong := [label for label in labels if label >= count]:
            there = ", ".join(f"{label} {name}" for label, name in enumerate(facts.data.classes[:12]))
            yield f"figures.{key}: no class {some(wrong)}; expected 0..{count - 1} ({there})"


def examples(facts: Facts) -> Iterator[str]:
    """The guides learn from as many images with the attribute as without."""
    asked = facts.experiment.attributes.examples
    for name, (without, with_it) in facts.having.items():
        if min(without, with_it) < asked:
            yield (
                f"attributes.examples: {asked} with {name} and {asked} without asked for, "
                f"train has {with_it} and {without}; ask for fewer, or choose another attribute"
            )


def holdout(facts: Facts) -> Iterator[str]:
    """One image at least of each class is held out to choose the rejection classifier's epoch by."""
    data = facts.data
    counts = zip(data.classes, data.train, strict=True) if facts.augments and data and data.train else ()
    labels = facts.experiment.data.labels
    if few := [name for name, n in counts if min(n, labels or n) < 2]:
        yield (
            f"rejection.holdout: fewer than 2 training images of {some(few)}, of which one is held out; "
            "add some, or leave the class out"
        )


def sizes(facts: Facts) -> Iterator[str]:
    """The denoiser's images are those of the data, and of the masks."""
    e, denoiser = facts.experiment, facts.denoiser
    wanted = [
        (facts.labelled, f"data.{e.data.table}", sets.image_shape(e.data), ""),
        (facts.masks, f"masks.data.{e.masks.data.table}", sets.image_shape(e.masks.data), ", or parts without masks"),
    ]
    for used, key, image, otherwise in wanted:
        if used and denoiser and denoiser.network.image != image:
            yield (
                f"denoiser.{e.denoiser.kind}: a denoiser of {_by(denoiser.network.image)} images, "
                f"{key} gives {_by(image)}; expected both alike{otherwise}"
            )


def _by(image: tuple[int, int, int]) -> str:
    return "x".join(map(str, image))


def garments(facts: Facts) -> Iterator[str]:
    """A warning: masks of the embedded images, beside images of one's own."""
    e = facts.experiment
    if facts.masks and facts.labelled and e.masks.data.kind == "embedded" and e.data.kind != "embedded":
        yield (
            f"masks.data: the masks are of the embedded garments, the data is of kind {e.data.kind}; "
            "name masks of such images, or leave masks out of parts"
        )


def evaluator(facts: Facts) -> Iterator[str]:
    """The evaluator knows the classes of every attribute, and takes such images."""
    e = facts.experiment
    if not (facts.attributes or facts.masks) or (known := facts.measure("evaluator")) is None:
        return
    if facts.attributes:
        yield from _of_size("evaluator", known.image_shape, sets.image_shape(e.data))
        for name, classes in e.attributes.having.items():
            if unknown := [each for each in classes if each not in known.classes]:
                yield (
                    f"evaluation.evaluator: knows no class {unknown[0]} of attributes.groups.{name}; it has "
                    f"{some(known.classes)}; set it to null to train one, or name its classes"
                )
    elif not e.evaluation.inception:
        yield from _of_size("evaluator", known.image_shape, sets.image_shape(e.masks.data))


def segmenter(facts: Facts) -> Iterator[str]:
    """The segmenter labels the classes of the masks, and takes such images."""
    if not facts.masks or (known := facts.measure("segmenter")) is None:
        return
    data = facts.experiment.masks.data
    yield from _of_size("segmenter", known.image_shape, sets.image_shape(data))
    if known.classes != (classes := sets.mask_classes(data)):
        yield (
            f"evaluation.segmenter: its classes are {some(known.classes)}; those of the masks are "
            f"{some(classes)}; set it to null to train one"
        )


def _of_size(kind: str, takes: tuple[int, int, int], images: tuple[int, int, int]) -> Iterator[str]:
    if takes != images:
        yield f"evaluation.{kind}: takes {_by(takes)} images, these are {_by(images)}; set it to null to train one"
