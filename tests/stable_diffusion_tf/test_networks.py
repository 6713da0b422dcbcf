"""Our networks, with weights that are drawn, against the stored answers of the oracles."""

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion
from tests import backends
from tests.golden.make_networks import CHOSEN
from tests.oracles import ANATOMIES, inputs, parting


@pytest.fixture(scope="module", params=CHOSEN)
def case(request, tmp_path_factory):
    """The name of an anatomy, and its checkpoint opened."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, StableDiffusion.load(backends.write_checkpoint(folder, request.param))


@pytest.mark.parametrize("part", backends.PARTS)
def test_a_network_answers_like_the_oracle(case, part):
    name, sd = case
    made = sd.function(part)(*inputs(ANATOMIES[name])[part])
    assert made.dtype == np.float32
    assert parting(made, backends.golden(name)[part]) < 1e-4
