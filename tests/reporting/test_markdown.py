"""The Markdown as a text, of a case small enough to read."""

import math

import pandas as pd

from ddrep.reporting.controls import headline
from ddrep.reporting.markdown import as_markdown, survival

NAN = math.nan


def _cell(mix, source, scale, mean, std, n, paper=NAN, **differences):
    cell = {"architecture": "resnet18", "mix": mix, "source": source, "scale": scale, "mean": mean, "std": std, "n": n}
    sizes = {
        "n_real": 500,
        "n_synthetic": 0 if source.startswith("real") else 500 * scale,
        "steps": 80,
        "paper_top1": paper,
    }
    references = ("real", "real_equal_steps", "real_soft", "improved_ddpm", "classifier_free", "pixel_rejection")
    ends = {f"vs_{r}{e}": NAN for r in references for e in ("", "_low", "_high")} | {
        f"vs_{r}_pairs": 0 for r in references
    }
    for reference, values in differences.items():
        names = [f"vs_{reference}{end}" for end in ("", "_low", "_high", "_pairs")]
        ends |= dict(zip(names, values, strict=True))
    cell |= sizes | ends
    return cell | headline(cell)


TABLE = pd.DataFrame({"subset": [0, 0, 1, 1], "seed": [0, 1, 0, 1]})

TABLE4 = """\
# Table 4: top-1 accuracy (%) with synthetic images added to the real ones

Mean ± standard deviation over 1 to 4 runs a cell (2 labelled subsets x 2 seeds); 5,000 test images,
500 real images to train on, 1x = 500 synthetic images. The paper's figures are those of Tiny
ImageNet.

| Architecture | Mixup+CutMix | Source                 |  Real only |        +1x |        +2x |        +7x |
| ------------ | ------------ | ---------------------- | ---------: | ---------: | ---------: | ---------: |
| resnet18     | no           | real                   | 79.0 ± 0.4 |            |            |            |
|              |              | real-equal-steps       |            | 79.3 ± 0.2 |            |            |
|              |              | ours                   |            | 80.1 ± 0.4 | 80.5 ± 0.3 | 81.0 ± 0.1 |
|              |              | (paper, Tiny ImageNet) |    (52.24) |    (56.13) |    (58.13) |            |
| resnet18     | yes          | real                   |       80.2 |            |            |            |
|              |              | (paper, Tiny ImageNet) |    (52.90) |            |            |            |

## What the gains survive

resnet18:

- ours 1x: +0.8 [-0.0, 1.6] over real-equal-steps, the strongest of real and real-equal-steps: may be chance

## Differences in top-1, in points

Between runs of the same labelled subset and seed, about the same test images. In brackets the 90%
paired bootstrap interval: for other test images and other labelled subsets; where a cell has one
subset, for that subset and other seeds; where it has one run, for other test images alone. Bold:
zero is outside. Of the two controls, real and real-equal-steps (real images alone, trained as
long), the better one counts: only the difference from it is bold, if zero is outside for both.

### resnet18

| Source           | Scale | Runs |                      vs real | vs real-equal-steps |
| ---------------- | ----: | ---: | ---------------------------: | ------------------: |
| ours             |    1x |    4 |              +1.1 [0.4, 1.9] |    +0.8 [-0.0, 1.6] |
| ours             |    2x |    4 | **+1.5** [0.5, 2.4] (3 runs) |                     |
| ours             |    7x |    2 |        **-2.0** [-3.0, -0.0] |                     |
| real-equal-steps |    1x |    4 |             +0.3 [-0.3, 0.9] |                     |
"""


def test_table_4():
    cells = pd.DataFrame(
        [
            _cell(False, "real", 0, 79.01, 0.42, 4, 52.24),
            _cell(False, "real-equal-steps", 1, 79.3, 0.2, 4, real=(0.29, -0.31, 0.9, 4)),
            _cell(
                False, "ours", 1, 80.1, 0.4, 4, 56.13, real=(1.1, 0.4, 1.9, 4), real_equal_steps=(0.8, -0.04, 1.6, 4)
            ),
            _cell(False, "ours", 2, 80.5, 0.3, 4, 58.13, real=(1.49, 0.5, 2.4, 3)),
            _cell(False, "ours", 7, 81.0, 0.1, 2, real=(-2.0, -3.0, -0.04, 2)),
            _cell(True, "real", 0, 80.2, NAN, 1, 52.9),
        ]
    )
    assert as_markdown(TABLE, cells, 4, 5000, 0.9) == TABLE4


TABLE3 = """\
# Table 3: top-1 accuracy (%) of a classifier trained on one source alone

One run a cell (1 labelled subset x 1 seed); 5,000 test images, 500 real images to train on, 1x =
500 synthetic images. The paper's figures are those of Tiny ImageNet.

| Source | Top-1 | Paper (Tiny ImageNet) |
| ------ | ----: | --------------------: |
| real   |  79.0 |                 52.24 |
| ours   |  76.0 |                 45.09 |
"""


def test_table_3_without_anything_to_compare():
    cells = pd.DataFrame([_cell(False, "real", 0, 79.0, NAN, 1, 52.24), _cell(False, "ours", 1, 76.04, NAN, 1, 45.09)])
    text = as_markdown(TABLE.head(1), cells.assign(n_real=[500, 0]), 3, 5000, 0.95)
    assert text == TABLE3


def test_other_images_do_not_stand_beside_the_papers_figures():
    cells = pd.DataFrame([_cell(False, "real", 0, 79.0, NAN, 1), _cell(False, "ours", 1, 76.04, NAN, 1)])
    for number in (3, 4):
        assert "aper" not in as_markdown(TABLE.head(1), cells, number, 5000, 0.95)


def test_scales_beyond_the_papers_follow_below():
    cells = [_cell(False, "real", 0, 79.0, NAN, 1)] + [_cell(False, "ours", k, 80.0 + k, NAN, 1) for k in range(1, 8)]
    lines = as_markdown(TABLE.head(1), pd.DataFrame(cells), 4, 5000, 0.95).splitlines()
    heads = [line.split("|")[4:-1] for line in lines if line.startswith("| Architecture")]
    assert [[title.strip() for title in head] for head in heads] == [
        ["Real only", "+1x", "+2x", "+3x"],
        ["+4x", "+5x", "+6x", "+7x"],
    ]
    assert max(map(len, lines)) <= 100


def test_each_gain_is_held_against_the_strongest_of_its_controls():
    """With soft labels real-soft is one; without, what it gains is another matter. Of the scales the one with most
    controls counts, then the largest."""
    same = {"real": (5.0, 3.0, 7.0, 4), "real_equal_steps": (4.0, 2.0, 6.0, 4), "real_soft": (1.0, -1.0, 3.0, 4)}
    cells = pd.DataFrame(
        [
            _cell(False, "real", 0, 79.0, 0.4, 4),
            _cell(False, "real-equal-steps", 3, 80.0, 0.4, 4, real=(1.0, 0.1, 2.0, 4)),
            _cell(False, "real-soft", 3, 83.0, 0.4, 4, real=(4.0, 3.0, 5.0, 4)),
            _cell(False, "ours", 3, 84.0, 0.4, 4, **same),
            _cell(False, "probe-soft", 1, 82.0, 0.4, 4, **same),
            _cell(False, "probe-soft", 3, 84.0, 0.4, 4, **same),
            _cell(False, "probe-soft", 7, 85.0, 0.4, 4, real=(6.0, 4.0, 8.0, 4)),
            _cell(False, "probe-rejection", 7, 85.0, 0.4, 4, real=(6.0, 4.0, 8.0, 4)),
        ]
    )
    (paragraph,) = survival(cells)
    assert paragraph.splitlines() == [
        "resnet18:",
        "",
        "- ours 3x: +4.0 [2.0, 6.0] over real-equal-steps, the strongest of real and real-equal-steps: holds",
        "- probe-soft 3x: +1.0 [-1.0, 3.0] over real-soft, the strongest of real, real-equal-steps and real-soft: "
        "may be chance",
        "- probe-rejection 7x: +6.0 [4.0, 8.0] over real: holds; nothing is known of real-equal-steps",
    ]
    text = " ".join(as_markdown(TABLE, cells, 4, 5000, 0.9).split())
    assert "The labels of probe-soft are the" in text and "real-soft (the same with the" in text


def test_a_loss_is_one_against_all_controls():
    """The strongest of several as good ones is picked by the test images: from it alone every sixteenth source that is
    as good as they are would be a loss, in place of every fortieth."""
    near, far = (-0.5, -1.5, 0.5, 4), (-1.2, -2.2, -0.2, 4)
    cells = pd.DataFrame(
        [
            _cell(False, "real", 0, 79.0, 0.4, 4),
            _cell(False, "real-equal-steps", 3, 79.7, 0.4, 4, real=(0.7, -0.3, 1.7, 4)),
            _cell(False, "ours", 3, 78.5, 0.4, 4, real=near, real_equal_steps=far),
            _cell(False, "probe-rejection", 3, 77.0, 0.4, 4, real=far, real_equal_steps=(-2.0, -3.0, -1.0, 4)),
        ]
    )
    (paragraph,) = survival(cells)
    assert paragraph.splitlines()[2:] == [
        "- ours 3x: -1.2 [-2.2, -0.2] over real-equal-steps, the strongest of real and real-equal-steps: may be chance",
        "- probe-rejection 3x: -2.0 [-3.0, -1.0] over real-equal-steps, the strongest of real and real-equal-steps: "
        "a loss",
    ]
