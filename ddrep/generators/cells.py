"""The residual cells that NVAE is made of (Vahdat & Kautz 2020, section 3.1 and figures 2 and 3), and its flows.

A convolution that the paper normalises by its weights is a plain one here: what it computes is the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARE = 0.1
"""Of a residual branch in a cell's output."""
EXPANSION, OUTER_EXPANSION = 6, 3
"""Channels of a decoder's cell beside its own width: between groups of latents, and after the last of them."""


class Normal:
    """A normal distribution; mean and log deviation are held to (-5, 5), softly, and 0.01 is added to the deviation."""

    def __init__(self, mean: Tensor, log_deviation: Tensor):
        self.mean, self.log_deviation = mean, log_deviation
        """As the network gives them."""
        self.mu = 5 * torch.tanh(mean.float() / 5)
        self.sigma = torch.exp(5 * torch.tanh(log_deviation.float() / 5)) + 0.01

    @classmethod
    def of(cls, said: Tensor) -> Normal:
        """Of (N, 2 C, H, W): means, then log deviations."""
        return cls(*said.chunk(2, dim=1))

    def relative(self, said: Tensor) -> Normal:
        """The approximate posterior beside this prior: the residual distribution (paper, section 3.2)."""
        mean, log_deviation = said.chunk(2, dim=1)
        return Normal(self.mean + mean, self.log_deviation + log_deviation)

    def kl_to(self, prior: Normal) -> Tensor:
        """KL(self || prior) in nats of each number (paper, eq. 2)."""
        shift, spread = (self.mu - prior.mu) / prior.sigma, self.sigma / prior.sigma
        return 0.5 * (shift.square() + spread.square() - 1) - spread.log()

    def log_prob(self, z: Tensor) -> Tensor:
        """In nats of each number, but for the constant."""
        return -0.5 * ((z - self.mu) / self.sigma).square() - self.sigma.log()


class SqueezeExcite(nn.Module):
    """Scales each channel by what the average of all of them says (Hu et al. 2018)."""

    def __init__(self, width: int):
        super().__init__()
        hidden = max(width // 16, 4)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean(dim=(2, 3)))[:, :, None, None]


class HalvedSkip(nn.Module):
    """A 1x1 convolution of each of the four pixels in a square of two by two, a quarter of the channels from each."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.conv = nn.Conv2d(4 * width, out, 1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(x)
        corners = ((0, 0), (1, 1), (0, 1), (1, 0))
        return self.conv(torch.cat([x[:, :, row::2, column::2] for row, column in corners], dim=1))


class DoubledSkip(nn.Module):
    """Twice as large by bilinear interpolation, then a 1x1 convolution."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.conv = nn.Conv2d(width, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class EncoderCell(nn.Module):
    """Twice batch norm, swish and a 3x3 convolution, and squeeze and excitation (figure 3b)."""

    def __init__(self, width: int, halves: bool = False):
        """halves: the cell halves the image, at twice the width."""
        super().__init__()
        out = 2 * width if halves else width
        self.skip = HalvedSkip(width, out) if halves else nn.Identity()
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(out)])
        first = nn.Conv2d(width, out, 3, stride=2 if halves else 1, padding=1)
        self.convs = nn.ModuleList([first, nn.Conv2d(out, out, 3, padding=1)])
        self.squeeze = SqueezeExcite(out)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.silu(norm(h)))
        return torch.add(self.skip(x), self.squeeze(h), alpha=SHARE)


class DecoderCell(nn.Module):
    """Batch norm, 1x1 expansion, a depthwise 5x5 convolution, 1x1, squeeze and excitation (figure 3a).

    Where the image is doubled, by repeating pixels, that is done behind the expansion: it computes the same, on fewer.
    """

    def __init__(self, width: int, expansion: int, doubles: bool = False):
        """doubles: the cell doubles the image, at half the width."""
        super().__init__()
        out, hidden, self.doubles = width // 2 if doubles else width, expansion * width, doubles
        self.skip = DoubledSkip(width, out) if doubles else nn.Identity()
        self.norms = nn.ModuleList([nn.BatchNorm2d(channels) for channels in (width, hidden, hidden, out)])
        self.expand = nn.Conv2d(width, hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.reduce = nn.Conv2d(hidden, out, 1, bias=False)
        self.squeeze = SqueezeExcite(out)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, last = self.norms
        h = F.silu(second(self.expand(first(x))))
        h = F.interpolate(h, scale_factor=2, mode="nearest") if self.doubles else h
        h = last(self.reduce(F.silu(third(self.depthwise(h)))))
        return torch.add(self.skip(x), self.squeeze(h), alpha=SHARE)


class Flow(nn.Module):
    """z - m(z) of a posterior's sample (Kingma et al. 2016; paper, section 3.2), volume preserved:
    m looks at what comes before each number alone, for all other weights are 0."""

    def __init__(self, latent: int):
        super().__init__()
        hidden = EXPANSION * latent
        first = nn.Conv2d(latent, hidden, 3, padding=1, bias=False)
        depthwise = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.layers = nn.Sequential(first, nn.ELU(), depthwise, nn.ELU(), nn.ELU(), nn.Conv2d(hidden, latent, 1))

    def forward(self, z: Tensor) -> Tensor:
        return z - self.layers(z)
