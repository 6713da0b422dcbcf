"""The diffusers folder: every form of its files, every version of its names, no other model."""

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.files import MOST_JSON, read_json
from stable_diffusion_tf.checkpoint.folder import EXTRAS, FILES, DiffusersFolder, open_part
from stable_diffusion_tf.checkpoint.names import variables
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import write_json
from stable_diffusion_tf.clip import build_clip
from stable_diffusion_tf.config import UNetConfig, from_dict
from tests.formats import write_stream, write_zip
from tests.tiny import PARTS, TEXT, UNET, same, values


def told(path: Path) -> str:
    """What is said of a folder that is refused."""
    with pytest.raises(UsageError) as error:
        DiffusersFolder(path)
    assert str(error.value).startswith(f"{path} is ") and "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_gives_configs_and_tensors(saved):
    folder = DiffusersFolder(saved.folder)
    assert folder.place == saved.folder
    assert from_dict(UNetConfig, folder.config("unet")) == UNET
    shapes = folder.source("unet").shapes()
    assert shapes["conv_in.weight"] == (8, 4, 3, 3)
    assert folder.source("unet").get("conv_in.weight").shape == (8, 4, 3, 3)
    assert set(shapes) == set(variables(saved.networks["unet"]))


def test_the_schedule_is_told_where_the_folder_has_one(tmp_path):
    assert DiffusersFolder(tmp_path).config("scheduler") == {}
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {"steps_offset": 1})
    assert DiffusersFolder(tmp_path).config("scheduler") == {"steps_offset": 1}


# --- the form of the weights


def write_shards(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Two files, and the index that joins them."""
    half = len(tensors) // 2
    names = {
        "model-00001-of-00002": list(tensors)[:half],
        "model-00002-of-00002": list(tensors)[half:],
    }
    ending, write = (
        (".bin", write_zip) if ".bin" in path.name else (".safetensors", write_safetensors)
    )
    for stem, found in names.items():
        write(path.parent / (stem + ending), {k: tensors[k] for k in found})
    weight_map = {k: stem + ending for stem, found in names.items() for k in found}
    write_json(path, {"metadata": {"total_size": 0}, "weight_map": weight_map})


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, path)


FORMS = {  # in the order in which they are looked for
    "{}.safetensors": write_safetensors,
    "{}.fp16.safetensors": write_safetensors,
    "{}.safetensors.index.json": write_shards,
    "{}.bin": write_zip,
    "{}.fp16.bin": write_stream,
    "{}.bin.index.json": write_shards,
}
STEMS = {"unet": ("diffusion_pytorch_model",) * 2, "text_encoder": ("model", "pytorch_model")}


def form_name(form: str, part: str) -> str:
    safe, torch = STEMS[part]
    return form.format(torch if ".bin" in form else safe)


@pytest.mark.parametrize("part", STEMS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_weights_is_read(tmp_path, form, part):
    tensors = {f"w.{i}": np.full((2, 3), i, np.float32) for i in range(4)}
    (tmp_path / part).mkdir()
    FORMS[form](tmp_path / part / form_name(form, part), tensors)
    source = DiffusersFolder(tmp_path).source(part)
    assert source.shapes() == dict.fromkeys(tensors, (2, 3))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(source.get(name), tensor)


@pytest.mark.parametrize("part", STEMS)
def test_the_first_form_that_is_there_is_taken(tmp_path, part):
    (tmp_path / part).mkdir()
    last_first = reversed(list(enumerate(FORMS.items())))
    for i, (form, write) in last_first:
        tensors = {name: np.full(2, i, np.float32) for name in ("a", "b")}
        write(tmp_path / part / form_name(form, part), tensors)
        np.testing.assert_array_equal(DiffusersFolder(tmp_path).source(part).get("b"), tensors["b"])


@pytest.fixture
def sharded(tmp_path) -> Path:
    (tmp_path / "unet").mkdir()
    tensors = {name: np.ones(3, np.float32) for name in "abcd"}
    write_shards(tmp_path / "unet" / f"{FILES['unet']}.index.json", tensors)
    return tmp_path


def test_a_missing_shard_is_named(sharded):
    lost = sharded / "unet" / "model-00002-of-00002.safetensors"
    lost.unlink()
    with pytest.raises(UsageError, match=rf"{re.escape(str(lost))} is missing, one of the shards"):
        open_part(sharded, "unet")


def test_a_shard_that_lacks_a_tensor_is_named(sharded):
    shard = sharded / "unet" / "model-00001-of-00002.safetensors"
    save_file({"a": np.ones(3, np.float32)}, shard)
    with pytest.raises(UsageError, match=rf"{re.escape(str(shard))} lacks b, which .*index\.json"):
        open_part(sharded, "unet")


def test_an_index_without_a_map_is_named(sharded):
    index = sharded / "unet" / f"{FILES['unet']}.index.json"
    write_json(index, {"metadata": {}})
    with pytest.raises(UsageError, match=rf"{re.escape(str(index))} has no weight_map"):
        open_part(sharded, "unet")


def test_weights_that_are_not_there_are_named(tmp_path):
    place = tmp_path / "unet" / FILES["unet"]
    with pytest.raises(UsageError, match=rf"no weights at {re.escape(str(place))}"):
        open_part(tmp_path, "unet")


# --- precisions and names


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_it_was_rounded(saved, bent, dtype):
    folder = bent(lambda tensors: {k: v.astype(dtype) for k, v in tensors.items()})
    network = build_clip(TEXT)
    load(network, open_part(folder, "text_encoder"))
    exact = values(saved.networks["text_encoder"])
    rounded = {k: v.astype(dtype).astype(np.float32) for k, v in exact.items()}
    assert same(values(network), rounded) and not same(values(network), exact)


OLDER = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def in_older_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The vae as SD 1.x was published."""
    for here, older in OLDER.items():
        tensors = {k.replace(here, older): v for k, v in tensors.items()}
    return tensors


def without_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text encoder as transformers 5 writes it."""
    return {k.removeprefix("text_model."): v for k, v in tensors.items()}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("encoder", in_older_names),
        ("decoder", in_older_names),
        ("text_encoder", without_prefix),
    ],
)
def test_other_versions_of_the_names_are_known(saved, bent, part, change):
    place, config, build = PARTS[part]
    folder = bent(change, place)
    network = build(config)
    assert not set(load_file(folder / place / FILES[place])) >= set(variables(network))
    load(network, open_part(folder, place), EXTRAS[part])
    assert same(values(network), values(saved.networks[part]))


def test_old_and_new_names_together_are_refused(saved, bent):
    folder = bent(lambda tensors: tensors | in_older_names(tensors), "vae")
    with pytest.raises(UsageError, match=r"holds (.*)to_k\.bias twice, as \1key\.bias and as"):
        open_part(folder, "vae")


# --- other models

SDXL, SD2 = "Stable Diffusion XL", "Stable Diffusion 2"


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, SDXL),
        ("model_index.json", {"_class_name": "StableDiffusion3Pipeline"}, "Stable Diffusion 3"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "FLUX"),
        (
            "model_index.json",
            {"_class_name": "StableDiffusionInpaintPipeline"},
            "an inpainting model",
        ),
        ("text_encoder_2/config.json", {}, SDXL),
        ("unet/config.json", {"cross_attention_dim": 1024}, SD2),
        ("unet/config.json", {"cross_attention_dim": 2048}, SDXL),
        ("unet/config.json", {"attention_head_dim": [5, 10, 20, 20]}, SD2),
        ("unet/config.json", {"in_channels": 9}, "an inpainting model"),
        ("unet/config.json", {"in_channels": 8}, "InstructPix2Pix or another model of 8 channels"),
        ("model_index.json", {"_class_name": "AudioLDMPipeline"}, "AudioLDM"),
        ("unet/config.json", {"cross_attention_dim": [1024] * 4}, SD2),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "v_prediction"},
            "a model that predicts v",
        ),
    ],
    ids=str,
)
def test_another_model_is_called_by_its_name(tmp_path, file, content, expected):
    write_json(tmp_path / file, content)
    assert told(tmp_path).startswith(f"{tmp_path} is {expected}; only whole models of")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}),
        ("model_index.json", {"_class_name": "LatentConsistencyModelPipeline"}),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}),
        ("unet/config.json", {"cross_attention_dim": [768, 768], "in_channels": 4}),
        ("unet/config.json", {"attention_head_dim": [8, 8, 8, 8]}),
    ],
    ids=str,
)
def test_stable_diffusion_1_is_not_taken_for_another(tmp_path, file, content):
    write_json(tmp_path / file, content)
    assert DiffusersFolder(tmp_path).place == tmp_path


# --- configs that are damaged

HTML = b"<!DOCTYPE html><html><head><title>404</title></head></html>\n" * 20


@pytest.mark.parametrize("content", [b"{", b"", HTML, b"\xff\xfe{}", b"[1, 2]", b'"unet"'])
def test_a_config_that_is_none_is_named(tmp_path, content):
    place = tmp_path / "config.json"
    place.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(str(place))):
        read_json(place)


def test_a_config_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=rf"no config\.json in {re.escape(str(tmp_path))}"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a":' * 200_000, "is nested too deep for a config"),
        (b"[" * 200_000, "is nested too deep for a config"),
        (b" " * (MOST_JSON + 1), "is larger than any config"),
    ],
    ids=["objects", "lists", "large"],
)
def test_a_config_without_end_is_named(tmp_path, content, expected):
    place = tmp_path / "config.json"
    place.write_bytes(content)
    with pytest.raises(UsageError, match=f"{re.escape(str(place))} {expected}"):
        read_json(place)


@pytest.mark.parametrize("shard", [3, None, ["a"], {}, "", "../a.bin", "/dev/zero", "b/"], ids=str)
def test_a_shard_that_is_no_file_beside_the_index_is_named(sharded, shard):
    index = sharded / "unet" / f"{FILES['unet']}.index.json"
    write_json(index, {"weight_map": {"a": shard}})
    with pytest.raises(UsageError, match=rf"{re.escape(str(index))} has no weight_map of names"):
        open_part(sharded, "unet")
