"""Safetensors: each tensor as it lies in the file, and a clear word where the file is none."""

import json
import re
import struct
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.files import open_tensors
from stable_diffusion_tf.checkpoint.tensors import Renamed, SafetensorsFile, renamed

patient = settings(deadline=None, max_examples=100)  # a busy machine is no failure

TENSORS = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.linspace(-1, 1, 6).astype(np.float16).reshape(3, 2),
    "brain": np.linspace(-1, 1, 5).astype(ml_dtypes.bfloat16),
    "position_ids": np.arange(77)[None],
    "number": np.array(3.5, np.float32),
    "none": np.zeros((0, 4), np.float32),
    "mask": np.array([True, False]),
}
WHOLE = save(TENSORS, metadata={"format": "pt"})


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE)
    return path


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_read_as_it_was_written(file, name):
    source = SafetensorsFile(file)
    found = source.get(name)
    assert found.dtype == TENSORS[name].dtype and found.flags.writeable
    assert source.shapes()[name] == found.shape == TENSORS[name].shape
    np.testing.assert_array_equal(found, TENSORS[name])


def test_what_was_saved_is_all_there_is(file):
    assert set(SafetensorsFile(file).shapes()) == set(TENSORS)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="memory maps are told by Linux")
def test_no_page_of_the_file_stays_in_memory(file):
    source = SafetensorsFile(file)
    source.get("weight")
    assert str(file) not in Path("/proc/self/maps").read_text()


def test_a_file_that_shrinks_while_it_is_read_is_named(file):
    source = SafetensorsFile(file)
    file.write_bytes(WHOLE[:-200])
    with pytest.raises(UsageError, match=rf"{re.escape(str(file))} has become shorter"):
        for name in TENSORS:
            source.get(name)


def test_numbers_of_a_strange_kind_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.ones(4, ml_dtypes.float8_e4m3fn)}, path)
    with pytest.raises(UsageError, match="holds numbers as F8_E4M3, which are not read here"):
        SafetensorsFile(path)


# --- files that are damaged


def refusal(content: bytes) -> str:
    """What is said of a file with that content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(UsageError) as error:
            open_tensors(path)
        told = str(error.value)
        assert told.startswith(str(path)) and "\n" not in told
        return told


@patient
@given(st.integers(0, len(WHOLE) - 1))
def test_a_download_that_broke_off_is_named_wherever_it_did(kept):
    assert "fetch it again" in refusal(WHOLE[:kept])


@patient
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_wrong_byte_raises_nothing_but_a_usage_error(place, flipped):
    broken = bytearray(WHOLE)
    broken[place] ^= flipped
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(broken)
        try:
            source = open_tensors(path)
        except UsageError:
            return
        for name, shape in source.shapes().items():
            assert source.get(name).shape == shape


def test_a_header_that_names_a_tensor_twice_is_refused():
    entry = json.dumps({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})
    other = entry.replace("[0, 4]", "[4, 8]")
    header = f'{{"weight": {entry}, "weight": {other}}}'.encode()
    told = refusal(struct.pack("<Q", len(header)) + header + bytes(8))
    assert "no whole safetensors file" in told


# --- other names


def test_tensors_go_by_other_names_and_shapes(file):
    source = Renamed(SafetensorsFile(file), {"w": "weight", "h": "half"}, {"w": (6, 4)})
    assert source.place == str(file)
    assert source.shapes() == {"w": (6, 4), "h": (3, 2)}
    np.testing.assert_array_equal(source.get("w"), TENSORS["weight"].reshape(6, 4))
    np.testing.assert_array_equal(source.get("h"), TENSORS["half"])


def test_patterns_are_replaced_in_order():
    rules = [(r"^a\.", "b."), (r"^b\.(\d)", r"c.\1")]
    assert renamed("file", ["a.1", "d"], rules) == {"c.1": "a.1", "d": "d"}


def test_two_names_of_one_tensor_are_refused():
    with pytest.raises(UsageError, match="file holds c twice, as a and as b"):
        renamed("file", ["a", "b"], [("[ab]", "c")])
