"""What a method of attribution is given: a picture, its prompt, and the model to look into."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stable_diffusion_tf.images import to_uint8
from xray.methods.drawing import decode, draw

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.probe.instrumented import Instrument

READERS = 16  # instruments that are kept, each with functions of its own


class Beginning(NamedTuple):
    """From where a picture can be drawn once more, with other words."""

    latent: np.ndarray  # (h, w, 4)
    run: dict[str, Any]  # the other arguments of sd.denoise


@dataclass(frozen=True, eq=False)
class Case:
    """A picture, its prompt, and the words of it that a map is asked of.

    words: word, or several that are one thing's name → the places of its tokens among the 77.
    picture: (H, W, 3) uint8. latents, times: x at some timesteps, the noisiest first, (n, h, w, 4)
    and (n,): those of the run that drew the picture, or the picture with noise.
    """

    sd: "StableDiffusion"
    prompt: str
    words: dict[str, list[int]]
    picture: np.ndarray
    latents: np.ndarray
    times: np.ndarray
    beginning: Beginning
    seen: dict[tuple, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def look(self, *patterns: str, prompt: str | None = None) -> dict[str, np.ndarray]:
        """What the UNet holds at these taps while it reads the prompt, or another, and looks at the
        latents: address → (n, …), of no guidance, so one half. Kept for the next who asks."""
        key = (*patterns, prompt)
        if key not in self.seen:
            sd = reader(self.sd, patterns)
            sd.predict_noise(self.latents, self.times, self.told(prompt))
            self.seen[key] = dict(sd.reads)
        return self.seen[key]

    def noise(self, prompt: str | None = None) -> np.ndarray:
        """The noise that is predicted with the prompt, or with another: (n, h, w, 4)."""
        return self.sd.predict_noise(self.latents, self.times, self.told(prompt))

    def redraw(self, prompts: Sequence[str]) -> np.ndarray:
        """The picture with each of these prompts, from one noise: (prompts, H, W, 3) uint8."""
        latent, run = self.beginning
        latents = np.repeat(latent[None], len(prompts), axis=0)
        return to_uint8(decode(self.sd, draw(self.sd, self.sd.encode_text(prompts), latents, run)))

    def without(self, word: str) -> str:
        """The prompt with a word left out."""
        first, _, rest = self.prompt.partition(word)
        return " ".join(f"{first} {rest}".split())

    def told(self, prompt: str | None) -> np.ndarray:
        """The context of a prompt, None: its own, for every latent: (n, 77, width)."""
        context = self.sd.encode_text([self.prompt if prompt is None else prompt])
        return np.repeat(context, len(self.latents), axis=0)


@lru_cache(maxsize=READERS)
def reader(sd: "StableDiffusion", patterns: tuple[str, ...]) -> "Instrument":
    from xray.probe.instrumented import instrument

    return instrument(sd, patterns)
