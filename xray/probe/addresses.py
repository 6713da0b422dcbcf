"""Every value that can be read or replaced: its address, its shape, what it means.

An address is the names of the layers that a value lies inside, joined by dots; in our networks it
is the diffusers name: `unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.probs`. It stands
for what the layer gives out; `address:in` (or `address:in.<argument>`, where a layer takes several)
for what goes in, `address:0`, `address:1` … for the parts of an output that has several. A layer
that is called a second time has the address `address#2`.
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from stable_diffusion_tf.errors import UsageError

BATCH = {"unet": "half", "text_encoder": "prompt", "vae": "image"}  # first name → its first axis
PICTURE = ("row", "column", "channel")
CELLS, TEXT = ("query", "channel"), ("token", "channel")
KINDS = [  # pattern, axes after the first ("" where the rank tells), meaning; the first that fits
    ("unet.*.attn2.probs", ("head", "query", "token"), "cross-attention: each token's share"),
    ("unet.*.attn1.probs", ("head", "query", "key"), "self-attention: each position's share"),
    (
        "text_encoder.*.probs",
        ("head", "token", "key"),
        "self-attention: each earlier token's share",
    ),
    ("vae.*.probs", ("head", "query", "key"), "self-attention: each position's share"),
    ("text_encoder.*.heads", ("token", "head", "channel"), "what each head brings"),
    ("*.heads", ("query", "head", "channel"), "what each head brings"),
    ("unet.*.attn2.to_k", TEXT, "the text's keys"),
    ("unet.*.attn2.to_v", TEXT, "the text's values"),
    ("*.to_q", (), "queries"),
    ("*.q_proj", (), "queries"),
    ("*.to_k", (), "keys"),
    ("*.k_proj", (), "keys"),
    ("*.to_v", (), "values"),
    ("*.v_proj", (), "values"),
    ("*.attn1", (), "what self-attention adds"),
    ("*.attn2", (), "what cross-attention adds"),
    ("*.self_attn", (), "what self-attention adds"),
    ("*.after_attn1", (), "the sum after self-attention"),
    ("*.after_attn2", (), "the sum after cross-attention"),
    ("*.after_attn", (), "the sum after self-attention"),
    ("*.ff", (), "what the feed-forward layers add"),
    ("*.mlp", (), "what the feed-forward layers add"),
    ("*.gate", (), "the feed-forward gate"),
    ("*.activation", (), "after the activation"),
    ("*.hidden", (), "what the residual block adds to its shortcut"),
    ("*.skips.*", (), "from the way down, as it joins the way up"),
    ("*.time_emb_proj", (), "the timestep, as this block takes it"),
    ("unet.time_proj", (), "sines and cosines of the timestep"),
    ("unet.time_embedding", (), "the embedded timestep"),
    ("unet.mid_block", (), "the h-space"),
    ("unet", (), "the predicted noise"),
    ("*.resnets.?", (), "after the residual block"),
    ("*.attentions.?", (), "after the transformer"),
    ("*.transformer_blocks.?", (), "after the transformer's three parts"),
    ("*.down_blocks.?", (), "the level's output and its skips"),
    ("*.up_blocks.?", (), "the level's output"),
    ("*.downsamplers.?", (), "half the size"),
    ("*.upsamplers.?", (), "twice the size"),
    ("*.position_embedding", (), "the vector of each position"),
    ("*.token_embedding", (), "the vector of each token"),
    ("*.embeddings", (), "tokens and their positions"),
    ("*.encoder.layers.?", (), "after the layer"),
    ("*.encoder.layers.??", (), "after the layer"),
    ("text_encoder", (), "the context"),
    ("vae.moments", (), "mean and log-variance of the posterior"),
    ("*norm*", (), "normalised"),
    ("*.out_proj", (), "what the heads bring, mixed"),
    ("*.to_out.0", (), "what the heads bring, mixed"),
    ("*.fc1", (), "the wide layer, before its activation"),
    ("*.fc2", (), "back to the width of the tokens"),
    ("*.ff.net.0.proj", (), "the wide layer, and what will gate it"),
    ("*.ff.net.0", (), "the wide layer, gated"),
    ("*.ff.net.2", (), "back to the width of the positions"),
    ("*.linear_1", (), "the first layer of the timestep's embedding"),
    ("*.linear_2", (), "the second layer of the timestep's embedding"),
    ("*.cond_proj", (), "the guidance scale, as an LCM takes it"),
    ("*.proj_in", (), "into the transformer"),
    ("*.proj_out", (), "what the transformer adds"),
    ("*.conv1", (), "the first convolution"),
    ("*.conv2", (), "the second convolution"),
    ("*.conv_shortcut", (), "the shortcut, at the new width"),
    ("*.pad", (), "with zeros around"),
    ("*.enlarge", (), "every position four times"),
    ("*samplers.0.conv", (), "the convolution that goes with the new size"),
    ("vae.*.conv_in", (), "into the network's width"),
    ("unet.conv_in", (), "the latent, in the UNet's width"),
    ("unet.conv_out", (), "the predicted noise"),
    ("vae.decoder.conv_out", (), "the picture"),
    ("vae.encoder.conv_out", (), "mean and log-variance, before they are mixed"),
    ("vae.post_quant_conv", (), "the latent, mixed"),
    ("vae.quant_conv", (), "mean and log-variance of the posterior"),
    ("*.mid_block", (), "after the middle"),
    ("vae.decoder", (), "the picture"),
    ("vae.encoder", (), "mean and log-variance, before they are mixed"),
    ("vae", (), "the network's answer"),
    ("text_encoder.text_model.encoder", (), "after the last layer, before its norm"),
    ("text_encoder.text_model", (), "the context"),
]
BY_RANK = {  # first name → rank → axes after the first
    "unet": {4: PICTURE, 3: CELLS, 2: ("channel",)},
    "vae": {4: PICTURE, 3: CELLS},
    "text_encoder": {3: TEXT},
}


@dataclass(frozen=True)
class TapInfo:
    """One value: where it is, its shape and dtype, its axes by name, what it means."""

    address: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    dims: tuple[str, ...]

    @property
    def bytes(self) -> int:
        size = {"bfloat16": 2, "float16": 2, "int64": 8, "float64": 8, "bool": 1}
        return math.prod(self.shape) * size.get(self.dtype, 4)

    def __str__(self) -> str:
        shape = " × ".join(map(str, self.shape))
        return f"{self.address:84} {shape:22} {self.bytes / 1e6:9.3f} MB  {self.meaning}"


def describe(address: str, shape: Sequence[int], dtype: str) -> TapInfo:
    layer = plain(address)
    meaning = next((told for pattern, _, told in KINDS if fnmatchcase(layer, pattern)), "")
    return TapInfo(address, tuple(shape), dtype, meaning, dims_of(address, len(shape)))


def dims_of(address: str, rank: int) -> tuple[str, ...]:
    """The names of the axes of a value; of a model that is not ours they are only numbered."""
    layer = plain(address)
    root = layer.split(".")[0]
    known = next((dims for pattern, dims, _ in KINDS if fnmatchcase(layer, pattern)), ())
    named = known if len(known) == rank - 1 else BY_RANK.get(root, {}).get(rank, ())
    if layer.endswith(".position_embedding"):
        return TEXT[-rank:]
    if root in BATCH and len(named) == rank - 1:
        return (BATCH[root], *named)
    return tuple(["batch", *(f"axis_{i}" for i in range(1, rank))][:rank])


def part_axis(dims: tuple[str, ...]) -> int:
    """The axis along which attention comes in parts: that of the queries."""
    return dims.index("query") if "query" in dims else -2


# --- patterns ----------------------------------------------------------------------------------


def plain(address: str) -> str:
    """The layer's address: of its first call, its whole output."""
    layer = address.split(":")[0]
    return ".".join(name.split("#")[0] for name in layer.split("."))


def patterns_of(pattern: str | Iterable[str]) -> tuple[str, ...]:
    return (pattern,) if isinstance(pattern, str) else tuple(pattern)


def matches(pattern: str, address: str) -> bool:
    """Whether the glob means this value: `*` crosses dots; without a `#` it means every call of
    a layer, without a `:` every part of its output, and inputs only where it says `:in`."""
    if (":in" in pattern) != (":in" in address):
        return False
    if ":in" in pattern and pattern.endswith(":in"):
        pattern, address = pattern.removesuffix(":in"), address.split(":")[0]
    if ":" not in pattern:
        address = address.split(":")[0]
    if "#" not in pattern:
        address = ":".join([plain(address), *address.split(":")[1:]])
    return fnmatchcase(address, pattern)


def check_patterns(
    patterns: Iterable[str], known: Sequence[str], others: Sequence[str] = ()
) -> None:
    """Raise UsageError for the first pattern that means no value, with the nearest of the known
    addresses and of other names that could have been meant."""
    layers = sorted({plain(address) for address in known})
    for pattern in patterns:
        bare = plain(pattern)
        if not any(fnmatchcase(layer, bare) for layer in layers):
            near = difflib.get_close_matches(bare, [*layers, *others], n=3, cutoff=0.0)
            raise UsageError(f"no tap matches {pattern!r}; the nearest are {', '.join(near)}")
