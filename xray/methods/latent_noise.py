"""Latents with a share of their positions replaced by noise."""

from collections.abc import Sequence

import numpy as np

from xray.tensor_debug import DebugTensor


def replace(latents: np.ndarray, share: float, std: float, seed: int) -> np.ndarray:
    """A share of the positions of each latent (n, h, w, c) replaced by Gaussian noise: positions
    and noise depend on the seed and on which latent it is, and on nothing else."""
    made = []
    for i, latent in enumerate(latents):
        rng = np.random.default_rng([seed, i])
        made.append(DebugTensor(latent, space="latent").corrupt(share, std, rng).array)
    return np.stack(made)


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
