"""Words' vectors brought to mean 0 and deviation 1: the UNet that reads them draws what it drew."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from phantom.train import centre, graft, text
from phantom.train.diffusion import UNET
from stable_diffusion_tf import layers
from stable_diffusion_tf.checkpoint.folder import EXTRAS, open_part
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import write_part
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.unet import UNet, build_unet

TEXT = replace(text.TEXT, hidden_size=32, intermediate_size=64, num_hidden_layers=1)
SMALL = replace(
    UNET,
    block_out_channels=(16,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    cross_attention_dim=32,
)
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint whose vectors lie far from the centre and close together."""
    monkeypatch.setattr(graft, "TEXT", TEXT)
    keras.utils.set_random_seed(0)
    encoder, unet = build_clip(TEXT), build_unet(SMALL)
    norm = encoder.text_model.final_layer_norm
    norm.gamma.assign(0.1 * np.ones(32))
    norm.beta.assign(RNG.choice([-5.0, 5.0], 32))
    for part, config, network in (("text_encoder", TEXT, encoder), ("unet", SMALL, unet)):
        write_part(tmp_path, part, config, [network], "float16")
    return tmp_path


def noise_of(folder, ids) -> np.ndarray:
    network = layers.build(
        UNet(SMALL),
        keras.KerasTensor((None, 16, 16, 4)),
        keras.KerasTensor((None,), dtype="int32"),
        keras.KerasTensor((None, 77, 32)),
    )
    load(network, open_part(folder, "unet"), EXTRAS["unet"])
    x = np.random.default_rng(1).standard_normal((len(ids), 16, 16, 4), dtype=np.float32)
    context = graft.encode(folder, ids)
    return ops.convert_to_numpy(network(x, np.full(len(ids), 500), context))


def test_vectors_are_centred_and_the_unet_draws_what_it_drew(folder, capsys):
    ids = np.random.default_rng(2).integers(0, 49408, (3, 77))
    before = noise_of(folder, ids)
    centre.main(folder, captions=40)
    assert float(capsys.readouterr().out.split("by ")[1].split()[0]) > 10
    np.testing.assert_allclose(noise_of(folder, ids), before, atol=2e-2 * np.abs(before).max())
    captions = centre.Tokenizer()(
        [scene.caption for scene in centre.scenes(0, 40, things=centre.CORE)] + [""]
    )
    vectors = graft.encode(folder, captions).reshape(-1, 32)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(vectors.std(0), 1, atol=0.05)
    centre.main(folder, captions=40)  # once more changes nothing
    assert float(capsys.readouterr().out.split("by ")[1].split()[0]) < 0.1


def test_a_checkpoint_without_a_unet_is_centred_too(folder, capsys):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    centre.main(folder, captions=20)
    assert "off the centre" in capsys.readouterr().out
