"""Attention, and the transformer that is made of it."""

import keras
from keras import ops

from .layers import Block, GroupNorm, Tap, conv, gelu

CHUNK_BYTES = 64 * 2**20  # of attention logits, the most that is alive at a time
FUSED = ("openvino", "torch")  # backends with an attention of their own that keeps no logits


class Attention(Block):
    """Multi-head attention, softmax(q·kᵀ/√d)·v, over as many queries at a time as fit in
    CHUNK_BYTES, or by the backend's own kernel while nobody watches its probabilities. Vaswani et
    al., arXiv 1706.03762, eq. 1; by chunks, arXiv 2112.05682.

    Taps: `probs` (b, heads, queries, keys) and `heads` (b, queries, heads, d). Where the queries
    come in chunks, a watched `probs` sees them one after another.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        bias: bool = False,
        names: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out-0"),
        **options,
    ):
        super().__init__(**options)
        if width % heads:
            raise ValueError(f"a width of {width} makes no {heads} heads")
        self.count = heads
        self.to_q, self.to_k, self.to_v = (
            keras.layers.Dense(width, use_bias=bias, name=name) for name in names[:3]
        )
        self.to_out = keras.layers.Dense(width, name=names[3])
        self.probs = Tap(name="probs")
        self.heads = Tap(name="heads")

    def call(
        self, x, context=None, offset=None
    ):  # (b, n, c), (b, m, c'), (n, m) added to the logits
        context = x if context is None else context
        q, k, v = self.split(self.to_q(x)), self.split(self.to_k(context)), self.to_v(context)
        q = q * q.shape[-1] ** -0.5  # before the product, which is many times larger
        attend = self.attend_fused if offset is None and self.fuses(q) else self.attend_by_chunks
        y = attend(q, k, self.split(v), offset)  # (b, heads, n, d)
        y = self.heads(ops.swapaxes(y, 1, 2))  # (b, n, heads, d)
        return self.to_out(ops.reshape(y, (-1, *x.shape[1:2], self.count * y.shape[-1])))

    def split(self, x):  # (b, n, c)
        x = ops.reshape(x, (-1, x.shape[1], self.count, x.shape[-1] // self.count))
        return ops.swapaxes(x, 1, 2)  # (b, heads, n, d)

    def probabilities(self, q, k, offset=None):  # each (b, heads, n or m, d)
        logits = ops.einsum("bhqd,bhkd->bhqk", q, k)
        logits = logits if offset is None else logits + ops.cast(offset, logits.dtype)
        alone = logits.shape[-1] == 1  # a single key, of which Keras warns
        return ops.ones_like(logits) if alone else ops.softmax(logits)

    def attend(self, q, k, v, offset=None):
        probs = self.probs(self.probabilities(q, k, offset))
        return ops.einsum("bhqk,bhkd->bhqd", probs, v)

    def fuses(self, q) -> bool:
        """Whether the backend's kernel may run: nobody edits the probabilities, and this is no call
        with shapes alone, which names every layer."""
        plain = self.probs.edited or isinstance(q, keras.KerasTensor)
        return not plain and keras.backend.backend() in FUSED

    def attend_fused(self, q, k, v, _):
        """Who reads the probabilities gets them computed beside the kernel, which keeps none."""
        if self.probs.watched:
            chunk = chunk_size(q.shape, k.shape)
            for i in range(0, q.shape[2], chunk):
                self.probs(self.probabilities(q[:, :, i : i + chunk], k))
        q, k, v = (ops.swapaxes(x, 1, 2) for x in (q, k, v))  # (b, n or m, heads, d)
        return ops.swapaxes(ops.dot_product_attention(q, k, v, scale=1.0), 1, 2)

    def attend_by_chunks(self, q, k, v, offset):
        chunk = chunk_size(q.shape, k.shape)
        n = q.shape[2]
        if offset is not None or chunk >= n:
            return self.attend(q, k, v, offset)
        if self.probs.watched or self.probs.edited:
            parts = [self.attend(q[:, :, i : i + chunk], k, v) for i in range(0, n, chunk)]
            return ops.concatenate(parts, axis=2)
        parts = ops.reshape(q, (-1, self.count, n // chunk, chunk, q.shape[-1]))
        parts = ops.map(lambda part: self.attend(part, k, v), ops.moveaxis(parts, 2, 0))
        return ops.reshape(ops.moveaxis(parts, 0, 2), (-1, *q.shape[1:]))


def chunk_size(q: tuple, k: tuple) -> int:
    """The largest divisor of the number of queries whose logits fit in CHUNK_BYTES.

    q: (b, heads, n, d), k: (b, heads, m, d); a batch not known yet counts as one.
    """
    n, row = q[2], 4 * (q[0] or 1) * q[1] * k[2]  # bytes of one query's logits
    fit = max(1, CHUNK_BYTES // row)
    return max(d for d in range(1, n + 1) if n % d == 0 and (d <= fit or d == 1))


class GEGLU(Block):
    """Linear, half of it gated by the exact GELU of the other. Shazeer, arXiv 2002.05202."""

    def __init__(self, width: int, **options):
        super().__init__(**options)
        self.proj = keras.layers.Dense(2 * width, name="proj")
        self.gate = Tap(name="gate")

    def call(self, x):
        x, gate = ops.split(self.proj(x), 2, axis=-1)
        return x * self.gate(gelu(gate))


class FeedForward(Block):
    """Four times as wide, gated, and back."""

    def __init__(self, width: int, **options):
        super().__init__(**options)
        self.inner = GEGLU(4 * width, name="net-0")
        self.outer = keras.layers.Dense(width, name="net-2")

    def call(self, x):
        return self.outer(self.inner(x))


class TransformerBlock(Block):
    """Self-attention, cross-attention to the text, feed-forward; each after a LayerNorm and
    added to what came in."""

    def __init__(self, width: int, heads: int, **options):
        super().__init__(**options)
        self.norm1, self.norm2, self.norm3 = (
            keras.layers.LayerNormalization(epsilon=1e-5, name=f"norm{i}") for i in (1, 2, 3)
        )
        self.attn1 = Attention(width, heads, name="attn1")
        self.attn2 = Attention(width, heads, name="attn2")
        self.ff = FeedForward(width, name="ff")
        self.after_attn1, self.after_attn2 = Tap(name="after_attn1"), Tap(name="after_attn2")

    def call(self, x, context):  # (b, h·w, c), (b, 77, context width)
        x = self.after_attn1(x + self.attn1(self.norm1(x)))
        x = self.after_attn2(x + self.attn2(self.norm2(x), context))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(Block):
    """A transformer over the positions of a latent. Rombach et al., arXiv 2112.10752, 3.3."""

    def __init__(self, width: int, heads: int, groups: int, **options):
        super().__init__(**options)
        self.norm = GroupNorm(groups, 1e-6, name="norm")
        self.proj_in = conv(width, 1, "proj_in")
        self.block = TransformerBlock(width, heads, name="transformer_blocks-0")
        self.proj_out = conv(width, 1, "proj_out")

    def call(self, x, context):  # (b, h, w, c)
        y = self.proj_in(self.norm(x))
        y = ops.reshape(y, (-1, x.shape[1] * x.shape[2], x.shape[3]))  # (b, h·w, c)
        y = ops.reshape(self.block(y, context), (-1, *x.shape[1:]))  # (b, h, w, c)
        return x + self.proj_out(y)
