"""What people type first: `import xray`, a run with a cache, heat maps, the table of taps."""

import subprocess
import sys

import numpy as np
import pytest

import xray
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.machine import Memory
from xray.attention import SPECIAL, word_maps

MID, CROSS = "unet.mid_block", "unet.*.attn2.probs"
PROMPT, RUN = "a cat on a red background", {"steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def cached(sd):
    return xray.run(sd, PROMPT, [MID, xray.Probe(CROSS, xray.Mean("head"))], **RUN)


def test_importing_starts_no_keras_and_every_name_is_there():
    code = "import xray, sys; sys.exit('keras' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for name in dir(xray):
        assert getattr(xray, name).__module__.startswith("xray."), name
    with pytest.raises(AttributeError, match=r"no 'heatmap'; it offers .*heat_maps"):
        getattr(xray, "heatmap")  # noqa: B009


def test_a_run_gives_the_picture_and_what_was_read_at_every_step(sd, cached):
    image, cache = cached
    np.testing.assert_array_equal(image, sd.generate(PROMPT, **RUN)[0])
    assert cache[MID].shape == (2, 2, 8, 8, 96) and cache.dims(MID)[0] == "half"
    np.testing.assert_array_equal(cache[-1][MID], cache[MID][1])
    np.testing.assert_array_equal(cache["x0"], [step["x0"] for step in cache])
    assert cache["context"].shape == (1, 77, 128) and len(cache) == len(cache[:5]) == 2
    assert repr(cache) == f"<Cache of {PROMPT!r}: 2 steps, {1 + 5} values read>"
    page = cache._repr_html_()
    assert "<li>unet.mid_block</li>" in page and 'src="data:image/png;base64,' in page
    with pytest.raises(UsageError, match=r"'unet.mid_blok'; the nearest are unet.mid_block"):
        cache["unet.mid_blok"]


def test_a_cache_stands_where_a_film_does(sd, cached, tmp_path):
    image, cache = cached
    film = cache.save(tmp_path / "film")
    assert not film.damaged and film.facts["probes"] and film.names == [*cache[0]]
    np.testing.assert_array_equal(film.read(MID), cache[MID])
    np.testing.assert_array_equal(film.image, image)
    assert film.replay(sd).identical
    words = sd.tokenizer.words(PROMPT)
    for one, other in zip(*(word_maps(x, words).values() for x in (film, cache)), strict=True):
        np.testing.assert_array_equal(one, other)
    patched = xray.instrument(sd, edits=xray.Edit("unet.conv_out", lambda x: x * 0))
    other, _ = xray.run(patched, PROMPT, **RUN)
    again, _ = xray.run(sd, "a dog", edits=xray.Edit(MID, source=cache), **RUN)
    assert not np.array_equal(other, image) and again.shape == image.shape


def test_what_does_not_fit_into_memory_is_refused_before_the_run(sd, monkeypatch):
    monkeypatch.setattr("xray.film.cache.memory", lambda: Memory(10**6, 10**6))
    monkeypatch.setattr(sd, "encode_text", None)
    with pytest.raises(UsageError, match=r"25 steps of what is read take .* MB, and 1.0 MB are"):
        xray.run(sd, PROMPT, CROSS)


def test_heat_maps_are_those_of_the_words_with_start_end_and_padding(sd):
    heat = xray.heat_maps(sd, PROMPT, **RUN)
    assert [*heat] == ["a", "cat", "on", "a#2", "red", "background", *SPECIAL]
    cat = heat["cat"]
    assert cat.array.shape == (64, 64) == heat.image.shape[:2]
    assert cat.iou(cat.inside()) == 1 and cat.iou(~cat.inside()) == 0
    assert repr(cat).startswith("<HeatMap 'cat': ") and "cat" in repr(heat)
    assert heat._repr_png_()[:4] == cat._repr_png_()[:4] == b"\x89PNG"
    assert len(heat.figure().axes) > len(heat)
    assert len(heat.steps) == 2 and heat.times == [501, 1] and [*heat.steps[0]] == [*heat]
    assert heat.steps[0]["cat"].shape == (16, 16)


def test_taps_are_a_table_that_a_glob_narrows(sd):
    every, some = xray.taps(sd), xray.taps(sd, "unet.*.attn2.*", "unet.conv_in")
    wanted = [tap for tap in every if ".attn2." in tap.address or tap.address == "unet.conv_in"]
    assert some == wanted and 20 < len(some) < len(every)
    assert len(repr(every).splitlines()) == 41 and "more; narrow the pattern" in repr(every)
    assert len(repr(some[:2]).splitlines()) == 2
    with pytest.raises(UsageError, match=r"'unet.conv_inn'; the nearest are unet.conv_in"):
        xray.taps(sd, "unet.conv_inn")
    with pytest.raises(UsageError, match="knows what it takes"):
        xray.taps(sd, np.zeros((1, 2)))


def test_what_is_shown_of_a_model_and_its_instrument(sd):
    seen = xray.instrument(sd, MID, xray.Edit("eps", abs))
    assert repr(sd) == "StableDiffusion 'phantom': 64 px, float32 on tensorflow"
    assert repr(seen) == f"{sd!r} with 1 probes, 1 edits"
