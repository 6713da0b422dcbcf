"""A backend named by KERAS_BACKEND is the one that computes. jax and torch: tests/parity."""

from tests.backends import answers_on, golden, write_checkpoint
from tests.oracles import parting


def test_tensorflow_answers_like_the_oracle(tmp_path):
    ours = answers_on("tensorflow", write_checkpoint(tmp_path, "bk-sdm-tiny"), "bk-sdm-tiny")
    theirs = golden("bk-sdm-tiny")
    for part, made in ours.items():
        assert parting(made, theirs[part.removesuffix(" in chunks")]) < 1e-4, part
