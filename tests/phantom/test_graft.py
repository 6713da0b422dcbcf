"""A UNet that begins with another's weights: what reads what stays true."""

import numpy as np

from phantom.train.graft import fit, from_skip, graft

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_blocks_move_up_a_level_and_the_middle_is_fresh():
    fresh, turn = normal(4, 3), np.eye(3)
    old = {"up_blocks.2.x": normal(4, 3), "down_blocks.0.x": normal(4, 3), "mid_block.x": fresh + 1}
    taken = {key: graft(key, fresh, old, turn) for key in ("up_blocks.1.x", "down_blocks.0.x")}
    np.testing.assert_array_equal(taken["up_blocks.1.x"], old["up_blocks.2.x"])
    np.testing.assert_array_equal(taken["down_blocks.0.x"], old["down_blocks.0.x"])
    assert graft("mid_block.x", fresh, old, turn) is fresh


def test_a_reader_reads_of_new_words_what_it_read_of_the_old():
    new, truth, reader = normal(50, 6), normal(6, 6), normal(4, 6)
    turn, left = fit(new, new @ truth)
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    grafted = graft(key, np.zeros((4, 6), np.float32), {key: reader}, turn)
    assert left < 1e-9
    np.testing.assert_allclose(new @ grafted.T, new @ truth @ reader.T, rtol=1e-3, atol=1e-4)


def test_what_read_the_skip_reads_both_and_comes_to_the_same():
    old, skip = normal(2, 5 + 3), normal(7, 3)  # five channels of a level that is left behind
    both = np.concatenate([skip, skip], axis=1)  # a fresh middle hands the skip on as it is
    made = from_skip(old, np.zeros((2, 6)))
    np.testing.assert_allclose(both @ made.T, skip @ old[:, 5:].T, rtol=1e-5, atol=1e-6)
    norm = normal(8)
    np.testing.assert_array_equal(from_skip(norm, np.zeros(6)), [*norm[5:], *norm[5:]])


def test_noise_says_nothing_of_words():
    _, left = fit(normal(4000, 3), normal(4000, 3))
    assert left > 0.9
