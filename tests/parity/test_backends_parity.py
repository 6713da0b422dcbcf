"""The same weights, inputs and seed give the same numbers on every backend."""

import pytest

from tests.backends import answers_on, golden, write_checkpoint
from tests.oracles import parting

pytestmark = pytest.mark.parity

NAME = "odd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp(NAME), NAME)


@pytest.fixture(scope="module")
def on_tensorflow(folder):
    return answers_on("tensorflow", folder, NAME)


@pytest.mark.parametrize("backend", ["jax", "torch", "openvino"])
def test_a_backend_answers_like_the_others(backend, folder, on_tensorflow, record_property):
    theirs = golden(NAME)
    for part, made in answers_on(backend, folder, NAME).items():
        from_oracle = parting(made, theirs[part.removesuffix(" in chunks")])
        from_tensorflow = parting(made, on_tensorflow[part])
        record_property(part, from_oracle)
        print(f"\n{backend}, {part}: {from_oracle:.1e}, and {from_tensorflow:.1e} from tensorflow")
        assert max(from_oracle, from_tensorflow) < 1e-4, part
