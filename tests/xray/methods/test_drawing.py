"""Methods that keep rows together draw those that do not fit in parts, and find the same."""

from collections.abc import Callable

import numpy as np
import pytest

from stable_diffusion_tf import StableDiffusion, unet
from stable_diffusion_tf.compiled import Call, calls_go_through
from xray.methods import (
    ablation,
    conditioning,
    linear_probe,
    prompt_to_prompt,
    steering,
    token_ablation,
)
from xray.methods.conditioning import Swap

PROMPTS = ["a cat on red", "a dog on red", "a big cat on red"]
STEPS, MIDDLE = 2, "unet.mid_block"
PLACE, CHANNELS = "unet.up_blocks.1", 48


def given(sd: StableDiffusion) -> tuple[np.ndarray, np.ndarray, dict]:
    """Three contexts, three noises, and the other arguments of a run."""
    contexts, none = np.split(sd.encode_text([*PROMPTS, ""]), [3])
    return contexts, sd.draw_noise(0, 3), {"uncond": none, "steps": STEPS, "guidance": 3.0}


def read_means(sd: StableDiffusion) -> list[np.ndarray]:
    means, ends = steering.read_means(sd, [PLACE], *given(sd))
    return [means[PLACE], ends]


def steer(sd: StableDiffusion) -> list[np.ndarray]:
    vectors = np.random.default_rng(0).normal(size=(STEPS, 3, CHANNELS)).astype(np.float32)
    return [steering.steering(sd, steering.find_places(sd, PLACE))(*given(sd), {PLACE: vectors})]


def edit_attention(sd: StableDiffusion) -> list[np.ndarray]:
    rows, (_, noise, run) = prompt_to_prompt.rows_of(*PROMPTS), given(sd)
    contexts, shares = sd.encode_text([row.prompt for row in rows]), prompt_to_prompt.Shares(1, 1)
    ended, seen = prompt_to_prompt.draw_rows(sd, rows, contexts, [2], shares, noise, run)
    return [ended, *(x for shots in seen for reads in shots for x in reads.values())]


def ablate(sd: StableDiffusion) -> list[np.ndarray]:
    contexts, noise, run = given(sd)
    places, ablations = ablation.find_ablations(sd, f"{MIDDLE}.resnets*")
    return [ablation.ablate(sd, places, [None, *ablations], contexts[:1], noise, run)]


def ablate_tokens(sd: StableDiffusion) -> list[np.ndarray]:
    contexts, noise, run = given(sd)
    groups = {"cat": [2], "red": [4], "end": [5]}
    ended, seen = token_ablation.ablate_tokens(sd, groups, contexts[:1], noise, run)
    return [ended, *(x for shots in seen for reads in shots for x in reads.values())]


def swap(sd: StableDiffusion) -> list[np.ndarray]:
    contexts, noise, run = given(sd)
    times = conditioning.shifted_times(sd.timesteps(STEPS), 1, 999)
    known = conditioning.read_conditions(sd, contexts[:2], run["uncond"], noise, times)
    jobs = [(Swap("itself"), 0), (Swap("words"), 1), (Swap("noisier", "mid_block"), 2)]
    return [conditioning.swap_all(sd, jobs, noise, contexts[:1], known, run)]


def read_noised(sd: StableDiffusion) -> list[np.ndarray]:
    contexts, noise, _ = given(sd)
    noisy, features = linear_probe.read_noised(sd, [MIDDLE, PLACE], noise, contexts, [300, 700], 0)
    assert all(some.shape[:2] == (2, 3) for some in features.values())
    return [noisy, *features.values()]


@pytest.mark.parametrize(
    "find", [read_means, steer, edit_attention, ablate, ablate_tokens, swap, read_noised]
)
def test_rows_that_do_not_fit_are_drawn_in_parts(
    find: Callable[[StableDiffusion], list[np.ndarray]], sd, monkeypatch
):
    whole, rows = find(sd), []

    def note(call: Call):
        rows.append(len(call.arrays[0]) if call.network == "unet" else 0)
        return call.compute(*call.arrays)

    monkeypatch.setattr(unet, "AT_ONCE", 4.5 * 256 * unet.unet_bytes(sd.unet_config))
    with calls_go_through(note):
        parts = find(sd)
    assert 0 < max(rows) <= 4 and len(whole) == len(parts)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4 * np.abs(one).max())
