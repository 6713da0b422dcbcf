"""Stable Diffusion 1.x and its distillations at full size: as many parameters as were published."""

from collections.abc import Iterator
from dataclasses import replace

import keras
import pytest

from stable_diffusion_tf.config import UNetConfig
from stable_diffusion_tf.unet import build_unet
from tests.oracles import CROSS_DOWN, CROSS_UP

SD1 = UNetConfig()
BASE = replace(SD1, layers_per_block=1)
SMALL = replace(BASE, mid_block_type=None)
TINY = replace(
    SMALL,
    block_out_channels=(320, 640, 1280),
    down_block_types=(CROSS_DOWN,) * 3,
    up_block_types=(CROSS_UP,) * 3,
)
LCM = replace(SD1, time_cond_proj_dim=256)


@pytest.fixture
def weightless() -> Iterator[None]:
    """Variables made meanwhile have a shape and no value; and Keras never makes up for it."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


@pytest.mark.parametrize(
    "config, count",
    [
        pytest.param(SD1, 859_520_964, id="SD 1.x"),
        pytest.param(BASE, 579_384_964, id="bk-sdm-base, small-sd"),
        pytest.param(SMALL, 482_346_884, id="bk-sdm-small"),
        pytest.param(TINY, 323_384_964, id="bk-sdm-tiny, tiny-sd"),
        pytest.param(LCM, 859_602_884, id="LCM_Dreamshaper_v7"),
    ],
)
def test_a_unet_of_full_size_has_the_published_number_of_parameters(weightless, config, count):
    assert build_unet(config).count_params() == count
