"""Numbers that stay in their file: the same ones, whose pages come and go."""

import numpy as np
import pytest

from stable_diffusion_tf.checkpoint import mapped
from stable_diffusion_tf.checkpoint.tensors import read_numbers
from stable_diffusion_tf.errors import UsageError

NUMBERS = np.arange(100_000, dtype=np.float32)


@pytest.fixture
def place(tmp_path) -> str:
    (tmp_path / "numbers").write_bytes(b"head...." + NUMBERS.tobytes())
    return str(tmp_path / "numbers")


@pytest.mark.parametrize(("count", "offset"), [(100_000, 8), (3, 8 + 4 * 70_000), (0, 8)])
def test_what_is_mapped_is_what_is_read(place, count, offset):
    found = mapped.map_numbers(place, np.float32, count, offset)
    np.testing.assert_array_equal(found, read_numbers(place, np.float32, count, offset))


def test_pages_that_were_given_back_come_again_and_the_file_is_never_written(place):
    found = mapped.map_numbers(place, np.float32, len(NUMBERS), 8)
    with mapped.given_back_meanwhile():
        assert found.sum(dtype=np.float64) == NUMBERS.sum(dtype=np.float64)
    np.testing.assert_array_equal(found, NUMBERS)
    found[5] = -1
    np.testing.assert_array_equal(read_numbers(place, np.float32, len(NUMBERS), 8), NUMBERS)


def test_what_nobody_holds_is_not_kept(place):
    before = len(mapped.MAPS)
    found = mapped.map_numbers(place, np.float32, 10, 8)
    assert len(mapped.MAPS) == before + 1
    del found
    assert len(mapped.MAPS) == before


def test_a_file_that_ends_too_soon_is_a_line(place):
    with pytest.raises(UsageError, match="has become shorter while it was read"):
        mapped.map_numbers(place, np.float32, len(NUMBERS) + 1, 8)
