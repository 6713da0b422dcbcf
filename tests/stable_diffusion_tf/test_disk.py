"""Odd places: whatever stands where a file of a model is looked for, one line says what it is."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stable_diffusion_tf import StableDiffusion, UsageError
from stable_diffusion_tf.checkpoint.folder import FILES, open_part
from stable_diffusion_tf.checkpoint.open import open_checkpoint
from stable_diffusion_tf.checkpoint.taesd import open_taesd
from stable_diffusion_tf.checkpoint.textual_inversion import read_embedding
from stable_diffusion_tf.checkpoint.write import write_json
from stable_diffusion_tf.disk import is_folder, is_there, mode_of, open_file

NOBODY = 65534


def a_folder(folder: Path) -> Path:
    """With configs that leave all to the defaults, and no weights."""
    for part in ("text_encoder", "unet", "vae"):
        write_json(folder / part / "config.json", {})
    return folder


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def circle(path: Path) -> Path:
    path.symlink_to(path)
    return path


def long_name(path: Path) -> Path:
    return path.with_name("a" * 300)


def device(path: Path) -> Path:
    path.symlink_to("/dev/null")
    return path


ODD = {  # what stands there → what is said
    pipe: "is a pipe, not a file; save it as one",
    device: "is a device, not a file; save it as one",
    circle: "cannot be read: Too many levels of symbolic links",
    long_name: "cannot be read: File name too long",
}
every_odd_place = pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody may look into the folder; root, who may always, is nobody meanwhile."""
    os.chmod(folder, 0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield
    finally:
        os.seteuid(user)
        os.chmod(folder, 0o700)


def said(call: Callable, *args) -> str:
    with pytest.raises(UsageError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


@every_odd_place
@pytest.mark.parametrize("call", [StableDiffusion.load, open_checkpoint, read_embedding])
def test_an_odd_place_for_weights_or_words_is_told(tmp_path, make, call):
    path = make(tmp_path / "x.ckpt")
    assert said(call, path) == f"{path} {ODD[make]}"


@pytest.mark.parametrize("call", [StableDiffusion.load, open_checkpoint, read_embedding])
def test_a_name_with_nul_is_told(call):
    assert said(call, Path("a\0b")).startswith("a\\x00b cannot be read: embedded null byte")


@every_odd_place
def test_an_odd_place_for_a_preview_is_told(tmp_path, make):
    if make is not long_name:  # a folder's own files have the names that we look for
        path = make(tmp_path / "taesd_decoder.safetensors")
        assert said(open_taesd, tmp_path, "decoder") == f"{path} {ODD[make]}"
    folder = long_name(tmp_path / "taesd")
    assert "File name too long" in said(open_taesd, folder, "decoder")


@pytest.mark.parametrize("make", [pipe, circle, device], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_an_odd_config_is_told(tmp_path, make, name):
    folder = a_folder(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    path = make(folder / name)
    assert said(StableDiffusion.load, folder) == f"{path} {ODD[make]}"


def test_a_config_that_is_a_folder_is_told(tmp_path):
    (tmp_path / "unet" / "config.json").mkdir(parents=True)
    path = tmp_path / "unet" / "config.json"
    assert said(StableDiffusion.load, tmp_path) == f"{path} cannot be read: Is a directory"


@pytest.mark.parametrize("make", [pipe, circle, device], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", [FILES["unet"], f"{FILES['unet']}.index.json"])
def test_odd_weights_of_a_part_are_told(tmp_path, make, name):
    (tmp_path / "unet").mkdir()
    path = make(tmp_path / "unet" / name)
    assert said(open_part, tmp_path, "unet") == f"{path} {ODD[make]}"


@pytest.mark.parametrize("make", [pipe, circle, device], ids=lambda make: make.__name__)
def test_an_odd_h5_file_is_told(tmp_path, make):
    path = make(tmp_path / "decoder.h5")
    assert said(StableDiffusion.load, tmp_path) == f"{path} {ODD[make]}"


@pytest.mark.parametrize(
    "call",
    [
        StableDiffusion.load,
        open_checkpoint,
        read_embedding,
        lambda path: open_taesd(path, "decoder"),
    ],
)
@pytest.mark.parametrize("name", ["", "toy.bin"])
def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path, call, name):
    folder = tmp_path / "locked"
    folder.mkdir()
    with locked(folder):
        told = said(call, folder / name)
    assert told.startswith(str(folder)) and "cannot be read: Permission denied" in told


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    folder = a_folder(tmp_path / "model")
    monkeypatch.chdir(folder)  # nobody may not come in by the path from the root
    with locked(folder / "unet" / "config.json"):
        told = said(StableDiffusion.load, Path())
    assert told == "unet/config.json cannot be read: Permission denied"


def test_what_stands_at_a_path(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert is_folder(tmp_path) and not is_folder(tmp_path / "file")
    assert is_there(tmp_path / "file") and not is_there(tmp_path / "nothing")
    assert mode_of(tmp_path / "file" / "below") is None
    with open_file(tmp_path / "file") as file:
        assert file.read() == b"abc"


def test_a_message_is_one_line_whatever_a_name_holds():
    error = UsageError("no tensor \x1b[31m\nred é\u202e\udcff 猫")
    assert str(error) == "no tensor \\x1b[31m\\nred é\\u202e\\udcff 猫"
