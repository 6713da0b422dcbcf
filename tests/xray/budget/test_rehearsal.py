"""A run without the work: what it counts is what a run calls, and it leaves nothing behind."""

import importlib
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tyro

from stable_diffusion_tf.compiled import Call, calls_go_through
from stable_diffusion_tf.machine import Memory
from xray.budget import rehearsal
from xray.budget.rehearsal import NoRoom, OutOfPatience, Shapes, key_of, rehearse
from xray.compare import BACKENDS
from xray.measure import psnr
from xray.options import Sampling
from xray.plots import film_strip

ROOT = Path(__file__).resolve().parents[3]
SMALL = {  # script → options of a run that is over soon
    "test_anatomy": [],
    "test_cross_attention": ["--pictures", "2", "--steps", "1", "a cat"],
    "test_ddim_inversion": ["--number", "1", "--steps", "1", "2", "--guidance", "1", "2"],
    "test_fast_sampling": ["--pictures", "2", "--counts", "1", "2", "--steps", "3"],
    "test_guidance": ["--pictures", "2", "--steps", "2", "--scales", "1", "4"],
    "test_h_space": ["--pictures", "2", "--steps", "1", "--scales", "0", "1", "2"],
    "test_image_decoder": ["--number", "8"],
    "test_image_encoder": ["--size", "32"],
    "test_image_encoder_noise_corruption": ["--number", "2"],
    "test_latent_statistics": ["--number", "8"],
    "test_noise_schedule": ["--number", "4"],
    "test_precision": ["--steps", "1", "--pattern", "*.mid_block"],
    "test_stabilizing_noise": ["--pictures", "2", "--steps", "4"],
    "test_text_encoder": [],
    "test_time_and_context": ["--pictures", "2", "--steps", "1"],
    "test_training_step": ["--number", "4"],
    "test_unet_ablation": ["--pictures", "2", "--steps", "1"],
    "test_unet_features": ["--number", "8", "--steps", "1"],
    "text2image": ["--steps", "2"],
    "text_image_interpolation": ["--pictures", "2", "--steps", "1", "--points", "3"],
    "text_latent_interpolation": ["--pictures", "2", "--steps", "1", "--points", "3"],
    "text_layers": ["--steps", "1", "a cat", "a dog"],
    "text_padding_and_end": ["--pictures", "2", "--steps", "1"],
    "text_prompt_to_prompt": ["--pictures", "2", "--steps", "2"],
    "text_semantic_similarity": [],
    "text_symbol_image2image": ["--number", "2", "--steps", "5"],
}
SCRIPTS = sorted(path.stem for path in (ROOT / "experiments").glob("te[sx]t*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_calls_counted_are_the_calls_made(name, sd, tmp_path):
    script = importlib.import_module(f"experiments.{name}")
    asked = tyro.cli(script.Options, args=SMALL[name])
    found, made = rehearse(script.main, sd, asked, Shapes()), Counter()

    def counting(call: Call):
        made[key_of(call)] += 1
        return call.compute(*call.arrays)

    with calls_go_through(counting):
        script.main(rehearsal.understudy(sd), replace(asked, folder=tmp_path))
    here = {key: n for key, n in made.items() if key.network not in BACKENDS}
    assert found.counts == here
    assert found.stopped is None or name == "test_precision"
    assert not found.sd.networks and not found.sd.functions, "they would be held to the end"


# --- what a rehearsal leaves behind ------------------------------------------------------------


@dataclass(frozen=True)
class Mine(Sampling):
    prompt: str = "a"


def test_a_rehearsal_says_saves_and_changes_nothing(small, tmp_path, capfd):
    seen = []

    def main(sd, options):
        print("drawn")
        print("drawn", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        seen.append(options.folder)
        (options.folder / "kept.txt").write_text("kept")
        sd.learned["<toy>"] = np.zeros((1, 12), np.float32)
        sd.finish("unet")
        sd.predict_noise(np.zeros((2, 8, 8, 4)), 0, np.zeros((2, 6, 12)))

    before = {**small.learned}
    found = rehearse(main, small, Mine(out=tmp_path), Shapes())
    assert capfd.readouterr() == ("", "") and small.learned == before
    assert not seen[0].exists() and not [*tmp_path.iterdir()]
    assert found.stopped is None and [*found.counts.values()] == [1]


def test_only_a_text_encoder_with_words_of_its_own_is_loaded_twice(small):
    def main(sd, options):
        asked.append(sd.network("text_encoder"))
        sd.learned["<toy>"] = np.zeros((1, 12), np.float32)
        sd.encode_text("a <toy>")
        sd.predict_noise(np.zeros((2, 8, 8, 4)), 0, np.zeros((2, 6, 12)))

    asked = []
    small.release("unet", "text_encoder")
    assert rehearse(main, small, Mine(), Shapes()).stopped is None
    assert "unet" in small.networks and ("unet",) in small.functions
    assert asked == [small.networks["text_encoder"]], "without them it is the run's"
    assert ("text_encoder",) not in small.functions


def test_what_is_given_out_differs_from_row_to_row_and_call_to_call(small):
    given = np.zeros((2, 8, 8, 4)), 0, np.zeros((2, 6, 12))
    seen = []
    rehearse(
        lambda sd, _: seen.extend([sd.predict_noise(*given) for _ in range(2)]),
        small,
        Mine(),
        Shapes(),
    )
    (a, b), (c, _) = seen
    assert a.shape == (8, 8, 4) and np.isfinite(a).all() and 0.8 < a.std() < 1.2
    assert not np.array_equal(a, b) and not np.array_equal(a, c)


def test_it_stops_at_the_first_figure_and_tells_what_it_failed_over(small):
    def main(sd, options):
        film_strip(np.zeros((1, 4, 4, 3)), ["a"], "a")
        pytest.fail("it went on")

    assert rehearse(main, small, Mine(), Shapes()).stopped is None
    failed = rehearse(lambda *_: 1 // 0, small, Mine(), Shapes())
    assert isinstance(failed.stopped, ZeroDivisionError)


def test_a_rehearsal_that_takes_too_long_is_broken_off_in_what_measures(small):
    def main(sd, options):
        while True:
            psnr(np.zeros((1, 2, 2, 3)), np.ones((1, 2, 2, 3)))

    found = rehearse(main, small, Mine(), Shapes(), patience=0.05)
    assert isinstance(found.stopped, OutOfPatience) and found.between < 10


def test_a_function_is_outlined_once_for_batches_of_all_sizes(small):
    def main(sd, options):
        for rows in (2, 4, 6):
            made = sd.predict_noise(np.zeros((rows, 8, 8, 4)), 0, np.zeros((rows, 6, 12)))
            assert made.shape == (rows, 8, 8, 4)

    shapes = Shapes()
    assert rehearse(main, small, Mine(), shapes).stopped is None
    (known,) = shapes.known.values()
    assert len(known) == 1


def test_a_call_that_needs_more_than_is_free_is_not_made_up(small, monkeypatch):
    monkeypatch.setattr(rehearsal, "memory", lambda: Memory(None, 10**4))

    def main(sd, options):
        sd.predict_noise(np.zeros((2, 8, 8, 4)), 0, np.zeros((2, 6, 12)))

    found = rehearse(main, small, Mine(), Shapes())
    assert isinstance(found.stopped, NoRoom) and found.stopped.needed > 10**4
