"""A model saved as a diffusers folder: what was loaded, from whatever format, comes back."""

import errno
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stable_diffusion_tf import StableDiffusion, UsageError
from stable_diffusion_tf.checkpoint import write as write_module
from stable_diffusion_tf.checkpoint.folder import FILES, read_json
from stable_diffusion_tf.checkpoint.names import to_diffusers, variables
from stable_diffusion_tf.config import from_dict
from stable_diffusion_tf.pipeline import NETWORKS
from tests import oracles
from tests.formats import write_zip
from tests.golden.make_compvis import GOLDEN
from tests.oracles import ANATOMIES, draw
from tests.stable_diffusion_tf.checkpoint import test_h5

Parts = dict[str, dict[str, np.ndarray]]  # part → diffusers name → tensor

ANATOMY = ANATOMIES["sd1"]
LCM_SCHEDULER = {
    "_class_name": "LCMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
}


@pytest.fixture(scope="module")
def drawn() -> SimpleNamespace:
    """A small SD 1.x: its tensors by part, and flat under CompVis' names."""
    golden = json.loads(gzip.decompress(GOLDEN.read_bytes()))["sd1"]
    parts = {p: {k: draw(k, v[0]) for k, v in names.items()} for p, names in golden.items()}
    flat = {
        there: parts[part][name].reshape(shape)
        for part, names in golden.items()
        for name, (_, there, shape) in names.items()
    }
    return SimpleNamespace(parts=parts, flat=flat)


def as_folder(drawn: SimpleNamespace, place: Path) -> Path:
    names = {p: {k: list(v.shape) for k, v in found.items()} for p, found in drawn.parts.items()}
    oracles.write(place, ANATOMY, names)
    return place


def as_safetensors(drawn: SimpleNamespace, place: Path) -> Path:
    save_file(drawn.flat, place / "model.safetensors")
    return place / "model.safetensors"


def as_ckpt(drawn: SimpleNamespace, place: Path) -> Path:
    return write_zip(place / "model.ckpt", {"state_dict": drawn.flat})


def as_quartet(form: str):
    def write(drawn: SimpleNamespace, place: Path) -> Path:
        for network, (part, *_) in NETWORKS.items():
            tensors = drawn.parts[part]
            mine = {k: v for k, v in tensors.items() if k in test_h5.PLACES["seed"][network]}
            test_h5.FORMS[form].write(place, network, mine)
        return place

    return write


WRITERS = {
    "folder": as_folder,
    "safetensors": as_safetensors,
    "ckpt": as_ckpt,
    "seed's h5": as_quartet("seed"),
    "keras-cv's h5": as_quartet("published"),
    "keras-cv's h5, saved again": as_quartet("resaved"),
}


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory) -> Path:
    """The model as a diffusers folder; not to be changed."""
    return as_folder(drawn, tmp_path_factory.mktemp("folder"))


def tensors_in(folder: Path) -> Parts:
    return {part: load_file(folder / part / name) for part, name in FILES.items()}


def assert_same(found: Parts, expected: Parts) -> None:
    """The same names, and the same tensors bit by bit."""
    for part, tensors in expected.items():
        assert found[part].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[part][name].dtype == tensor.dtype, name
            np.testing.assert_array_equal(found[part][name], tensor, err_msg=name)


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder).as_posix()) for p in folder.rglob("*") if p.is_file()}


# --- there and back


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_is_saved_to_the_last_bit(drawn, form, tmp_path):
    place = tmp_path / "from"
    place.mkdir()
    sd = StableDiffusion.load(WRITERS[form](drawn, place))
    sd.save(tmp_path / "to")
    assert_same(tensors_in(tmp_path / "to"), drawn.parts)
    for part, config in zip(FILES, (sd.text_config, sd.unet_config, sd.vae_config), strict=True):
        assert from_dict(type(config), read_json(tmp_path / "to" / part / "config.json")) == config
    assert not sd.networks, "nothing need be in memory for it"


def test_the_folder_has_all_that_diffusers_has(folder, tmp_path):
    StableDiffusion.load(folder).save(tmp_path)
    weights = {f"{part}/{name}" for part, name in FILES.items()}
    configs = {f"{part}/config.json" for part in FILES}
    tokenizer = {f"tokenizer/{n}" for n in ("vocab.json", "merges.txt", "tokenizer_config.json")}
    others = {"model_index.json", "scheduler/scheduler_config.json"}
    assert files_in(tmp_path) == weights | configs | tokenizer | others


def test_float16_is_each_number_rounded(drawn, folder, tmp_path):
    StableDiffusion.load(folder).save(tmp_path / "half", "float16")
    half = {p: {k: v.astype(np.float16) for k, v in t.items()} for p, t in drawn.parts.items()}
    assert_same(tensors_in(tmp_path / "half"), half)
    StableDiffusion.load(tmp_path / "half").save(tmp_path / "whole")
    whole = {p: {k: v.astype(np.float32) for k, v in t.items()} for p, t in half.items()}
    assert_same(tensors_in(tmp_path / "whole"), whole)


def test_a_model_may_be_saved_over_itself(drawn, folder, tmp_path):
    place = as_folder(drawn, tmp_path)
    StableDiffusion.load(place).save(place, "float16")
    half = {p: {k: v.astype(np.float16) for k, v in t.items()} for p, t in drawn.parts.items()}
    assert_same(tensors_in(place), half)


def test_what_was_changed_in_memory_is_saved(drawn, folder, tmp_path):
    sd = StableDiffusion.load(folder)
    name, variable = next(iter(variables(sd.network("unet")).items()))
    variable.assign(variable.value + 1)
    changed = to_diffusers(np.asarray(variable.numpy()), variable)
    assert not np.array_equal(changed, drawn.parts["unet"][name])
    sd.save(tmp_path)
    expected = drawn.parts | {"unet": drawn.parts["unet"] | {name: changed}}
    assert_same(tensors_in(tmp_path), expected)


def test_half_of_the_vae_in_memory_saves_both_halves(drawn, folder, tmp_path):
    sd = StableDiffusion.load(folder)
    sd.network("decoder")
    sd.save(tmp_path)
    assert_same(tensors_in(tmp_path), drawn.parts)


@pytest.mark.parametrize("precision", ["bfloat16", "float16-storage"])
def test_what_is_in_memory_is_saved_in_its_precision(drawn, folder, tmp_path, precision):
    sd = StableDiffusion.load(folder, precision)
    kept = {
        name: to_diffusers(np.asarray(v.numpy()).astype(np.float32), v)
        for name, v in variables(sd.network("text_encoder")).items()
    }
    sd.save(tmp_path)
    assert_same(tensors_in(tmp_path), drawn.parts | {"text_encoder": kept})
    assert any(not np.array_equal(kept[k], v) for k, v in drawn.parts["text_encoder"].items())


# --- what goes with the weights


def test_the_scheduler_is_ddim_where_the_format_has_none(drawn, tmp_path):
    StableDiffusion.load(as_safetensors(drawn, tmp_path)).save(tmp_path / "to")
    schedule = read_json(tmp_path / "to" / "scheduler" / "scheduler_config.json")
    assert schedule["_class_name"] == "DDIMScheduler" and schedule["steps_offset"] == 1
    index = read_json(tmp_path / "to" / "model_index.json")
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]


def test_a_scheduler_without_a_class_is_ddim(drawn, tmp_path):
    place = as_folder(drawn, tmp_path / "from")
    config = {"beta_start": 0.001}
    write_module.write_json(place / "scheduler" / "scheduler_config.json", config)
    StableDiffusion.load(place).save(tmp_path / "to")
    saved = read_json(tmp_path / "to" / "scheduler" / "scheduler_config.json")
    assert saved == {"_class_name": "DDIMScheduler"} | config


def test_the_scheduler_of_a_checkpoint_is_kept(folder, drawn, tmp_path):
    place = as_folder(drawn, tmp_path / "from")
    unet = read_json(place / "unet" / "config.json") | {"time_cond_proj_dim": 24}
    write_module.write_json(place / "unet" / "config.json", unet)
    write_module.write_json(place / "scheduler" / "scheduler_config.json", LCM_SCHEDULER)
    StableDiffusion.load(place).save(tmp_path / "to")
    assert read_json(tmp_path / "to" / "scheduler" / "scheduler_config.json") == LCM_SCHEDULER
    index = read_json(tmp_path / "to" / "model_index.json")
    assert index["scheduler"] == ["diffusers", "LCMScheduler"]
    assert StableDiffusion.load(tmp_path / "to").unet_config.time_cond_proj_dim == 24


@pytest.mark.parametrize("loaded", [(), ("text_encoder",)], ids=["on disk", "in memory"])
def test_learned_words_keep_to_their_own_files(tmp_path, loaded):
    """Of the phantom, as the small model's vocabulary is not CLIP's."""
    phantom = StableDiffusion.load("phantom")
    width = phantom.text_config.hidden_size
    save_file({"<toy>": np.ones((2, width), np.float32)}, tmp_path / "toy.safetensors")
    assert phantom.add_word(tmp_path / "toy.safetensors") == "<toy>"
    for part in loaded:
        phantom.network(part)
    phantom.save(tmp_path / "to")
    again = StableDiffusion.load(tmp_path / "to")
    assert again.text_config == phantom.text_config
    shipped = load_file(phantom.checkpoint.place / "text_encoder" / FILES["text_encoder"])
    found = tensors_in(tmp_path / "to")["text_encoder"]
    assert_same({"text": found}, {"text": {k: v.astype(np.float32) for k, v in shipped.items()}})


# --- what goes wrong


def test_another_dtype_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="'bfloat16' cannot be written; choose float32 or float16"):
        StableDiffusion.load(folder).save(tmp_path / "to", "bfloat16")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("count", [0, 3], ids="after {} tensors".format)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    folder, tmp_path, monkeypatch, part, count
):
    before, left = write_module.write_tensors, {"count": count}

    def write_tensors(path, source, dtype):
        get = source.get

        def full(key):
            left["count"] -= part in str(path)
            if left["count"] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return get(key)

        monkeypatch.setattr(source, "get", full)
        before(path, source, dtype)

    monkeypatch.setattr(write_module, "write_tensors", write_tensors)
    place = tmp_path / "to"
    with pytest.raises(UsageError) as error:
        StableDiffusion.load(folder).save(place)
    told = "No space left on device; free it or name another folder"
    assert str(error.value) == f"cannot write {place}: {told}"
    written = files_in(place)
    assert not [name for name in written if name.endswith(".part")]
    assert f"{part}/{FILES[part]}" not in written and "model_index.json" not in written
    for name in written:  # what is there is whole
        if name.endswith(".safetensors"):
            load_file(place / name)


def test_a_full_disk_at_the_last_file_is_one_line(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        StableDiffusion.load(folder).save(tmp_path / "to")
    assert files_in(tmp_path / "to") == set()


def test_a_file_in_the_way_is_one_line(folder, tmp_path):
    (tmp_path / "to").write_text("mine")
    with pytest.raises(UsageError, match=r"cannot write .*; free it or name another folder"):
        StableDiffusion.load(folder).save(tmp_path / "to")
    assert (tmp_path / "to").read_text() == "mine"


def test_numbers_beyond_float16_are_refused_by_name(drawn, tmp_path):
    """They would become infinite, and the folder one that nobody loads."""
    place = as_folder(drawn, tmp_path / "from")
    tensors = load_file(place / "unet" / FILES["unet"])
    tensors["conv_in.weight"][0, 0, 0, 0] = 1e6
    save_file(tensors, place / "unet" / FILES["unet"])
    with pytest.raises(UsageError) as error:
        StableDiffusion.load(place).save(tmp_path / "to", "float16")
    told = str(error.value)
    assert "conv_in.weight" in told and "float32" in told and "\n" not in told
    assert f"unet/{FILES['unet']}" not in files_in(tmp_path / "to")
    StableDiffusion.load(place).save(tmp_path / "to")
