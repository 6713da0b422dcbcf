"""Cross-attention to tokens removed, and what pictures attended to where nothing was."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stable_diffusion_tf.tokenizer import EOS
from xray import attention, measure, rounding

from .drawing import draw, parts_that_fit, to_pictures
from .prompt_to_prompt import CROSS, draw_parts, reweight

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.interventions import Reads


def groups_of(ids: np.ndarray, words: Sequence[tuple[str, Sequence[int]]]) -> dict[str, list[int]]:
    """Each word, and start, end and padding → the places of its tokens among ids (77,); a word that
    comes again is 'word#2'."""
    end, made = int(np.argmax(ids == EOS)), {}
    for word, places in words:
        count = sum(name.partition("#")[0] == word for name in made)
        made[f"{word}#{count + 1}" if count else word] = [*places]
    special = {"<start>": [0], "<end>": [end], "<padding>": list(range(end + 1, len(ids)))}
    return made | special


def ablate_tokens(
    sd: "StableDiffusion",
    groups: Mapping[str, Sequence[int]],
    context: np.ndarray,
    noise: np.ndarray,
    run: dict,
) -> "tuple[np.ndarray, list[list[Reads]]]":
    """Where the runs from each noise (n, h, w, c) end, as they are and with the attention to each
    group of tokens set to zero in the prompt's half: (n, 1 + groups, h, w, c); and for each noise
    and step the cross-attention of the run as it is, the mean over heads. context: (1, 77, width).
    """
    from xray.probe import Edit

    weights = np.ones((1 + len(groups), context.shape[1]), np.float32)
    for row, places in zip(weights[1:], groups.values(), strict=True):
        row[list(places)] = 0

    def edits(part: Sequence[int]) -> list:
        return [Edit(CROSS, reweight(weights[part]))]

    parts = parts_that_fit(sd, np.repeat(noise[:1], len(weights), 0))
    return draw_parts(sd, parts, edits, np.repeat(context, len(weights), 0), noise, run)


def draw_all(sd: "StableDiffusion", groups: Mapping[str, Sequence[int]], asked: Any) -> tuple:
    """Pictures (n, H, W, 3) uint8; what was read in each; how far each group moves them where it is
    removed, RMS in per cent of full scale, group → (n,); and how far the first is from one that
    nobody watched. asked: an object with prompt, steps, guidance, seed and pictures."""
    context, uncond = np.split(sd.encode_text([asked.prompt, ""]), 2)
    run = {"uncond": uncond, "steps": asked.steps, "guidance": asked.guidance}
    noise = sd.draw_noise(asked.seed, asked.pictures)
    rows = np.repeat(context, 1 + len(groups), 0), np.repeat(noise[:1], 1 + len(groups), 0)
    sd.denoise(*rows[:1], latent=rows[1], **run)  # not begun: it looks
    latents, shots = ablate_tokens(sd, groups, context, noise, run)
    plain, again = draw(sd, *rows, run), rounding.redrawn(sd, *rows, run)
    held = rounding.hold(latents[0, :1], plain[:1], [*plain, *again])
    images = to_pictures(sd, np.moveaxis(latents, 1, 0))  # (1 + groups, n, H, W, 3)
    far = (100 / 255 * measure.distance(some, images[0]) for some in images[1:])
    return images[0], shots, dict(zip(groups, far, strict=True)), held


def look(sd: "StableDiffusion", image: np.ndarray, prompt: str, seed: int) -> tuple:
    """What was read where the model looks at a picture (1, H, W, 3), as `draw_all` gives it, and
    how far the predicted noise is from that of nobody looking."""
    from xray.probe.instrumented import instrument

    seen = instrument(sd, attention.probe())
    x, time = np.repeat(sd.encode_image(image), 2, axis=0), attention.TIMES[0]
    context = sd.encode_text(["", prompt])
    shots = attention.look(seen, image, [prompt], seed=seed)
    watched, plain = (one.predict_noise(x, time, context) for one in (seen, sd))
    nudged = rounding.nudged(np.tile(x, (2, 1, 1, 1)))
    twins = np.split(sd.predict_noise(nudged, time, np.tile(context, (2, 1, 1))), 2)
    return [shots], rounding.hold(watched, plain, [plain, *twins])
