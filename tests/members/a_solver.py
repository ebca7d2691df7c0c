"""Euler's method in sigma = sqrt(1 / abar - 1) and x / sqrt(abar), whose derivative is eps."""

from ddrep.solvers import SOLVERS, Solver


def euler_step(x, x0, x0_before, abar, abar_next, abar_before, eta=0.0, noise=None):
    sigma, sigma_next = ((1 / level - 1).sqrt() for level in (abar, abar_next))
    slope = (x / abar.sqrt() - x0) / sigma
    return (x / abar.sqrt() + (sigma_next - sigma) * slope) * abar_next.sqrt()


SOLVERS.add(
    Solver(
        "euler",
        euler_step,
        most_steps=len,
        grid=lambda levels, most, steps: [levels - 1 - levels * k // steps for k in range(steps)],
    )
)
