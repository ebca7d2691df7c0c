"""Generators beside the denoiser, of which the paper's baselines are made (5.1): each yields an image and a latent."""
