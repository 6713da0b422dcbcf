"""Ports with one planted fault: found where it is, with its cause; sound ports agree."""

import keras
import numpy as np
import pytest
from keras import layers

import xray
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.unet import build_unet
from tests.tiny import UNET, scramble
from tests.xray.ports import FAULTS, X, filled, functional, net, subclassed
from tests.xray.toys import TOYS
from xray.compare.structure import values_of
from xray.probe.hooks import layers_of

TOLERANCE = 1e-5  # the tanh GELU and the ε of these norms move less than 1e-4


def pieces(model: keras.Model) -> list:
    """What a comparison could leave behind: weights to the bit, attributes by identity."""
    held = [{k: id(v) for k, v in vars(layer).items()} for layer in layers_of(model)]
    return [w.tobytes() for w in model.get_weights()] + held


def unnamed() -> keras.Model:
    """All names are Keras' own: numbered for the whole process."""
    x = keras.Input((5, 4))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    y = keras.Sequential([layers.Dense(4), layers.Dense(4, "gelu")])(x + y)
    y = layers.Dense(4)(layers.LayerNormalization()(y * 2.0))
    return keras.Model(x, layers.Dense(4)(layers.Dropout(0.1)(y)))


class Held(keras.Model):
    """Layers in a list, a dict, an attribute, and one that is called twice."""

    def __init__(self, heads: str = "ab"):
        super().__init__()
        self.blocks = [keras.Sequential([layers.Dense(4), layers.Dense(4)]) for _ in range(2)]
        self.heads = {name: layers.Dense(4) for name in heads}
        self.last = layers.Dense(2)

    def call(self, x):
        for block in [*self.blocks, self.blocks[0]]:
            x = x + block(x)
        return {name: self.last(head(x)) for name, head in self.heads.items()}


# --- faults


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_where_it_is_with_its_cause(name):
    fault = FAULTS[name]
    a, b = fault.make()
    before = pieces(a), pieces(b)
    found = xray.compare_models(a, b, X, tolerance=TOLERANCE)
    assert (pieces(a), pieces(b)) == before, "something was left behind"
    assert found.first.address.rstrip("_0123456789") == fault.address
    assert found.cause is fault.cause is None or found.cause.startswith(fault.cause)


@pytest.mark.parametrize("make", [functional, subclassed])
def test_a_sound_port_agrees_and_has_no_cause(make):
    a, b = make()
    found = xray.compare_models(a, b, X)
    assert found.first is None and found.cause is None and found.inputs is None
    assert "values are equal" in str(found) or "values agree to" in str(found)
    assert not found.only_one and not found.only_other


def test_a_fault_below_the_tolerance_is_found_with_a_smaller_one():
    a, b = filled(net("a", ln=1e-5)), filled(net("b", ln=1e-6))
    assert xray.compare_models(a, b, X).first is None
    found = xray.compare_models(a, b, X, tolerance=1e-6)
    assert found.first.address == "a_net.a_norm" and found.cause.startswith("ε of a norm: with")


def test_what_lies_between_and_has_no_pair_is_told():
    found = xray.compare_models(*subclassed("stretched"), X)
    assert found.inputs > 0.1 and "look at what lies between" in str(found)
    found = xray.compare_models(*functional(scale=3.0), X)
    assert found.inputs == 0 and "what this layer is given agrees to 0.0e+00" in str(found)


class Masked(layers.Layer):
    def __init__(self, factor: float):
        super().__init__(name="masked")
        self.factor = factor

    def call(self, x, mask, *, more=None, how="by"):
        return keras.ops.where(mask, x * self.factor, 0.0)


def test_what_is_no_number_and_no_tensor_is_left_alone():
    x, mask = keras.Input((3,)), keras.Input((3,), dtype="bool")
    a, b = (keras.Model([x, mask], Masked(n)(x, mask, how="so"), name="net") for n in (2.0, 3.0))
    found = xray.compare_models(a, b, [np.ones((2, 3), np.float32), np.ones((2, 3), bool)])
    assert found.first.address == "net.masked" and found.cause is None and found.inputs == 0


def test_what_is_printed_names_both_sides():
    a, b = functional(colours=lambda x: keras.ops.flip(x, -1))
    told = str(xray.compare_models(a, b, X)).splitlines()
    assert any(line.startswith("→ a_net.a_conv_in ") for line in told)
    assert "first past 0.0001: a_net.a_conv_in (in b: b_net.b_conv_in)" in told
    assert told[-2].startswith("likely cause: swapped channels: with inputs in reverse order, b ")
    assert told[-1].startswith("only in b: b_net.flip")


# --- pairs


def renamed(model: keras.Model) -> keras.Model:
    """The model with other names for all its layers."""
    for i, layer in enumerate(layers_of(model)):
        layer.name = f"other_{len(layer.name) * 7 + i}"
    return model


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_built_twice_pairs_every_value_whatever_it_is_called(name):
    keras.backend.clear_session()
    (a, x, expected), (b, _, _) = TOYS[name](), TOYS[name]()
    found = xray.compare_models(a, renamed(b), x)
    assert not found.only_one and not found.only_other and found.first is None
    assert {row.address for row in found.rows} >= set(expected)


@pytest.mark.parametrize("make", [unnamed, Held])
def test_names_of_keras_own_do_not_matter(make):
    x = np.random.default_rng(0).standard_normal((2, 5, 4), dtype=np.float32)
    a, b = make(), make()
    a(x), b(x)
    b.set_weights(a.get_weights())
    found = xray.compare_models(a, b, x)
    assert not found.only_one and not found.only_other and found.first is None
    assert len(found.rows) == {unnamed: 15, Held: 15}[make]
    assert all(key != name for key, name in found.names.items())


def test_a_place_is_said_by_attributes_and_turns():
    x = np.ones((1, 4), np.float32)
    reads, structure = values_of(Held(), x, xray.Probe("*"))
    assert {structure.where(address) for address in reads} == {
        *(f".blocks.{i}{more}" for i in "01" for more in ("", ".Dense1", ".Dense2")),
        *(f".blocks.0#2{more}" for more in ("", ".Dense1", ".Dense2")),
        *(".heads.a", ".heads.b", ".last", ".last#2", ":a", ":b"),
    }


def test_a_unet_built_twice_pairs_every_value():
    a, b = scramble(build_unet(UNET)), renamed(scramble(build_unet(UNET)))
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((1, 8, 8, UNET.in_channels), dtype=np.float32)
    context = rng.standard_normal((1, 6, UNET.cross_attention_dim), dtype=np.float32)
    found = xray.compare_models(a, b, (latent, np.array([500]), context))
    assert not found.only_one and not found.only_other and found.first is None
    assert len(found.rows) > 80


def test_what_one_side_lacks_is_told_and_the_rest_is_paired():
    x = np.ones((1, 4), np.float32)
    a, b = Held("abc"), Held("ab")
    a(x), b(x)
    found = xray.compare_models(a, b, x)
    assert not found.only_other and len(found.only_one) == 3  # a head, the last layer, an output
    assert any(address.endswith(":c") for address in found.only_one)


def test_another_shape_in_the_same_place_is_where_they_part():
    x = np.ones((1, 3), np.float32)
    a, b = (keras.Sequential([keras.Input((3,)), layers.Dense(n)], name="net") for n in (4, 5))
    found = xray.compare_models(a, b, x)
    assert found.first.note == "(1, 4) and (1, 5)" and found.cause is None


# --- names


def two_classes() -> tuple:
    """A functional network and a subclassed one that computes the same."""
    x = keras.Input((4,))
    y = layers.Dense(4, name="fc_1")(layers.Dense(4, name="fc_0")(x))
    a, b = keras.Model(x, y, name="here"), Other(name="there")
    b(np.ones((1, 4)))
    b.set_weights(a.get_weights())
    return a, b


class Other(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.steps = [layers.Dense(4, name=f"step{i}") for i in range(2)]

    def call(self, x):
        return {"out": self.steps[1](self.steps[0](x))}


MATCHES = {
    "mapping": {"here.fc_0": "there.step0", "here.fc_1": "there.step1"},
    "glob": {"here.fc_*": "there.step*"},
    "function": lambda at: at.replace("here.fc_", "there.step") if "fc" in at else None,
}


@pytest.mark.parametrize("way", MATCHES)
def test_two_classes_are_paired_by_names_and_their_ends_by_themselves(way):
    a, b = two_classes()
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    b.steps[1].kernel.assign(b.steps[1].kernel.numpy().T)
    found = xray.compare_models(a, b, x, match=MATCHES[way])
    pairs = {"here.fc_0": "there.step0", "here.fc_1": "there.step1", "here": "there:out"}
    assert found.names == pairs and found.first.address == "here.fc_1"
    assert found.cause.startswith("transposed kernel: with the axes of kernel in the order (1, 0)")


@pytest.mark.parametrize(
    ("match", "told"),
    [
        (None, r"a is a Functional and b a Other: say which value is which, match=\{address in a"),
        ({"here.fc_3": "there.step0"}, r"a has no 'here.fc_3'; the nearest are 'here.fc_"),
        ({"here.fc_0": "there.step7"}, r"b has no 'there.step7'; the nearest are 'there.step"),
        ({"here.fc*": "there.stap*"}, r"b has no 'there.stap_0'; the nearest are 'there.step"),
        (lambda at: None, r"match pairs nothing: 'here.fc_0' … in a, 'there.step0' … in b"),
    ],
)
def test_names_that_are_not_there_are_refused(match, told):
    with pytest.raises(UsageError, match=told):
        xray.compare_models(*two_classes(), np.ones((1, 4), np.float32), match=match)


def test_what_is_no_model_is_refused():
    a, _ = two_classes()
    with pytest.raises(UsageError, match=r"b is a function; it must be a keras.Model or a torch"):
        xray.compare_models(a, two_classes, X)
    with pytest.raises(UsageError, match=r"a is a function; it must be a keras.Model"):
        xray.compare_models(two_classes, a, X)


# --- the first NaN


def test_the_first_nan_and_whose_fault_it_is():
    model = filled(net("a"))
    assert xray.first_nan(model, X) is None
    model.get_layer("a_conv").bias.assign([np.nan, 0, 0, np.inf])
    found = xray.first_nan(model, X)
    assert (found.address, found.nans, found.infs, found.size) == ("a_net.a_conv", 72, 72, 288)
    assert not found.begins_here
    assert str(found) == (
        "a_net.a_conv gives the first NaN: 72 and 72 infinite of 288 numbers; its input is finite; "
        "its weights are not finite: bias"
    )
    found = xray.first_nan(model, X | {"x": X["x"] * np.nan})
    assert found.address == "a_net.a_conv_in" and str(found).endswith(
        "gives the first NaN: 288 of 288 numbers; its input is not finite; its weights are finite"
    )


@pytest.mark.parametrize(
    ("dtype", "factor"), [("float32", 1e30), ("float16", 1e3), ("bfloat16", 1e30)]
)
def test_an_overflow_begins_where_all_that_went_in_was_finite(dtype, factor):
    x = keras.Input((3,))
    y = layers.Rescaling(factor, name="grow", dtype=dtype)(x)
    model = keras.Model(x, layers.Multiply(name="square", dtype=dtype)([y, y]), name="net")
    found = xray.first_nan(model, np.ones((2, 3), np.float32))
    assert (found.address, found.infs) == ("net.square", 6) and found.begins_here
    assert str(found) == (
        "net.square gives the first infinity: 6 of 6 numbers; its inputs are finite"
    )
