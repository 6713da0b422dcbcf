"""StableDiffusion: the parts, each loaded when first needed, and the loop that denoises."""

import difflib
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

import keras
import numpy as np

from . import scheduler
from .arguments import check_seed, number, place, whole
from .checkpoint.folder import EXTRAS
from .checkpoint.keras_cv_h5 import from_live
from .checkpoint.open import open_checkpoint
from .checkpoint.places import locate
from .checkpoint.strict import check_memory, load_new
from .checkpoint.tensors import Checkpoint, Source
from .checkpoint.textual_inversion import check_rows, new_word, read_embedding, with_words
from .checkpoint.write import Networks, write_model
from .clip import build_clip
from .compiled import ArrayFunction, compiled
from .config import (
    CLIPTextConfig,
    ScheduleConfig,
    UNetConfig,
    VAEConfig,
    check_relations,
    from_dict,
)
from .errors import UsageError
from .images import to_model, to_uint8
from .lcm import guidance_embedding, lcm_timesteps
from .machine import memory, return_free_memory, return_memory_at_once
from .precisions import check_precision, kept_in, precision, precisions
from .preview import Preview
from .progress import progress_bar
from .sampling import Sampler, Step, ddim_sampler, lcm_sampler, walk
from .tiles import decode_bytes, in_tiles
from .tokenizer import Tokenizer, checked_texts
from .unet import build_unet, call_bytes, rows_at_once, unet_bytes
from .vae import build_decoder, build_encoder, posterior

SMALLEST_TILE = 16  # latent positions
MOST_GUIDANCE = 1e6  # what float32 bears to the end of any run, and a thousand times what is of use
LARGE = 100e6  # bytes; parts that take more are given back when they are done
SPACINGS = {
    "leading": scheduler.timesteps,
    "linspace": scheduler.linspace_timesteps,
    "trailing": scheduler.trailing_timesteps,
}
NETWORKS = {  # part → its folder, its config, how it is built
    "text_encoder": ("text_encoder", CLIPTextConfig, build_clip),
    "unet": ("unet", UNetConfig, build_unet),
    "encoder": ("vae", VAEConfig, build_encoder),
    "decoder": ("vae", VAEConfig, build_decoder),
}


class StableDiffusion:
    """A latent diffusion model, of whatever format its checkpoint is.

    Images are (b, H, W, 3), latents (b, h, w, 4), NumPy arrays, channels last. Randomness
    enters as a seed or a `numpy.random.Generator`, so every backend draws the same noise.

    precision: 'float32'; 'bfloat16', half the memory, and quicker where the CPU computes in it;
    'float16-storage', half the memory and the arithmetic of float32; on OpenVINO alone
    'int8-storage', a quarter of the memory for text encoder and UNet, likewise.
    size: pixels along the side of the pictures, where not as the model was trained.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str = "float32", size: int | None = None):
        self.checkpoint, self.precision = checkpoint, check_precision(precision)
        self.side = None if size is None else whole("size", size, 512)
        if self.side is not None and self.side < 1:
            raise UsageError(f"size={size} is no size of a picture; try size=512")
        self.schedule = from_dict(ScheduleConfig, checkpoint.config("scheduler"))
        self.alphas = scheduler.alphas_cumprod(
            self.schedule.beta_start, self.schedule.beta_end, schedule=self.schedule.beta_schedule
        )
        self.networks: dict[str, keras.Model] = {}
        self.functions: dict[tuple, ArrayFunction] = {}  # (part, and what was compiled into it)
        self.family: WeakSet[StableDiffusion] = WeakSet([self])  # all that share the networks
        self.tiny: Preview | None = None
        self.learned: dict[str, np.ndarray] = {}  # word → its vectors, (n, width)
        self.vocabulary: dict[str, Any] = {}  # what holds until another word is learned

    def __repr__(self) -> str:
        name = self.checkpoint.place.name
        return f"StableDiffusion {name!r}: {self.size} px, {self.precision} on {self.backend}"

    @classmethod
    def load(
        cls, name: str | Path, precision: str = "float32", size: int | None = None
    ) -> "StableDiffusion":
        """A model by its name, 'phantom' or one of the catalogue that has been downloaded, or by
        the path of its folder or file in any format. Raises UsageError where there is none."""
        return cls(open_checkpoint(locate(name)), precision, size)

    def loaded_anew(self, precision: str) -> "StableDiffusion":
        """The model of the same checkpoint and size in a precision, sharing nothing with this."""
        return StableDiffusion(self.checkpoint, precision, self.side)

    @classmethod
    def from_keras_cv(cls, model: Any, precision: str = "float32") -> "StableDiffusion":
        """The weights of a live `keras_cv.models.StableDiffusion`; its networks stay as they are.
        Raises UsageError where it is another model."""
        return cls(from_live(model), precision)

    # --- parts ---------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        if "tokenizer" not in self.vocabulary:
            words = [(word, len(rows)) for word, rows in self.learned.items()]
            self.vocabulary["tokenizer"] = Tokenizer(words)
        return self.vocabulary["tokenizer"]

    @cached_property
    def text_config(self) -> CLIPTextConfig:
        return from_dict(CLIPTextConfig, self.checkpoint.config("text_encoder"))

    @cached_property
    def unet_config(self) -> UNetConfig:
        return from_dict(UNetConfig, self.checkpoint.config("unet"))

    @cached_property
    def vae_config(self) -> VAEConfig:
        return from_dict(VAEConfig, self.checkpoint.config("vae"))

    def network(self, part: str) -> keras.Model:
        """'text_encoder', 'unet', 'encoder' or 'decoder', read from disk when first asked for."""
        if part not in self.networks:
            place, config, build = NETWORKS[part]
            found = from_dict(config, self.checkpoint.config(place))
            check_relations(found, self.checkpoint.place)
            source = self.checkpoint.source(place)
            if part == "text_encoder" and self.learned:
                found, source = with_words(found, source, np.concatenate([*self.learned.values()]))
            if check_memory(source, self.weight_bytes(part)) > LARGE:
                return_memory_at_once()
            with precision(kept_in(self.precision, place)):
                made = load_new(lambda: build(found), source, ignore=EXTRAS[part])
            self.networks[part] = made
        return self.networks[part]

    def weight_bytes(self, part: str) -> int:
        """What a weight of the part takes in memory."""
        return precisions(self.backend)[kept_in(self.precision, NETWORKS[part][0])]

    def function(self, part: str) -> ArrayFunction:
        """The part as a compiled function of arrays."""
        if (part,) not in self.functions:
            self.functions[part,] = self.compile(part, self.network(part))
        return self.functions[part,]

    def compile(self, part: str, network: keras.Model) -> ArrayFunction:
        return compiled(network)

    def release(self, *parts: str) -> None:
        """Give the memory of these parts back; they are loaded again when next needed."""
        for part in parts:
            self.networks.pop(part, None)
        for one in self.family:
            for key in [key for key in one.functions if key[0] in parts]:
                del one.functions[key]
        gc.collect()
        return_free_memory()

    def finish(self, *parts: str) -> None:
        """Release those of the parts that are large: to load them again takes seconds, but to
        keep them may be more than the machine has."""
        loaded = {
            part: self.networks[part].count_params() * self.weight_bytes(part)
            for part in parts
            if part in self.networks
        }
        if large := [part for part, taken in loaded.items() if taken > LARGE]:
            self.release(*large)  # which looks through all of Python's objects

    def save(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write the model as a diffusers folder, in 'float32' or 'float16'.

        Networks that are in memory are written as they are there, in their precision; all else
        is copied from the checkpoint. Words learned by `add_word` keep to their own files. Raises
        UsageError where the disk will not take it.
        """
        parts = {
            "text_encoder": (self.text_config, self.source("text_encoder")),
            "unet": (self.unet_config, self.source("unet")),
            "vae": (self.vae_config, self.source("vae")),
        }
        write_model(place("folder", folder), parts, self.checkpoint.config("scheduler"), dtype)

    def source(self, part: str) -> Source:
        """The weights of a part: of its networks if all are in memory, else of the checkpoint."""
        names = [name for name, (place, *_) in NETWORKS.items() if place == part]
        grown = part == "text_encoder" and self.learned
        if grown or not all(name in self.networks for name in names):
            return self.checkpoint.source(part)
        return Networks([self.networks[name] for name in names])

    @property
    def backend(self) -> str:
        """'tensorflow', 'jax', 'torch' or 'openvino'."""
        return keras.backend.backend()

    @property
    def is_lcm(self) -> bool:
        """Whether the UNet was distilled into a latent consistency model, which takes the guidance
        as an input (Luo et al., arXiv 2310.04378) and has no ε_uncond."""
        return bool(self.unet_config.time_cond_proj_dim)

    @property
    def size(self) -> int:
        """Pixels along the side of the pictures: what the model was loaded for, or trained on."""
        trained = self.unet_config.sample_size * self.vae_config.factor
        return trained if self.side is None else self.side

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
        ids, positions = self.tokenize(prompts), self.text_config.max_position_embeddings
        if ids.shape[1] > positions:
            raise UsageError(
                f"the text encoder of {self.checkpoint.place} has {positions} positions, and a "
                f"prompt takes {ids.shape[1]}: this is no text encoder of Stable Diffusion 1.x"
            )
        return self.function("text_encoder")(ids)

    @property
    def known_tokens(self) -> np.ndarray:
        """(vocabulary,) bool: tokens whose vector is not all zero. A model trained on few words
        has zeros for those that it never saw."""
        if "known" not in self.vocabulary:
            table = self.network("text_encoder").text_model.embeddings.token_embedding.embeddings
            self.vocabulary["known"] = keras.ops.convert_to_numpy(table).any(axis=1)
        return self.vocabulary["known"]

    def unknown_words(self, prompt: str) -> dict[str, list[str]]:
        """Each word of the prompt that the model never saw → the words it knows that are spelled
        nearly so, the nearest first."""
        ids = np.array([self.tokenizer.encode(prompt)[:75]], int).ravel()
        known = self.known_tokens
        words = sorted({self.tokenizer.decode([i]).strip() for i in np.flatnonzero(known)} - {""})
        return {
            word: difflib.get_close_matches(word, words, n=3, cutoff=0.75)
            for word, places in self.tokenizer.words(prompt)
            if not all(known[ids[p - 1]] for p in places if p <= len(ids))
        }

    def add_word(self, path: str | Path, word: str | None = None) -> str:
        """Learn a word by textual inversion (Gal et al., arXiv 2208.01618): prompts may hold it.

        path: a .safetensors, .bin or .pt file of diffusers or a web UI, or a folder of diffusers.
        word: what to call it; None keeps the name that it was saved under. Returns the word as
        prompts are to hold it, such as '<toy>'. Raises UsageError; nothing has changed then.
        """
        saved, rows = read_embedding(Path(path))
        word = new_word(saved if word is None else word, self.tokenizer, path)
        check_rows(rows, self.text_config, path)
        self.learned[word] = rows
        self.release("text_encoder")
        self.vocabulary.clear()
        return word

    # --- images --------------------------------------------------------------------------------

    def encode_posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The posterior's mean and standard deviation, (b, h, w, 4) each, not scaled.

        images: (b, H, W, 3), uint8 or float in [-1, 1]; H and W multiples of the VAE's factor.
        """
        moments = self.function("encoder")(to_model(images, self.vae_config.factor))
        return tuple(keras.ops.convert_to_numpy(y) for y in posterior(moments))

    def encode_image(
        self, images: np.ndarray, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Images → scaled latents, (b, h, w, 4): a sample of the posterior drawn by `rng`, or
        its mean where there is none."""
        mean, std = self.encode_posterior(images)
        if rng is not None:
            mean = mean + std * rng.standard_normal(mean.shape, dtype=np.float32)
        return mean * np.float32(self.vae_config.scaling_factor)

    def decode_latent(self, latent: np.ndarray, tile: int | None = None) -> np.ndarray:
        """Scaled latents → images, (b, H, W, 3) float32 in [-1, 1].

        tile: decode squares of so many latent positions a side, overlapping, and blend them; None
        does so only where memory is too short for the whole.
        """
        latent = np.asarray(latent, np.float32) / np.float32(self.vae_config.scaling_factor)
        tile = self.tile_that_fits(latent.shape) if tile is None else tile
        decode = in_tiles(self.function("decoder"), tile, self.vae_config.factor)
        return np.clip(decode(latent), -1.0, 1.0)

    def tile_that_fits(self, shape: tuple[int, ...]) -> int:
        """The largest tile, in latent positions, halved as often as memory is too short."""
        tile, available = max(shape[1:3]), memory().available
        room = math.inf if available is None else available
        while tile > SMALLEST_TILE and decode_bytes(self.vae_config, shape[0], tile) > room:
            tile = max(SMALLEST_TILE, tile // 2)
        return tile

    def load_preview(self, folder: str | Path) -> None:
        """Read TAESD from its folder, so that `preview` shows a latent at a hundredth of the cost
        of `decode_latent`. Raises UsageError."""
        self.tiny = Preview(folder)

    def preview(self, latent: np.ndarray) -> np.ndarray:
        """Scaled latents → images by TAESD, (b, H, W, 3) float32 in [-1, 1]."""
        return self.loaded_preview().decode_latent(latent)

    def encode_preview(self, images: np.ndarray) -> np.ndarray:
        """Images, uint8 or float in [-1, 1] → scaled latents by TAESD, (b, h, w, 4)."""
        return self.loaded_preview().encode_image(images)

    def loaded_preview(self) -> Preview:
        if self.tiny is None:
            raise UsageError("no TAESD for previews yet; call load_preview with its folder")
        return self.tiny

    # --- denoising -----------------------------------------------------------------------------

    def draw_noise(
        self, seed: int, batch: int = 1, height: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """Standard normal latents for pictures of height × width pixels, (b, h, w, 4). The first
        picture of a batch gets the noise that it would get alone."""
        seed = check_seed(seed)
        height = self.size if height is None else whole("height", height, self.size)
        width = self.size if width is None else whole("width", width, self.size)
        for name, side in (("height", height), ("width", width)):
            if side < 1 or side % self.multiple:
                near = max(1, round(side / self.multiple)) * self.multiple
                raise UsageError(
                    f"a {name} of {side} is no multiple of {self.multiple}; try {near}"
                )
        self.check_room(batch, height, width)
        factor, channels = self.vae_config.factor, self.unet_config.in_channels
        shape = (batch, height // factor, width // factor, channels)
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    def check_room(self, batch: int, height: int, width: int) -> None:
        """Raise UsageError where memory is too short for pictures of height × width pixels, and
        say what fits."""

        def needed(pixels: int) -> int:
            places = pixels // self.vae_config.factor**2
            return call_bytes(self.unet_config, places, 2 * batch)  # with and without the words

        available = memory().available
        if available is not None and needed(height * width) > available:
            one = math.isqrt(available // unet_bytes(self.unet_config)) * self.vae_config.factor
            sides = range(one // self.multiple * self.multiple, self.multiple, -self.multiple)
            side = next((side for side in sides if needed(side**2) <= available), self.multiple)
            raise UsageError(
                f"{width}×{height} pixels take {needed(height * width) / 1e9:,.1f} GB of memory at "
                f"the least and {available / 1e9:.1f} GB are free; try {side}×{side} or less"
            )

    def predict_noise(
        self,
        latent: np.ndarray,
        t: int | np.ndarray,
        context: np.ndarray,
        guidance: float = 1.0,
        step: int | None = None,
    ) -> np.ndarray:
        """The UNet: ε(x_t, t, context), (b, h, w, 4). t: one timestep, or one for each latent.
        guidance: an input of latent consistency models, 1 being none; others do not use it.
        step: the index of the step of a run, by which edits of an instrument may go."""
        return self.call_unet(step, *self.unet_inputs(latent, t, context, guidance))

    def unet_inputs(
        self, latent: np.ndarray, t: int | np.ndarray, context: np.ndarray, guidance: float = 1.0
    ) -> tuple[np.ndarray, ...]:
        """The arrays that the UNet's function takes, arguments as for `predict_noise`."""
        times = np.broadcast_to(np.asarray(t, np.int32), latent.shape[:1])
        width = self.unet_config.time_cond_proj_dim
        told = [guidance_embedding(guidance, width).repeat(len(latent), axis=0)] if width else []
        return np.asarray(latent, np.float32), times, np.asarray(context, np.float32), *told

    def call_unet(self, step: int | None, *arrays: np.ndarray) -> np.ndarray:
        """The UNet's function, at a step of a run or outside of one: of no more latents at a time
        than fit."""
        rows, *sides, _ = arrays[0].shape
        calls = max(1, math.ceil(rows / rows_at_once(self.unet_config, math.prod(sides))))
        parts = zip(*(np.array_split(x, calls) for x in arrays), strict=True)
        return np.concatenate([self.function("unet")(*part) for part in parts])

    def pass_on(self, name: str, step: int, value: np.ndarray) -> np.ndarray:
        """A value of the loop, `name` as in `Step`, on its way to where it is used."""
        return value

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
        Ho & Salimans, arXiv 2207.12598. A latent consistency model (Luo et al., arXiv 2310.04378)
        has its own steps, 4 do, and takes the guidance as an input: it uses neither uncond nor eta.

        context: (b, 77, width); uncond: the same, or (1, 77, width). latent: x at the timestep
        of step `start`, (b, h, w, 4); None draws noise from the seed.
        """
        steps, start, seed = whole("steps", steps, 25), whole("start", start, 0), check_seed(seed)
        guidance = number("guidance", guidance, -MOST_GUIDANCE, MOST_GUIDANCE, 7.5)
        eta = number("eta", eta, 0, 1, 0)  # from DDIM to as noisy as DDPM
        x = self.draw_noise(seed, len(context)) if latent is None else latent
        rng = np.random.default_rng([seed, 1])  # apart from the stream of the first noise
        sampler = self.sampler(context, uncond, steps, guidance, eta, rng)
        if not 0 <= start < steps:
            raise UsageError(f"start {start} is outside of 0 … {steps - 1}")
        return walk(sampler, x, progress(range(start, steps)))

    def sampler(
        self,
        context: np.ndarray,
        uncond: np.ndarray,
        steps: int,
        guidance: float,
        eta: float,
        rng: np.random.Generator,
    ) -> Sampler:
        """What takes one step of a run of so many: DDIM, or what the UNet was distilled for."""
        alphas, predict, times = self.alphas, self.predict_noise, self.timesteps(steps)
        if self.is_lcm:
            return lcm_sampler(predict, context, times, alphas, guidance, rng, self.pass_on)
        return ddim_sampler(
            predict, context, uncond, times, alphas, guidance, eta, rng, self.pass_on
        )

    def timesteps(self, steps: int) -> np.ndarray:
        """Those of a run of so many steps, descending, (steps,)."""
        if self.is_lcm:
            return lcm_timesteps(steps, len(self.alphas))
        return SPACINGS[self.schedule.timestep_spacing](steps, len(self.alphas))

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
        prompts = checked_texts(prompt)
        context = self.encode_text([*prompts, negative])
        self.finish("text_encoder")
        latent = self.draw_noise(seed, len(prompts), height, width)
        for step in self.denoise(
            context[:-1], context[-1:], steps, guidance, eta, seed, latent=latent
        ):
            latent = step.x_prev
        self.finish("unet")
        return to_uint8(self.decode_latent(latent))
