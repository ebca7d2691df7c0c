"""Two threads of one command on a busy CPU: as OpenMP has them wait by default, and as ddrep has them.

    python -m benchmarks.threads [--steps 4] [--rounds 5]

Forward and backward passes of the embedded denoiser, in a process of its own each, alone and beside another process
that uses one core. Wall clock, for that is what waiting costs: run it where nothing else runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

from benchmarks import page

WORK = """import sys, time, torch
from ddrep.config import DenoiserFile
from ddrep.denoiser.denoiser import Denoiser
torch.set_num_threads(2)
model = Denoiser.load(DenoiserFile().path)
model.net.requires_grad_(True)
x, index = torch.randn(64, *model.image_shape), torch.full((64,), 500)
for step in range(1 + int(sys.argv[1])):
    began = began if step > 1 else time.perf_counter()
    model.eps(x, index).square().mean().backward()
print((time.perf_counter() - began) / int(sys.argv[1]))"""
POLICIES = {"default": {}, "ddrep": {"OMP_WAIT_POLICY": "passive"}}
BUSY = "while True: pass"


def seconds(policy: str, steps: int) -> float:
    """Of a step."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | POLICIES[policy]
    done = subprocess.run([sys.executable, "-c", WORK, str(steps)], env=env, capture_output=True, text=True, check=True)
    return float(done.stdout)


def rows(steps: int, rounds: int) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for quantity, others in (("alone", 0), ("beside another process", 1)):
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(others)]
        try:
            turns = [{policy: seconds(policy, steps) for policy in POLICIES} for _ in range(rounds)]
        finally:
            for process in busy:
                process.kill()
        found += page.compared(quantity, "s a step", {policy: [turn[policy] for turn in turns] for policy in POLICIES})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    page.record("Threads on a busy CPU", ABOUT.format(**vars(args)), rows(args.steps, args.rounds))


ABOUT = """`python -m benchmarks.threads`: passes forward and back of 64 images, 2 threads, wall clock; medians of \
{rounds} rounds of {steps} steps, in brackets their range and how many times less than with OpenMP's default."""

if __name__ == "__main__":
    main()
