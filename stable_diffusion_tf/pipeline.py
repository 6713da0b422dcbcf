"""StableDiffusion: the parts, each loaded when first needed, and the loop that denoises."""

import difflib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from . import scheduler
from .checkpoint.folder import EXTRAS, open_part, read_json
from .checkpoint.strict import load
from .clip import build_clip
from .compiled import ArrayFunction, compiled
from .config import CLIPTextConfig, UNetConfig, VAEConfig, from_dict
from .errors import UsageError
from .images import to_model, to_uint8
from .layers import precision
from .tokenizer import Tokenizer
from .unet import build_unet
from .vae import build_decoder, build_encoder, posterior

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
NETWORKS = {  # part → its folder, its config, how it is built
    "text_encoder": ("text_encoder", CLIPTextConfig, build_clip),
    "unet": ("unet", UNetConfig, build_unet),
    "encoder": ("vae", VAEConfig, build_encoder),
    "decoder": ("vae", VAEConfig, build_decoder),
}


@dataclass(frozen=True)
class Step:
    """One step of the loop: from x at timestep t to x_prev; all arrays (b, h, w, 4)."""

    index: int
    t: int
    x: np.ndarray
    eps_uncond: np.ndarray
    eps_cond: np.ndarray
    eps: np.ndarray
    x0: np.ndarray
    x_prev: np.ndarray


def progress_bar(steps: Sequence[int]) -> Iterable[int]:
    """A bar on the terminal, nothing where the output is not one."""
    return tqdm(steps, desc="denoising", unit="step", disable=None, leave=False)


class StableDiffusion:
    """A latent diffusion model in a diffusers folder.

    Images are (b, H, W, 3), latents (b, h, w, 4), NumPy arrays, channels last. Randomness
    enters as a seed or a `numpy.random.Generator`, so every backend draws the same noise.
    """

    def __init__(self, folder: Path, dtype: str = "float32"):
        self.folder, self.dtype = Path(folder), dtype
        self.alphas = scheduler.alphas_cumprod()
        self.networks: dict[str, keras.Model] = {}
        self.functions: dict[str, ArrayFunction] = {}

    @classmethod
    def load(cls, name: str | Path, dtype: str = "float32") -> "StableDiffusion":
        """A shipped checkpoint by name ('phantom') or a diffusers folder by its path."""
        here = WEIGHTS / name if (WEIGHTS / name).is_dir() else Path(name)
        if not any((here / part / "config.json").is_file() for part in ("unet", "vae")):
            shipped = ", ".join(sorted(p.name for p in WEIGHTS.glob("*/") if p.is_dir()))
            raise UsageError(
                f"no weights at {name}: it is neither a diffusers folder (with unet/config.json) "
                f"nor one of the shipped: {shipped or 'none'}"
            )
        return cls(here, dtype)

    # --- parts ---------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer()

    @cached_property
    def unet_config(self) -> UNetConfig:
        return from_dict(UNetConfig, read_json(self.folder / "unet" / "config.json"))

    @cached_property
    def vae_config(self) -> VAEConfig:
        return from_dict(VAEConfig, read_json(self.folder / "vae" / "config.json"))

    def network(self, part: str) -> keras.Model:
        """'text_encoder', 'unet', 'encoder' or 'decoder', read from disk when first asked for."""
        if part not in self.networks:
            place, config, build = NETWORKS[part]
            found = from_dict(config, read_json(self.folder / place / "config.json"))
            with precision(self.dtype):
                network = build(found)
            load(network, open_part(self.folder, place), ignore=EXTRAS[part])
            self.networks[part] = network
        return self.networks[part]

    def function(self, part: str) -> ArrayFunction:
        """The part as a compiled function of arrays."""
        if part not in self.functions:
            self.functions[part] = compiled(self.network(part))
        return self.functions[part]

    def release(self, *parts: str) -> None:
        """Give the memory of these parts back; they are loaded again when next needed."""
        for part in parts:
            self.functions.pop(part, None)
            self.networks.pop(part, None)
        gc.collect()

    @property
    def backend(self) -> str:
        """'tensorflow', 'jax' or 'torch'."""
        return keras.backend.backend()

    @property
    def size(self) -> int:
        """Pixels along the side of the pictures that the model was trained on."""
        return self.unet_config.sample_size * self.vae_config.factor

    @property
    def multiple(self) -> int:
        """What the sides of a generated picture must be a multiple of."""
        return self.vae_config.factor * 2 ** (len(self.unet_config.block_out_channels) - 1)

    # --- text ----------------------------------------------------------------------------------

    def tokenize(self, prompts: str | Sequence[str]) -> np.ndarray:
        """(b, 77) int32."""
        return self.tokenizer(prompts)

    def encode_text(self, prompts: str | Sequence[str]) -> np.ndarray:
        """The context of prompts, (b, 77, width) float32."""
        return self.function("text_encoder")(self.tokenize(prompts))

    @cached_property
    def known_tokens(self) -> np.ndarray:
        """(vocabulary,) bool: tokens whose vector is not all zero. A model trained on few words
        has zeros for those that it never saw."""
        table = self.network("text_encoder").text_model.embeddings.token_embedding.embeddings
        return keras.ops.convert_to_numpy(table).any(axis=1)

    def unknown_words(self, prompt: str) -> dict[str, list[str]]:
        """Each word of the prompt that the model never saw → the words it knows, nearest first
        by spelling."""
        ids = np.array([self.tokenizer.encode(prompt)[:75]], int).ravel()
        known = self.known_tokens
        words = sorted({self.tokenizer.decode([i]).strip() for i in np.flatnonzero(known)} - {""})
        return {
            word: difflib.get_close_matches(word, words, n=3, cutoff=0.0)
            for word, places in self.tokenizer.words(prompt)
            if not all(known[ids[p - 1]] for p in places if p <= len(ids))
        }

    # --- images --------------------------------------------------------------------------------

    def encode_posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The posterior's mean and deviation, (b, h, w, 4) each, not scaled.

        images: (b, H, W, 3), uint8 or float in [-1, 1]; H and W multiples of the VAE's factor.
        """
        moments = self.function("encoder")(to_model(images, self.vae_config.factor))
        return tuple(keras.ops.convert_to_numpy(y) for y in posterior(moments))

    def encode_image(
        self, images: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Images → scaled latents, (b, h, w, 4): a sample of the posterior drawn by `rng`, or
        its mean where there is none."""
        mean, deviation = self.encode_posterior(images)
        if rng is not None:
            mean = mean + deviation * rng.standard_normal(mean.shape, dtype=np.float32)
        return mean * np.float32(self.vae_config.scaling_factor)

    def decode_latent(self, latent: np.ndarray) -> np.ndarray:
        """Scaled latents → images, (b, H, W, 3) float32 in [-1, 1]."""
        latent = np.asarray(latent, np.float32) / np.float32(self.vae_config.scaling_factor)
        return np.clip(self.function("decoder")(latent), -1.0, 1.0)

    # --- denoising -----------------------------------------------------------------------------

    def draw_noise(
        self, seed: int, batch: int = 1, height: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """Standard normal latents for pictures of height × width pixels, (b, h, w, 4). The first
        picture of a batch gets the noise that it would get alone."""
        if seed < 0:
            raise UsageError(f"a seed of {seed} is negative; try {-seed}")
        height = self.size if height is None else height
        width = self.size if width is None else width
        for name, side in (("height", height), ("width", width)):
            if side < 1 or side % self.multiple:
                near = max(1, round(side / self.multiple)) * self.multiple
                raise UsageError(
                    f"a {name} of {side} is no multiple of {self.multiple}; try {near}"
                )
        factor, channels = self.vae_config.factor, self.unet_config.in_channels
        shape = (batch, height // factor, width // factor, channels)
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    def predict_noise(
        self, latent: np.ndarray, t: int | np.ndarray, context: np.ndarray
    ) -> np.ndarray:
        """The UNet: ε(x_t, t, context), (b, h, w, 4). t: one timestep, or one for each latent."""
        times = np.broadcast_to(np.asarray(t, np.int32), latent.shape[:1])
        return self.function("unet")(np.asarray(latent, np.float32), times, context)

    def denoise(
        self,
        context: np.ndarray,
        uncond: np.ndarray,
        steps: int = 25,
        guidance: float = 7.5,
        eta: float = 0.0,
        seed: int = 0,
        latent: np.ndarray | None = None,
        start: int = 0,
        progress: Callable[[Sequence[int]], Iterable[int]] = progress_bar,
    ) -> Iterator[Step]:
        """DDIM with classifier-free guidance, ε = ε_uncond + guidance·(ε_cond − ε_uncond).

        Song et al., arXiv 2010.02502, eq. 12 (η = 0 is deterministic, η = 1 as noisy as DDPM);
        Ho & Salimans, arXiv 2207.12598.

        context: (b, 77, width); uncond: the same, or (1, 77, width). latent: x at the timestep
        of step `start`, (b, h, w, 4); None draws noise from the seed.
        """
        if not np.isfinite(guidance):
            raise UsageError(f"a guidance of {guidance} is no number; try 7.5")
        if not 0 <= eta <= 1:
            raise UsageError(f"an eta of {eta} is not from 0 (DDIM) to 1 (as noisy as DDPM)")
        times = scheduler.timesteps(steps, len(self.alphas))
        if not 0 <= start < steps:
            raise UsageError(f"start {start} is outside of 0 … {steps - 1}")
        x = self.draw_noise(seed, len(context)) if latent is None else latent
        both = np.concatenate([np.broadcast_to(uncond, context.shape), context])
        rng = np.random.default_rng([seed, 1])  # apart from the stream of the first noise
        return self.walk(x, both, times, guidance, eta, rng, progress(range(start, steps)))

    def walk(
        self,
        x: np.ndarray,
        both: np.ndarray,
        times: np.ndarray,
        guidance: float,
        eta: float,
        rng: np.random.Generator,
        indices: Iterable[int],
    ) -> Iterator[Step]:
        """The loop of `denoise`, whose arguments have been looked at. both: (2b, 77, width), the
        unconditional contexts, then the conditional ones."""
        for index in indices:
            t = int(times[index])
            eps_uncond, eps_cond = np.split(self.predict_noise(np.concatenate([x, x]), t, both), 2)
            eps = eps_uncond + np.float32(guidance) * (eps_cond - eps_uncond)
            noise = rng.standard_normal(x.shape, dtype=np.float32) if eta else None
            before = scheduler.previous(t, len(times), len(self.alphas))
            x_prev, x0 = scheduler.ddim_step(x, eps, t, before, self.alphas, eta, noise)
            yield Step(index, t, x, eps_uncond, eps_cond, eps, x0, x_prev)
            x = x_prev

    def generate(
        self,
        prompt: str | Sequence[str],
        negative: str = "",
        steps: int = 25,
        guidance: float = 7.5,
        eta: float = 0.0,
        seed: int = 0,
        height: int | None = None,
        width: int | None = None,
    ) -> np.ndarray:
        """Prompts → pictures, (b, H, W, 3) uint8."""
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        context = self.encode_text([*prompts, negative])
        latent = self.draw_noise(seed, len(prompts), height, width)
        for step in self.denoise(
            context[:-1], context[-1:], steps, guidance, eta, seed, latent=latent
        ):
            latent = step.x_prev
        return to_uint8(self.decode_latent(latent))
