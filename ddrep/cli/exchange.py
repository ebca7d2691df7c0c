"""The verbs between ddrep and the files of others: checkpoints, folders of diffusers, data sets to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic_settings import CliPositionalArg

from ddrep.cli.base import Light, Verb
from ddrep.cli.outputs import NewFolder, OutputFile
from ddrep.config.base import Few, Pixels


class Import(Verb):
    """Make a denoiser of a published U-Net: of improved-diffusion, guided-diffusion, ermongroup/ddim or diffusers.

    Options are for what the file does not tell; for the published files it is known.
    """

    file: CliPositionalArg[Path]
    """The checkpoint (.pt, .pth, .safetensors), whatever its weights are wrapped in; or a folder of diffusers."""
    image_size: Pixels | None = None
    """Pixels a side."""
    num_heads: Few | None = None
    """Attention heads of every layer."""
    num_head_channels: Pixels | None = None
    """Channels of an attention head, instead of the number of heads."""
    new_attention_order: bool | None = None
    """Whether q, k, v are split before the heads (guided-diffusion's use_new_attention_order)."""
    schedule: Literal["cosine", "linear"] | None = None
    """Noise schedule."""
    num_steps: Annotated[int, Gt(0), Le(2**16)] | None = None
    """Steps of the schedule."""
    rescale_timesteps: bool | None = None
    """Whether the network is told times in 0..1000 whatever the number of steps."""
    out: OutputFile
    """Denoiser (.safetensors) to write."""

    def run(self) -> None:
        from ddrep.denoiser.diffusers import import_folder
        from ddrep.denoiser.importers import Settings, import_checkpoint

        given = Settings(**self.model_dump(exclude={"file", "out", "threads", "log"}))
        read = import_folder if self.file.is_dir() else import_checkpoint
        read(self.file, given).save(self.out)


class ImportDiffae(Verb):
    """Make a DiffAE, the generator of method diffae, of the published Lightning files."""

    does = "generators.importers:run"
    file: CliPositionalArg[Path]
    """The checkpoint of the latent DDIM (..._latent/last.ckpt), which holds the autoencoder as well."""
    latents: Path | None = None
    """latent.pkl of the autoencoder, for the mean and deviation of latents where the checkpoint has none."""
    half: bool = False
    """Write weights in half precision, at half the size."""
    out: OutputFile
    """DiffAE (.safetensors) to write."""


class ImportNvae(Verb):
    """Make an NVAE, the generator of Table 1's method nvae, of a published checkpoint."""

    does = "generators.import_nvae:run"
    file: CliPositionalArg[Path]
    """checkpoint.pt, which holds its hyper-parameters."""
    temperature: Annotated[float, Gt(0), Le(2)] = 0.7
    """Factor on the deviation of every drawn latent (published: 0.6 to 1), for which batch norms are settled."""
    half: bool = False
    """Write weights in half precision, at half the size."""
    out: OutputFile
    """NVAE (.safetensors) to write."""


class Export(Verb):
    """Write a denoiser as a folder that diffusers reads (UNet2DModel, DDPMScheduler, DDIMScheduler)."""

    does = "denoiser.diffusers:export_folder"
    denoiser: CliPositionalArg[Path]
    """The denoiser (.safetensors)."""
    out: NewFolder
    """Folder to make."""


class ExportData(Light):
    """Write the kept images of a source as a data set for others, with a card and Croissant metadata."""

    does = "data.handover:run"
    shards: CliPositionalArg[list[Path]]
    """Shards of one source and labelled subset, .../synthetic/SOURCE/INDEX.tar, their attempts beside them."""
    format: Literal["webdataset", "image-folder", "parquet"] = "webdataset"
    """webdataset (a tar that timm reads), image-folder (torchvision, timm), or parquet (the library datasets)."""
    licence: str
    """Of the images that denoiser and judge were trained on, in words or as an address."""
    out: NewFolder
    """Folder to make."""
