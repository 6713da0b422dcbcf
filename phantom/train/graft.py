"""The UNet of one phantom as the beginning of the next: `python -m phantom.train.graft`.

A UNet that has to read words between 65 vectors of padding does not begin to: attention starts out
even, a word is one vector of 77, and after 5,000 steps from nothing the noise was still predicted
as well without the caption. The shipped UNet reads already. What of it fits the new anatomy is
taken over: the whole 16×16 level and nearly all of the 8×8 level. Its 4×4 level is left behind, and
a fresh middle takes its place. Its readers are turned to the new text encoder: the old vectors of
words are told from the new ones linearly, by least squares.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tyro
from safetensors.numpy import load_file, save_file

from phantom.train.loop import PHANTOM
from phantom.train.silent import UNET, build
from phantom.train.text import TEXT
from phantom.train.words import NEXT
from phantom.world import THINGS, scenes
from stable_diffusion_tf import layers
from stable_diffusion_tf.checkpoint.folder import EXTRAS, FILES, open_part
from stable_diffusion_tf.checkpoint.strict import load
from stable_diffusion_tf.checkpoint.write import write_part
from stable_diffusion_tf.clip import CLIPText
from stable_diffusion_tf.tokenizer import Tokenizer

MOVED = {"up_blocks.0.": "up_blocks.1.", "up_blocks.1.": "up_blocks.2."}  # new → old
FRESH = "mid_block."
READERS = ("attn2.to_k.weight", "attn2.to_v.weight")  # (features, width of the text encoder)


def main(source: Path = PHANTOM, out: Path = NEXT, captions: int = 1500, seed: int = 0) -> None:
    """Write a UNet to train on, from a phantom that draws.

    Args:
        source: the checkpoint folder of the phantom that draws, of the shipped anatomy.
        out: the checkpoint folder; it holds text_encoder, the part unet is written.
        captions: how many of the things that the source knows fit the new vectors to the old.
        seed: draws the captions and the fresh middle.
    """
    keras.utils.set_random_seed(seed)
    ids = Tokenizer()([s.caption for s in scenes(seed, captions, things=THINGS)] + [""])
    turn, left = fit(words_of(ids, encode(out, ids)), words_of(ids, encode(source, ids)))
    print(f"the new words tell {100 * (1 - left):.1f} % of the variance of the old ones")
    old = load_file(source / "unet" / FILES["unet"])
    with tempfile.TemporaryDirectory() as fresh:
        write_part(Path(fresh), "unet", UNET, [build(UNET).unet], "float32")
        new = load_file(Path(fresh) / "unet" / FILES["unet"])
        grafted = {key: graft(key, value, old, turn) for key, value in new.items()}
        save_file(grafted, Path(fresh) / "unet" / FILES["unet"])
        model = build(UNET)
        load(model.unet, open_part(Path(fresh), "unet"), EXTRAS["unet"])
    write_part(out, "unet", UNET, [model.unet], "float16")
    print(f"saved {out / 'unet'}")


def encode(folder: Path, ids: np.ndarray) -> np.ndarray:
    """Contexts (n, 77, width) by a checkpoint's text encoder."""
    network = layers.build(CLIPText(TEXT), keras.KerasTensor((None, 77), dtype="int32"))
    load(network, open_part(folder, "text_encoder"), EXTRAS["text_encoder"])
    return network.predict(ids, batch_size=64, verbose=0)


def words_of(ids: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """The vectors of the words of every caption, and all of the empty one, the last: (m, width)."""
    spoken = np.arange(ids.shape[1]) < np.argmax(ids == ids[0, -1], axis=1)[:, None]
    return np.concatenate([contexts[spoken], contexts[-1]])


def fit(new: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, float]:
    """The matrix (width, width) that turns new vectors into old ones, and the share of the old
    ones' variance that it leaves."""
    turn = np.linalg.lstsq(new.astype(np.float64), old.astype(np.float64), rcond=None)[0]
    left = np.var(new @ turn - old, axis=0).sum() / np.var(old, axis=0).sum()
    return turn, float(left)


def graft(key: str, fresh: np.ndarray, old: dict[str, np.ndarray], turn: np.ndarray) -> np.ndarray:
    """A tensor of the new UNet, from the old one's where it has it."""
    place = next((key.replace(to, at, 1) for to, at in MOVED.items() if key.startswith(to)), key)
    if key.startswith(FRESH):
        return fresh
    taken = old[place].astype(np.float32)
    if key.endswith(READERS):
        taken = (taken @ turn.T).astype(np.float32)
    return taken if taken.shape == fresh.shape else from_skip(taken, fresh)


def from_skip(taken: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    """Of the block that read the 4×4 level, (.., 160 + 96, ..), what read the skip, for both of
    what now comes in, (.., 96 + 96, ..): a fresh middle hands the skip on as it is."""
    axis = 0 if taken.ndim == 1 else 1
    half = fresh.shape[axis] // 2
    skip = np.take(taken, range(taken.shape[axis] - half, taken.shape[axis]), axis)
    share = 1.0 if taken.ndim == 1 else 0.5  # a norm works on each by itself, a sum on both
    return np.ascontiguousarray(np.concatenate([skip, skip], axis) * np.float32(share))


if __name__ == "__main__":
    tyro.cli(main)
