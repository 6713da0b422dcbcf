"""Give the vectors of words mean 0 and deviation 1: `python -m phantom.train.centre`.

What `phantom.train.words` teaches lies in small differences between vectors that are nearly one and
the same: of the squared length of a thing's vector a thousandth told one thing from another, and a
UNet learned for 16,000 steps to read it and drew the wrong things. The last layer norm's scale and
shift take a vector for each channel, so the change is folded into them; where a UNet reads the old
vectors, its keys, values and outputs are changed along, and it draws what it drew.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tyro
from safetensors.numpy import load_file, save_file

from phantom.train.graft import encode
from phantom.train.words import NEXT
from phantom.world import CORE, scenes
from stable_diffusion_tf.checkpoint.folder import FILES
from stable_diffusion_tf.tokenizer import Tokenizer

NORM = "text_model.final_layer_norm"
CROSS = ".attn2."

Tensors = Mapping[str, np.ndarray]


def main(folder: Path = NEXT, captions: int = 1500, seed: int = 0) -> None:
    """Centre the text encoder of a checkpoint, and let its UNet, if there is one, follow.

    Args:
        folder: the checkpoint folder, read and written.
        captions: how many the mean and the deviation are taken from.
        seed: draws them.
    """
    ids = Tokenizer()([scene.caption for scene in scenes(seed, captions, things=CORE)] + [""])
    vectors = encode(folder, ids)
    vectors = vectors.reshape(-1, vectors.shape[-1])
    mean, spread = vectors.mean(0, dtype=np.float64), vectors.std(0, dtype=np.float64)
    rewrite(folder / "text_encoder" / FILES["text_encoder"], lambda t: centred(t, mean, spread))
    if (unet := folder / "unet" / FILES["unet"]).exists():
        rewrite(unet, lambda t: following(t, mean, spread))
    print(f"channels were off the centre by {np.abs(mean / spread).mean():.1f} deviations")


def centred(text: Tensors, mean: np.ndarray, spread: np.ndarray) -> dict[str, np.ndarray]:
    """The text encoder whose vectors are (old − mean) / spread."""
    scale, shift = text[f"{NORM}.weight"] / spread, (text[f"{NORM}.bias"] - mean) / spread
    return {**text, f"{NORM}.weight": scale, f"{NORM}.bias": shift}


def following(unet: Tensors, mean: np.ndarray, spread: np.ndarray) -> dict[str, np.ndarray]:
    """The UNet that does with the new vectors as it did with the old. What all keys have in common
    changes no attention; what all values have goes through the output's bias."""
    made = dict(unet)
    for name, weight in unet.items():
        if name.endswith((f"{CROSS}to_k.weight", f"{CROSS}to_v.weight")):
            made[name] = weight * spread
        elif name.endswith(f"{CROSS}to_out.0.weight"):
            at = name.removesuffix("to_out.0.weight")
            common = unet[f"{at}to_v.weight"] @ mean
            made[f"{at}to_out.0.bias"] = unet[f"{at}to_out.0.bias"] + weight @ common
    return made


def rewrite(path: Path, change) -> None:
    """A file of float16 tensors, with some of them changed."""
    tensors = {name: value.astype(np.float64) for name, value in load_file(path).items()}
    changed = {name: value.astype(np.float16) for name, value in change(tensors).items()}
    save_file(changed, path, metadata={"format": "pt"})


if __name__ == "__main__":
    tyro.cli(main)
