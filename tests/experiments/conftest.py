"""Scripts under test share the phantom of the other tests."""

import pytest

from stable_diffusion_tf import StableDiffusion
from xray import script


@pytest.fixture
def loaded(phantom, monkeypatch) -> None:
    """Scripts that ask for the phantom get the one that is compiled already."""
    load = script.load_model

    def lend(*asked: str) -> StableDiffusion:
        return phantom if asked == ("phantom",) else load(*asked)

    monkeypatch.setattr(script, "load_model", lend)
