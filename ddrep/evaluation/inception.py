"""Inception-2015, the features of FID, through torch-fidelity and from a file of the user's. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ddrep.data.batches import finite
from ddrep.errors import UserError
from ddrep.files import check_readable

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

LAYER = "2048"
"""torch-fidelity's name of the last average pooling."""
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of weights-inception-2015-12-05-6726825d.pth, as torch-fidelity's releases have it."""


@dataclass
class Inception:
    """Features of uint8 images, resized to 299x299 as TensorFlow does."""

    net: FeatureExtractorInceptionV3
    metric: str
    """What a Fréchet distance on these features is called: FID with the published weights, with others FD-inception-
    and the first digits of the file's SHA-256.
    """

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Inception:
        """Read a weights file in torch-fidelity's format. Raises UserError for any other file."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        expected = "torch-fidelity's weights-inception-2015-12-05-6726825d.pth; see docs/evaluation.md"
        check_readable(path, expected)
        content = path.read_bytes()  # once, or another file could be there when it is loaded
        try:
            torch.load(io.BytesIO(content), weights_only=True)  # torch-fidelity runs whatever code a pickle holds
            net = FeatureExtractorInceptionV3(
                "inception-v3-compat", [LAYER], feature_extractor_weights_path=io.BytesIO(content)
            )
        except Exception:  # of arbitrary bytes the reader makes errors of many types
            raise UserError(f"{path}: not Inception weights, or broken; expected {expected}") from None
        digest = hashlib.sha256(content).hexdigest()
        return cls(net.to(device), "FID" if digest == PUBLISHED else f"FD-inception-{digest[:8]}")

    @torch.inference_mode()
    def features(self, images: np.ndarray, batch: int = 50) -> np.ndarray:
        """uint8 images (N, H, W, C) -> (N, 2048) float64, grey levels as RGB."""
        device = next(self.net.parameters()).device
        x = torch.as_tensor(images).movedim(-1, 1).expand(-1, 3, -1, -1)
        parts = [self.net(x[i : i + batch].to(device))[0].double().cpu() for i in range(0, len(x), batch)]
        return finite(torch.cat(parts), "Inception").numpy() if parts else np.zeros((0, int(LAYER)))
