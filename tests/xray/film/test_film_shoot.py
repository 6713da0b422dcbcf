"""Shooting a film, and the same run again, of a model so small that it is compiled at once."""

import errno
import json
import os
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops

from stable_diffusion_tf import StableDiffusion, UsageError, machine
from tests import tiny
from tests.tiny import scramble
from tests.xray import reel
from tests.xray.reel import peak
from xray.film import Film, camera
from xray.film.storage import frame_path, write_json, write_tensors
from xray.probe import Edit, Mean, Probe

pytestmark = pytest.mark.arithmetic

PROMPT, STEPS = "a cat left of an apple", 3
CROSS = "unet.*.attn2.probs"
FIRST = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.probs"
PROBES = [Probe(CROSS, Mean("head")), Probe("unet.up_blocks.0")]
RUN = {"steps": STEPS, "guidance": 5.0, "eta": 0.5, "seed": 4, "negative": "blue"}


def halved(value):
    return value / 2


def norm(value):
    return ops.sqrt(ops.sum(ops.square(value)))


@pytest.fixture(scope="module")
def sd(small):
    return small


@pytest.fixture(scope="module")
def film(sd, tmp_path_factory) -> Film:
    out = tmp_path_factory.mktemp("films") / "cat"
    return Film.shoot(sd, PROMPT, **RUN, probes=PROBES, out=out)


@pytest.fixture
def copy(film, tmp_path):
    """The film, to be changed."""
    return shutil.copytree(film.folder, tmp_path / "copy")


# --- shooting ----------------------------------------------------------------------------------


def test_the_picture_is_that_of_generate(sd, film):
    np.testing.assert_array_equal(film.image, sd.generate(PROMPT, **RUN)[0])
    assert film.finished and film.state == "3 of 3 steps"


def test_frames_are_the_steps_of_the_loop(sd, film):
    run = sd.denoise(film.text["context"], film.text["uncond"], STEPS, 5.0, 0.5, 4)
    for step, frame in zip(run, film, strict=True):
        assert (step.index, step.t) == (frame.index, frame.t)
        for name in camera.FIELDS:
            np.testing.assert_array_equal(frame[name], getattr(step, name))


def test_what_probes_read_lies_under_its_address(film):
    assert film.read(FIRST).shape == (STEPS, 2, 64, 77)
    np.testing.assert_allclose(film.read(FIRST).sum(-1), 1, atol=1e-5)
    assert film.dims(FIRST) == ("half", "query", "token")
    assert film.dims("unet.up_blocks.0") == ("half", "row", "column", "channel")


def test_what_is_read_outside_of_the_loop(sd, tmp_path):
    probes = [Probe("text_encoder"), Probe("vae.decoder.conv_in")]
    film = Film.shoot(sd, PROMPT, steps=1, probes=probes, out=tmp_path / "run")
    context = np.concatenate([film.text["context"], film.text["uncond"]])
    np.testing.assert_array_equal(film.text["text_encoder"], context)
    assert film.dims("text_encoder") == ("prompt", "token", "channel")
    assert film.decoder["vae.decoder.conv_in"].shape == (1, 8, 8, 8)
    replay, outside = film.replay(sd), {*film.text, *film.decoder, "image"}
    assert replay.identical and {row.address for row in replay.rows} == {*film.names, *outside}


def test_what_is_told_of_the_run(sd, film):
    told = json.loads((film.folder / "film.json").read_text(encoding="utf-8"))
    assert {key: told[key] for key in RUN} == RUN and told["prompt"] == PROMPT
    assert (told["weights"], told["scheduler"]) == ("tiny", "DDIM")
    assert (told["precision"], told["backend"]) == ("float32", sd.backend)
    assert set(told["versions"]) == {"diffusion-xray", "keras", sd.backend}
    assert told["tokens"][:7] == ["<|startoftext|>", "a", "cat", "left", "of", "an", "apple"]
    assert told["latent_shape"] == [1, 8, 8, 4]
    parts = ("text_encoder", "unet", "decoder")
    assert told["weights_hash"] == {part: camera.digest(sd.network(part)) for part in parts}


def test_other_weights_have_another_digest(sd, film):
    network = StableDiffusion.load(sd.checkpoint.place).network("decoder")
    variable = network.variables[-1]
    before = camera.digest(network)
    variable.assign(variable + 1e-3)
    assert camera.digest(network) != before == film.facts["weights_hash"]["decoder"]


def test_an_lcm_is_told_as_one(sd, tmp_path):
    folder = shutil.copytree(sd.checkpoint.place, tmp_path / "lcm")
    tiny.write_part_drawn(folder, "unet", replace(tiny.DRAWING, time_cond_proj_dim=8))
    sd = StableDiffusion.load(folder)
    film = Film.shoot(sd, "a cat", steps=2, probes=[Probe(CROSS)], out=tmp_path / "run")
    assert film.facts["scheduler"] == "LCM" and film.finished
    assert film.read(FIRST).shape == (2, 1, 2, 64, 77)
    assert film.to_xarray().half.values.tolist() == ["cond"]


# --- what is refused, what goes wrong ----------------------------------------------------------


@pytest.mark.parametrize("probe", [Probe(CROSS), Probe("unet.*.to_q"), Probe("unet*", norm)])
def test_memory_is_bounded(sd, tmp_path, probe):
    with pytest.raises(UsageError, match=r"in each step.*memory=.*with .* kB: narrow"):
        Film.shoot(sd, PROMPT, steps=2, probes=[probe], out=tmp_path / "run", memory=10)
    assert not (tmp_path / "run" / "frames" / "000.safetensors").exists()


def test_reads_without_a_reduce_are_refused_before_anything_is_computed(sd, tmp_path, monkeypatch):
    monkeypatch.setattr(sd, "encode_text", None)
    with pytest.raises(UsageError, match="memory="):
        Film.shoot(sd, PROMPT, probes=[Probe(CROSS)], out=tmp_path / "run", memory=1e4)
    assert not (tmp_path / "run").exists()


def test_what_is_foreseen_is_what_is_read(sd, tmp_path):
    size, probes = {"height": 12, "width": 20}, [Probe("unet.*")]
    film = Film.shoot(sd, PROMPT, steps=1, **size, probes=probes, out=tmp_path / "run")
    reads = {name: 4 * film[0][name].size for name in film.names if name not in camera.FIELDS}
    assert camera.look_ahead(sd, sd.draw_noise(0, **size), probes) == reads
    assert film.image.shape == (12, 20, 3) and film.replay(sd).identical


def test_only_the_step_at_hand_is_kept(tmp_path):
    sd = SimpleNamespace(network=lambda _: SimpleNamespace(variables=[]))

    def parts(count):
        for i in range(count):
            yield camera.Part("unet", reel.step(i), {"unet": np.full(2**18, i, np.float32)})

    def record(count):
        camera.record(sd, {"steps": count}, parts(count), {}, tmp_path / str(count), 2**20)

    assert peak(lambda: record(40)) < peak(lambda: record(4)) + 2**18


def test_a_disk_that_is_too_small_is_told_before_the_run(sd, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(camera.shutil, "disk_usage", lambda _: usage(10_000))
    with pytest.raises(UsageError, match=r"film of 3 steps takes 18\.4 kB, and .*run has 10\.0 kB"):
        Film.shoot(sd, PROMPT, steps=3, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_leaves_a_film(sd, tmp_path, monkeypatch):
    def fills_up(path, *rest, **told):
        if told.get("index") == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_tensors(path, *rest, **told)

    monkeypatch.setattr(camera, "write_tensors", fills_up)
    with pytest.raises(UsageError, match=r"cannot write .*run: No space left on device; .*\w$"):
        Film.shoot(sd, PROMPT, steps=3, out=tmp_path / "run")
    assert Film.open(tmp_path / "run").state == "2 of 3 steps"


def test_a_run_that_is_interrupted_leaves_a_film_and_the_model_as_it_was(sd, film, tmp_path):
    def interrupted(steps):
        yield from steps[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Film.shoot(sd, PROMPT, **RUN, probes=PROBES, out=tmp_path / "run", progress=interrupted)
    short = Film.open(tmp_path / "run")
    assert short.state == "2 of 3 steps" and short.damaged == {}
    np.testing.assert_array_equal(short.read("x_prev"), film.read("x_prev", [0, 1]))
    assert short.replay(sd).identical
    np.testing.assert_array_equal(film.image, sd.generate(PROMPT, **RUN)[0])


def test_a_run_that_never_began_does_not_take_the_folder(sd, tmp_path):
    with pytest.raises(UsageError, match="eta"):
        Film.shoot(sd, PROMPT, steps=1, eta=2.0, out=tmp_path / "run")
    Film.shoot(sd, PROMPT, steps=1, out=tmp_path / "run")
    with pytest.raises(UsageError, match="holds a film already"):
        Film.shoot(sd, PROMPT, steps=1, out=tmp_path / "run")


def test_a_folder_that_cannot_be_is_told(sd, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        Film.shoot(sd, PROMPT, steps=1, out=tmp_path / "file" / "run")


# --- again -------------------------------------------------------------------------------------


def test_a_replay_is_identical(sd, film):
    before = {path: path.read_bytes() for path in film.folder.rglob("*") if path.is_file()}
    replay = film.replay(sd)
    assert replay.identical and replay.first is None and replay.changed == ()
    assert {row.address for row in replay.rows} == {*film.text, *film.names, "image"}
    assert len(replay.rows) == len(film.text) + STEPS * len(film.names) + 1
    assert str(replay) == f"identical: {len(replay.rows)} arrays"
    assert before == {path: path.read_bytes() for path in film.folder.rglob("*") if path.is_file()}


def test_a_replay_tells_where_the_two_part(sd, film, copy):
    frame = dict(film[1])
    frame["unet.up_blocks.0"][0, 0, 0, 0] += np.float32(0.5)
    frame["x0"] = frame["x0"] * 2
    write_tensors(frame_path(copy, 1), frame, t=film[1].t, index=1)
    replay = Film.open(copy).replay(sd)
    assert not replay.identical and replay.first[:2] == ("unet.up_blocks.0", 1)
    assert {row.address for row in replay.rows if row.difference} == {"unet.up_blocks.0", "x0"}
    assert replay.rows[-1].difference == 0
    (found,) = [row for row in replay.largest if row.address == "x0"]
    assert found == ("x0", 1, pytest.approx(0.5))
    assert str(replay).startswith("differs from step 1, at unet.up_blocks.0;")


def test_a_replay_goes_as_far_as_the_film(sd, copy):
    (copy / "image.png").unlink()
    frame_path(copy, 2).unlink()
    frame_path(copy, 0).unlink()
    replay = Film.open(copy).replay(sd)
    assert replay.identical and {row.step for row in replay.rows} == {None, 1}


def test_a_film_of_nothing_is_not_proved(sd, copy):
    for path in [*(copy / "frames").iterdir(), copy / "text.safetensors", copy / "image.png"]:
        path.unlink()
    assert not Film.open(copy).replay(sd).identical


def told_by(copy: Path, facts: dict, name: str, nudge: float) -> Film:
    """The film as another machine would have shot it: other facts, and a value moved in step 1."""
    path = copy / "film.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    film = Film.open(copy)
    frame = {key: np.array(value) for key, value in film[1].items()}
    frame[name] = frame[name] * np.float32(1 + nudge)
    write_tensors(frame_path(copy, 1), frame, t=film[1].t, index=1)
    return Film.open(copy)


ELSEWHERE = dict.fromkeys(("onednn", "instruction_set", "threads", "cpu"), "another")


def test_the_kernels_are_told(sd, film):
    assert film.facts["kernels"] == machine.kernels(sd.backend)


@pytest.mark.parametrize(
    ("kernels", "nudge", "verdict"),
    [
        (ELSEWHERE, 3e-7, "same within rounding: differs by "),
        (ELSEWHERE, 1e-3, "differs from step 1"),
        (ELSEWHERE, 0, "identical: "),
        (None, 3e-7, "differs from step 1"),
    ],
)
def test_a_film_of_other_kernels_is_held_against_rounding(sd, copy, kernels, nudge, verdict):
    replay = told_by(copy, {"kernels": kernels} if kernels else {}, "x0", nudge).replay(sd)
    assert replay.verdict.startswith(verdict) and str(replay).startswith(verdict)
    assert len(replay.changed) == (4 if kernels else 0)
    assert ("kernels, cpu: another, now " in str(replay)) == bool(kernels)
    assert replay.identical == (nudge == 0)
    assert ("rounding here reaches" in str(replay)) == ("within" in verdict)


def test_a_film_without_kernels_is_held_against_zero(sd, copy):
    facts = json.loads((copy / "film.json").read_text())
    del facts["kernels"]
    (copy / "film.json").write_text(json.dumps(facts))
    replay = Film.open(copy).replay(sd)
    assert replay.identical and replay.changed == ()


def test_rounding_may_move_a_pixel_by_one_level(sd, copy):
    for level, verdict in ((1, "same within rounding"), (2, "differs from outside of the loop")):
        film = told_by(copy, {"kernels": ELSEWHERE}, "x0", 3e-7)
        image = film.image.copy()
        image[0, 0, 0] = image[0, 0, 0] - level if image[0, 0, 0] > 9 else image[0, 0, 0] + level
        camera.write_image(copy / "image.png", image)
        assert Film.open(copy).replay(sd).verdict.startswith(verdict)


def test_a_replay_with_other_weights_says_so(sd, film):
    other = StableDiffusion.load(sd.checkpoint.place)
    scramble(other.network("decoder"))
    replay = film.replay(other)
    assert replay.first[:2] == ("image", None)
    (told,) = replay.changed
    assert told.startswith("weights of decoder: ") and told in str(replay)


def test_a_latent_that_was_handed_in_is_kept(sd, tmp_path):
    latent = sd.draw_noise(9, height=12)
    kept = latent.copy()
    film = Film.shoot(sd, PROMPT, steps=2, latent=latent, out=tmp_path / "run")
    np.testing.assert_array_equal(latent, kept)
    np.testing.assert_array_equal(film[0]["x"], latent)
    assert film.image.shape == (12, 16, 3) and film.replay(sd).identical


def test_edits_are_replayed_as_they_were_told(sd, film, tmp_path):
    edits = [
        Edit("unet.up_blocks.0", halved, steps=range(1, 3), half="cond"),
        Edit("unet.down_blocks.0.resnets.0", ops.tanh, steps=np.array([0])),
    ]
    probes = [Probe({"unet.up_blocks.0", "unet.down_blocks.0.resnets.0"}), Probe(CROSS, norm)]
    edited = Film.shoot(sd, PROMPT, **RUN, edits=edits, probes=probes, out=tmp_path / "run")
    assert not np.array_equal(edited.image, film.image)
    assert edited.dims(FIRST) == () and edited.read(FIRST).shape == (STEPS,)
    assert edited.replay(sd, probes=probes, edits=edits).identical
    assert not edited.replay(sd, probes=probes, edits=edits[:1]).identical


def spell(folder: Path, words: dict[str, str]) -> Film:
    """The film with other words for its rules, under a seal of its own."""
    told = (folder / "film.json").read_text(encoding="utf-8")
    for word, other in words.items():
        assert f'"{word}"' in told
        told = told.replace(f'"{word}"', f'"{other}"')
    write_json(folder / "film.json", {k: v for k, v in json.loads(told).items() if k != "crc32"})
    return Film.open(folder)


def test_rules_are_told_by_words_and_films_of_before_replay(sd, tmp_path):
    own = Film.shoot(sd, PROMPT, steps=2, probes=[Probe("unet.up_blocks.0")], out=tmp_path / "own")
    first = "unet.down_blocks.0.resnets.0"
    edits = [Edit("unet.up_blocks.0", source=own), Edit(first, ops.tanh, steps=[1])]
    run = {"steps": 2, "probes": PROBES, "edits": edits, "out": tmp_path / "run"}
    film = Film.shoot(sd, PROMPT, **run)
    told = json.dumps([film.facts["probes"], film.facts["edits"]])
    assert not re.search(r":\w", told) and film.replay(sd).identical  # no module:name
    before = {
        "probe": "xray.rules:Probe",
        "edit": "xray.rules:Edit",
        "mean": "xray.rules:Mean",
        "take": "xray.rules:take",
        "ops.tanh": "keras.src.ops.numpy:tanh",
    }
    assert spell(film.folder, before).replay(sd).identical


@pytest.mark.parametrize(
    "rule",
    [
        {"class": "subprocess:Popen", "fields": {"args": ["touch", "PLANTED"]}},
        {"class": "os:system", "fields": {"command": "touch PLANTED"}},
        {"class": "probe", "fields": {"pattern": "*", "reduce": {"function": "os:system"}}},
        {"class": "probe", "fields": {"pattern": "*", "reduce": {"function": "keras.x:Lambda"}}},
        {"class": "probe", "fields": {"pattern": "*", "reduce": {"own": "os:system"}}},
        {"function": "os:system"},
    ],
)
def test_a_film_starts_nothing(sd, copy, monkeypatch, rule):
    planted, started = copy / "planted", []
    monkeypatch.setattr(os, "system", lambda *_, **__: started.append(1))
    told = json.dumps({**Film.open(copy).facts, "probes": [rule]}).replace("PLANTED", str(planted))
    write_json(copy / "film.json", json.loads(told))
    with pytest.raises(UsageError, match=r"starts nothing: .*replay\(sd, probes=\[…\]\)$"):
        Film.open(copy).replay(sd)
    assert not started and not planted.exists()


# --- one folder --------------------------------------------------------------------------------


def test_two_runs_into_one_folder(sd, tmp_path):
    refused = []

    def another(steps):
        with pytest.raises(UsageError, match="another run writes into"):
            Film.shoot(sd, "a dog", steps=2, out=tmp_path / "run")
        refused.append(1)
        return steps

    film = Film.shoot(sd, PROMPT, steps=1, out=tmp_path / "run", progress=another)
    assert refused and film.state == "1 of 1 steps" and film.facts["prompt"] == PROMPT


def test_a_film_gives_way_to_another(sd, copy):
    (copy / "notes.txt").write_text("mine")
    film = Film.shoot(sd, "a dog", steps=1, out=copy, overwrite=True)
    assert film.facts["prompt"] == "a dog" and film.state == "1 of 1 steps" and film.finished
    assert (copy / "notes.txt").read_text() == "mine" and film.replay(sd).identical
    names = {path.name for path in copy.iterdir()}
    assert names == {"film.json", "text.safetensors", "frames", "image.png", "notes.txt"}


def test_a_new_folder_takes_overwrite_too(sd, tmp_path):
    assert Film.shoot(sd, "a dog", steps=1, out=tmp_path / "new", overwrite=True).finished


def held_in(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_run_that_fails_leaves_the_film_that_it_would_replace(sd, film, copy):
    def fails(steps):
        yield from steps[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Film.shoot(sd, "a dog", steps=2, out=copy, overwrite=True, progress=fails)
    assert held_in(copy) == held_in(film.folder)


def test_what_is_no_film_is_not_overwritten(sd, tmp_path, copy):
    (tmp_path / "film.json").write_text("mine")
    with pytest.raises(UsageError, match="no film to overwrite"):
        Film.shoot(sd, "a dog", steps=1, out=tmp_path, overwrite=True)
    (copy / "frames" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"frames/thesis\.txt"):
        Film.shoot(sd, "a dog", steps=1, out=copy, overwrite=True)
    assert (tmp_path / "film.json").read_text() == "mine" and Film.open(copy).finished


def test_a_film_is_not_overwritten_by_what_is_made_of_it(sd, copy):
    edit = Edit("unet.up_blocks.0", source=Film.open(copy))
    with pytest.raises(UsageError, match="itself; name another"):
        Film.shoot(sd, PROMPT, **RUN, edits=edit, out=copy, overwrite=True)


def test_several_prompts_and_seeds_are_shot_with_one_instrument(sd, tmp_path):
    run = {"steps": 2, "probes": "unet.conv_in"}
    films = Film.shoot(sd, ["a cat", "a dog"], seed=range(2), out=tmp_path / "pets", **run)
    assert [film.folder.name for film in films] == ["000", "001", "002", "003"]
    told = [(film.facts["prompt"], film.facts["seed"]) for film in films]
    assert told == [("a cat", 0), ("a cat", 1), ("a dog", 0), ("a dog", 1)]
    alone = Film.shoot(sd, "a dog", seed=1, out=tmp_path / "alone", **run)
    assert np.array_equal(alone.read("unet.conv_in"), films[3].read("unet.conv_in"))
    assert not np.array_equal(films[2].image, films[3].image)


def test_a_film_in_the_way_stops_several_before_the_first(sd, film, tmp_path):
    shutil.copytree(film.folder, tmp_path / "001")
    with pytest.raises(UsageError, match="001 holds a film already"):
        Film.shoot(sd, PROMPT, seed=[1, 2], steps=1, out=tmp_path)
    assert not (tmp_path / "000").exists()
    with pytest.raises(UsageError, match="nothing to shoot"):
        Film.shoot(sd, [], steps=1, out=tmp_path, overwrite=True)
    (only,) = Film.shoot(sd, PROMPT, seed=[1], steps=1, out=tmp_path, overwrite=True)
    assert only.folder == tmp_path / "000"


def test_a_run_patched_with_its_own_film_is_itself(sd, tmp_path):
    probes = [Probe(CROSS)]
    own = Film.shoot(sd, PROMPT, steps=2, probes=probes, out=tmp_path / "own")
    edits = [Edit(CROSS, source=own)]
    patched = Film.shoot(sd, PROMPT, steps=2, probes=probes, edits=edits, out=tmp_path / "patched")
    for name in own.names:
        np.testing.assert_array_equal(patched.read(name), own.read(name))
    kept = shutil.copytree(tmp_path, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "own")
    assert Film.open(kept / "patched").replay(sd).identical


@pytest.mark.parametrize(
    "given",
    [
        {"fn": lambda value: value / 2},
        {"source": {"unet.up_blocks.0": np.zeros((2, 8, 8, 8), np.float32)}},
    ],
)
def test_what_has_no_name_must_be_handed_in_again(sd, tmp_path, given):
    edits = [Edit("unet.up_blocks.0", **given)]
    film = Film.shoot(sd, PROMPT, steps=1, edits=edits, out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"replay\(sd, edits=\[…\]\)"):
        film.replay(sd)
    assert film.replay(sd, edits=edits).identical


def test_a_function_that_has_gone_is_told(sd, copy):
    place = copy / "film.json"
    told = place.read_text(encoding="utf-8").replace('"mean"', '"gone"')
    place.write_text(told, encoding="utf-8")
    with pytest.raises(UsageError, match=r"'gone', which is no word.*replay\(sd, probes="):
        Film.open(copy).replay(sd)


def test_facts_that_are_damaged_cannot_be_replayed(sd, copy):
    (copy / "film.json").write_text("{")
    film = Film.open(copy)
    assert len(film) == STEPS and film.state.startswith("3 of ? steps; film.json does not")
    with pytest.raises(UsageError, match=r"film\.json says no prompt"):
        film.replay(sd)
