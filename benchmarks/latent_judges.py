"""Whether latents of other generators know classes better than the denoiser's features: judges on each, beside `ours`.

    python -m benchmarks.latent_judges

On the labelled subsets of the embedded data (20 a class), a judge learns of DiffAE's, D2C's or NVAE's latents, as those
of Tables 1 and 2 do (one linear layer, `generators.judge`), and as the probes learn of features (logistic regression
whose C is chosen by cross-validation among the labelled images). Printed is how many
of 2,500 test images each is right about.
"""

from __future__ import annotations

import torch

from ddrep.config import Data, EmbeddedData, Experiment
from ddrep.config.stages import Tap
from ddrep.data.readers import labelled
from ddrep.generators.files import load_generator
from ddrep.generators.network import LatentJudgeFile
from ddrep.reporting.markdown import grid
from ddrep.training import probe
from ddrep.training.latent_judges import fit

TEST = 2500
TAP = Tap(block="middle", timestep=0)
"""Said of a probe and not read: latents are of no block."""


def main() -> None:
    torch.set_num_threads(1)
    section, probes, rows = Experiment().generators, Experiment().probe, []
    data = Data(embedded=EmbeddedData(per_class=20))
    test = labelled(data, "test", 0, 0)
    images, truth = test.images[:TEST], test.labels[:TEST]
    for name in ("diffae", "d2c", "nvae"):
        model = load_generator(getattr(section, name).file.path)
        unseen = model.encode(images)
        for subset in range(3):
            known = labelled(data, "train", subset, 0)
            latents, y = model.encode(known.images), torch.as_tensor(known.labels)
            meta = LatentJudgeFile(classes=known.classes, latent=model.latent_size, generator_sha256="0" * 64)
            judge = fit(meta, latents, y, section.judge, seed=0)
            linear = (judge.net(unseen).argmax(dim=1).numpy() == truth).mean()
            folds = probe.folds_of(known, probes.folds, 0)
            chosen = probe.fit(TAP, latents.numpy(), known.labels, probes.strengths, folds)
            best = ((unseen.numpy() @ chosen.weight.T + chosen.bias).argmax(axis=1) == truth).mean()
            rows.append([name, str(subset), str(model.latent_size), f"{100 * linear:.1f}", f"{100 * best:.1f}"])
            print(*rows[-1], flush=True)
    print(grid(["latents", "subset", "numbers", "one layer, %", "chosen C, %"], rows, 2))


if __name__ == "__main__":
    main()
