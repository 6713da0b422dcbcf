"""The script on anatomy: its counts on planted layers and on SD 1.x, its control, the run."""

import csv

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import test_anatomy as anatomy_script
from stable_diffusion_tf import attention, layers
from stable_diffusion_tf.config import CLIPTextConfig, UNetConfig, VAEConfig
from tests.experiments.test_scripts import call, check_refusal, only, spread
from xray.methods import anatomy
from xray.probe.survey import bare
from xray.report import read_report

LATENT, IMAGE = (1, 64, 64, 4), (1, 512, 512, 3)
SD1 = {  # part → config, inputs
    "text_encoder": (CLIPTextConfig(), [((1, 77), "int32")]),
    "unet": (UNetConfig(), [(LATENT,), ((1,), "int32"), ((1, 77, 768),)]),
    "decoder": (VAEConfig(), [(LATENT,)]),
    "encoder": (VAEConfig(), [(IMAGE,)]),
}


@pytest.mark.parametrize("part", SD1)
def test_sd1_is_counted_as_the_literature_does(part, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2**40)  # attention in one piece: quicker to trace
    config, inputs = SD1[part]
    found = anatomy.layers(bare(part, config), [keras.KerasTensor(*x) for x in inputs])
    parameters, gmacs = anatomy_script.SD1[part]
    assert sum(layer.parameters for layer in found) == parameters
    assert sum(layer.macs for layer in found) / 1e9 == pytest.approx(gmacs, rel=5e-4)


class Planted(layers.Network):
    """Half of the rows and columns, and a dense layer that is called twice."""

    def __init__(self):
        super().__init__(name="planted")
        self.half = keras.layers.Conv2D(5, 3, strides=2, padding="same", name="half")
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.wide = keras.layers.Dense(7, use_bias=False, name="wide")
        self.shared = keras.layers.Dense(7, name="shared")

    def call(self, x):  # (b, 8, 6, 3)
        x = self.wide(self.norm(self.half(x)))  # (b, 4, 3, 7)
        return self.shared(self.shared(x))


def test_a_planted_network_is_counted_by_hand():
    found = anatomy.layers(Planted(), [np.zeros((1, 8, 6, 3), np.float32)])
    told = {layer.address.split(".")[-1]: layer for layer in found}
    assert {name: (layer.parameters, layer.macs) for name, layer in told.items()} == {
        "half": (3 * 3 * 3 * 5 + 5, 12 * 3 * 3 * 3 * 5),
        "norm": (10, 0),
        "wide": (35, 12 * 35),
        "shared": (56, 12 * 49),
        "shared#2": (0, 12 * 49),
    }


def test_attention_is_its_two_products():
    class Heads:
        weights, path = [], "probs"

    shapes = {"attn.probs": (2, 4, 16, 77), "attn.heads": (2, 16, 4, 12)}
    layer = anatomy.measured(Heads(), "attn.probs", shapes)
    assert layer.kind == "attention" and layer.macs == 2 * (2 * 4 * 16 * 77 * 12)


MACS = {"convolution": 3 * 10**9, "dense": 0, "attention": 10**9}


def test_work_is_shared_by_calls():
    rows = [
        anatomy.Block("unet", "mid_block", (4, 4, 8), True, 30, MACS, 1),
        anatomy.Block("encoder", "mid_block", (4, 4, 8), True, 10, MACS, 1),
        anatomy.Block("decoder", "mid_block", (4, 4, 8), True, 60, MACS, 1),
    ]
    part = anatomy.shares(rows, {"unet": 3, "encoder": 0, "decoder": 1})
    assert part["parameters"] == {"unet": 0.3, "encoder": 0.1, "decoder": 0.6}
    assert part["work"] == {"unet": 0.75, "encoder": 0, "decoder": 0.25}
    assert anatomy.sum_by_place(rows) == {"text_encoder": 0, "unet": 30, "vae": 70}


def test_it_saves_drawing_and_tables(tmp_path, monkeypatch, capfd):
    call(anatomy_script.main, "--out", tmp_path / "whole", monkeypatch=monkeypatch)
    folder = only(tmp_path / "whole" / "test_anatomy")
    assert spread(folder / "figure.png") > 10
    with open(folder / "layers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["parameters"]) for row in rows) == 9_790_475
    assert len((folder / "blocks.csv").read_text(encoding="utf-8").splitlines()) == 1 + 30
    report, _ = read_report(folder / "report.json")
    assert report.numbers["unet, parameters"] == "2,026,276" and len(report.finding.split()) <= 25
    said, complained = capfd.readouterr()
    assert (
        complained == "" and "text_encoder 6,929,152, unet 2,026,276, vae 835,047; the same" in said
    )


def test_the_control_fails_where_a_layer_is_lost(tmp_path, monkeypatch):
    row = anatomy.Block("unet", "mid_block", (4, 4, 8), True, 30, MACS, 1)
    monkeypatch.setattr(anatomy, "blocks", lambda sd: ([row], []))
    monkeypatch.setattr(anatomy_script.figures, "anatomy_sheet", lambda *given: Figure())
    with pytest.raises(SystemExit, match="control failed"):
        call(anatomy_script.main, "--out", tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--steps", "0"], "steps"), (["--weights", "nothing-such"], "not in the catalogue")],
)
def test_bad_input_is_one_line_and_nothing_is_written(words, told, tmp_path, monkeypatch, capfd):
    check_refusal(anatomy_script.main, words, told, tmp_path / "out", monkeypatch, capfd)
