"""The single file as CompVis writes it: all parts in one, each behind its prefix."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from .anatomy import Shapes, config_of
from .compvis import RULES, linear_shapes
from .files import open_tensors
from .folder import SD1, other_unet
from .strict import some
from .tensors import Renamed, Source, renamed

PARTS = {  # part → its prefix, and how it is told to the user
    "text_encoder": ("cond_stage_model.transformer.", "text encoder"),
    "unet": ("model.diffusion_model.", "UNet"),
    "vae": ("first_stage_model.", "VAE"),
}
LORA = "a LoRA, which changes a model but is none"
OTHERS = (  # a pattern of names → what a file with such a name is
    (r"^conditioner\.", "Stable Diffusion XL"),
    (r"^cond_stage_model\.model\.", "Stable Diffusion 2"),
    (r"(^|[._])lora[._]", LORA),
    (r"^(unet|text_encoder):\d+:(up|down|alpha)$", LORA),  # of cloneofsimo, some with words
    (r"^(control_model|input_hint_block|controlnet_cond_embedding)\.", "a ControlNet"),
    (r"(^|\.)joint_blocks\.", "Stable Diffusion 3"),
    (r"(^|\.)double_blocks\.", "FLUX"),
    (r"(^|\.)motion_modules\.", "AnimateDiff"),
    (r"^v_pred$", "a model that predicts v"),
)
ALONE = (  # the same, where a file has none of the prefixes
    (r"^(down_blocks|input_blocks|time_embed\w*)\.", "a UNet alone"),
    (r"^((en|de)coder\.(conv_in|mid|down|up)|(post_)?quant_conv\.)", "a VAE alone"),
    (r"^((text_model|transformer|embeddings)\.|encoder\.layers\.)", "a text encoder alone"),
    (r"^(<.*>|emb_params|\*)$", "a textual-inversion embedding"),
)
LEFTOVERS = (  # what training leaves behind besides the parts
    "model_ema.*",
    "betas",
    "*alphas_cumprod*",
    "posterior_*",
    "logvar",
    "lvlb_weights",
    "scale_factor",
    "first_stage_model.loss.*",
    "first_stage_model.model_ema.*",
    "cond_stage_model.logit_scale",
)


def as_trained(name: str) -> str:
    return name


def averaged(name: str) -> str:
    """Where training keeps the running mean of a tensor: its name without dots (ema.py)."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


STORED = {"plain": as_trained, "ema": averaged}


class SingleFile:
    """A .safetensors or .ckpt of Stable Diffusion 1.x, or of a relative.

    `weights`: the UNet's, 'plain' as diffusers takes them, or 'ema', the running mean that a file
    from training holds besides. Raises UsageError where the file is another model, a part of
    one, or not whole.
    """

    def __init__(self, path: Path, weights: Literal["plain", "ema"] = "plain"):
        self.place = path
        tensors = open_tensors(path)
        names = names_by_part(path, tensors.shapes())
        stored = dict.fromkeys(PARTS, as_trained) | {"unet": STORED[weights]}
        self.sources = {part: part_of(tensors, part, names[part], stored[part]) for part in PARTS}
        self.configs = {part: told_config(part, source) for part, source in self.sources.items()}

    def config(self, part: str) -> dict[str, Any]:
        return self.configs.get(part, {})

    def source(self, part: str) -> Source:
        return self.sources[part]


def names_by_part(path: Path, shapes: Shapes) -> dict[str, list[str]]:
    """Part → the names of its tensors, prefix and all, of which there are some."""
    other = other_model(shapes)
    if other:
        raise UsageError(f"{path} is {other}; {SD1}")
    kept = [name for name in shapes if not any(fnmatch(name, p) for p in LEFTOVERS)]
    found = {
        part: [name for name in kept if name.startswith(prefix)]
        for part, (prefix, _) in PARTS.items()
    }
    strange = sorted({*kept}.difference(*found.values()))
    if strange:
        raise UsageError(f"{path} has tensors of no known part ({some(strange)}); {SD1}")
    for part, (prefix, title) in PARTS.items():
        if not found[part]:
            raise UsageError(f"{path} has no {title}, which would begin with {prefix}; {SD1}")
    return found


def other_model(shapes: Shapes) -> str | None:
    """What the names and shapes say that it is, if that is not Stable Diffusion 1.x."""
    parted = any(name.startswith(prefix) for name in shapes for prefix, _ in PARTS.values())
    patterns = OTHERS if parted else OTHERS + ALONE
    named = (what for pattern, what in patterns if any(re.search(pattern, name) for name in shapes))
    contexts = (shape[-1:] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight"))
    inputs = shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    return next(named, None) or other_unet(*next(contexts, (None,)), *(inputs[1:2] or (None,)))


def part_of(
    tensors: Source, part: str, names: Iterable[str], stored: Callable[[str], str]
) -> Source:
    """A part's tensors by their diffusers names. `stored`: name → that under which it is kept."""
    prefix, title = PARTS[part]
    bare = [name.removeprefix(prefix) for name in names]
    theirs = renamed(tensors.place, bare, RULES[part](bare))
    there = {name: stored(prefix + theirs[name]) for name in theirs}
    shapes = tensors.shapes()
    lost = [name for name in there.values() if name not in shapes]
    if lost:
        raise UsageError(
            f"{tensors.place} has no averaged {title} ({some(lost)} missing); take the plain one"
        )
    return Renamed(tensors, there, linear_shapes({k: shapes[v] for k, v in there.items()}))


def told_config(part: str, source: Source) -> dict[str, Any]:
    try:
        return config_of(part, source.shapes())
    except (LookupError, ValueError) as error:
        raise UsageError(
            f"{source.place} does not tell how its {PARTS[part][1]} is built: {error} is missing "
            f"or misshapen; fetch it again"
        ) from None
