"""torch's files and CompVis' layout: what torch saves and diffusers converts is what we read."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.files import open_tensors
from stable_diffusion_tf.checkpoint.folder import DiffusersFolder
from stable_diffusion_tf.checkpoint.open import open_checkpoint
from stable_diffusion_tf.checkpoint.single import SingleFile
from stable_diffusion_tf.checkpoint.tensors import Source
from stable_diffusion_tf.checkpoint.textual_inversion import read_embedding
from tests import oracles
from tests.formats import write_stream, write_zip
from tests.golden.make_compvis import compvis, converted
from tests.oracles import ANATOMIES

pytestmark = pytest.mark.parity

PARTS = ("text_encoder", "unet", "vae")
STREAM = {"zip": True, "stream": False}  # torch's name for it: _use_new_zipfile_serialization


def check(source: Source, expected: dict[str, np.ndarray]) -> None:
    """The same names, and the same tensors bit by bit."""
    assert source.shapes() == {name: tensor.shape for name, tensor in expected.items()}
    for name, tensor in expected.items():
        found = source.get(name)
        assert found.dtype == tensor.dtype, name
        np.testing.assert_array_equal(found, tensor, err_msg=name)


# --- torch's files


def views() -> dict:
    """Tensors of every dtype and every kind of view."""
    import torch

    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    return {
        "whole": base,
        "transposed": base.t(),
        "cut": base[1:5:2, 2:7:3],
        "expanded": base[2, 3].expand(2, 5),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "number": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "double": base.double(),
        "half": base.half(),
        "long": torch.arange(77)[None],
        "int": torch.arange(5, dtype=torch.int32),
        "byte": torch.arange(5, dtype=torch.uint8),
        "bool": base > 0,
    }


@pytest.mark.parametrize("form", STREAM)
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}])
def test_what_torch_saves_is_read(tmp_path, form, wrap):
    import torch

    tensors = views()
    path = tmp_path / "weights.bin"
    torch.save(wrap(tensors), path, _use_new_zipfile_serialization=STREAM[form])
    check(open_tensors(path), {k: v.detach().numpy() for k, v in tensors.items()})


@pytest.mark.parametrize("form", STREAM)
def test_bfloat16_is_read(tmp_path, form):
    import torch

    tensor = torch.randn(3, 5).bfloat16()
    torch.save({"w": tensor}, tmp_path / "w.bin", _use_new_zipfile_serialization=STREAM[form])
    found = open_tensors(tmp_path / "w.bin").get("w")
    assert str(found.dtype) == "bfloat16"
    np.testing.assert_array_equal(found.view(np.uint16), tensor.view(torch.uint16).numpy())


def test_a_modules_state_is_read_and_the_module_itself_is_not(tmp_path):
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.GroupNorm(1, 3))
    torch.save(module.state_dict(), tmp_path / "state.bin")
    check(
        open_tensors(tmp_path / "state.bin"), {k: v.numpy() for k, v in module.state_dict().items()}
    )
    torch.save(module, tmp_path / "module.bin")
    with pytest.raises(UsageError, match="Sequential, which no checkpoint needs: nothing was run"):
        open_tensors(tmp_path / "module.bin")


@pytest.mark.parametrize("write", [write_zip, write_stream])
def test_torch_reads_what_the_tests_write(tmp_path, write):
    """So that the tests without torch have files as torch would have written them."""
    import torch

    base = np.arange(48, dtype=np.float32).reshape(6, 8)
    tree = {"state_dict": {"base": base, "cut": base.T[1:3], "ids": np.arange(5)}, "epoch": 3}
    found = torch.load(write(tmp_path / "weights.bin", tree), weights_only=True)
    assert found["epoch"] == 3
    for name, tensor in tree["state_dict"].items():
        np.testing.assert_array_equal(found["state_dict"][name].numpy(), tensor)


# --- whole checkpoints


@pytest.fixture(scope="module", params=["sd1", "bk-sdm-base", "bk-sdm-tiny", "odd", "phantom"])
def case(request) -> SimpleNamespace:
    """An anatomy, the oracles' models, and their tensors by part and name."""
    anatomy = ANATOMIES[request.param]
    models = oracles.oracles(anatomy)
    parts = {
        part: {
            (oracles.PREFIX if part == "text_encoder" else "") + name: tensor.numpy()
            for name, tensor in model.state_dict().items()
        }
        for part, model in vars(models).items()
    }
    return SimpleNamespace(anatomy=anatomy, models=models, parts=parts)


@pytest.mark.parametrize("form", STREAM)
def test_words_as_the_papers_own_code_saves_them_are_read(tmp_path, form):
    """Of textual inversion: ldm/modules/embedding_manager.py, save."""
    import torch

    rows = torch.randn(3, 768)
    tree = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(rows)}),
    }
    torch.save(tree, tmp_path / "toy.pt", _use_new_zipfile_serialization=STREAM[form])
    word, found = read_embedding(tmp_path / "toy.pt")
    assert word == "toy"
    np.testing.assert_array_equal(found, rows.numpy())


def as_diffusers_saves(case: SimpleNamespace, folder: Path, **options) -> Path:
    for part, model in vars(case.models).items():
        model.save_pretrained(folder / part, **options)
    return folder


@pytest.mark.parametrize(
    "options",
    [{}, {"variant": "fp16"}, {"max_shard_size": "200KB"}],
    ids=["whole", "fp16", "shards"],
)
def test_a_folder_that_diffusers_saved_is_read(case, tmp_path, options):
    folder = open_checkpoint(as_diffusers_saves(case, tmp_path, **options))
    assert isinstance(folder, DiffusersFolder)
    if "max_shard_size" in options:
        assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
    for part in PARTS:
        check(folder.source(part), case.parts[part])


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "200KB"}], ids=["whole", "shards"])
def test_a_folder_of_pickles_is_read(case, tmp_path, options):
    """diffusers still writes .bin; transformers 5 does not, so its part is torch's own."""
    import torch

    for part in ("unet", "vae"):
        getattr(case.models, part).save_pretrained(
            tmp_path / part, safe_serialization=False, **options
        )
    text = {oracles.PREFIX + k: v for k, v in case.models.text_encoder.state_dict().items()}
    (tmp_path / "text_encoder").mkdir()
    torch.save(text, tmp_path / "text_encoder" / "pytorch_model.bin")
    assert not list(tmp_path.rglob("*.safetensors"))
    for part in PARTS:
        check(open_checkpoint(tmp_path).source(part), case.parts[part])


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
def test_a_single_file_is_read_as_diffusers_converts_it(case, tmp_path, ending):
    import torch

    flat = {k: np.ascontiguousarray(v) for k, v in compvis(case.parts, case.anatomy).items()}
    path = tmp_path / f"model.{ending}"
    if ending == "ckpt":
        torch.save({"state_dict": {k: torch.from_numpy(v) for k, v in flat.items()}}, path)
    else:
        save_file(flat, path)
    file, theirs = open_checkpoint(path), converted(flat, case.anatomy)
    assert isinstance(file, SingleFile)
    for part in PARTS:
        check(file.source(part), theirs[part])
        check(file.source(part), case.parts[part])
