"""A torch original and a Keras port of it: paired by name, and each planted fault found."""

import keras
import numpy as np
import pytest
from keras import layers

import xray
from stable_diffusion_tf.errors import UsageError
from tests.test_docs import code

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

RNG = np.random.default_rng(0)
X = [RNG.standard_normal((2, 6, 6, 3), dtype=np.float32), np.array([3, 7], np.int32)]
MATCH = {"port.conv": "conv", "port.embed": "embed", "port.norm": "block.norm"}
MATCH |= {"port.mix": "block.mix", "port.gelu": "block.act", "port.head": "head"}


class Block(torch.nn.Module):
    def __init__(self, eps, approximate):
        super().__init__()
        self.norm = torch.nn.LayerNorm(4, eps)
        self.mix = torch.nn.Linear(4, 4)
        self.act = torch.nn.GELU(approximate)

    def forward(self, y):  # (b, h·w, c)
        return self.act(self.mix(self.norm(y)))


class Original(torch.nn.Module):
    """Pictures channels first, tokens channels last; the head is called twice."""

    def __init__(self, eps=1e-5, approximate="none", colours=slice(None), late=0):
        super().__init__()
        self.colours, self.late = [*range(3)][colours], late
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.embed = torch.nn.Embedding(20, 4)
        self.block = Block(eps, approximate)
        self.head = torch.nn.Linear(4, 4)

    def forward(self, x, t):
        y = self.conv(x[:, self.colours]) + self.embed(t + self.late)[:, :, None, None]
        y = self.block(y.flatten(2).swapaxes(1, 2))
        return self.head(self.head(y))


def original(**options):
    torch.manual_seed(0)
    return Original(**options).eval()


def port(of, eps=1e-5, conv=(2, 3, 1, 0), mix=(1, 0)) -> keras.Model:
    x, t = keras.Input((6, 6, 3)), keras.Input((), dtype="int32")
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = y + layers.Reshape((1, 1, 4))(layers.Embedding(20, 4, name="embed")(t))
    y = layers.LayerNormalization(epsilon=eps, name="norm")(layers.Reshape((-1, 4))(y))
    y = layers.Activation("gelu", name="gelu")(layers.Dense(4, name="mix")(y))
    head = layers.Dense(4, name="head")
    model = keras.Model([x, t], head(head(y)), name="port")
    turned = {"conv": (of.conv, conv), "mix": (of.block.mix, mix), "head": (of.head, (1, 0))}
    for name, (module, axes) in turned.items():
        kernel, bias = (p.detach().numpy() for p in (module.weight, module.bias))
        model.get_layer(name).set_weights([kernel.transpose(axes), bias])
    model.get_layer("embed").set_weights([of.embed.weight.detach().numpy()])
    return model


FAULTS = {  # the original, the port, where they part, why
    "dense": ({}, {"mix": (0, 1)}, "port.mix", "transposed kernel: with the axes of kernel in the"),
    "conv": ({}, {"conv": (3, 2, 1, 0)}, "port.conv", "transposed kernel: with the axes of kernel"),
    "ε": ({"eps": 1e-3}, {}, "port.norm", "ε of a norm: with epsilon 0.001 in place of 1e-05"),
    "tanh": ({"approximate": "tanh"}, {}, "port.gelu", "another GELU: with the tanh GELU"),
    "BGR": ({"colours": slice(None, None, -1)}, {}, "port.conv", "swapped channels: with inputs"),
    "late": ({"late": 1}, {}, "port.embed", "shifted timestep: with inputs +1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_with_its_cause(name):
    theirs, ours, address, cause = FAULTS[name]
    b = original(**theirs)
    a = port(b, **ours)
    before = {key: value.clone() for key, value in b.state_dict().items()}
    found = xray.compare_models(a, b, X, match=MATCH, tolerance=1e-5)
    assert found.first.address == address and found.cause.startswith(cause), found
    assert all(torch.equal(value, before[key]) for key, value in b.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in b.modules())


def test_a_sound_port_agrees_in_every_pair():
    b = original()
    found = xray.compare_models(port(b), b, X, match=MATCH)
    assert found.first is None and found.cause is None, found
    assert found.names == {**MATCH, "port.head#2": "head#2", "port": ""}
    assert found.only_other == ("block",)


def test_a_fault_that_no_test_knows_is_found_without_a_cause():
    b = original()
    a = port(b)
    b.block.act = torch.nn.SiLU()
    found = xray.compare_models(a, b, X, match=MATCH)
    assert found.first.address == "port.gelu" and found.cause is None and found.inputs < 1e-5


@pytest.mark.parametrize("heads", [2, 5])  # with 5, the shape does not tell which axis is which
def test_maps_of_attention_stay_as_they_are(heads):
    class Maps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.soft = torch.nn.Softmax(-1)

        def forward(self, x):  # (b, heads, 5, 5)
            return self.soft(x.flatten(1).reshape(-1, heads, 5, 5))

    y = RNG.standard_normal((2, heads * 25), dtype=np.float32)
    x = keras.Input((heads * 25,))
    soft = layers.Softmax(name="soft")(layers.Reshape((heads, 5, 5))(x))
    found = xray.compare_models(
        keras.Model(x, soft, name="a"), Maps().eval(), y, {"a.soft": "soft"}
    )
    assert found.first is None and len(found.rows) == 2


def test_what_a_module_in_between_is_given_is_compared_too():
    b = original()
    a = port(b)
    match = {"port.head": "head"}
    b.block.act = torch.nn.SiLU()
    found = xray.compare_models(a, b, X, match=match)
    assert found.first.address == "port.head" and found.inputs > 1e-3
    assert "look at what lies between" in str(found)


def test_a_module_in_training_and_a_name_that_is_not_there_are_refused():
    b = original()
    a = port(b)
    with pytest.raises(UsageError, match=r"b is in training.*b.eval\(\)"):
        xray.compare_models(a, b.train(), X, match=MATCH)
    with pytest.raises(UsageError, match=r"b has no 'convv'; the nearest are 'conv'"):
        xray.compare_models(a, b.eval(), X, match={"port.conv": "convv"})
    with pytest.raises(UsageError, match=r"say which value is which, match=.*named_modules"):
        xray.compare_models(a, b, X)


def test_the_page_about_ports_finds_the_tanh(capsys):
    (snippet,) = (block for block in code("comparing-ports.md") if "torch" in block)
    for _ in range(2):
        exec(snippet, {})
        said = capsys.readouterr().out
        assert "first past 1e-05: port.act (in b: 1)\n" in said
        assert "likely cause: another GELU: with the tanh GELU, a agrees to" in said
