"""What we save, diffusers and transformers load: every tensor to the last bit, every token."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion
from tests import oracles
from tests.oracles import ANATOMIES, LCM

pytestmark = [
    pytest.mark.parity,
    # diffusers wants steps_offset 1 of every scheduler, and LCM's own has 0
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
]

PROMPTS = [
    "",
    "a cat",
    "A photograph of an astronaut riding a horse, 4k, highly detailed!",
    "it's the dog's 2nd (red) ball - isn't it?",
    "crème brûlée in a café",
    "word " * 100,
]


@pytest.fixture(scope="module", params=[*ANATOMIES, "lcm"])
def case(request, tmp_path_factory) -> tuple[SimpleNamespace, Path]:
    """The oracles' models, and a folder that they wrote and that we saved again."""
    anatomy = ANATOMIES.get(request.param, LCM)
    theirs, folder = oracles.oracles(anatomy), tmp_path_factory.mktemp("saved")
    oracles.save(theirs, folder / "from")
    if anatomy is LCM:
        oracles.lcm().save_pretrained(folder / "from" / "scheduler")
    StableDiffusion.load(folder / "from").save(folder / "to")
    return theirs, folder / "to"


def loaded(folder: Path) -> Any:
    import diffusers

    return diffusers.StableDiffusionPipeline.from_pretrained(
        folder, local_files_only=True, low_cpu_mem_usage=False
    )


def assert_same(ours: Any, theirs: Any) -> None:
    """Two torch modules: the same names, the same tensors bit by bit."""
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy(), err_msg=name)


def test_diffusers_loads_every_tensor_to_the_last_bit(case):
    theirs, folder = case
    pipeline = loaded(folder)
    for part, model in vars(theirs).items():
        assert type(getattr(pipeline, part)) is type(model)
        assert_same(getattr(pipeline, part), model)


def test_diffusers_loads_float16_as_torch_rounds_it(case, tmp_path):
    theirs, folder = case
    StableDiffusion.load(folder).save(tmp_path, "float16")
    pipeline = loaded(tmp_path)
    for part, model in vars(theirs).items():
        found = getattr(pipeline, part).float()  # transformers keeps what is in the file
        assert_same(found, copy.deepcopy(model).half().float())


def test_the_scheduler_is_the_one_that_the_model_wants(case):
    theirs, folder = case
    expected = oracles.lcm() if theirs.unet.config.time_cond_proj_dim else oracles.ddim()
    found = loaded(folder).scheduler
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found.alphas_cumprod.numpy(), expected.alphas_cumprod.numpy())
    found.set_timesteps(4)
    expected.set_timesteps(4)
    np.testing.assert_array_equal(found.timesteps.numpy(), expected.timesteps.numpy())


def test_transformers_reads_our_tokenizer_as_we_do(case):
    import transformers

    _, folder = case
    theirs = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    options = {"padding": "max_length", "max_length": theirs.model_max_length, "truncation": True}
    ours = StableDiffusion.load(folder).tokenize(PROMPTS)
    np.testing.assert_array_equal(theirs(PROMPTS, **options)["input_ids"], ours)
