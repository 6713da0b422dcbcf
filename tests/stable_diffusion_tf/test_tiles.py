"""A picture in tiles: what covers it, what the blending keeps, and when memory asks for it."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom.world import render, scenes
from stable_diffusion_tf import pipeline
from stable_diffusion_tf.config import VAEConfig
from stable_diffusion_tf.machine import Memory
from stable_diffusion_tf.tiles import OVERLAP, decode_bytes, in_tiles, ramp, starts

patient = settings(deadline=None, max_examples=50)  # a busy machine is no failure
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))  # of a latent: height, width
tiles = st.integers(4, 24)  # a side


def latents(b: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((b, h, w, 4), dtype=np.float32)


# --- where they lie


@given(st.integers(1, 500), st.integers(1, 128))
def test_tiles_cover_the_whole_and_nothing_beyond(length, tile):
    begun = starts(length, tile)
    covered = {cell for start in begun for cell in range(start, min(start + tile, length))}
    assert covered == set(range(length))
    assert begun[0] == 0 and (len(begun) == 1 or begun[-1] + tile == length)


@given(st.integers(1, 500), st.integers(4, 128))
def test_neighbours_overlap_enough_and_are_no_more_than_needed(length, tile):
    begun = starts(length, tile)
    shared = [before + tile - after for before, after in pairwise(begun)]
    assert all(cells >= tile * OVERLAP - 1 for cells in shared)  # a start is a whole cell
    least = length - (len(begun) - 2) * tile * (1 - OVERLAP)
    assert len(begun) == 1 or least > tile, "one tile fewer would have done"


@given(st.integers(1, 1000))
def test_no_pixel_of_a_tile_has_no_weight(length):
    weights = ramp(length)
    assert weights.shape == (length,) and weights.dtype == np.float32
    assert weights.min() == 1 and np.array_equal(weights, weights[::-1])


# --- what comes out


def pixelwise(latent: np.ndarray) -> np.ndarray:
    """A decoder in which no cell sees another: twice the size, each pixel its cell's."""
    return np.tanh(latent[..., :3]).repeat(2, axis=1).repeat(2, axis=2)


@patient
@given(sizes, tiles)
def test_a_decoder_whose_cells_are_alone_gives_the_same_in_tiles(size, tile):
    latent = latents(2, *size)
    made = in_tiles(pixelwise, tile, factor=2)(latent)
    np.testing.assert_allclose(made, pixelwise(latent), atol=1e-6)


@patient
@given(sizes, tiles)
def test_the_decoder_is_given_one_size_only(size, tile):
    """So that it is compiled once; no tile is larger than was asked for."""
    given_sizes = set()

    def decode(latent):
        given_sizes.add(latent.shape)
        return pixelwise(latent)

    in_tiles(decode, tile, factor=2)(latents(1, *size))
    assert given_sizes == {(1, *(min(side, tile) for side in size), 4)}


def test_the_middle_of_a_tile_counts_most():
    """Where a decoder errs at the edges of what it sees, as convolutions do, tiles err less."""

    def unsure(latent):
        image = np.zeros((1, *latent.shape[1:3], 3), np.float32)
        image[:, [0, -1]], image[:, :, [0, -1]] = 1, 1
        return image

    made = in_tiles(unsure, 8, factor=1)(latents(1, 14, 14))
    assert made[0, 0, 3, 0] == 1  # the edge of the whole
    assert 0.3 < made[0, 1:-1, 3].max() < 0.35  # those of tiles; 0.5 if all counted the same


# --- the model


@pytest.fixture(scope="module")
def latent(sd):
    return sd.encode_image(np.stack([render(scene) for scene in scenes(8, 4)]))


def test_the_phantom_in_tiles_is_near_the_whole(sd, latent):
    whole, tiled = sd.decode_latent(latent), sd.decode_latent(latent, tile=8)
    assert tiled.shape == whole.shape and tiled.dtype == np.float32
    assert not np.array_equal(tiled, whole)
    assert np.abs(tiled - whole).mean() < 0.12 < np.abs(whole[::-1] - whole).mean()
    assert np.corrcoef(tiled.ravel(), whole.ravel())[0, 1] > 0.95
    larger = sd.decode_latent(latent, tile=12)
    assert np.abs(larger - whole).mean() < 0.5 * np.abs(tiled - whole).mean()
    np.testing.assert_array_equal(sd.decode_latent(latent, tile=16), whole)


FITTING = [  # what is free, in bytes that the whole needs → the tile, of 64 cells
    (None, 64),
    (1.0, 64),
    (0.99, 32),
    (0.25, 32),
    (0.24, 16),
    (0.0, 16),  # none is smaller: it is tried all the same
]


@pytest.mark.parametrize(("share", "tile"), FITTING)
def test_tiles_are_halved_while_memory_is_short(sd, share, tile, monkeypatch):
    needed = decode_bytes(sd.vae_config, 3, 64)
    free = None if share is None else int(share * needed)
    monkeypatch.setattr(pipeline, "memory", lambda: Memory(10 * needed, free))
    assert sd.tile_that_fits((3, 64, 40, 4)) == tile


def test_memory_that_is_short_makes_tiles_and_enough_makes_none(sd, monkeypatch):
    seen, decode = [], sd.function("decoder")
    watched = {("decoder",): lambda x: seen.append(x.shape[1:3]) or decode(x)}
    monkeypatch.setattr(sd, "functions", watched)
    latent = latents(1, 32, 16)
    monkeypatch.setattr(pipeline, "memory", lambda: Memory(2**40, 2**40))
    whole = sd.decode_latent(latent)
    assert seen == [(32, 16)]
    monkeypatch.setattr(pipeline, "memory", lambda: Memory(2**40, 0))
    tiled = sd.decode_latent(latent)
    assert seen[1:] == [(16, 16)] * 3 and tiled.shape == whole.shape


def test_the_bytes_of_sd_are_those_of_its_widest_activations():
    """512 × 512 pixels in 256 channels of float32, five times."""
    assert decode_bytes(VAEConfig(), 1, 64) == 5 * 4 * 512 * 512 * 256
    assert decode_bytes(VAEConfig(), 2, 32) == decode_bytes(VAEConfig(), 1, 64) / 2
