"""A training step without the training: what the UNet gets wrong at each timestep."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stable_diffusion_tf import scheduler
from xray import measure
from xray.methods.drawing import decode

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion


class Errors(NamedTuple):
    """Mean square errors at some timesteps, (times,) each but the last."""

    t: np.ndarray
    noise: np.ndarray  # of the predicted noise, whose variance is 1
    scaled: np.ndarray  # of the best multiple of x, as a guess of the noise
    x0: np.ndarray  # of the latent that the predicted noise leaves
    variance: float  # of x0


def predict_all(
    sd: "StableDiffusion",
    x0: np.ndarray,
    noise: np.ndarray,
    contexts: np.ndarray,
    times: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean square errors of the predicted noise, (k, number, times), and what was predicted
    for the first picture, (k, times, h, w, c).

    x0: (number, h, w, c); noise: (number, times, h, w, c); contexts: (k, number, 77, width), each
    picture's in k wordings; times: (times,) ints.
    """
    loss = np.empty((len(contexts), *noise.shape[:2]))
    predicted = []
    for i, at_times in enumerate(noise):
        x = scheduler.add_noise(
            x0[i : i + 1].repeat(len(times), axis=0), at_times, times, sd.alphas
        )
        for k, context in enumerate(contexts[:, i : i + 1]):
            eps = sd.predict_noise(x, times, context.repeat(len(times), axis=0))
            loss[k, i] = np.mean((eps - at_times) ** 2, axis=(1, 2, 3))
            predicted.append(eps)
    return loss, np.stack(predicted[: len(contexts)])


def measure_errors(
    loss: np.ndarray, x0: np.ndarray, times: np.ndarray, alphas: np.ndarray
) -> Errors:
    """The error of the noise, (times,), beside that of the best multiple of x, and as one of x0:
    x0 = (x − √(1−ᾱ)·ε)/√ᾱ."""
    alpha = alphas[times]
    power = float(np.mean(np.square(x0, dtype=np.float64)))
    scaled = alpha * power / (1 - alpha + alpha * power)
    return Errors(times, loss, scaled, loss * (1 - alpha) / alpha, float(x0.var()))


def show(
    sd: "StableDiffusion",
    images: np.ndarray,
    x0: np.ndarray,
    noise: np.ndarray,
    eps: np.ndarray,
    times: np.ndarray,
    shown: Sequence[int],
) -> dict[str, np.ndarray]:
    """The first picture noised, the noise, the predicted noise and x̂0, at the timesteps of these
    indices, in colours: name → (shown, H, W, 3) in [-1, 1]. Latents are coloured by the linear map
    that fits the pictures best, noise half as strongly. noise, eps: (times, h, w, c)."""
    t, put_in, seen = times[shown], noise[shown], eps[shown]
    matrix, bias, _ = measure.fit_latent_to_rgb(x0[: len(images)], images)
    x = scheduler.add_noise(x0[:1].repeat(len(t), axis=0), put_in, t, sd.alphas)
    return {
        "x_t": measure.linear_rgb(x, matrix, bias),
        "noise put in": measure.linear_rgb(put_in / 2, matrix),
        "noise predicted": measure.linear_rgb(seen / 2, matrix),
        "x̂0": decode(sd, scheduler.predict_x0(x, seen, t, sd.alphas)),
    }


def misses(noise: np.ndarray) -> np.ndarray:
    """By how many standard errors the error of predicting zero is off 1: (b, times, …) → (times,).
    The square of a standard Gaussian number has a variance of 2."""
    square = np.square(noise, dtype=np.float64)
    count = noise.size / noise.shape[1]
    return np.abs(square.mean(axis=(0, *range(2, noise.ndim))) - 1) * np.sqrt(count / 2)
