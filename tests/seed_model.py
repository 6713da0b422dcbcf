"""The seed's networks, restated: divamgupta/stable-diffusion-tensorflow as F. Chollet rewrote it.

What matters is the order in which each layer makes its sublayers, as Keras keeps weights in that
order, and what each sublayer does, as that tells whether its weights came to the right place. Two
numbers are right here that the seed has wrong: the ε of some norms, and the exact GELU.
"""

import keras
from keras import layers, ops

GROUPS = 32


def padded_conv(width: int, kernel: int, padding=0, stride: int = 1) -> keras.layers.Layer:
    return PaddedConv(width, kernel, padding, stride)


class PaddedConv(layers.Layer):
    def __init__(self, width, kernel, padding, stride):
        super().__init__()
        self.pad = layers.ZeroPadding2D(padding)
        self.conv = layers.Conv2D(width, kernel, strides=stride)

    def call(self, x):
        return self.conv(self.pad(x))


# --- the text encoder ---------------------------------------------------------------------------


class Embeddings(layers.Layer):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.token = layers.Embedding(vocabulary, width)
        self.position = layers.Embedding(77, width)

    def call(self, tokens, positions):
        return self.token(tokens) + self.position(positions)


class CausalAttention(layers.Layer):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (layers.Dense(width) for _ in range(4))

    def call(self, x):  # (b, n, c)
        n = x.shape[1]
        later = ops.triu(ops.full((n, n), -1e9), 1)
        return self.out(attend(self.q(x), self.k(x), self.v(x), self.heads, later))


class EncoderLayer(layers.Layer):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = layers.LayerNormalization(epsilon=1e-5)
        self.attention = CausalAttention(width, heads)
        self.norm2 = layers.LayerNormalization(epsilon=1e-5)
        self.fc1 = layers.Dense(4 * width)
        self.fc2 = layers.Dense(width)

    def call(self, x):
        x = x + self.attention(self.norm1(x))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * ops.sigmoid(1.702 * y))


class TextModel(keras.Model):
    def __init__(self, vocabulary, width, depth):
        super().__init__()
        self.embeddings = Embeddings(vocabulary, width)
        self.encoder = [EncoderLayer(width, width // 64) for _ in range(depth)]
        self.final_norm = layers.LayerNormalization(epsilon=1e-5)

    def call(self, inputs):
        x = self.embeddings(*inputs)
        for layer in self.encoder:
            x = layer(x)
        return self.final_norm(x)


def attend(q, k, v, heads, offset=0.0):
    """(b, n, c), (b, m, c), (b, m, c) → (b, n, c)."""
    q, k, v = (ops.reshape(x, (-1, x.shape[1], heads, x.shape[2] // heads)) for x in (q, k, v))
    logits = ops.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[3] ** 0.5 + offset
    y = ops.einsum("bhnm,bmhd->bnhd", ops.softmax(logits), v)
    return ops.reshape(y, (-1, y.shape[1], heads * y.shape[3]))


# --- the UNet -----------------------------------------------------------------------------------


class ResBlock(layers.Layer):
    def __init__(self, before, width):
        super().__init__()
        self.norm_in = layers.GroupNormalization(GROUPS, epsilon=1e-5)
        self.conv_in = padded_conv(width, 3, padding=1)
        self.time = layers.Dense(width)
        self.norm_out = layers.GroupNormalization(GROUPS, epsilon=1e-5)
        self.conv_out = padded_conv(width, 3, padding=1)
        self.skip = padded_conv(width, 1) if before != width else layers.Identity()

    def call(self, x, time, context):
        y = self.conv_in(ops.silu(self.norm_in(x))) + self.time(ops.silu(time))[:, None, None]
        return self.skip(x) + self.conv_out(ops.silu(self.norm_out(y)))


class CrossAttention(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (layers.Dense(width, use_bias=False) for _ in range(3))
        self.out = layers.Dense(width)

    def call(self, x, context):
        return self.out(attend(self.q(x), self.k(context), self.v(context), 8))


class SpatialTransformer(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.norm = layers.GroupNormalization(GROUPS, epsilon=1e-6)
        self.proj_in = padded_conv(width, 1)
        self.block = TransformerBlock(width)
        self.proj_out = padded_conv(width, 1)

    def call(self, x, time, context):
        y = self.proj_in(self.norm(x))
        y = self.block(ops.reshape(y, (-1, x.shape[1] * x.shape[2], x.shape[3])), context)
        return x + self.proj_out(ops.reshape(y, (-1, *x.shape[1:])))


class TransformerBlock(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.norm1 = layers.LayerNormalization(epsilon=1e-5)
        self.attn1 = CrossAttention(width)
        self.norm2 = layers.LayerNormalization(epsilon=1e-5)
        self.attn2 = CrossAttention(width)
        self.norm3 = layers.LayerNormalization(epsilon=1e-5)
        self.gated = layers.Dense(8 * width)
        self.dense = layers.Dense(width)

    def call(self, x, context):
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        y, gate = ops.split(self.gated(self.norm3(x)), 2, axis=-1)
        return x + self.dense(y * ops.gelu(gate, approximate=False))


class Resize(layers.Layer):
    """What the seed calls Downsample and Upsample."""

    def __init__(self, width, factor, stride):
        super().__init__()
        self.enlarge = layers.UpSampling2D(factor)
        self.conv = padded_conv(width, 3, padding=1, stride=stride)

    def call(self, x, time, context):
        return self.conv(self.enlarge(x))


class Entry(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.conv = padded_conv(width, 3, padding=1)

    def call(self, x, time, context):
        return self.conv(x)


class UNetModel(keras.Model):
    """widths: of the four levels, of which the last two are the same."""

    def __init__(self, widths):
        super().__init__()
        a, b, c, d = widths
        self.time = [layers.Dense(4 * a), layers.Activation("silu"), layers.Dense(4 * a)]
        self.down = [
            [Entry(a)],
            *([ResBlock(a, a), SpatialTransformer(a)] for _ in range(2)),
            [Resize(a, 1, stride=2)],
            *([ResBlock(before, b), SpatialTransformer(b)] for before in (a, b)),
            [Resize(b, 1, stride=2)],
            *([ResBlock(before, c), SpatialTransformer(c)] for before in (b, c)),
            [Resize(c, 1, stride=2)],
            *([ResBlock(d, d)] for _ in range(2)),
        ]
        self.middle = [ResBlock(d, d), SpatialTransformer(d), ResBlock(d, d)]
        self.up = [
            *([ResBlock(2 * d, d)] for _ in range(2)),
            [ResBlock(2 * d, d), Resize(d, 2, stride=1)],
            *([ResBlock(2 * c, c), SpatialTransformer(c)] for _ in range(2)),
            [ResBlock(c + b, c), SpatialTransformer(c), Resize(c, 2, stride=1)],
            *([ResBlock(before, b), SpatialTransformer(b)] for before in (c + b, 2 * b)),
            [ResBlock(b + a, b), SpatialTransformer(b), Resize(b, 2, stride=1)],
            *([ResBlock(before, a), SpatialTransformer(a)] for before in (b + a, 2 * a, 2 * a)),
        ]
        self.norm = layers.GroupNormalization(GROUPS, epsilon=1e-5)
        self.conv = padded_conv(4, 3, padding=1)

    def call(self, inputs):
        x, time, context = inputs
        for layer in self.time:
            time = layer(time)
        kept = []
        for block in self.down:
            for layer in block:
                x = layer(x, time, context)
            kept.append(x)
        for layer in self.middle:
            x = layer(x, time, context)
        for block in self.up:
            x = ops.concatenate([x, kept.pop()], axis=-1)
            for layer in block:
                x = layer(x, time, context)
        return self.conv(ops.silu(self.norm(x)))


# --- the VAE ------------------------------------------------------------------------------------


class ResnetBlock(layers.Layer):
    def __init__(self, before, width):
        super().__init__()
        self.norm1 = layers.GroupNormalization(GROUPS, epsilon=1e-6)
        self.conv1 = padded_conv(width, 3, padding=1)
        self.norm2 = layers.GroupNormalization(GROUPS, epsilon=1e-6)
        self.conv2 = padded_conv(width, 3, padding=1)
        self.shortcut = padded_conv(width, 1) if before != width else layers.Identity()

    def call(self, x):
        y = self.conv1(ops.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(ops.silu(self.norm2(y)))


class AttentionBlock(layers.Layer):
    def __init__(self, width):
        super().__init__()
        self.norm = layers.GroupNormalization(GROUPS, epsilon=1e-6)
        self.q, self.k, self.v, self.out = (padded_conv(width, 1) for _ in range(4))

    def call(self, x):
        y = self.norm(x)
        flat = (-1, x.shape[1] * x.shape[2], x.shape[3])
        y = attend(*(ops.reshape(layer(y), flat) for layer in (self.q, self.k, self.v)), 1)
        return x + self.out(ops.reshape(y, (-1, *x.shape[1:])))


def vae_middle(width: int) -> list[keras.layers.Layer]:
    return [ResnetBlock(width, width), AttentionBlock(width), ResnetBlock(width, width)]


def decoder(widths) -> keras.Sequential:
    a, b, c, d = widths
    return keras.Sequential(
        [
            padded_conv(4, 1),
            padded_conv(d, 3, padding=1),
            *vae_middle(d),
            *(ResnetBlock(d, d) for _ in range(3)),
            layers.UpSampling2D(2),
            padded_conv(d, 3, padding=1),
            *(ResnetBlock(before, c) for before in (d, c, c)),
            layers.UpSampling2D(2),
            padded_conv(c, 3, padding=1),
            *(ResnetBlock(before, b) for before in (c, b, b)),
            layers.UpSampling2D(2),
            padded_conv(b, 3, padding=1),
            *(ResnetBlock(before, a) for before in (b, a, a)),
            layers.GroupNormalization(GROUPS, epsilon=1e-6),
            layers.Activation("silu"),
            padded_conv(3, 3, padding=1),
        ]
    )


def encoder(widths) -> keras.Sequential:
    a, b, c, d = widths
    below = ((0, 1), (0, 1))
    return keras.Sequential(
        [
            padded_conv(a, 3, padding=1),
            *(ResnetBlock(a, a) for _ in range(2)),
            padded_conv(a, 3, padding=below, stride=2),
            *(ResnetBlock(before, b) for before in (a, b)),
            padded_conv(b, 3, padding=below, stride=2),
            *(ResnetBlock(before, c) for before in (b, c)),
            padded_conv(c, 3, padding=below, stride=2),
            *(ResnetBlock(d, d) for _ in range(2)),
            *vae_middle(d),
            layers.GroupNormalization(GROUPS, epsilon=1e-6),
            layers.Activation("silu"),
            padded_conv(8, 3, padding=1),
            padded_conv(8, 1),
        ]
    )


# --- the four, each as the one layer of a model -------------------------------------------------


def models(
    vocabulary: int = 500,
    text_width: int = 128,
    depth: int = 3,
    unet_widths: tuple[int, ...] = (32, 64, 128, 128),
    vae_widths: tuple[int, ...] = (32, 64, 96, 96),
    cells: int = 8,
) -> dict[str, keras.Model]:
    """By the names of our networks. text_encoder: tokens and positions, (b, 77) each; unet: latent,
    time embedding (b, widths[0]), context; encoder: images; decoder: latents, not scaled."""
    text = [keras.Input((77,), dtype="int32") for _ in range(2)]
    noisy = [
        keras.Input((cells, cells, 4)),
        keras.Input((unet_widths[0],)),
        keras.Input((77, text_width)),
    ]
    image, latent = keras.Input((8 * cells, 8 * cells, 3)), keras.Input((cells, cells, 4))
    return {
        "text_encoder": keras.Model(text, TextModel(vocabulary, text_width, depth)(text)),
        "unet": keras.Model(noisy, UNetModel(unet_widths)(noisy)),
        "encoder": keras.Model(image, encoder(vae_widths)(image)),
        "decoder": keras.Model(latent, decoder(vae_widths)(latent)),
    }
