"""Labelled training images from an unconditional diffusion model (Graikos et al., BMVC 2023)."""

__version__ = "0.1.0"
