"""What several tests of the instrument look into."""

import pytest

from stable_diffusion_tf import StableDiffusion
from tests import tiny


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A model that draws from prompts and is compiled in a moment."""
    return StableDiffusion.load(tiny.write_model(tmp_path_factory.mktemp("models") / "tiny"))
