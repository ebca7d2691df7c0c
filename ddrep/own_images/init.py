"""From a folder of images to an experiment: a summary, splits, an experiment file, and the lines to run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddrep.checks import check
from ddrep.config import Experiment, load
from ddrep.data.lists import write_rows
from ddrep.denoiser.network import DenoiserFile, network_of
from ddrep.errors import UserError, printable
from ddrep.files import remove, written_whole
from ddrep.own_images import found as finding
from ddrep.own_images import settings
from ddrep.own_images.found import Pictures, labelled
from ddrep.own_images.survey import Survey, survey, survey_unlabelled
from ddrep.own_images.unpack import KINDS, archives, unpack
from ddrep.saved import header

if TYPE_CHECKING:  # what it imports takes longer than looking at the images
    from ddrep.planning.report import Forecast

SEED = 0
"""Of the splits; the experiment's is config.yaml's."""


def run(*, images: Path, unlabelled: Path | None, denoiser: Path | None, size: int | None, out: Path | None) -> None:
    """Print what `images` holds; write the experiment file, and the lists that it names. Raises UserError."""
    started = time.process_time()
    out = out or Path(f"{_name(images)}.yaml")
    name = _name(out.with_suffix(""))
    _check_options({"PATH": images, "--unlabelled": unlabelled, "--denoiser": denoiser, "--out": out}, size)
    beside = [out.with_name(f"{out.stem}{end}") for end in (".csv", "-unlabelled.csv", "-images")]
    _check_places([out, *beside], images)
    with _all_or_none([out, *beside]):
        found = survey(_pictures(images, beside[2]), SEED)
        print(found.text)
        if len(found.classes) < 2:
            expected = "expected 2 or more, with 2 images of train, 1 of validation and 1 of test each"
            raise UserError(f"{images}: {len(found.classes)} classes can be used; {expected}: add images and try again")
        more = _unlabelled(unlabelled, found)
        mine = _images(found, size, denoiser, beside[0])
        _write_lists(found, more, beside)
        trained = _denoiser(denoiser, more, mine, beside[1])
        head = [
            f"{images}: {len(found.of('train')):,} images to train on, in {len(found.classes)} classes.",
            "As `ddrep init` wrote it; what is not here is as in config.yaml, which says what each setting means.",
        ]
        with written_whole(out) as (draft,):
            for epochs in settings.EPOCHS:
                overlay = settings.overlay(name, mine, trained, _gpu(), epochs)
                draft.write_text(settings.text_of(overlay, head), encoding="utf-8")
                made = _forecast(load(Path("config.yaml"), draft), started)
                if made.elapsed <= settings.AFTERNOON:
                    break
        check(load(Path("config.yaml"), out))
    _say_what_next(made, out)


def _name(path: Path) -> str:
    """One that an experiment may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name.partition(".")[0]).strip("-._")[:100]
    return name or "own-images"


def _check_options(paths: Mapping[str, Path | None], size: int | None) -> None:
    """Raise UserError for a path that no experiment file can hold, and for options of which one says what the other
    does."""
    for option, path in paths.items():
        if path and not str(path.resolve()).isprintable():
            raise UserError(f"{option} {printable(str(path))}: a name with characters that are no text; rename it")
    if paths["--denoiser"] and size:
        raise UserError(f"--size {size}: with --denoiser, which says the size of the images; leave one of the two out")
    if paths["--denoiser"] and paths["--unlabelled"]:
        raise UserError("--unlabelled: with --denoiser, so that none is trained on them; leave one of the two out")


def _check_places(places: Sequence[Path], images: Path) -> None:
    """Before any work: that the workflow is here, and that nothing would be replaced. Raises UserError."""
    for needed in ("Snakefile", "config.yaml"):
        if not Path(needed).is_file():
            raise UserError(f"{needed}: not in this folder; call `ddrep init` where Snakefile and config.yaml lie")
    if own := [str(place) for place in places if place.resolve() == images.resolve()]:
        raise UserError(f"{own[0]}: is the set itself, and would be replaced; give another --out")
    if there := [str(place) for place in places if os.path.lexists(place)]:
        raise UserError(f"{', '.join(there)}: there already, and not replaced; remove them, or give another --out")


@contextlib.contextmanager
def _all_or_none(places: Sequence[Path]) -> Iterator[None]:
    """What was written of them, none of which was there before, goes again unless the block succeeds: the next call
    would refuse to replace it."""
    try:
        yield
    except BaseException:  # interrupts as well
        for place in places:
            remove(place)
        raise


def _pictures(images: Path, unpacked: Path) -> Pictures:
    """What is at a path; of archives, what they hold, as files of a folder beside the experiment."""
    suffix, files = archives(images)
    if not suffix:
        return labelled(images)
    count, left = unpack(suffix, files, unpacked)
    found = labelled(unpacked)
    remark = f"{KINDS[suffix]} of {len(files)} files: {count:,} images unpacked into {unpacked}/"
    return replace(found, remarks=[remark, *left, *found.remarks])


def _unlabelled(path: Path | None, found: Survey) -> Survey | None:
    if path is None:
        return None
    more = survey_unlabelled(finding.unlabelled(path), [each for each in found.chosen if each.split != "train"])
    print(f"\n{more.text}")
    return more


def _images(found: Survey, size: int | None, denoiser: Path | None, listed: Path) -> settings.Images:
    """Size and channels: those of the denoiser, or else what fits the images and the machine."""
    train = Counter(each.label for each in found.of("train"))
    looks = [each.look for each in found.chosen]
    if denoiser:
        image = header(denoiser, DenoiserFile).network.image
        size, channels = image[0], image[2]
        if channels == 1 and (colourful := sum(not look.grey for look in looks)):
            print(f"\n{denoiser} draws grey images: the colours of {colourful:,} images are lost")
    else:
        size, channels = size or settings.size_of(looks, _gpu()), settings.channels_of(looks)
    return settings.Images(listed, found.pictures.root, size, channels, dict(train))


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _write_lists(found: Survey, more: Survey | None, places: Sequence[Path]) -> None:
    chosen = sorted((each.name, each.label, each.split) for each in found.chosen)
    write_rows(places[0], ("path", "label", "split"), chosen)
    if more:
        write_rows(places[1], ("path",), sorted((each.name,) for each in more.chosen))


def _denoiser(file: Path | None, more: Survey | None, mine: settings.Images, listed: Path) -> settings.Denoiser:
    if file:
        return settings.Denoiser(file=file)
    if more:
        listing = {"path": str(listed), "root": str(more.pictures.root), "size": mine.size, "channels": mine.channels}
        data, unlabelled = {"kind": "unlabelled", "unlabelled": listing}, len(more.chosen)
    else:
        data, unlabelled = mine.data, 0
        count = sum(mine.train.values())
        print(f"\nno unlabelled images: the denoiser will be trained on the {count:,} labelled ones, and copy them "
              "rather than make new ones; name more with --unlabelled, or a denoiser with --denoiser")  # fmt: skip
    batch = settings.batch_of(mine.size, _gpu())
    steps = settings.steps_of(mine.size, batch, batch * _seconds(mine))
    return settings.Denoiser(None, data, steps, unlabelled)


def _seconds(mine: settings.Images) -> float:
    """Of an image forward and backward in the denoiser that is to be, on all cores or the GPU."""
    from ddrep.config import Network
    from ddrep.cost import DENOISER
    from ddrep.planning.forecast import Plan
    from ddrep.planning.sizes import Sizes
    from ddrep.planning.speed import BACKWARD, measure

    network = network_of(Network(**settings.network_of(mine.size, _gpu())), mine.size, mine.channels)
    image = (mine.size, mine.size, mine.channels)
    speeds = measure(Plan(Experiment(), [], Sizes(image), network, {}), 0.0, seconds=2.0)
    threads = 1 if _gpu() else len(os.sched_getaffinity(0))
    return BACKWARD * speeds.seconds[DENOISER] / threads


def _forecast(experiment: Experiment, started: float) -> Forecast:
    from ddrep.planning.report import forecast_of

    return forecast_of(experiment, None, None, started, patience=2.0)


def _say_what_next(made: Forecast, out: Path) -> None:
    from ddrep.planning.report import time_text

    of = Counter[str]()
    for step in made.steps:
        of[step.job.rule] += made.seconds(step)  # type: ignore[assignment]
    dearest = ", ".join(f"{rule} {time_text(seconds)}" for rule, seconds in of.most_common(4))
    print(f"\n{out} written. {made.whole} Of all jobs one after another: {dearest}.")
    print("To run it, and to see how far it is:\n")
    print(f"    snakemake --cores {made.cores} --configfile {shlex.quote(str(out))}")
    print(f"    ddrep status --configfile {shlex.quote(str(out))}")
