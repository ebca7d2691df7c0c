"""Ways to draw candidates for the paper's judge, as sources: what guidance and its price are worth to a student.

`DDREP_MEMBERS=docs/evidence/ways.py snakemake ...` runs the workflow with them.
"""

from typing import Any

from ddrep.sources import SOURCES, Source, Style

ALL, HALF = {"guidance_interval": [0.0, 1.0]}, {"guidance_interval": [0.25, 0.75]}
WAYS: dict[str, dict[str, Any]] = {
    "published": {"solver": "ddim", "steps": 100, "eta": 0.0, "guidance_scale": 0.01, "grid": "even", **ALL},
    "throughout-0.5": {"guidance_scale": 0.5, "steps": 6, **ALL},
    "half-0.75": {"guidance_scale": 0.75, "steps": 6, **HALF},
    "half-0.5": {"guidance_scale": 0.5, "steps": 6, **HALF},
    "half-0.25": {"guidance_scale": 0.25, "steps": 6, **HALF},
    "unguided": {"guidance_scale": 0.0, "steps": 6},
    "unguided-7": {"guidance_scale": 0.0, "steps": 7},
    "unguided-8": {"guidance_scale": 0.0, "steps": 8},
    "unguided-10": {"guidance_scale": 0.0, "steps": 10},
}

for name, sampling in WAYS.items():
    SOURCES.add(Source(name, f"candidates drawn with {sampling}", Style("#000000"), sampling=sampling))
SOURCES.add(
    Source(
        "unguided-soft",
        "unguided candidates of the fine-tuned denoiser, all of them, with the probes' probabilities",
        Style("#000000"),
        sampling=WAYS["unguided"],
        judge=SOURCES["probe-soft"].judge,
        filtered=False,
        labels="soft",
    )
)
