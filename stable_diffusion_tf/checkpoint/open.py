"""A checkpoint by its place, its format told by its content."""

from importlib import import_module
from pathlib import Path

from ..disk import is_folder, is_there, names_in
from ..errors import UsageError
from .folder import DiffusersFolder
from .single import SingleFile
from .tensors import Checkpoint

DIFFUSERS = ("unet/config.json", "vae/config.json", "text_encoder/config.json", "model_index.json")
QUARTETS = (".seed_h5", ".keras_cv_h5")  # folders of four h5 files; imported when there are some
WEIGHTS = (".safetensors", ".ckpt", ".bin")


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`: a diffusers folder, a folder of four h5 files, or a single file.

    Raises UsageError, which says what was found in its place and what to do.
    """
    if is_folder(path):
        return open_folder(path)
    if not is_there(path):
        raise UsageError(f"there is nothing at {path}; name a folder or a file with weights")
    if path.name in ("model_index.json", "config.json"):
        raise UsageError(f"{path} is a part of a folder; name the folder that holds unet/ and vae/")
    return SingleFile(path)


def open_folder(path: Path) -> Checkpoint:
    if any(is_there(path / name) for name in DIFFUSERS):
        return DiffusersFolder(path)
    names = names_in(path)
    if any(name.endswith(".h5") for name in names):
        for name in QUARTETS:
            module = import_module(name, __package__)
            if module.recognises(path):
                return module.open_quartet(path)
        raise UsageError(
            f"{path} holds no four h5 files that belong together; the seed's are text_encoder.h5, "
            f"diffusion_model.h5, decoder.h5 and vae_encoder.h5"
        )
    files = [name for name in names if name.endswith(WEIGHTS)]
    if files:
        raise UsageError(f"{path} is no diffusers folder; name the file in it: {path / files[0]}")
    raise UsageError(f"{path} holds no checkpoint: no unet/config.json, no weights")
