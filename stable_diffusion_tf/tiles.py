"""A decoder in overlapping tiles: a large picture in the memory of a small one."""

import numpy as np

from .compiled import ArrayFunction
from .config import VAEConfig

OVERLAP = 0.25  # of a tile's side, at the least


def in_tiles(decode: ArrayFunction, tile: int, factor: int) -> ArrayFunction:
    """`decode`, latents (b, h, w, 4) → images (b, h·factor, w·factor, 3), over squares of `tile`
    positions, each pixel the average of the tiles that hold it, weighted by how far it is from
    their edge.

    A latent that fits into one tile is decoded whole. In tiles the attention and the norms see a
    part of the picture only, so tones may shift a little from tile to tile.
    """

    def decode_tiles(latent: np.ndarray) -> np.ndarray:
        b, h, w, _ = latent.shape
        rows, columns = starts(h, tile), starts(w, tile)
        if len(rows) == len(columns) == 1:
            return decode(latent)
        image = np.zeros((b, h * factor, w * factor, 3), np.float32)
        total = np.zeros((h * factor, w * factor, 1), np.float32)
        for row in rows:
            for column in columns:
                part = decode(latent[:, row : row + tile, column : column + tile])
                weight = np.outer(ramp(part.shape[1]), ramp(part.shape[2]))[..., None]
                top, left = row * factor, column * factor
                place = slice(top, top + part.shape[1]), slice(left, left + part.shape[2])
                image[(slice(None), *place)] += weight * part
                total[place] += weight
        return image / total

    return decode_tiles


def starts(length: int, tile: int) -> list[int]:
    """Where the fewest tiles begin that cover `length` and overlap enough; all are of one size, so
    that the decoder is compiled once."""
    if tile >= length:
        return [0]
    count = int(np.ceil((length - tile) / (tile * (1 - OVERLAP)))) + 1
    return np.linspace(0, length - tile, count).round().astype(int).tolist()


def ramp(length: int) -> np.ndarray:
    """Up from the edge to the middle and down again, never zero, (length,) float32."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)


def decode_bytes(config: VAEConfig, batch: int, tile: int) -> int:
    """About what a decoder of floats holds at once at its widest: five activations of twice the
    first width at full size."""
    pixels = (tile * config.factor) ** 2
    return 5 * 4 * batch * pixels * 2 * config.block_out_channels[0]
