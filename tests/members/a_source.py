"""A source of images that keeps what the rejection classifier believes of candidates drawn without guidance."""

from ddrep.sources import SOURCES, Source, Style

SOURCES.add(
    Source(
        "unguided-rejection",
        "no guidance, and rejection by a CNN on denoiser features",
        Style("#CC79A7", "--"),
        sampling={"guidance_scale": 0.0, "unconditional": "row"},
    )
)
