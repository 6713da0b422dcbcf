"""Training: the schedule, the data in steps, going on after a kill, and what is written."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image
from safetensors.numpy import load_file

from phantom.train import diffusion, layout, loop, photographs, text, vae
from phantom.train.loop import Steps, Trapezoid
from phantom.world import FAMILY, OF_REGISTERS, scenes
from stable_diffusion_tf import StableDiffusion, layers, precisions
from stable_diffusion_tf.checkpoint.folder import FILES, read_json
from stable_diffusion_tf.checkpoint.write import write_part
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.tokenizer import Tokenizer
from stable_diffusion_tf.vae import posterior

VAE = replace(vae.CONFIG, block_out_channels=(8, 8), norm_num_groups=4)
UNET = replace(
    diffusion.UNET,
    block_out_channels=(16, 32),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    cross_attention_dim=32,
)
TEXT = replace(text.TEXT, hidden_size=32, intermediate_size=64, num_hidden_layers=1)


# --- the schedule and the data -----------------------------------------------------------------


@pytest.mark.parametrize(
    "step, rate",
    [(0, 0.2), (4, 1.0), (9, 2.0), (50, 2.0), (80, 2.0), (90, 1.0), (99, 0.1), (100, 0), (120, 0)],
)
def test_the_rate_rises_holds_and_falls_to_zero(step, rate):
    assert float(Trapezoid(2.0, 100, warmup=10, fall=20)(step)) == pytest.approx(rate, abs=1e-6)


def test_a_step_draws_the_same_batch_wherever_the_run_began():
    def draw(rng):
        return rng.standard_normal(3)

    whole, rest = Steps(draw, 5, 0, 10), Steps(draw, 5, 6, 10)
    assert len(whole) == 10 and len(rest) == 4 and len(Steps(draw, 5, 12, 10)) == 0
    for i in range(4):
        np.testing.assert_array_equal(whole[6 + i], rest[i])
    assert len({tuple(whole[i]) for i in range(10)}) == 10
    assert not np.array_equal(whole[0], Steps(draw, 6, 0, 10)[0])


# --- going on after a kill ---------------------------------------------------------------------


class Killed(Exception):
    pass


def draw_line(rng):
    x = rng.standard_normal((8, 3)).astype(np.float32)
    return x, x.sum(1, keepdims=True)


def build_line(start):
    keras.utils.set_random_seed(start)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])


def fit_line(start=3):
    model = build_line(start)
    loop.train(model, draw_line, "line", 12, 1, every=5, peak=0.05, loss="mse")
    return model.get_weights()


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "STATES", tmp_path / "whole")
    whole = fit_line()
    monkeypatch.setattr(loop, "STATES", tmp_path / "killed")
    saving = loop.SaveState.on_train_batch_end

    def save_then_die(self, batch, logs=None):
        saving(self, batch, logs)
        if batch == 6:
            raise Killed

    with monkeypatch.context() as until_the_kill:
        until_the_kill.setattr(loop.SaveState, "on_train_batch_end", save_then_die)
        with pytest.raises(Killed):
            fit_line()
    assert [p.name for p in (tmp_path / "killed").iterdir()] == ["line.weights.h5"]
    capsys.readouterr()
    for said in ("line: step 5 of 12", ""):  # gone on from the state; then finished: only loaded
        for a, b in zip(fit_line(start=4), whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        assert capsys.readouterr().out.partition("\n")[0] == said


def test_the_average_of_the_weights_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STATES", tmp_path)
    kept = fit_line()
    model, rate = build_line(3), Trapezoid(0.05, 12, warmup=100, fall=3)
    model.compile(optimizer=keras.optimizers.AdamW(rate, use_ema=True), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.load_weights(tmp_path / "line.weights.h5")
    last = model.get_weights()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for a, b, c in zip(kept, model.get_weights(), last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert np.abs(a - c).max() > 1e-4


# --- the text encoder --------------------------------------------------------------------------


def teach(folder, steps, monkeypatch, **rest):
    """Contexts of prompts after some steps of a small text encoder's lessons."""
    monkeypatch.setattr(text, "TEXT", TEXT)
    monkeypatch.setattr(loop, "STATES", folder / "states")
    text.main(steps=steps, scene_count=64, precision="float32", out=folder, **rest)
    captions, _, words = text.number_words(scenes(0, 64, things=OF_REGISTERS))
    network = CLIPText(replace(TEXT, vocab_size=len(words)))
    layers.build(network, keras.KerasTensor((None, 77), dtype="int32"))
    text.read_text_encoder(folder, network, words)
    return ops.convert_to_numpy(network(captions[:16]))


def test_lessons_move_a_text_encoder_no_further_than_they_may(tmp_path, monkeypatch, capsys):
    first = teach(tmp_path / "first", 1, monkeypatch)
    went = {
        keep: np.square(
            teach(tmp_path / f"{keep:g}", 30, monkeypatch, start_from=tmp_path / "first", keep=keep)
            - first
        ).mean()
        for keep in (0.0, 1e3)
    }
    assert 0 < went[1e3] < went[0.0] / 3
    assert "saved" in capsys.readouterr().out


def test_a_batch_asks_mostly_for_pairs_and_answers_rightly():
    drawn = scenes(2, 200, things=OF_REGISTERS)
    exercises, words = text.prepare(drawn)
    assert [len(drawn[i].things) for i in exercises.pairs] == [2] * len(exercises.pairs)
    captions, answers = text.draw_batch(exercises, np.random.default_rng(0))
    assert captions.shape == (64, 77)
    assert np.count_nonzero(answers["names"][:, 1]) >= 56
    tokenizer = Tokenizer()
    asked = zip(words[captions], answers["names"], answers["colours"][:, 0], strict=True)
    for ids, (first, second), colour in asked:
        said = tokenizer.decode(ids.tolist())
        for kind in {int(first), int(second)} - {0}:
            name = OF_REGISTERS[kind - 1]
            assert name in said or FAMILY[name] in said
        assert not set(said.replace(",", "").split()) & {*layout.COLOURS} - {layout.COLOURS[colour]}


# --- the diffusion model -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def prompts():
    return ["a cat left of an apple", "a big dog on a red background"]


@pytest.fixture(scope="module")
def words(prompts):
    return np.unique(Tokenizer()([*prompts, ""]))


@pytest.fixture(scope="module")
def denoiser(words):
    keras.utils.set_random_seed(0)
    model = diffusion.Denoiser(replace(TEXT, vocab_size=len(words)), UNET)
    model(
        {
            "x": keras.KerasTensor((None, 16, 16, 4)),
            "t": keras.KerasTensor((None,), dtype="int32"),
            "ids": keras.KerasTensor((None, 77), dtype="int32"),
        }
    )
    for weight in model.weights:  # the files hold halves
        weight.assign(ops.convert_to_numpy(weight).astype(np.float16).astype(np.float32))
    return model


@pytest.fixture(scope="module")
def exported(denoiser, words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "TEXT", TEXT)
        text.write_text_encoder(folder, denoiser.text_encoder, words)
    write_part(folder, "unet", UNET, [denoiser.unet], "float16")
    return StableDiffusion.load(folder)


def test_what_is_written_predicts_what_was_trained(exported, denoiser, words, prompts):
    latent = np.random.default_rng(0).standard_normal((2, 16, 16, 4)).astype(np.float32)
    t = np.array([10, 700], np.int32)
    made = exported.predict_noise(latent, t, exported.encode_text(prompts))
    rows = np.searchsorted(words, exported.tokenize(prompts)).astype(np.int32)
    expected = denoiser.predict_on_batch({"x": latent, "t": t, "ids": rows})
    np.testing.assert_allclose(made, expected, atol=1e-4 * np.abs(expected).max())


def test_the_rows_of_words_never_seen_are_zero(exported, denoiser, words):
    np.testing.assert_array_equal(np.flatnonzero(exported.known_tokens), words)
    whole, compact = (
        ops.convert_to_numpy(network.text_model.embeddings.token_embedding.embeddings)
        for network in (exported.network("text_encoder"), denoiser.text_encoder)
    )
    np.testing.assert_array_equal(whole[words], compact)
    assert list(exported.unknown_words("a cat and a zebra")) == ["and", "zebra"]


def test_what_was_written_can_be_trained_on(exported, denoiser, words, monkeypatch):
    monkeypatch.setattr(text, "TEXT", TEXT)
    trained = denoiser.text_encoder.get_weights()
    denoiser.text_encoder.set_weights([0 * w for w in trained])
    text.read_text_encoder(exported.checkpoint.place, denoiser.text_encoder, words)
    taken_over = denoiser.text_encoder.get_weights()
    denoiser.text_encoder.set_weights(trained)
    for mine, theirs in zip(trained, taken_over, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-6)  # they were float16


def test_training_starts_from_no_noise_at_all(denoiser):
    latent, t = np.ones((1, 16, 16, 4), np.float32), np.array([500], np.int32)
    context = np.ones((1, 77, TEXT.hidden_size), np.float32)
    trained = denoiser.unet.get_weights()
    assert np.abs(ops.convert_to_numpy(denoiser.unet(latent, t, context))).max() > 0
    diffusion.start_quiet(denoiser.unet)
    quiet = np.abs(ops.convert_to_numpy(denoiser.unet(latent, t, context))).max()
    denoiser.unet.set_weights(trained)
    assert quiet == 0


# --- the latents -------------------------------------------------------------------------------


@pytest.mark.arithmetic
@pytest.mark.parametrize(
    "precision, close",
    [("float32", 1e-4), pytest.param("mixed_bfloat16", 3e-2, marks=pytest.mark.bfloat16)],
)
def test_centred_latents_give_the_same_pictures(precision, close, monkeypatch):
    keras.utils.set_random_seed(1)
    with precisions.precision(precision):
        model = vae.Autoencoder(VAE)
    model(keras.KerasTensor((None, 64, 64, 3)))
    vae.start_quiet(model.encoder)
    last = model.encoder.quant_conv  # channels that differ in loudness and lie off the centre
    kernel = ops.convert_to_numpy(last.kernel).copy()
    kernel[..., :4] *= [1.0, 2.0, 3.0, 0.5]
    last.kernel.assign(kernel)
    last.bias.assign(np.array([1.0, -2.0, 0.3, 3.0, -5.0, -5.0, -5.0, -5.0]))

    monkeypatch.setattr(
        vae, "photographs", lambda: (Image.effect_noise((90, 70), 50).convert("RGB"),)
    )
    images = vae.draw_batch(np.random.default_rng(4), 32)[0]
    monkeypatch.setattr(vae, "draw_batch", lambda rng, batch: (images, images))
    before, pictures = look(model, images)
    scale = vae.centre(model)
    after, again = look(model, images)

    mean, spread = after[0].mean((0, 1, 2)), after[0].std((0, 1, 2))
    np.testing.assert_allclose(mean * scale, 0, atol=close)
    np.testing.assert_allclose(spread * scale, 1, atol=close)
    # in bfloat16 a value here and there is off by any few of its 8 bits, which kernels decide
    off, size = (np.sqrt(np.mean(x**2)) for x in (again - pictures, pictures))
    assert off < close * size
    gain = spread / before[0].std((0, 1, 2))  # the sampling noise is louder or quieter alike
    np.testing.assert_allclose(after[1], before[1] * gain, rtol=5 * close)


def look(model, images):
    """The posterior's mean and deviation, and the pictures of the mean; float32."""
    moments = model.encoder.predict_on_batch(images).astype(np.float32)
    mean, deviation = (ops.convert_to_numpy(y) for y in posterior(moments))
    return (mean, deviation), model.decoder.predict_on_batch(mean).astype(np.float32)


# --- photographs -------------------------------------------------------------------------------


def test_a_cut_is_a_square_of_a_photograph_at_any_size():
    columns = np.arange(100, dtype=np.uint8)[None, :, None].repeat(80, 0).repeat(3, 2)
    picture, rng = Image.fromarray(columns), np.random.default_rng(0)
    cuts = [photographs.cut(rng, (picture,), 64) for _ in range(60)]
    spans = [int(np.ptp(one)) for one in cuts]
    assert {one.shape for one in cuts} == {(64, 64, 3)}
    assert min(spans) < 68 and 74 < max(spans) <= 80  # from a part as small to the whole height
    ways = {bool(one[0, -1, 0] > one[0, 0, 0]) for one in cuts}
    assert ways == {True, False}  # as it is, and mirrored


def test_one_picture_in_ten_is_a_photograph(monkeypatch):
    white = Image.new("RGB", (70, 70), (1, 2, 3))
    monkeypatch.setattr(vae, "photographs", lambda: (white,))
    images, same = vae.draw_batch(np.random.default_rng(0), 400)
    real = (np.abs(images - images[:, :1, :1]).max((1, 2, 3)) < 1e-6).mean()
    assert images is same and 0.05 < real < 0.15 and images.min() >= -1


# --- the image encoder and decoder, trained on -------------------------------------------------


@pytest.fixture
def small_vae(tmp_path, monkeypatch):
    """Folders: in `begun` a checkpoint with a small VAE that was trained for a step."""
    monkeypatch.setattr(vae, "CONFIG", VAE)
    monkeypatch.setattr(vae, "psnr_of", lambda model: 0.0)
    monkeypatch.setattr(vae, "photographs", lambda: (Image.new("RGB", (70, 70)),))
    monkeypatch.setattr(loop, "STATES", tmp_path / "first")
    vae.main(steps=1, precision="float32", out=tmp_path / "begun")
    return tmp_path


def read_vae(folder):
    return load_file(folder / "vae" / FILES["vae"])


def test_the_decoder_alone_goes_on_while_the_encoder_stays(small_vae, monkeypatch):
    monkeypatch.setattr(loop, "STATES", small_vae / "second")
    begun, on = small_vae / "begun", small_vae / "on"
    vae.main(2, precision="float32", out=on, start_from=begun, decoder_only=True)
    before, after = read_vae(begun), read_vae(on)
    same = {name: np.array_equal(before[name], after[name]) for name in before}
    assert all(same[name] for name in before if name.startswith(("encoder", "quant")))
    assert not all(same[name] for name in before if name.startswith("decoder"))
    scales = [read_json(folder / "vae" / "config.json")["scaling_factor"] for folder in (begun, on)]
    assert scales[0] == scales[1]


def test_noise_on_the_latent_is_a_share_of_its_own_deviation():
    images = np.random.default_rng(0).uniform(-1, 1, (16, 64, 64, 3)).astype(np.float32)
    moved = {}
    for hardy in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        model = vae.Autoencoder(VAE, 0, hardy)
        model(keras.KerasTensor((None, 64, 64, 3)))
        vae.start_quiet(model.encoder)
        seen = []
        model.decoder.call = lambda latent, seen=seen: seen.append(latent) or latent
        model(images)
        mean, deviation = look_at_latent(model, images)
        moved[hardy] = (ops.convert_to_numpy(seen[-1]) - mean).std((0, 1, 2)), mean.std((0, 1, 2))
        assert moved[hardy][0] == pytest.approx(
            np.sqrt(deviation**2 + (hardy * moved[hardy][1]) ** 2), rel=0.1
        )


def look_at_latent(model, images):
    """The posterior's mean, and the mean deviation of each channel."""
    mean, deviation = posterior(ops.cast(model.encoder(images), "float32"))
    return ops.convert_to_numpy(mean), ops.convert_to_numpy(deviation).mean((0, 1, 2))
