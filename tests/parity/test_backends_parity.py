"""The same weights, inputs and seed give the same numbers on every backend."""

from functools import cache
from pathlib import Path

import pytest

from tests import oracles
from tests.backends import answers_on, golden, write_checkpoint
from tests.oracles import ANATOMIES, parting

pytestmark = pytest.mark.parity

CASES = [
    (name, backend) for name in ("odd", "bk-sdm-tiny") for backend in ("jax", "torch", "openvino")
]


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    """Of an anatomy the folder of its checkpoint, and what TensorFlow answers."""

    @cache
    def answers(name: str) -> tuple[Path, dict]:
        folder = write_checkpoint(tmp_path_factory.mktemp(name), name)
        return folder, answers_on("tensorflow", folder, name)

    return answers


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_a_backend_answers_like_the_others(name, backend, on_tensorflow, record_property):
    theirs, (folder, ours) = golden(name), on_tensorflow(name)
    for part, made in answers_on(backend, folder, name).items():
        from_oracle = parting(made, theirs[part.removesuffix(" in chunks")])
        from_tensorflow = parting(made, ours[part])
        record_property(part, from_oracle)
        print(f"\n{backend}, {part}: {from_oracle:.1e}, and {from_tensorflow:.1e} from tensorflow")
        assert max(from_oracle, from_tensorflow) < 1e-4, part


@pytest.mark.parametrize("name", ["phantom", "sd1", "bk-sdm-base"])
def test_openvino_answers_like_tensorflow(name, tmp_path):
    """The anatomies without recorded answers, their weights as torch draws them."""
    import torch

    torch.manual_seed(0)
    oracles.save(oracles.as_torch_draws_them(ANATOMIES[name]), tmp_path)
    ours, theirs = (answers_on(one, tmp_path, name) for one in ("openvino", "tensorflow"))
    for part, made in ours.items():
        print(f"\n{part}: {parting(made, theirs[part]):.1e}")
        assert parting(made, theirs[part]) < 1e-4, part
