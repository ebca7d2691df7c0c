"""What the checks know is what the readers, solvers and networks do; and the shipped experiments are right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ddrep import saved
from ddrep.checks import check, networks
from ddrep.checks.headers import idx_image, most_steps
from ddrep.checks.sets import image_shape, mask_classes
from ddrep.config import Data, MaskData, load
from ddrep.data import embedded
from ddrep.data.datasets import masked
from ddrep.data.idx import write_idx
from ddrep.data.readers import known, labelled
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.network import DenoiserFile, ScheduleConfig, UNetConfig
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet
from ddrep.errors import UserError
from ddrep.networks.classifiers import build_classifier, check_classifier, fit_to_size
from ddrep.solvers import time_grid
from tests.checks.experiments import said

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("per_class", [1, 20])
def test_the_embedded_images_are_as_they_are_read(per_class: int) -> None:
    data = Data.model_validate({"embedded": {"per_class": per_class}})
    found, images = known(data, 0), labelled(data, "train", 1, 0)
    assert found and found.classes == images.classes
    assert found.train == tuple(np.bincount(images.labels).tolist())
    assert image_shape(data) == images.images.shape[1:] == embedded.SHAPE
    masks = masked(MaskData(), "train", 0)
    assert mask_classes(MaskData()) == masks.classes and image_shape(MaskData()) == masks.images.shape[1:]


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("num_steps", [20, 1000, 4000])
def test_most_steps_are_those_of_the_solvers(solver: Any, kind: Any, num_steps: int) -> None:
    """With as many the grid has no level twice, with one more it has, or there is none."""
    most = most_steps(ScheduleConfig(kind, num_steps), solver)
    grid = time_grid(Schedule(kind, num_steps), solver, most)
    assert len(set(grid)) == len(grid) == most
    try:
        more = time_grid(Schedule(kind, num_steps), solver, most + 1)
    except (UserError, ValueError):
        return
    assert len(set(more)) < most + 1


NETWORKS = [
    UNetConfig(28, 1, 1, 32, (1, 2, 2), 1, (7,), 2),
    UNetConfig(9, 1, 1, 32, (1, 1, 1, 1), 2, (9, 3), 4),
    UNetConfig(16, 3, 3, 64, (1, 1), 1, (), 3),
    UNetConfig(16, 3, 3, 32, (1, 2), 1, (16,), 5),
    UNetConfig(16, 3, 3, 10, (1, 2), 1, (), 2),
    UNetConfig(16, 3, 3, 16, (2, 4), 1, (8,), 2),
    UNetConfig(14, 3, 3, 32, (1, 1, 1), 1, (), 2, resblock_updown=True),
    UNetConfig(12, 3, 3, 32, (1, 1, 1), 1, (), 2, resblock_updown=True),
    UNetConfig(14, 3, 3, 32, (1, 1, 1), 1, (), 2, ho_details=True),
    UNetConfig(16, 3, 3, 32, (), 1, (), 2),
    UNetConfig(16, 3, 3, 32, (1, 2), 1, (), num_head_channels=96),
]


@pytest.mark.parametrize("cfg", NETWORKS, ids=range(len(NETWORKS)))
def test_networks_without_problems_run_and_the_others_would_not(cfg: UNetConfig, monkeypatch: Any) -> None:
    problems = list(cfg.problems())
    monkeypatch.setattr(UNetConfig, "problems", lambda _: iter(()))
    x = torch.zeros(1, cfg.in_channels, cfg.image_size, cfg.image_size)
    if problems:
        with pytest.raises((RuntimeError, ValueError, IndexError, ZeroDivisionError)):
            UNet(cfg)(x, torch.zeros(1))
        return
    net = UNet(cfg)
    h, skips = net.encode(x, net.embed(torch.zeros(1)))
    last = len(net.output_blocks) - 1
    _, tapped = net.decode(h, skips, net.embed(torch.zeros(1)), taps=range(last))
    ends = [tapped[number].shape[1] for number in cfg.level_ends.values() if number < last]
    assert ends == list(cfg.widths[:0:-1]), "each level ends behind its last block"
    assert {skip.shape[-1] for skip in skips} == set(cfg.sizes)
    assert cfg.block_numbers(["middle", "up1", f"output_blocks.{last}"]) == [None, cfg.num_res_blocks, last]
    with pytest.raises(UserError, match="no output_blocks"):
        cfg.block_numbers([f"output_blocks.{last + 1}"])


def test_a_network_that_is_none_is_one_line() -> None:
    with pytest.raises(UserError, match=r"network: model_channels x channel_mult: 10 channels; expected"):
        UNet(UNetConfig(8, model_channels=10, channel_mult=(1,), attention_sizes=(), num_heads=1))


@pytest.mark.parametrize("name", sorted(networks.RESNETS))
@pytest.mark.parametrize("stem", ["stock", "small"])
def test_resnets_that_are_not_looked_up_do_for_every_stem_and_size(name: str, stem: Any) -> None:
    for image in ((8, 8, 1), (64, 64, 3)):
        check_classifier(name, stem, image, 10)


def test_an_architecture_that_passes_is_built_and_takes_the_images() -> None:
    check_classifier("mobilenetv3_small_050", "stock", (28, 28, 1), 10)
    net = fit_to_size(build_classifier("mobilenetv3_small_050", "stock", 1, 10), 1, 28, 28)
    assert net.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_headers_are_what_was_saved(here: Path) -> None:
    made = Denoiser.load(embedded.FOLDER / "denoiser.safetensors")
    header = saved.header(embedded.FOLDER / "denoiser.safetensors", DenoiserFile)
    assert header.network == made.net.cfg
    assert (header.schedule.kind, header.schedule.num_steps) == (made.schedule.kind, made.schedule.num_steps)
    for shape in ((3, 28, 28), (2, 16, 16, 3), (2, 16, 16, 1)):
        write_idx(Path("a.gz"), np.zeros(shape, np.uint8))
        assert idx_image(Path("a.gz")) == (*shape[1:3], shape[3] if len(shape) == 4 else 1)
    for shape in ((0, 28, 28), (3, 28, 14), (2, 16, 16, 4), (2, 0, 0)):
        write_idx(Path("a.gz"), np.zeros(shape, np.uint8))
        with pytest.raises(UserError, match="expected square ones, grey or RGB"):
            idx_image(Path("a.gz"))


@pytest.mark.parametrize(
    "meta", [{}, {"network": "null"}, {"network": "{}", "schedule": "5"}, {"network": "[[[", "schedule": "{}"}]
)
def test_a_broken_header_is_one_line(meta: dict[str, str], here: Path) -> None:
    save_file({}, "d.safetensors", {"format": "ddrep.denoiser/1", **meta})
    line = said({"denoiser": {"file": {"path": "d.safetensors"}}})
    assert line.startswith("denoiser.file.path: d.safetensors: a denoiser with a broken header")


def shipped() -> list[list[Path]]:
    overlays = sorted((REPO / "workflow/experiments").glob("*.yaml"))
    toys = [[full.with_name(f"{full.stem}-toy.yaml"), full] for full in overlays]
    return [[], *([full] for full in overlays if not full.stem.endswith("-toy")), *(
        [full, toy] for toy, full in toys if toy.exists()
    )]  # fmt: skip


def published(here: Path) -> None:
    """What the published experiments name, at their toys' sizes."""
    from tests.workflow import test_toys

    makers: list[Callable[[Path], Any]] = [test_toys.with_inputs, test_toys.celeba_tree, test_toys.ffhq_tree]
    for number, make in enumerate(makers):
        place = here / str(number)
        place.mkdir()
        make(place)
        for file in place.iterdir():
            if not (here / file.name).exists():
                file.rename(here / file.name)


def test_shipped_experiments_are_right(here: Path) -> None:
    published(here)
    for files in shipped():
        e = load(REPO / "config.yaml", *files)
        if e.experiment in ("tiny-imagenet", "celeba-64", "ffhq-256"):  # whose files are larger than these
            with pytest.raises(UserError, match=r"a denoiser of (16x16|32x32)x3 images"):
                check(e)
        else:
            check(e)


def test_nothing_is_imported_that_takes_long(here: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom ddrep.checks import check\nfrom ddrep.config import load\n"
        f"check(load(Path({str(REPO / 'config.yaml')!r})))\n"
        "print([name for name in ('torch', 'timm', 'scipy', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=here)
    assert done.stdout == "[]\n", done.stdout + done.stderr
