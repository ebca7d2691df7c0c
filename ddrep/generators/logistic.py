"""What NVAE says of a pixel: a mixture of logistic distributions over the 256 levels (Salimans et al. 2017).

Levels are the real numbers 2 k / 255 - 1, k = 0..255. A level has the probability that the logistic gives to half a
step on either side of it; the first and the last have all beyond as well, so that those of all levels sum to 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

HALF_STEP = 1 / 255
"""Between neighbouring levels, on a scale of [-1, 1]."""
LEAST_LOG_SCALE = -7.0


def parameters_of(channels: int, mixtures: int) -> int:
    """Numbers a pixel: a weight for each part of the mixture and, for each channel and part, its mean and scale, and
    with three channels a coefficient."""
    return mixtures * (1 + channels * (3 if channels == 3 else 2))


class LogisticMixture:
    """Of images (N, C, H, W) with C 1 or 3; red moves the mean of green, and both that of blue."""

    def __init__(self, said: Tensor, channels: int):
        """said (N, parameters_of(C, M), H, W), as the network gives it: M weights, then each channel's."""
        said = said.float()
        n, count, *size = said.shape
        mixtures = count // parameters_of(channels, 1)
        self.log_weights = said[:, :mixtures].log_softmax(dim=1)
        """(N, M, H, W)."""
        each = said[:, mixtures:].reshape(n, channels, -1, mixtures, *size).unbind(dim=2)
        self.means = each[0]
        """(N, C, M, H, W), before what other channels add, as are"""
        self.log_scales = each[1].clamp(min=LEAST_LOG_SCALE)
        self.coefficients = each[2].tanh() if channels == 3 else None

    def _moved(self, seen: Tensor) -> Tensor:
        """Means, told the channels (N, C, ...) that come before each."""
        if self.coefficients is None:
            return self.means
        red, green = seen[:, 0], seen[:, 1]
        of_red, red_of_blue, green_of_blue = self.coefficients.unbind(dim=1)
        of_blue = red_of_blue * red + green_of_blue * green
        return self.means + torch.stack([torch.zeros_like(of_blue), of_red * red, of_blue], dim=1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Of levels (N, C, H, W) in [-1, 1] -> (N, H, W), all channels together.

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which is exact however small it is.
        """
        x = x[:, :, None]
        centred, sharpness = x - self._moved(x), (-self.log_scales).exp()
        above, below = (centred + HALF_STEP) * sharpness, (centred - HALF_STEP) * sharpness
        beneath_upper, over_lower = F.logsigmoid(above), F.logsigmoid(-below)
        within = beneath_upper + over_lower + torch.log(-torch.expm1(-2 * HALF_STEP * sharpness))
        log_p = torch.where(x < HALF_STEP - 1, beneath_upper, torch.where(x > 1 - HALF_STEP, over_lower, within))
        return torch.logsumexp(log_p.sum(dim=1) + self.log_weights, dim=1)

    def mean(self) -> Tensor:
        """The average of the parts' means, each channel told the ones before it: images (N, C, H, W) in [-1, 1]."""
        weights = self.log_weights.exp()[:, None]
        mean = (self.means * weights).sum(dim=2)
        if self.coefficients is None:
            return mean.clamp(-1, 1)
        of_red, red_of_blue, green_of_blue = (self.coefficients * weights).sum(dim=2).unbind(dim=1)
        red = mean[:, 0].clamp(-1, 1)
        green = (mean[:, 1] + of_red * red).clamp(-1, 1)
        blue = (mean[:, 2] + red_of_blue * red + green_of_blue * green).clamp(-1, 1)
        return torch.stack([red, green, blue], dim=1)
