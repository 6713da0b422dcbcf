"""Networks to disk and back: nothing lost."""

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint import write as write_module
from stable_diffusion_tf.checkpoint.folder import EXTRAS, FILES, open_part, read_json
from stable_diffusion_tf.checkpoint.names import to_keras, variables
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import Networks, write_part
from stable_diffusion_tf.clip import CLIPText, build_clip
from stable_diffusion_tf.config import from_dict
from stable_diffusion_tf.precisions import precision
from tests.tiny import PARTS, TEXT, same, scramble, values


@pytest.mark.parametrize("part", PARTS)
def test_what_is_written_is_what_is_read(saved, part):
    place, config, build = PARTS[part]
    assert from_dict(type(config), read_json(saved.folder / place / "config.json")) == config
    network = scramble(build(config), seed=9)
    load(network, open_part(saved.folder, place), EXTRAS[part])
    assert same(values(network), values(saved.networks[part]))


def test_the_file_is_as_diffusers_has_it(saved):
    """Kernels (out, in, h, w) and (out, in); both halves of the vae in one file."""
    vae, unet = (load_file(saved.folder / part / FILES[part]) for part in ("vae", "unet"))
    assert vae["encoder.conv_in.weight"].shape == (4, 3, 3, 3)
    assert vae["decoder.up_blocks.0.resnets.0.conv1.weight"].shape == (8, 8, 3, 3)
    assert vae["decoder.mid_block.attentions.0.to_out.0.bias"].shape == (8,)
    assert unet["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape == (
        8,
        12,
    )
    kernel = keras.ops.convert_to_numpy(saved.networks["encoder"].encoder.conv_in.kernel)
    np.testing.assert_array_equal(vae["encoder.conv_in.weight"][1, 2], kernel[:, :, 2, 1])
    assert {str(tensor.dtype) for tensor in vae.values()} == {"float32"}
    assert read_json(saved.folder / "vae" / "config.json")["_class_name"] == "AutoencoderKL"


def test_a_network_inside_another_model_is_written_by_its_own_names(tmp_path):
    """As in training, where one model holds the text encoder and the UNet."""

    class Whole(keras.Model):
        def __init__(self):
            super().__init__(name="whole")
            self.text_encoder = CLIPText(TEXT)

        def call(self, ids):
            return self.text_encoder(ids)

    whole = Whole()
    whole(keras.KerasTensor((None, 6), dtype="int32"))
    write_part(tmp_path, "text_encoder", TEXT, [whole.text_encoder], "float32")
    alone = build_clip(TEXT)
    load(alone, open_part(tmp_path, "text_encoder"))
    assert same(values(alone), values(whole.text_encoder))


def test_a_write_that_fails_leaves_the_old_file(saved, tmp_path, monkeypatch):
    network = saved.networks["text_encoder"]
    write_part(tmp_path, "text_encoder", TEXT, [network], "float32")
    place = tmp_path / "text_encoder" / FILES["text_encoder"]
    before = place.read_bytes()

    def full(source, key):
        raise OSError("no space left")

    monkeypatch.setattr(write_module.Networks, "get", full)
    with pytest.raises(OSError, match="no space left"):
        write_part(tmp_path, "text_encoder", TEXT, [network], "float16")
    assert place.read_bytes() == before
    assert {p.name for p in place.parent.iterdir()} == {FILES["text_encoder"], "config.json"}


@pytest.mark.parametrize("part", PARTS)
def test_live_networks_are_a_source_like_any_other(saved, part):
    """diffusers' axes and names; weights in half precision come widened."""
    place, config, build = PARTS[part]
    with precision("float16-storage"):
        network = scramble(build(config), seed=4)
    source, shapes = Networks([network]), open_part(saved.folder, place).shapes()
    assert source.shapes() == {key: shapes[key] for key in source.shapes()}
    for key, variable in variables(network).items():
        found = source.get(key)
        assert found.dtype == np.float32 and found.shape == shapes[key]
        np.testing.assert_array_equal(to_keras(found, variable), values(network)[key])


def test_a_number_too_large_for_float16_is_named_and_nothing_is_written(saved, tmp_path):
    network = build_clip(TEXT)
    load(network, open_part(saved.folder, "text_encoder"))
    norm = network.text_model.final_layer_norm
    norm.beta.assign(norm.beta.value + 1e5)
    with pytest.raises(
        UsageError, match=r"final_layer_norm\.bias of memory is too large for float16"
    ):
        write_part(tmp_path, "text_encoder", TEXT, [network], "float16")
    assert not any((tmp_path / "text_encoder").iterdir())
    write_part(tmp_path, "text_encoder", TEXT, [network], "float32")
