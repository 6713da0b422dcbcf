"""The loader takes nothing that does not fit, and says all that does not."""

import re
from functools import partial

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint import strict
from stable_diffusion_tf.checkpoint.folder import EXTRAS, FILES, open_part
from stable_diffusion_tf.checkpoint.strict import check_memory, load, load_new
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.machine import Memory
from stable_diffusion_tf.precisions import precision
from tests.tiny import PARTS, TEXT, same, scramble, values


def wrong(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One tensor missing, one too many, one of another shape, one with its axes swapped."""
    tensors = dict(tensors)
    del tensors["text_model.final_layer_norm.bias"]
    tensors["text_projection.weight"] = np.zeros((12, 12), np.float32)
    tensors["text_model.embeddings.position_embedding.weight"] = np.zeros((77, 12), np.float32)
    fc1 = "text_model.encoder.layers.0.mlp.fc1.weight"
    tensors[fc1] = np.ascontiguousarray(tensors[fc1].T)
    return tensors


def test_all_that_does_not_fit_is_named_at_once(bent):
    folder, network = bent(wrong), scramble(build_clip(TEXT), seed=5)
    before = values(network)
    with pytest.raises(UsageError) as error:
        load(network, open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    told = str(error.value)
    assert str(folder / "text_encoder" / FILES["text_encoder"]) in told
    assert "1 missing: text_model.final_layer_norm.bias" in told
    assert "1 unexpected: text_projection.weight" in told
    assert "2 misshapen: " in told
    assert "text_model.embeddings.position_embedding.weight (77, 12), not (6, 12)" in told
    assert "text_model.encoder.layers.0.mlp.fc1.weight (12, 16), not (16, 12)" in told
    assert same(values(network), before)


def test_many_names_are_counted(bent):
    folder = bent(lambda tensors: {"stranger": np.zeros(3, np.float32)})
    network = build_clip(TEXT)
    count = len(network.weights)
    with pytest.raises(
        UsageError, match=rf"{count} missing: .* and {count - 5} more; 1 unexpected"
    ):
        load(network, open_part(folder, "text_encoder"))


def test_only_what_is_to_be_ignored_is_ignored(bent):
    ids = {"text_model.embeddings.position_ids": np.arange(6)[None]}
    folder = bent(lambda tensors: tensors | ids)
    load(build_clip(TEXT), open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    with pytest.raises(UsageError, match=r"1 unexpected: text_model\.embeddings\.position_ids"):
        load(build_clip(TEXT), open_part(folder, "text_encoder"))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_one_half_of_the_vae_still_misses_what_is_its_own(bent, part):
    """The other half may be there; nothing of this half may be gone."""
    place, config, build = PARTS[part]
    gone = f"{part}.conv_norm_out.weight"
    folder = bent(lambda tensors: {k: v for k, v in tensors.items() if k != gone}, place)
    with pytest.raises(UsageError, match=f"1 missing: {re.escape(gone)}$"):
        load(build(config), open_part(folder, place), EXTRAS[part])


# --- networks that are born with their values


class Failing:
    """A source whose disk gives up after so many tensors."""

    def __init__(self, source, after: int):
        self.place, self.shapes, self.source, self.left = "gone", source.shapes, source, after

    def get(self, key: str) -> np.ndarray:
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return self.source.get(key)


def uninitialised() -> list[keras.Variable]:
    """Keras' list of variables that have no value yet: each scope that ends fills them all."""
    return global_state.get_global_attribute("uninitialized_variables") or []


def assert_nothing_stayed_behind() -> None:
    """Nothing in Keras' list, and a scope of someone else's ends without an error."""
    assert not uninitialised()
    with keras.StatelessScope():
        layer = keras.layers.Dense(2)
        layer.build((1, 3))
    assert layer.kernel.numpy().std() > 0


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("policy", ["float32", "bfloat16", "float16-storage"])
def test_a_network_born_with_its_values_is_the_one_loaded(saved, part, policy):
    place, config, build = PARTS[part]
    source = open_part(saved.folder, place)
    with precision(policy):
        born = load_new(lambda: build(config), source, EXTRAS[part])
        loaded = scramble(build(config), seed=7)
    load(loaded, source, EXTRAS[part])
    assert [v.path for v in born.weights] == [v.path for v in loaded.weights]
    assert [v.dtype for v in born.weights] == [v.dtype for v in loaded.weights]
    assert same(values(born), values(loaded))
    assert_nothing_stayed_behind()


def test_a_network_born_with_its_values_can_be_trained_on(saved):
    """Its variables are as good as any: they take new values."""
    born = load_new(lambda: build_clip(TEXT), open_part(saved.folder, "text_encoder"))
    scramble(born, seed=3)
    assert same(values(born), values(scramble(build_clip(TEXT), seed=3)))


@pytest.mark.parametrize("change", [wrong, lambda tensors: {}], ids=["some wrong", "none there"])
def test_nothing_is_born_of_what_does_not_fit(bent, saved, change):
    folder = bent(change)
    with pytest.raises(UsageError, match=r"does not fit its config.json: .*missing"):
        load_new(lambda: build_clip(TEXT), open_part(folder, "text_encoder"))
    assert_nothing_stayed_behind()
    born = load_new(lambda: build_clip(TEXT), open_part(saved.folder, "text_encoder"))
    assert same(values(born), values(saved.networks["text_encoder"]))


@pytest.mark.parametrize("after", [0, 3, len(build_clip(TEXT).weights) - 1])
def test_a_disk_that_fails_while_reading_spoils_no_later_load(saved, after):
    """At the first variable, or when some or all but one have their values."""
    source = open_part(saved.folder, "text_encoder")
    with pytest.raises(OSError, match="the disk is gone"):
        load_new(lambda: build_clip(TEXT), Failing(source, after))
    assert_nothing_stayed_behind()
    born = load_new(lambda: build_clip(TEXT), source)
    assert same(values(born), values(saved.networks["text_encoder"]))


# --- numbers that are none

FC1 = "text_model.encoder.layers.0.mlp.fc1.weight"


def holding(number: float):
    """A change that puts the number into one place of one tensor."""

    def change(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors[FC1][-1, 2] = number
        return tensors

    return change


POISON = [  # number, how it is to be kept
    (np.nan, "float32"),
    (np.inf, "float32"),
    (-np.inf, "bfloat16"),
    (np.nan, "float16-storage"),
    (65520.0, "float16-storage"),
    (-1e30, "float16-storage"),
]


@pytest.mark.parametrize(("number", "policy"), POISON)
def test_a_number_that_cannot_be_kept_is_one_line_naming_its_tensor(bent, saved, number, policy):
    folder = bent(holding(number))
    source, whole = (open_part(f, "text_encoder") for f in (folder, saved.folder))
    with precision(policy):
        network = scramble(build_clip(TEXT), seed=5)
        before = values(network)
        fresh = partial(load_new, partial(build_clip, TEXT))
        for loading in (partial(load, network), fresh):
            with pytest.raises(UsageError) as error:
                loading(source)
            told = str(error.value)
            assert told.startswith(str(folder / "text_encoder" / FILES["text_encoder"]))
            assert told.endswith(f"1 not finite: {FC1}") and "\n" not in told
            assert "NaN or infinite" in told and "fetch it again" in told
            assert same(values(network), before)
        assert_nothing_stayed_behind()
        load(network, whole)
        assert same(values(network), values(load_new(lambda: build_clip(TEXT), whole)))


@pytest.mark.parametrize(
    ("number", "policy"), [(65504.0, "float16-storage"), (65520.0, "bfloat16"), (3e38, "float32")]
)
def test_the_largest_number_that_can_be_kept_is(bent, number, policy):
    source = open_part(bent(holding(number)), "text_encoder")
    with precision(policy):
        network = load_new(lambda: build_clip(TEXT), source)
    kept = values(network)[FC1].astype(np.float64)
    assert np.isfinite(kept).all() and kept.max() == pytest.approx(number, rel=2**-8)


def test_what_is_ignored_may_hold_anything(bent):
    strange = {"text_model.embeddings.position_ids": np.full((1, 6), np.nan, np.float32)}
    source = open_part(bent(lambda tensors: tensors | strange), "text_encoder")
    load_new(lambda: build_clip(TEXT), source, EXTRAS["text_encoder"])


# --- memory


def test_a_part_that_memory_will_not_hold_is_one_line(saved, monkeypatch):
    source = open_part(saved.folder, "vae")
    count = sum(np.prod(shape, dtype=int) for shape in source.shapes().values())
    assert check_memory(source, 2) == 2 * count
    monkeypatch.setattr(strict, "memory", lambda: Memory(10**9, 4 * count))
    assert check_memory(source, 4) == 4 * count
    monkeypatch.setattr(strict, "memory", lambda: Memory(10**9, 4 * count - 1))
    with pytest.raises(UsageError) as error:
        check_memory(source, 4)
    told = str(error.value)
    assert told.startswith(source.place) and "\n" not in told
    assert "--precision float16-storage" in told
    assert check_memory(source, 2) == 2 * count


def test_what_is_told_of_memory_is_in_gigabytes(monkeypatch):
    class Large:
        place = "unet.safetensors"

        def shapes(self):
            return {"a": (859_520_964,)}

    monkeypatch.setattr(strict, "memory", lambda: Memory(None, 1_700_000_000))
    with pytest.raises(UsageError, match=r"unet.safetensors needs 3\.4 GB .*, 1\.7 GB are free"):
        check_memory(Large(), 4)
    with pytest.raises(UsageError) as error:
        check_memory(Large(), 2)
    assert "--precision" not in str(error.value), "it has been halved already"


def test_where_the_system_does_not_tell_all_is_tried(saved, monkeypatch):
    monkeypatch.setattr(strict, "memory", lambda: Memory(None, None))
    assert check_memory(open_part(saved.folder, "unet"), 4) > 0
