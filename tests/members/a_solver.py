"""Euler's method in sigma = sqrt(1 / abar - 1) and x / sqrt(abar), whose derivative is eps."""

from ddrep.solvers import SOLVERS, Solver


def euler_step(here, before, abar_next, eta, noise):
    sigma, sigma_next = ((1 / level - 1).sqrt() for level in (here.abar, abar_next))
    return (here.x / here.abar.sqrt() + (sigma_next - sigma) * here.eps) * abar_next.sqrt()


SOLVERS.add(
    Solver(
        "euler",
        euler_step,
        most_steps=len,
        grid=lambda levels, most, steps: [levels - 1 - levels * k // steps for k in range(steps)],
    )
)
