"""Previews: TAESD in the place of the VAE, a hundred times cheaper and a little blurred."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from .checkpoint.strict import check_names, load, skeleton
from .checkpoint.taesd import file_of, open_taesd
from .compiled import ArrayFunction, compiled
from .config import TAESDConfig
from .images import to_model
from .layers import Network
from .taesd import build_taesd_decoder, build_taesd_encoder


class Preview:
    """A TAESD folder, read by `checkpoint.taesd`, as two functions of arrays.

    Latents are scaled ones, (b, h, w, 4), as StableDiffusion's are; images are (b, H, W, 3). The
    decoder is read at once, the encoder when first needed; that its file, where there is one, is
    no other network's, is looked at now. Raises UsageError.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if file_of(self.folder, "encoder"):
            config, source = open_taesd(self.folder, "encoder")
            check_names(skeleton(lambda: build_taesd_encoder(config)), source, ())
        _, self.decode = read_half(self.folder, "decoder", build_taesd_decoder)

    @cached_property
    def encoder(self) -> tuple[TAESDConfig, ArrayFunction]:
        return read_half(self.folder, "encoder", build_taesd_encoder)

    def encode_image(self, images: np.ndarray) -> np.ndarray:
        """Images, uint8 or float in [-1, 1] → latents. H and W are multiples of 8."""
        config, encode = self.encoder
        return encode(to_model(images, config.factor))

    def decode_latent(self, latent: np.ndarray) -> np.ndarray:
        """Latents → images, float32 in [-1, 1]."""
        return np.clip(self.decode(np.asarray(latent, np.float32)), -1.0, 1.0)


def read_half(
    folder: Path, part: str, build: Callable[[TAESDConfig], Network]
) -> tuple[TAESDConfig, ArrayFunction]:
    config, source = open_taesd(folder, part)
    network = build(config)
    load(network, source)
    return config, compiled(network)
