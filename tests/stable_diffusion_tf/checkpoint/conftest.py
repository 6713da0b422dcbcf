"""A tiny checkpoint on disk, and others bent out of it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file, save_file

from stable_diffusion_tf.checkpoint.folder import FILES
from stable_diffusion_tf.checkpoint.write import write_part
from tests.tiny import PARTS, TEXT, UNET, VAE, scramble


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> SimpleNamespace:
    """A whole checkpoint in float32, and the networks that are in it."""
    networks = {
        part: scramble(build(config), seed)
        for seed, (part, (_, config, build)) in enumerate(PARTS.items())
    }
    folder = tmp_path_factory.mktemp("saved")
    write_part(folder, "text_encoder", TEXT, [networks["text_encoder"]], "float32")
    write_part(folder, "unet", UNET, [networks["unet"]], "float32")
    both = [networks["encoder"], networks["decoder"]]
    write_part(folder, "vae", VAE, both, "float32")
    return SimpleNamespace(folder=folder, networks=networks)


@pytest.fixture
def bent(saved, tmp_path):
    """Makes a text encoder's folder out of the saved one by way of a function on its tensors."""

    def make(change, part: str = "text_encoder") -> Path:
        tensors = load_file(saved.folder / part / FILES[part])
        (tmp_path / part).mkdir()
        save_file(change(tensors), tmp_path / part / FILES[part])
        return tmp_path

    return make
