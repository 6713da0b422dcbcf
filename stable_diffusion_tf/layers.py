"""The blocks that the networks share: normalisation, convolution, residual block.

Every layer bears its diffusers name, so that a variable's path is its diffusers address, and a
`Tap` marks each value worth seeing that no layer outputs. Pictures are channels last.
"""

import math

import keras
from keras import ops

from . import eigen
from .machine import WITHOUT_AVX512, kernels
from .precisions import in_turn

LAST = {"data_format": "channels_last"}  # told to each layer: the user's keras.json may differ
# Without AVX-512, oneDNN spells a large convolution out in memory and multiplies it by gemm; beyond
# 3.0e8 numbers it takes minutes. From so many on Eigen is the quicker: 512×512 is decoded in 20 s
# and not in 37. What the UNet has at 512×512 stays below.
GEMM_NUMBERS = 9 * 2**22


class Block(keras.layers.Layer):
    """A layer whose sublayers build themselves, under its name, when it is first called.

    A call with shapes alone goes through Keras' operations one by one: TensorFlow would trace it,
    which takes twice the time.
    """

    def __call__(self, *inputs, **options):
        with in_turn(self.dtype_policy, inputs):
            return super().__call__(*inputs, **options)

    def build(self, *shapes, **named_shapes):
        pass

    def compute_output_spec(self, *inputs, **options):
        return self.call(*inputs, **options)


class Network(keras.Model):
    """A model whose sublayers build themselves, under its name, when it is first called."""

    def build(self, *shapes, **named_shapes):
        pass

    def compute_output_spec(self, *inputs, **options):
        return self.call(*inputs, **options)


def build(network: Network, *inputs: keras.KerasTensor) -> Network:
    """The network with its variables made, by one symbolic call: no arithmetic is done."""
    network(*inputs)
    return network


class Tap(Block):
    """The identity at an address: it marks a value for probes and edits, and costs nothing.

    `watched` and `edited` are for the instrument: while one is true, attention goes through its
    probabilities chunk by chunk in plain sight instead of inside a compiled loop or kernel.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.watched = self.edited = False

    def call(self, x):
        return x


class GroupNorm(Block):
    """Group normalisation over space and the channels of a group, statistics in float32.

    Wu & He, arXiv 1803.08494.
    """

    def __init__(self, groups: int, epsilon: float, **options):
        super().__init__(**options)
        self.groups, self.epsilon = groups, epsilon

    def build(self, shape):
        if shape[-1] % self.groups:
            raise ValueError(f"{self.path}: {shape[-1]} channels make no {self.groups} groups")
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x):  # (b, h, w, c)
        y = ops.cast(x, "float32")
        y = y - self.pool(y)
        scale = ops.rsqrt(self.pool(ops.square(y)) + self.epsilon)  # (b, 1, 1, c)
        y = y * (scale * ops.cast(self.gamma, "float32")) + ops.cast(self.beta, "float32")
        return ops.cast(y, self.compute_dtype)

    def pool(self, x):
        """The mean of each group, repeated over its channels."""
        c = x.shape[-1]
        x = ops.reshape(ops.mean(x, axis=(1, 2)), (-1, self.groups, c // self.groups))
        x = ops.mean(x, axis=-1, keepdims=True) + ops.zeros_like(x)  # (b, groups, c / groups)
        return ops.reshape(x, (-1, 1, 1, c))


def silu(x):
    """x · sigmoid(x). Elfwing et al., arXiv 1702.03118.

    Not `ops.silu`: TensorFlow notes the gradient of its own in a global table, and with it every
    weight of the network, which then could never be released.
    """
    return x * ops.sigmoid(x)


def gelu(x):
    """x · Φ(x), with the exact Φ. Hendrycks & Gimpel, arXiv 1606.08415, section 2.

    Not `ops.gelu`: TensorFlow moves the constant factor of its own into what comes next, and the
    last bits would depend on whether somebody looks in between.
    """
    return x * (0.5 + 0.5 * ops.erf(x * 0.5**0.5))


class Conv2D(keras.layers.Conv2D):
    """A convolution that keeps the size, by Eigen where oneDNN is slow."""

    def convolution_op(self, x, kernel):  # (b, h, w, c), (k, k, c, c')
        if is_large(x.shape, self.kernel_size) and multiplies_by_gemm():
            return eigen.convolve(x, ops.cast(kernel, x.dtype))
        return super().convolution_op(x, kernel)


def is_large(shape: tuple, kernel: tuple[int, int]) -> bool:
    """Whether a convolution's input, each position spelled out with those around it, has more than
    GEMM_NUMBERS. shape: (b, h, w, c); a size not known yet counts as one."""
    _, *each = (n or 1 for n in shape)
    return math.prod((*kernel, *each)) > GEMM_NUMBERS


def multiplies_by_gemm() -> bool:
    """Whether convolutions here are oneDNN's without AVX-512."""
    if keras.backend.backend() != "tensorflow":
        return False
    found = kernels("tensorflow")
    return found["onednn"] and found["instruction_set"] in WITHOUT_AVX512


def conv(width: int, kernel: int, name: str) -> Conv2D:
    """A convolution of stride 1 that keeps the size."""
    return Conv2D(width, kernel, padding="same", name=name, **LAST)


class Downsample(Block):
    """Half the size by a convolution of stride 2 after `padding` ((top, bottom), (left, right)).

    The UNet pads by one on every side, the VAE only below and on the right.
    """

    def __init__(self, width: int, padding: tuple, **options):
        super().__init__(**options)
        self.pad = keras.layers.ZeroPadding2D(padding, name="pad", **LAST)
        self.conv = keras.layers.Conv2D(width, 3, strides=2, padding="valid", name="conv", **LAST)

    def call(self, x):  # (b, h, w, c)
        return self.conv(self.pad(x))  # (b, h/2, w/2, c)


class Upsample(Block):
    """Twice the size: nearest neighbour, then a convolution."""

    def __init__(self, width: int, **options):
        super().__init__(**options)
        self.enlarge = keras.layers.UpSampling2D(2, interpolation="nearest", name="enlarge", **LAST)
        self.conv = conv(width, 3, "conv")

    def call(self, x):  # (b, h, w, c)
        return self.conv(self.enlarge(x))  # (b, 2h, 2w, c)


class ResnetBlock(Block):
    """norm, SiLU, conv, twice, around a shortcut; the time embedding is added between the two."""

    def __init__(self, width: int, groups: int, epsilon: float, **options):
        super().__init__(**options)
        self.width = width
        self.norm1 = GroupNorm(groups, epsilon, name="norm1")
        self.conv1 = conv(width, 3, "conv1")
        self.norm2 = GroupNorm(groups, epsilon, name="norm2")
        self.conv2 = conv(width, 3, "conv2")
        self.hidden = Tap(name="hidden")

    def build(self, x_shape, time_shape=None):
        if time_shape is not None:
            self.time_emb_proj = keras.layers.Dense(
                self.width, name="time_emb_proj", dtype=self.dtype_policy
            )
        if x_shape[-1] != self.width:
            self.conv_shortcut = keras.layers.Conv2D(
                self.width, 1, name="conv_shortcut", dtype=self.dtype_policy, **LAST
            )

    def call(self, x, time=None):  # (b, h, w, c), (b, time width)
        y = self.conv1(silu(self.norm1(x)))  # (b, h, w, width)
        if time is not None:
            y = y + self.time_emb_proj(silu(time))[:, None, None, :]
        y = self.conv2(silu(self.norm2(y)))
        y = self.hidden(y)  # what the block adds to its shortcut
        if x.shape[-1] != self.width:
            x = self.conv_shortcut(x)
        return x + y
