"""A source of images that keeps what the rejection classifier believes of candidates drawn with much guidance."""

from ddrep.sources import SOURCES, Source, Style

SOURCES.add(
    Source(
        "rejection-w2",
        "guidance at w = 2, and rejection by a CNN on denoiser features",
        Style("#CC79A7", "--"),
        sampling={"guidance_scale": 2.0},
    )
)
