"""The order in which jobs run: the images and the denoiser's chain before whatever else is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.tree import copy_workflow

RESULTS = "results/fashion-demo"
TARGETS = [
    f"{RESULTS}/subset0/synthetic/ours/00000.tar",
    *(f"{RESULTS}/subset0/classifiers/resnet18/{mix}/real/0x/0.parquet" for mix in ("plain", "mix")),
    *(f"{RESULTS}/subset0/classifiers/resnet18/plain/real-equal-steps/{scale}x/0.parquet" for scale in (1, 2, 3)),
    *(f"{RESULTS}/subset0/attributes/{name}/0/pixels.safetensors" for name in ("footwear", "long-sleeves")),
]


@pytest.mark.parametrize("kind", ["file", "pretrain"])
@pytest.mark.parametrize("scheduler", ["greedy", "ilp"])
def test_the_denoisers_chain_is_first(kind: str, scheduler: str, tmp_path: Path) -> None:
    """Jobs of one core that were ready kept those waiting that want more, to the end."""
    tree = copy_workflow(tmp_path, checked=False)
    (tmp_path / "denoiser.safetensors").touch()
    tree.configure(denoiser={"kind": kind, "file": {"path": "denoiser.safetensors"}})
    call = ["--cores", "2", "--scheduler", scheduler, "--quiet", "all"]
    done = tree.snakemake(*TARGETS, *call, path=str(Path(__file__).parent / "order_bin"))
    assert done.returncode == 0, done.stderr
    order = (tmp_path / "order").read_text().split()
    chain = ["data", "data", "data", *(["pretrain"] if kind == "pretrain" else [])]
    assert order[: len(chain)] == chain
    assert {*order[len(chain) : len(chain) + 2]} == {"finetune", "features"}, "on the other core what is ready"
    assert order.count("classify") == 5 and order.count("guide") == 2


def test_the_scheduler_looks_no_oftener_than_jobs_end(tmp_path: Path) -> None:
    """Each look set a timer for another look: jobs and seconds together made thousands of them."""
    tree = copy_workflow(tmp_path, checked=False)
    (tmp_path / "denoiser.safetensors").touch()
    tree.configure(denoiser={"kind": "file", "file": {"path": "denoiser.safetensors"}})

    def looks(*words: str) -> tuple[int, int]:
        call = ["--cores", "2", "--verbose", "--forceall", *words]
        done = tree.snakemake(*TARGETS, *call, path=str(Path(__file__).parent / "order_bin"))
        assert done.returncode == 0, done.stderr
        return done.stderr.count("Resources before job selection"), done.stderr.count("Finished jobid")

    number, jobs = looks()
    assert jobs > 10 and number <= jobs + 1
    number, jobs = looks("--max-jobs-per-timespan", "50/1s")
    assert number > jobs + 1, "a limit that is asked for stays"
