"""Films of drawn numbers, which no model has to make.

python -m tests.xray.reel folder           writes a long one, and says of each step when it is done
python -m tests.xray.reel folder 20000     the same, in files of at most so many bytes
"""

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.sampling import Step
from xray.film.camera import in_order, start_film, write_step, write_text
from xray.film.storage import IMAGE, telling, write_image

SIDE, TOKENS, WIDTH, HEADS = 4, 5, 6, 2
PROBS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.probs"
SMALL = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.probs"
WORDS = ["<|startoftext|>", "a", "cat", "<|endoftext|>", "<|endoftext|>"]
TAPS = {
    PROBS: ["half", "head", "query", "token"],
    SMALL: ["half", "head", "query", "token"],
    "unet.conv_in": ["half", "row", "column", "channel"],
    "text_encoder.embeddings": ["prompt", "token", "channel"],
}
FACTS = {"prompt": "a cat", "latent_shape": [1, SIDE, SIDE, 4], "tokens": WORDS, "taps": TAPS}


def drawn(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def step(index: int) -> Step:
    return Step(index, 9999 - index, *drawn(6, 1, SIDE, SIDE, 4, seed=index))


def reads(index: int) -> dict[str, np.ndarray]:
    """What probes would have read, more of it at each step."""
    return {
        PROBS: drawn(2, HEADS, SIDE * SIDE, TOKENS, seed=index),
        SMALL: drawn(2, HEADS, SIDE * SIDE // 4, TOKENS, seed=index),
        "unet.conv_in": drawn(2, SIDE, SIDE, 8, seed=index),
        "unet.mean": drawn(2, seed=index),  # of a reduce whose axes nobody knows
    }


def text() -> dict[str, np.ndarray]:
    return {
        "text_encoder.embeddings": drawn(2, TOKENS, WIDTH, seed=1),
        "context": drawn(1, TOKENS, WIDTH, seed=2),
        "uncond": drawn(1, TOKENS, WIDTH, seed=3),
    }


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def write(folder: Path, count: int, asked: int | None = None) -> Path:
    """The folder, with a film of so many steps; where more were asked for, it has no picture."""
    begin(folder, count if asked is None else asked)
    for i in range(count):
        write_step(folder, step(i), in_order(step(i), reads(i)))
    if asked is None:
        write_image(folder / IMAGE, image())
    return folder


def begin(folder: Path, steps: int) -> None:
    start_film(folder, FACTS | {"steps": steps})
    write_text(folder, None, text())


def write_until_stopped(folder: Path) -> None:
    """More is read at each step, and each is told when it is done."""
    begin(folder, 10_000)
    for i in range(10_000):
        more = {"unet.more": drawn(10 * i, seed=i)}
        with telling(folder):
            write_step(folder, step(i), in_order(step(i), reads(i) | more))
        print(i, flush=True)


def peak(act: Callable[[], object]) -> int:
    """Bytes at most that are allocated while it acts."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        import resource  # which Windows has not

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        write_until_stopped(Path(sys.argv[1]))
    except UsageError as error:
        sys.exit(str(error))
    finally:
        assert "keras" not in sys.modules
