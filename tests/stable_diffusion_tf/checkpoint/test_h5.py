"""Four h5 files of Keras, in each layout: every tensor comes back, in diffusers' axes and name.

That the order of the layers is the ports' own is for tests/parity/test_keras_cv_parity.py to tell;
here files are written in that order, by h5py alone.
"""

import gzip
import json
import re
import shutil
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import h5py
import ml_dtypes
import numpy as np
import pytest

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint import keras_cv_h5, keras_order, seed_h5
from stable_diffusion_tf.checkpoint.open import open_checkpoint
from stable_diffusion_tf.checkpoint.tensors import Source
from tests.golden.make_compvis import GOLDEN
from tests.oracles import draw

Tensors = Mapping[str, np.ndarray]

NAMES = {  # network → how its tensors' names begin
    "text_encoder": r"text_model\.",
    "unet": r"(?!text_model|encoder|decoder|quant_conv|post_quant_conv)",
    "encoder": r"(encoder|quant_conv)\.",
    "decoder": r"(decoder|post_quant_conv)\.",
}
NETWORKS = tuple(NAMES)
PARTS = {"text_encoder": NETWORKS[:1], "unet": NETWORKS[1:2], "vae": NETWORKS[2:]}
PLACES = {  # port → network → diffusers name → where Keras 3 files it, in the port's order
    port: {
        "text_encoder": keras_order.tensors(keras_order.text_encoder(4)),
        "unet": keras_order.tensors(keras_order.unet(head)),
        "encoder": keras_order.tensors(keras_order.encoder()),
        "decoder": keras_order.tensors(keras_order.decoder()),
    }
    for port, head in {
        "seed": keras_order.SEED_HEAD,
        "keras-cv": keras_order.KERAS_CV_HEAD,
    }.items()
}

# --- files --------------------------------------------------------------------------------------


def with_keras_axes(name: str, value: np.ndarray) -> np.ndarray:
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 1 or name.endswith("_embedding.weight"):
        return value
    in_vae = "mid_block.attentions.0.to_" in name
    return value.T[None, None] if in_vae else value.T


def write_keras2(path: Path, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """layers: name → name of the weight → array."""
    with h5py.File(path, "w") as file:
        fill_keras2(file, layers)


def fill_keras2(group: h5py.Group, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    write_names(group, "layer_names", layers)
    for layer in sorted(layers):
        inside = group.create_group(layer)
        write_names(inside, "weight_names", layers[layer])
        for name, value in layers[layer].items():
            inside[name] = value
    write_names(group.create_group("top_level_model_weights"), "weight_names", ())


def write_names(group: h5py.Group, attribute: str, names: Iterable[str]) -> None:
    """In chunks where they are too large for an attribute, which holds 64 kB."""
    encoded = np.array([name.encode() for name in names] or np.zeros(0, "S1"))
    if encoded.nbytes < 64000:
        group.attrs[attribute] = encoded
        return
    for i, chunk in enumerate(np.array_split(encoded, 11)):  # chunk 10 sorts before chunk 2
        group.attrs[f"{attribute}{i}"] = chunk


def write_keras3(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for place, value in arrays.items():
            file[place] = value
            if value.dtype == ml_dtypes.bfloat16:
                file[place].attrs["dtype"] = "bfloat16"
        file["vars/0"] = file["optimizer/vars/0"] = np.int64(3)


def as_seed(network: str, tensors: Tensors) -> dict[str, dict[str, np.ndarray]]:
    """All in one layer, under long names; before it the inputs, which hold nothing."""
    weights = {
        f"{network}/{'sublayer/' * 12}{len(tensors) - i}:0": with_keras_axes(name, tensors[name])
        for i, name in enumerate(PLACES["seed"][network])
    }
    return {"input_1": {}, network: weights}


def as_keras_cv(network: str, tensors: Tensors) -> dict[str, dict[str, np.ndarray]]:
    layers: dict[str, dict[str, np.ndarray]] = {"input_1": {}}
    for name, place in PLACES["keras-cv"][network].items():
        layer = place.split("/")[1]
        layers.setdefault(layer, {})[f"{place}:0"] = with_keras_axes(name, tensors[name])
    return layers


def write_seed(folder: Path, network: str, tensors: Tensors) -> Path:
    path = folder / f"seed_{network}.h5"
    write_keras2(path, as_seed(network, tensors))
    return path


def write_published(folder: Path, network: str, tensors: Tensors) -> Path:
    path = folder / f"kcv_{network}.h5"
    write_keras2(path, as_keras_cv(network, tensors))
    return path


def write_resaved(folder: Path, network: str, tensors: Tensors) -> Path:
    path = folder / f"{network}.weights.h5"
    places = PLACES["keras-cv"][network]
    write_keras3(path, {places[name]: with_keras_axes(name, tensors[name]) for name in places})
    return path


class Form(NamedTuple):
    port: str
    write: Callable[[Path, str, Tensors], Path]  # one of the four files

    @property
    def module(self) -> ModuleType:
        return {"seed": seed_h5, "keras-cv": keras_cv_h5}[self.port]


FORMS = {
    "seed": Form("seed", write_seed),
    "published": Form("keras-cv", write_published),
    "resaved": Form("keras-cv", write_resaved),
}
every_form = pytest.mark.parametrize("form", FORMS)
every_network = pytest.mark.parametrize("network", NETWORKS)


@pytest.fixture(scope="module")
def drawn() -> dict[str, dict[str, np.ndarray]]:
    """Network → its tensors, by diffusers' own names and shapes of a small SD 1.x."""
    parts = json.loads(gzip.decompress(GOLDEN.read_bytes()))["sd1"]
    shapes = {name: shape for names in parts.values() for name, (shape, *_) in names.items()}
    return {
        network: {k: draw(k, v) for k, v in shapes.items() if re.match(start, k)}
        for network, start in NAMES.items()
    }


@pytest.fixture(scope="module")
def written(drawn, tmp_path_factory) -> dict[str, Path]:
    """Form → a folder with all four; not to be changed."""
    folders = {form: tmp_path_factory.mktemp("quartet") for form in FORMS}
    for form, folder in folders.items():
        for network, tensors in drawn.items():
            FORMS[form].write(folder, network, tensors)
    return folders


@pytest.fixture
def bent(written, tmp_path):
    """Makes a copy of a folder to change."""
    return lambda form: shutil.copytree(written[form], tmp_path, dirs_exist_ok=True)


def refusal(folder: Path) -> str:
    """What is said of a folder, at the latest when a part is asked for."""
    with pytest.raises(UsageError) as error:
        opened = open_checkpoint(folder)
        for part in PARTS:
            opened.source(part)
    told = str(error.value)
    assert told.startswith(str(folder)) and "\n" not in told
    return told


def same(source: Source, tensors: Tensors) -> bool:
    assert source.shapes() == {name: tensor.shape for name, tensor in tensors.items()}
    return all(np.array_equal(source.get(name), tensor) for name, tensor in tensors.items())


# --- the order


def test_the_names_are_those_of_diffusers(drawn):
    for places in PLACES.values():
        assert {network: set(names) for network, names in places.items()} == {
            network: set(tensors) for network, tensors in drawn.items()
        }


@pytest.mark.parametrize(
    ("port", "head"),
    [
        ("seed", ("time_embedding.linear_1", "time_embedding.linear_2", "conv_in")),
        ("keras-cv", ("time_embedding.linear_1", "conv_in", "time_embedding.linear_2")),
    ],
)
def test_the_ports_differ_in_the_first_layers_of_the_unet(port, head):
    names = list(PLACES[port]["unet"])
    assert names[:6] == [f"{layer}.{kind}" for layer in head for kind in ("weight", "bias")]
    assert names[6:] == list(PLACES["seed"]["unet"])[6:]
    assert len(names) == 686


# --- there and back


@every_form
def test_every_tensor_comes_back_by_its_name(written, drawn, form):
    opened = open_checkpoint(written[form])
    for part, networks in PARTS.items():
        tensors = {k: v for network in networks for k, v in drawn[network].items()}
        assert same(opened.source(part), tensors)


@every_form
def test_each_port_is_told_by_content(written, form):
    assert seed_h5.recognises(written[form]) == (form == "seed")
    assert FORMS[form].module.recognises(written[form])


@every_form
def test_the_config_is_told_by_the_shapes(written, form):
    opened = open_checkpoint(written[form])
    assert opened.place == written[form]
    text, unet, vae = (opened.config(part) for part in PARTS)
    assert (text["vocab_size"], text["hidden_size"], text["num_hidden_layers"]) == (1000, 48, 4)
    assert (unet["block_out_channels"], unet["cross_attention_dim"]) == ([32, 64, 96, 96], 48)
    assert vae["block_out_channels"] == [16, 32, 48, 48]
    assert opened.config("scheduler") == {}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_numbers_come_in_the_dtype_of_the_file(drawn, bent, dtype):
    halved = {k: v.astype(dtype) for k, v in drawn["decoder"].items()}
    folder = bent("resaved")
    write_resaved(folder, "decoder", halved)
    source = open_checkpoint(folder).source("vae")
    for name, tensor in halved.items():
        found = source.get(name)
        assert found.dtype == dtype
        assert np.array_equal(found, tensor)


def test_a_whole_model_saved_by_keras_2_holds_its_weights_in_a_group(drawn, bent):
    folder = bent("published")
    with h5py.File(folder / "kcv_text_encoder.h5", "w") as file:
        layers = as_keras_cv("text_encoder", drawn["text_encoder"])
        fill_keras2(file.create_group("model_weights"), layers)
        file["optimizer_weights/iterations:0"] = np.int64(3)
    assert same(open_checkpoint(folder).source("text_encoder"), drawn["text_encoder"])


def test_the_files_of_both_ports_may_lie_together_and_share_the_encoder(drawn, bent):
    """As they were published."""
    folder = bent("published")
    for network in ("text_encoder", "unet", "decoder"):
        write_seed(folder, network, negative(drawn[network]))
    seed, keras_cv = (module.open_quartet(folder) for module in (seed_h5, keras_cv_h5))
    assert same(seed.source("vae"), drawn["encoder"] | negative(drawn["decoder"]))
    assert same(keras_cv.source("vae"), drawn["encoder"] | drawn["decoder"])


def test_each_port_has_its_own_encoder_where_there_are_two(drawn, bent):
    folder = bent("published")
    for network in NETWORKS:
        write_seed(folder, network, negative(drawn[network]))
    seed, keras_cv = (module.open_quartet(folder) for module in (seed_h5, keras_cv_h5))
    assert same(seed.source("vae"), negative(drawn["encoder"] | drawn["decoder"]))
    assert same(keras_cv.source("vae"), drawn["encoder"] | drawn["decoder"])


def negative(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: -tensor for name, tensor in tensors.items()}


@every_form
def test_no_more_than_one_tensor_is_in_memory(drawn, written, form):
    source = open_checkpoint(written[form]).source("unet")
    sizes = [tensor.nbytes for tensor in drawn["unet"].values()]
    tracemalloc.start()
    for name in drawn["unet"]:
        source.get(name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(sizes) <= peak < 2 * max(sizes) < sum(sizes) / 4


# --- a live model


class Live:
    """As keras-cv's StableDiffusion: a network is made when it is first asked for."""

    def __init__(self, drawn: Mapping[str, Tensors]):
        self.drawn, self.made = drawn, []

    def make(self, network: str) -> SimpleNamespace:
        self.made.append(network)
        names, tensors = PLACES["keras-cv"][network], self.drawn[network]
        return SimpleNamespace(weights=[with_keras_axes(k, tensors[k]) for k in names])

    text_encoder = property(lambda self: self.make("text_encoder"))
    diffusion_model = property(lambda self: self.make("unet"))
    image_encoder = property(lambda self: self.make("encoder"))
    decoder = property(lambda self: self.make("decoder"))


def test_a_live_model_is_read_like_its_files_and_only_when_asked(drawn):
    live = Live(drawn)
    opened = keras_cv_h5.from_live(live)
    assert same(opened.source("unet"), drawn["unet"])
    assert set(live.made) == {"text_encoder", "unet"}
    assert same(opened.source("vae"), drawn["encoder"] | drawn["decoder"])
    assert opened.config("text_encoder")["num_hidden_layers"] == 4


def test_another_live_model_is_refused():
    with pytest.raises(UsageError, match=r"a SimpleNamespace has no text_encoder, so it is no"):
        keras_cv_h5.from_live(SimpleNamespace(decoder=None))


def test_a_live_stable_diffusion_2_is_refused_at_once():
    count = len(keras_order.tensors(keras_order.text_encoder(23)))
    weights = [np.zeros((77, 1024), np.float32)] * count
    live = Live({})
    live.make = lambda network: SimpleNamespace(weights=weights)
    with pytest.raises(UsageError, match=r"Live\.text_encoder is of Stable Diffusion 2; only"):
        keras_cv_h5.from_live(live)


# --- what is refused


@every_form
def test_a_missing_network_is_named(bent, form):
    folder = bent(form)
    (lost,) = folder.glob("*text_encoder*")
    lost.unlink()
    told, usual = refusal(folder), FORMS[form].module.USUAL
    assert f"{folder} has nothing that could be {usual['text_encoder']} among its .h5" in told
    assert all(path.name in told for path in folder.iterdir())


BROKEN = {  # what may stand in a file's place → what is said of it
    "half": (lambda data: data[: len(data) // 2], "is no whole h5 file"),
    "page": (lambda data: b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    "empty": (lambda data: b"", "is empty"),
}


@every_form
@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_file_is_named(bent, form, damage):
    change, finding = BROKEN[damage]
    folder = bent(form)
    (path,) = folder.glob("*unet*")
    path.write_bytes(change(path.read_bytes()))
    assert refusal(folder).startswith(f"{path} {finding}")


def test_a_file_that_breaks_after_it_was_opened_is_named(bent):
    folder = bent("published")
    source = open_checkpoint(folder).source("unet")
    path = folder / "kcv_unet.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UsageError, match=r"kcv_unet\.h5 is no whole h5 file"):
        source.get("conv_in.weight")


def test_a_folder_of_broken_files_only_is_told_too(tmp_path):
    for name in keras_cv_h5.USUAL.values():
        (tmp_path / name).write_bytes(b"<html>Sign in</html>")
    assert "is a web page" in refusal(tmp_path)


def test_other_h5_files_are_not_recognised(tmp_path):
    write_keras2(tmp_path / "digits.h5", {"dense": {"kernel": np.zeros((784, 10), np.float32)}})
    write_keras3(tmp_path / "w.weights.h5", {"layers/dense/vars/0": np.zeros((784, 10))})
    assert not keras_cv_h5.recognises(tmp_path)
    assert "holds no four h5 files that belong together" in refusal(tmp_path)


@every_network
def test_a_tensor_too_few_or_too_many_is_told(drawn, bent, network):
    folder = bent("published")
    path, count = folder / f"kcv_{network}.h5", len(drawn[network])
    layers = as_keras_cv(network, drawn[network])
    more = {"more": {"bias:0": np.zeros(3, np.float32)}}
    write_keras2(path, layers | more)
    assert f"{path} holds {count + 1} tensors, and a " in refusal(folder)
    list(layers.values())[-1].popitem()
    write_keras2(path, layers)
    assert f"{path} holds {count - 1} tensors, and a " in refusal(folder)


@every_network
def test_a_keras_3_file_must_hold_just_what_keras_cv_saves(bent, network):
    folder, lost = bent("resaved"), list(PLACES["keras-cv"][network].values())[-1]
    with h5py.File(folder / f"{network}.weights.h5", "a") as file:
        file["layers/lambda/vars/0"] = np.zeros(3, np.float32)
    assert "missing or not known layers/lambda/vars/0; save" in refusal(folder)
    with h5py.File(folder / f"{network}.weights.h5", "a") as file:
        del file["layers/lambda/vars/0"], file[lost]
    assert f"missing or not known {lost}; save" in refusal(folder)


@every_form
@pytest.mark.parametrize("network", ["text_encoder", "unet"])
def test_stable_diffusion_2_is_told_by_the_width_of_its_text(drawn, bent, form, network):
    wide = dict(drawn[network])
    for name, tensor in wide.items():
        if name.endswith(("position_embedding.weight", "attn2.to_k.weight")):
            wide[name] = np.zeros((len(tensor), 1024), np.float32)
    folder = bent(form)
    path = FORMS[form].write(folder, network, wide)
    assert refusal(folder).startswith(f"{path} is of Stable Diffusion 2; only")


@every_form
def test_two_files_of_one_network_are_not_chosen_from(bent, form):
    folder = bent(form)
    (one,) = folder.glob("*unet*")
    two = shutil.copy(one, folder / "also.h5")
    assert f"{two} and {one} are both a UNet; leave one of them" in refusal(folder)
