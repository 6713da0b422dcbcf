"""Latents with a share of their positions replaced by noise."""

from collections.abc import Sequence

import numpy as np

from stable_diffusion_tf.errors import UsageError
from xray.options import check_rising
from xray.tensor_debug import DebugTensor


def replace(latents: np.ndarray, share: float, std: float, seed: int) -> np.ndarray:
    """A share of the positions of each latent (n, h, w, c) replaced by Gaussian noise: positions
    and noise depend on the seed and on which latent it is, and on nothing else."""
    made = []
    for i, latent in enumerate(latents):
        rng = np.random.default_rng([seed, i])
        made.append(DebugTensor(latent, space="latent").corrupt(share, std, rng).array)
    return np.stack(made)


def check_grid(shares: Sequence[float], amplitudes: Sequence[float]) -> None:
    """Raises UsageError where options hold no plain round trip, or no noise as strong as the
    latent."""
    check_rising("shares", shares, 2, "0 0.1 1")
    check_rising("amplitudes", amplitudes, 2, "0 1 4")
    if shares[0] != 0 or shares[-1] > 1 or amplitudes[0] != 0 or 1 not in amplitudes:
        told = "--shares go from 0 to 1 at most, --amplitudes from 0 and over 1"
        raise UsageError(f"{told}; try --shares 0 0.1 1 --amplitudes 0 1 4")


def share_where_lost(psnr: np.ndarray, shares: Sequence[float], loss: float) -> np.ndarray:
    """The share at which so many dB of the first are lost, straight between two that were tried,
    (shares, n) → (n,); 1 where they are lost at none."""
    lost = psnr[0] - psnr
    found = np.ones(psnr.shape[1])
    for i, curve in enumerate(lost.T):
        beyond = np.flatnonzero(curve >= loss)
        if len(beyond):
            pair = slice(beyond[0] - 1, beyond[0] + 1)
            found[i] = np.interp(loss, curve[pair], shares[pair])
    return found
