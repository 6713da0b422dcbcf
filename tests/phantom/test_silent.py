"""The UNet that hears no padding: its batches, its states, and what is measured of it."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from phantom.train import diffusion, loop, silent, text
from phantom.train.contexts import Contexts
from stable_diffusion_tf import StableDiffusion, scheduler
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.errors import UsageError

UNET = replace(
    silent.UNET,
    block_out_channels=(16,),
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    cross_attention_dim=32,
)  # one level, so that its step is traced in seconds
COUNTS = np.array([1, 2] * 5)  # things in each scene
TEXT = replace(text.TEXT, hidden_size=32, intermediate_size=64, num_hidden_layers=1)


@pytest.fixture(scope="module")
def told():
    """Captions 0 to 9 of five words, each full of its number, and the empty one, full of −1."""
    owner = np.array([*range(10), -1], np.float32)
    vectors = np.broadcast_to(owner[:, None, None], (11, 77, 32)).astype(np.float16)
    return Contexts(vectors, np.array([6] * 10 + [1]))


@pytest.fixture(scope="module")
def data():
    latents = np.zeros((10, 16, 16, 4), np.float16)
    return diffusion.Data(latents, np.zeros((10, 77)), np.zeros(1), np.zeros(77))


def test_a_batch_hears_words_but_never_the_padding_of_its_own(told, data):
    alphas = scheduler.alphas_cumprod()
    owners, endings = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        heard, noise, weight = silent.draw_batch(data, told, alphas, np.ones_like, rng, COUNTS)
        assert heard["context"].shape == (32, 77, 32) and heard["x"].shape == noise.shape
        assert weight.shape == (32, 1, 1)
        owners.append(heard["context"][:, 0, 0])  # the start token is the caption's own
        endings.append(heard["context"][:, 6:, 0])
    owners, endings = np.concatenate(owners), np.concatenate(endings)
    assert (endings == endings[:, :1]).all()
    assert np.mean(owners == -1) == pytest.approx(diffusion.EMPTY_CAPTIONS, abs=0.03)
    assert np.mean(endings[:, 0] == -1) == pytest.approx(1 - silent.OTHERS, abs=0.05)
    words = owners >= 0
    assert np.mean(owners[words] % 2) == pytest.approx(silent.PAIRS, abs=0.05)
    assert np.mean(endings[words, 0] == owners[words]) < 0.08  # by luck one in twenty


@pytest.fixture(scope="module")
def trained(data, told, tmp_path_factory):
    """A run of 6 small steps: its folder, and the average of its weights."""
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "STATES", folder / "states")
        model = silent.build(UNET)

        def draw(rng):
            return silent.draw_batch(
                data, told, scheduler.alphas_cumprod(), np.ones_like, rng, COUNTS
            )

        loop.train(model, draw, "silent", 6, 0, every=3, peak=1e-2, loss="mse")
    return folder, model.get_weights()


def test_the_average_is_taken_from_a_state(trained, monkeypatch):
    folder, weights = trained
    monkeypatch.setattr(loop, "STATES", folder / "states")
    model = silent.build(UNET)
    assert loop.take_average(model, "silent") == 6
    for mine, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert np.abs(weights[-1]).max() > 0  # it began at zero


def test_without_a_state_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STATES", tmp_path)
    with pytest.raises(UsageError, match="train first"):
        loop.take_average(silent.build(UNET), "silent")


def test_what_is_written_opens_and_draws(trained, tmp_path, monkeypatch):
    folder, weights = trained
    monkeypatch.setattr(loop, "STATES", folder / "states")
    monkeypatch.setattr(silent, "UNET", UNET)
    monkeypatch.setattr(text, "TEXT", TEXT)
    words = np.arange(49408)
    text.write_text_encoder(tmp_path, build_clip(TEXT), words)
    silent.write(tmp_path)
    sd = StableDiffusion.load(tmp_path)
    written = sd.network("unet").get_weights()
    for mine, theirs in zip(written, weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(mine), theirs, atol=2e-3)
    assert sd.generate("a cat", steps=2).std() > 0


def test_a_run_goes_on_from_what_was_written(trained, data, told, tmp_path, monkeypatch):
    weights = [weight + 0.5 for weight in trained[1]]  # far from every fresh start
    silent.write_part(tmp_path, "unet", UNET, [with_weights(weights).unet], "float16")
    monkeypatch.setattr(loop, "STATES", tmp_path / "states")
    monkeypatch.setattr(silent, "UNET", UNET)
    monkeypatch.setattr(silent, "encode_scenes", lambda *_: data)
    monkeypatch.setattr(silent, "encode_captions", lambda *_: told)
    monkeypatch.setattr(silent, "write_parts", lambda *_: None)
    begun = []
    monkeypatch.setattr(silent, "train", lambda model, *_, **__: begun.append(model))
    silent.train_unet(start_from=tmp_path)
    for mine, theirs in zip(begun[0].get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)  # they were float16


def with_weights(weights):
    model = silent.build(UNET)
    model.set_weights(weights)
    return model
