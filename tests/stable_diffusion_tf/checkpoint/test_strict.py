"""The loader takes nothing that does not fit, and says all that does not."""

import re

import numpy as np
import pytest

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.folder import EXTRAS, FILES, open_part
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.clip import build_clip
from tests.tiny import PARTS, TEXT, same, scramble, values


def wrong(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One tensor missing, one too many, one of another shape, one with its axes swapped."""
    tensors = dict(tensors)
    del tensors["text_model.final_layer_norm.bias"]
    tensors["text_projection.weight"] = np.zeros((8, 8), np.float32)
    tensors["text_model.embeddings.position_embedding.weight"] = np.zeros((77, 8), np.float32)
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
    assert "text_model.embeddings.position_embedding.weight (77, 8), not (6, 8)" in told
    assert "text_model.encoder.layers.0.mlp.fc1.weight (8, 12), not (12, 8)" in told
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
