"""Probes and edits on the other backends: right in every kind of model, harmless in the phantom."""

import numpy as np
import pytest

from stable_diffusion_tf.attention import FUSED
from tests import tiny
from tests.backends import told_by
from tests.xray import slopes, toys
from xray.rounding import MARGIN

BACKENDS = ["jax", "torch", "openvino"]
# An edit, or a value before it, takes attention's own kernel apart, where there is one: no further
# than this, nor than rounding does.
UNFUSED = {
    "everything read": 5e-5,
    "everything written back": 5e-5,
    "edits of no step": 1e-4,
    "patched with itself": 1e-4,
}

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("backend", BACKENDS)
def test_toys_of_every_kind_give_out_what_arithmetic_says(backend, tmp_path):
    found, wanted = told_by("tests.xray.toys", backend, tmp_path / "toys.npz"), toys.expected()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_changes_nothing_changes_no_bit(backend, tmp_path, record_property):
    gaps = told_by("tests.xray.gaps", backend, tmp_path / "gaps.npz")
    floor = float(gaps.pop("rounding"))
    for name, gap in gaps.items():
        record_property(name, float(gap))
        print(f"\n{backend}, {name}: {gap:.1e}; rounding reaches {floor:.1e}")
        most = UNFUSED.get(name, 0) if backend in FUSED else 0
        assert gap <= min(MARGIN * floor, most), name


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "openvino"])
def test_a_gradient_is_what_finite_differences_say(backend, tmp_path):
    folder = tiny.write_model(tmp_path / "tiny")
    found = told_by("tests.xray.slopes", backend, tmp_path / "slopes.npz", str(folder))
    assert slopes.close(found), found
