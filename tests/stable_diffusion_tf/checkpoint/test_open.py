"""What a checkpoint is told by: its content, never its name."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.files import kind, open_tensors
from stable_diffusion_tf.checkpoint.folder import FILES, DiffusersFolder
from stable_diffusion_tf.checkpoint.open import open_checkpoint
from tests.formats import pickled, write_stream, write_zip

WEIGHTS = {
    "model.diffusion_model.input_blocks.0.0.weight": np.ones((8, 4, 3, 3), np.float32),
    "first_stage_model.encoder.conv_in.weight": np.ones((8, 3, 3, 3), np.float32),
}


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        open_checkpoint(path)
    told = str(error.value)
    assert str(path) in told and "\n" not in told
    return told


# --- files

CONTENTS = {  # what a file is → what it may begin with
    "safetensors": (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"a":',),
    "torch zip": (b"PK\x03\x04\x00",),
    "torch stream": (pickled(0x1950A86A20F9469CFC6C) + b"\x80\x02",),
    "h5": (b"\x89HDF\r\n\x1a\n\x00",),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:19da\nsize 9\n",),
    "page": (b"<!DOCTYPE html><html>", b"\n\n <html>", b'<?xml version="1.0"?><Error>'),
    "gguf": (b"GGUF\x03\x00",),
    "archive": (b"\x1f\x8b\x08\x00",),
    "pickle": (b"\x80\x04\x95\x00", pickled({"a": 1})),
    "text": (b'{"error": "gated"}', b'{\n  "_class_name": "x"'),
    "empty": (b"",),
    "unknown": (b"\x00" * 300, b"hello"),
}


@pytest.mark.parametrize(("name", "content"), [(k, c) for k, v in CONTENTS.items() for c in v])
def test_a_file_is_told_by_how_it_begins(tmp_path, name, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert kind(tmp_path / "model.safetensors") == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("git-lfs pointer", "is a git-lfs pointer, not the weights; run `git lfs pull`"),
        ("page", "is a web page, not weights: the download was refused; fetch it again"),
        ("h5", "is one Keras h5 file of several; name the folder"),
        ("gguf", "is a GGUF file"),
        ("archive", "is a compressed archive; unpack it"),
        ("pickle", "is a pickle, but not of torch"),
        ("text", "is text, not weights"),
        ("empty", "is empty; fetch it again"),
        ("unknown", "is no weights file that is known here"),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_what_is_no_weights_file_is_named(tmp_path, name, said, ending):
    path = tmp_path / f"model.{ending}"
    path.write_bytes(CONTENTS[name][0])
    assert refusal(path).startswith(f"{path} {said}")


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        ("ckpt", lambda path, tensors: save_file(tensors, path)),
        ("safetensors", write_zip),
        ("safetensors", write_stream),
        ("h5", write_zip),
    ],
)
def test_a_wrong_ending_misleads_nobody(tmp_path, ending, write):
    path = tmp_path / f"model.{ending}"
    write(path, WEIGHTS)
    assert open_tensors(path).shapes() == {k: v.shape for k, v in WEIGHTS.items()}
    assert "has no text encoder" in refusal(path)  # it was read, as a single file


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UsageError, match=r"model\.safetensors cannot be read: Is a directory"):
        open_tensors(tmp_path / "model.safetensors")


def test_nothing_is_named(tmp_path):
    assert refusal(tmp_path / "lost").startswith(f"there is nothing at {tmp_path / 'lost'}")


@pytest.mark.parametrize("name", ["model_index.json", "config.json"])
def test_a_part_of_a_folder_is_named(tmp_path, name):
    (tmp_path / name).write_text("{}")
    assert "name the folder that holds unet/" in refusal(tmp_path / name)


# --- folders


def test_a_diffusers_folder_is_opened(saved):
    assert isinstance(open_checkpoint(saved.folder), DiffusersFolder)


def test_a_diffusers_folder_of_another_model_is_named(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    assert "is FLUX" in refusal(tmp_path)


def test_weights_of_the_wrong_kind_in_a_folder_are_named(saved, tmp_path):
    """The part is opened when it is wanted; what it then is, is told as of a file by itself."""
    for part in ("unet", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
    (tmp_path / "unet" / FILES["unet"]).write_bytes(CONTENTS["page"][0])
    with pytest.raises(UsageError, match="is a web page, not weights"):
        open_checkpoint(tmp_path).source("unet")
    tensors = load_file(saved.folder / "text_encoder" / FILES["text_encoder"])
    write_zip(tmp_path / "text_encoder" / FILES["text_encoder"], tensors)
    assert open_checkpoint(tmp_path).source("text_encoder").shapes().keys() == tensors.keys()


def test_a_folder_around_a_single_file_says_which(tmp_path):
    save_file(WEIGHTS, tmp_path / "v1-5.safetensors")
    assert f"name the file in it: {tmp_path / 'v1-5.safetensors'}" in refusal(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    assert re.search("holds no checkpoint: no unet/config.json, no weights$", refusal(tmp_path))


def test_a_folder_of_other_h5_files_is_named(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["weights"] = np.zeros(3)
    assert "h5" in refusal(tmp_path)
