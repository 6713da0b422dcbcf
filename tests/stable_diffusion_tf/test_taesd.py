"""TAESD against what diffusers made of it, and the files that it is read from."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stable_diffusion_tf import StableDiffusion, UsageError
from stable_diffusion_tf.checkpoint.names import diffusers_shape, to_diffusers, variables
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.taesd import diffusers_name, open_taesd
from stable_diffusion_tf.checkpoint.write import write_json
from stable_diffusion_tf.compiled import compiled
from stable_diffusion_tf.config import TAESDConfig, from_dict, to_dict
from stable_diffusion_tf.images import to_uint8
from stable_diffusion_tf.preview import Preview
from stable_diffusion_tf.taesd import build_taesd_decoder, build_taesd_encoder
from tests.formats import write_zip
from tests.golden.make_relatives import GOLDEN, tiny_inputs
from tests.oracles import TAESD, draw_loud, parting

BUILD = {"encoder": build_taesd_encoder, "decoder": build_taesd_decoder}
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as found:
        return {k.removeprefix("taesd/"): found[k] for k in found if k.startswith("taesd/")}


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return draw_tensors()


def draw_tensors() -> dict[str, np.ndarray]:
    """The tensors that the oracle had."""
    with np.load(GOLDEN) as found:
        names = json.loads(str(found["taesd/names"]))
    return {k: draw_loud(k, shape) for k, shape in names.items()}


@pytest.fixture
def folder(tmp_path, drawn):
    return write_taesd(tmp_path, drawn)


def write_taesd(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A TAESD as diffusers saves it."""
    write_json(folder / "config.json", to_dict(TAESD))
    save_file(tensors, folder / WEIGHTS)
    return folder


def loaded(folder, part):
    config, source = open_taesd(folder, part)
    network = BUILD[part](config)
    load(network, source)
    return network


@pytest.mark.parametrize("part", BUILD)
def test_it_answers_like_the_oracle(folder, golden, part):
    made = compiled(loaded(folder, part))(tiny_inputs()[part])
    assert made.dtype == np.float32
    assert parting(made, golden[part]) < 1e-4


def test_names_and_shapes_are_those_of_the_oracle(golden):
    networks = [build(TAESD) for build in BUILD.values()]
    ours = {k: list(diffusers_shape(v)) for n in networks for k, v in variables(n).items()}
    assert ours == json.loads(str(golden["names"]))


@pytest.mark.parametrize("part, count", [("encoder", 1_222_532), ("decoder", 1_222_531)])
def test_its_full_size_is_that_of_the_published(part, count):
    assert BUILD[part](TAESDConfig()).count_params() == count


def test_an_outlier_among_the_latents_does_no_harm(folder):
    decode = compiled(loaded(folder, "decoder"))
    far, farther = (decode(np.full((1, 2, 2, 4), value, np.float32)) for value in (50, 5000))
    np.testing.assert_allclose(far, farther, rtol=1e-5)


# --- files


AUTHORS_NAME = {  # its code calls the tensors by their place in Sequential, with the decoder's tanh
    "encoder": lambda name: name.removeprefix("encoder.layers."),
    "decoder": lambda name: re.sub(r"^decoder\.layers\.(\d+)", lambda m: f"{int(m[1]) + 1}", name),
}


@pytest.mark.parametrize("part", BUILD)
def test_its_authors_files_are_read_too(tmp_path, part):
    shapes = {k: diffusers_shape(v) for k, v in variables(BUILD[part](TAESDConfig())).items()}
    drawn = {k: draw_loud(k, shape) for k, shape in shapes.items()}
    theirs = {AUTHORS_NAME[part](k): v for k, v in drawn.items()}
    save_file(theirs, tmp_path / f"taesd_{part}.safetensors")
    for key, variable in variables(loaded(tmp_path, part)).items():
        np.testing.assert_array_equal(to_diffusers(variable.numpy(), variable), drawn[key])


@pytest.mark.parametrize(
    "name, part, here",
    [
        ("0.weight", "encoder", "encoder.layers.0.weight"),
        ("14.bias", "encoder", "encoder.layers.14.bias"),
        ("1.weight", "decoder", "decoder.layers.0.weight"),
        ("3.conv.0.weight", "decoder", "decoder.layers.2.conv.0.weight"),
        ("alien", "decoder", "alien"),
    ],
)
def test_the_authors_names_by_diffusers(name, part, here):
    assert diffusers_name(name, part) == here


@pytest.mark.parametrize("part", BUILD)
def test_a_folder_without_it_says_what_should_be_there(tmp_path, part):
    with pytest.raises(UsageError, match=f"no TAESD {part} in .*taesd_{part}"):
        open_taesd(tmp_path, part)


def test_what_does_not_belong_there_is_named(folder, drawn):
    save_file(drawn | {"quant_conv.weight": np.zeros((4, 4), np.float32)}, folder / WEIGHTS)
    with pytest.raises(UsageError, match=r"1 unexpected: quant_conv\.weight"):
        loaded(folder, "decoder")


@pytest.mark.parametrize(
    "found", [{"act_fn": "silu"}, {"scaling_factor": 0.18215}, {"upsampling_scaling_factor": 4}]
)
def test_a_setting_that_would_be_overlooked_is_refused(found):
    with pytest.raises(UsageError, match=next(iter(found))):
        from_dict(TAESDConfig, found)


# --- previews


def test_a_preview_takes_and_gives_what_the_vae_does(folder, golden):
    preview, asked = Preview(folder), tiny_inputs()
    pictures = to_uint8(asked["encoder"])
    assert parting(preview.encode_image(pictures), golden["encoder"]) < 2e-2  # rounded to bytes
    assert parting(preview.encode_image(asked["encoder"]), golden["encoder"]) < 1e-4
    images = preview.decode_latent(asked["decoder"])
    assert parting(images, np.clip(golden["decoder"], -1, 1)) < 1e-4
    assert np.abs(golden["decoder"]).max() > 1  # there was something to clip


def test_the_pipeline_previews_once_it_has_the_folder(folder):
    sd, asked = StableDiffusion.load("phantom"), tiny_inputs()
    with pytest.raises(UsageError, match="call load_preview with its folder"):
        sd.preview(asked["decoder"])
    sd.load_preview(folder)
    images = sd.preview(asked["decoder"])
    np.testing.assert_array_equal(images, Preview(folder).decode_latent(asked["decoder"]))
    latents = sd.encode_preview(images)
    np.testing.assert_array_equal(latents, Preview(folder).encode_image(images))


def test_a_preview_of_a_wrong_folder_is_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match="no TAESD decoder"):
        Preview(tmp_path)


@pytest.mark.parametrize("part", BUILD)
@pytest.mark.parametrize("name", ["taesd_{}.pth", "taesd_{}.safetensors"])
def test_another_network_in_its_place_is_refused_when_it_is_named(tmp_path, part, name):
    """Neither half is accepted until it is used."""
    for half, build in BUILD.items():
        shapes = {k: diffusers_shape(v) for k, v in variables(build(TAESDConfig())).items()}
        theirs = {AUTHORS_NAME[half](k): np.zeros(shape, np.float32) for k, shape in shapes.items()}
        save_file(theirs, tmp_path / f"taesd_{half}.safetensors")
    Preview(tmp_path)
    (tmp_path / f"taesd_{part}.safetensors").unlink()
    place = tmp_path / name.format(part)
    write_zip(place, {"distilbert.embeddings.word_embeddings.weight": np.zeros((9, 8), np.float32)})
    with pytest.raises(UsageError, match=f"^{re.escape(str(place))} .*unexpected: .*distilbert"):
        StableDiffusion.load("phantom").load_preview(tmp_path)


def test_a_decoder_alone_previews(tmp_path):
    shapes = {k: diffusers_shape(v) for k, v in variables(BUILD["decoder"](TAESDConfig())).items()}
    theirs = {AUTHORS_NAME["decoder"](k): draw_loud(k, shape) for k, shape in shapes.items()}
    save_file(theirs, tmp_path / "taesd_decoder.safetensors")
    preview = Preview(tmp_path)
    assert preview.decode_latent(np.zeros((1, 2, 2, 4), np.float32)).shape == (1, 16, 16, 3)
    with pytest.raises(UsageError, match="no TAESD encoder"):
        preview.encode_image(np.zeros((1, 16, 16, 3), np.uint8))


def test_a_preview_wants_pictures_of_whole_cells(folder):
    with pytest.raises(UsageError, match="multiples of 4"):
        Preview(folder).encode_image(np.zeros((1, 16, 18, 3), np.uint8))
