"""The loop from noise to a latent. A sampler is a function that takes one step: index, x → Step.

Each is made for one run from `predict`, the network: latent, t, context, step → noise; and from
`pass_on`, through which every value of the loop goes before it is used: name, step, value → value.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from . import scheduler
from .lcm import consistent_x0, lcm_step


@dataclass(frozen=True)
class Step:
    """One step of the loop: from x at timestep t to x_prev; all arrays (b, h, w, 4).

    A latent consistency model makes one prediction, not two: there eps_uncond, eps_cond and eps
    are the same array.
    """

    index: int
    t: int
    x: np.ndarray
    eps_uncond: np.ndarray
    eps_cond: np.ndarray
    eps: np.ndarray
    x0: np.ndarray
    x_prev: np.ndarray


Predict = Callable[..., np.ndarray]
PassOn = Callable[[str, int, np.ndarray], np.ndarray]
Sampler = Callable[[int, np.ndarray], Step]


def unchanged(name: str, step: int, value: np.ndarray) -> np.ndarray:
    return value


def walk(sampler: Sampler, x: np.ndarray, indices: Iterable[int]) -> Iterator[Step]:
    """The steps of these indices, each from where the one before ended."""
    for index in indices:
        step = sampler(index, x)
        yield step
        x = step.x_prev


def ddim_sampler(
    predict: Predict,
    context: np.ndarray,
    uncond: np.ndarray,
    times: np.ndarray,
    alphas: np.ndarray,
    guidance: float,
    eta: float,
    rng: np.random.Generator,
    pass_on: PassOn = unchanged,
) -> Sampler:
    """DDIM with classifier-free guidance, ε = ε_uncond + guidance·(ε_cond − ε_uncond).

    Song et al., arXiv 2010.02502, eq. 12; Ho & Salimans, arXiv 2207.12598. context: (b, 77, width);
    uncond: the same, or (1, 77, width); times: all timesteps of the run, descending.
    """
    both = np.concatenate([np.broadcast_to(uncond, context.shape), context])

    def step(index: int, x: np.ndarray) -> Step:
        t = int(times[index])
        x = pass_on("x", index, x)
        halves = np.split(predict(np.concatenate([x, x]), t, both, step=index), 2)
        eps_uncond = pass_on("eps_uncond", index, halves[0])
        eps_cond = pass_on("eps_cond", index, halves[1])
        eps = eps_uncond + np.float32(guidance) * (eps_cond - eps_uncond)
        eps = pass_on("eps", index, eps)
        x0 = pass_on("x0", index, scheduler.predict_x0(x, eps, t, alphas))
        noise = rng.standard_normal(x.shape, dtype=np.float32) if eta else None
        before = scheduler.previous(t, len(times), len(alphas))
        x_prev, x0 = scheduler.ddim_step(x, eps, t, before, alphas, eta, noise, x0)
        return Step(index, t, x, eps_uncond, eps_cond, eps, x0, x_prev)

    return step


def lcm_sampler(
    predict: Predict,
    context: np.ndarray,
    times: np.ndarray,
    alphas: np.ndarray,
    guidance: float,
    rng: np.random.Generator,
    pass_on: PassOn = unchanged,
) -> Sampler:
    """Multistep consistency sampling: Song et al., arXiv 2303.01469, algorithm 1, with the network
    of Luo et al., arXiv 2310.04378: `predict` takes the guidance too. Arguments as above."""

    def step(index: int, x: np.ndarray) -> Step:
        t, before = (int(time) for time in [*times, -1][index : index + 2])
        x = pass_on("x", index, x)
        eps = pass_on("eps", index, predict(x, t, context, guidance, step=index))
        x0 = pass_on("x0", index, consistent_x0(x, eps, t, alphas))
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x_prev, x0 = lcm_step(x, eps, t, before, alphas, noise, x0)
        return Step(index, t, x, eps, eps, eps, x0, x_prev)

    return step
