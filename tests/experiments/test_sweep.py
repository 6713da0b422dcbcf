"""Sweeps: each run once, whatever happens meanwhile, and bad input in one line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.sweep import command, driver, rows, sweep
from experiments.sweep.folder import RUNS
from experiments.sweep.grid import read_prompts, read_seeds, read_setting
from experiments.sweep.identity import key_of
from experiments.sweep.on_ray import check_answers
from experiments.sweep.summary import summarize
from experiments.sweep.worker import UNFIT, Task, Worker
from experiments.test_guidance import Options
from stable_diffusion_tf.errors import UsageError
from tests import interrupt, sweeps, tiny
from tests.sweeps import (
    ODD,
    ROOT,
    Asked,
    asked,
    begun,
    check_whole,
    index,
    latents,
    states,
    wait_for,
)
from xray import rounding, script
from xray.measure import mean_of
from xray.report import read_report

KILL = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


# --- each run once -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_each_run_is_computed_once_and_stands_in_the_index(engine, log, out):
    options = asked(log)
    done = sweep(sweeps.measure, options, out=out, engine=engine, workers=2, weights=None)
    assert done == (out, 6, 0) and set(begun(log).values()) == {1}
    check_whole(out, 6)
    walk = np.random.default_rng(4).standard_normal(100)
    (row,) = [row for row in index(out) if row["seed"] == "4"]
    assert float(row["mean"]) == pytest.approx(walk.mean()) and row["mean unit"] == "mm"
    assert row["finding"] == f"It ends at {walk.sum():.2f}." and float(row["seconds"]) >= 0
    assert row["steps"] == "100" and row["error"] == ""
    kept = load_file(out / RUNS / row["run"] / "tensors.safetensors")["walk"]
    np.testing.assert_array_equal(kept, walk)


def test_the_same_again_computes_nothing_and_more_seeds_only_the_new_ones(log, out):
    for count in (3, 3, 5):
        sweep(sweeps.measure, asked(log, count), out=out, weights=None)
    assert begun(log) == dict.fromkeys(range(5), 1)
    check_whole(out, 5)
    sweep(sweeps.measure, asked(log, 2), out=out, weights=None)  # what else was asked for stays
    check_whole(out, 5)


def test_a_run_that_is_asked_for_twice_is_one(log, out):
    assert sweep(sweeps.measure, asked(log, 2) * 2, out=out, weights=None).finished == 2
    check_whole(out, 2)


def test_what_is_half_written_is_not_read_but_computed(log, out):
    sweep(sweeps.measure, asked(log, 3), out=out, weights=None)
    first, second, _ = sorted((out / RUNS).iterdir())
    (first / "report.json").write_text('{"finding": "ha')
    second.rename(second.with_name(f"{second.name}.part"))
    sweep(sweeps.measure, asked(log, 3), out=out, weights=None)
    assert sorted(begun(log).values()) == [1, 2, 2]
    check_whole(out, 3)


def test_the_hash_is_of_all_that_determines_a_run(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"1")
    facts = {"experiment": "x", "backend": "jax", "versions": {"keras": "3"}}
    one = {"seed": 1, "picture": picture, "out": Path("a"), "weights": "phantom"}
    key = key_of(facts, "w", one)
    same = {**one, "out": Path("b"), "weights": "./phantom", "precision": "float32"}
    assert key == key_of(facts, "w", same)
    others = [
        key_of(facts, "v", one),
        key_of({**facts, "versions": {"keras": "4"}}, "w", one),
        key_of({**facts, "backend": "torch"}, "w", one),
        key_of(facts, "w", {**one, "seed": 2}),
        key_of(facts, "w", {**one, "precision": "bfloat16"}),
    ]
    picture.write_bytes(b"2")
    others.append(key_of(facts, "w", one))
    assert len({key, *others}) == 7
    with pytest.raises(UsageError, match="x=<object"):
        key_of(facts, None, {"x": object()})


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_run_that_fails_twice_is_set_aside_and_the_others_go_on(engine, log, out):
    run = {"out": out, "engine": engine, "workers": 2, "weights": None}
    assert sweep(sweeps.broken, asked(log), **run) == (out, 5, 1)
    assert begun(log)[ODD] == 2 and states(out)[ODD] == "failed"
    (row,) = [row for row in index(out) if row["status"] == "failed"]
    assert row["error"] == "ValueError: no walk with three" and row["seed"] == str(ODD)
    (aside,) = (out / "failed").iterdir()
    assert "in broken" in json.loads(aside.read_text("utf-8"))["traceback"]
    sweep(sweeps.broken, asked(log), **run)
    assert begun(log)[ODD] == 2
    sweep(sweeps.broken, asked(log), again=True, **run)
    assert begun(log)[ODD] == 4 and begun(log)[0] == 1


def test_a_run_that_fails_once_is_done(log, out):
    assert sweep(sweeps.flaky, asked(log), out=out, weights=None) == (out, 6, 0)


def test_a_worker_that_dies_is_replaced_and_its_run_is_done(log, out):
    run = {"engine": "processes", "workers": 2, "weights": None}
    assert sweep(sweeps.dying, asked(log), out=out, **run) == (out, 6, 0)
    check_whole(out, 6)


def test_a_run_that_every_worker_dies_of_is_set_aside(log, out):
    run = {"engine": "processes", "workers": 2, "weights": None}
    assert sweep(sweeps.deadly, asked(log), out=out, **run) == (out, 5, 1)
    (row,) = [row for row in index(out) if row["status"] == "failed"]
    assert row["error"] == "its worker ended with status 7" and begun(log)[ODD] == 5


@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_full_disk_is_a_line_and_once_there_is_room_it_goes_on(engine, log, out, capfd):
    run = {"out": out, "engine": engine, "workers": 1, "weights": None}
    with pytest.raises(UsageError, match=r"no worker can go on: .*No space left on device"):
        sweep(sweeps.full, asked(log), **run)
    assert states(out) == {seed: "done" if seed < ODD else "waiting" for seed in range(6)}
    assert "a worker less" in capfd.readouterr().err
    (Path(log).parent / "room").touch()
    sweep(sweeps.full, asked(log), **run)
    check_whole(out, 6)
    assert begun(log) == dict.fromkeys(range(6), 1)


@KILL
@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_a_driver_that_is_killed_takes_its_workers_along_and_goes_on(engine, log, out):
    options = f"[Asked(seed, {log!r}, seconds=0.2) for seed in range(12)]"
    run = f"out={str(out)!r}, engine={engine!r}, workers=2, weights=None"
    first = subprocess.Popen(sweeps.command("measure", options, run), cwd=ROOT)
    wait_for(lambda: len(begun(log)) > 4)
    first.kill()
    first.wait()
    killed = sweeps.workers(log)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in killed), 10)
    finished = len([*(out / RUNS).glob("*[!t]")])
    assert 0 < finished < 12 and (out / "lock").exists()
    subprocess.run(sweeps.command("measure", options, run), cwd=ROOT, check=True)
    check_whole(out, 12)
    assert sum(begun(log).values()) <= 12 + 2 + 1  # what was begun, and what was not yet noted


@KILL
def test_ctrl_c_says_where_and_keeps_what_was_finished(log, out):
    line = [sys.executable, "-m", "experiments.sweep", "test_text_encoder", "--seeds", "0-400"]
    line += ["--out", str(out)]
    run = interrupt.start(line, cwd=ROOT)
    wait_for(lambda: (out / RUNS).exists() and len([*(out / RUNS).iterdir()]) > 1)
    run.send_signal(signal.SIGINT)
    _, complained = run.communicate(timeout=60)
    told = f"stopped; what was finished lies in {out}, the same command goes on"
    assert run.returncode == 130 and complained.strip().splitlines()[-1] == told
    found = [*states(out).values()]
    assert len(found) == 401 and 0 < found.count("done") < 401 and "failed" not in found
    assert len(index(out)) == 401 and not [*out.rglob("*.part")]


# --- who may write -----------------------------------------------------------------------------


def test_another_sweep_in_the_folder_is_refused_while_it_runs(log, out):
    options = f"[Asked(seed, {log!r}, seconds=60) for seed in range(2)]"
    run = f"out={str(out)!r}, weights=None"
    other = subprocess.Popen(sweeps.command("measure", options, run), cwd=ROOT)
    try:
        wait_for(lambda: begun(log))
        with pytest.raises(UsageError, match=f"process {other.pid} on .* writes into {out}"):
            sweep(sweeps.measure, asked(log), out=out, weights=None)
    finally:
        other.kill()
        other.wait()
    assert (out / "lock").exists()  # which is stale now
    sweep(sweeps.measure, asked(log, 2), out=out, weights=None)


def change(out: Path, **facts) -> None:
    held = json.loads((out / "sweep.json").read_text("utf-8"))
    (out / "sweep.json").write_text(json.dumps({**held, **facts}), "utf-8")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"format": 2}, "is a sweep of format 2, and this version writes format 1"),
        ({"experiment": "other"}, "holds runs of other, not of measure"),
        ({"source": "0"}, "as it was before it was changed"),
        ({"backend": "jax"}, "was begun with backend jax, and here is None"),
        ({"versions": {"diffusion-xray": "9"}}, "was begun with diffusion-xray 9, and here is 0"),
        ({"versions": 3}, "sweep.json cannot be read"),
    ],
)
def test_a_sweep_of_another_version_stays_as_it_is(changed, told, log, out):
    sweep(sweeps.measure, asked(log, 2), out=out, weights=None)
    change(out, **changed)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=f"{told}.*name another --out"):
        sweep(sweeps.measure, asked(log), out=out, weights=None)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_folder_of_something_else_stays_as_it_is(log, tmp_path):
    with pytest.raises(UsageError, match="holds no sweep; name another --out"):
        sweep(sweeps.measure, asked(log), out=tmp_path, weights=None)
    assert os.listdir(tmp_path) == ["log"]


# --- workers -----------------------------------------------------------------------------------


def test_a_worker_without_the_model_or_with_another_is_unfit(tmp_path):
    facts = {"versions": driver.facts_of(sweeps.measure, "tensorflow")["versions"]}
    for weights, told in (
        ({"nowhere": "0"}, "no weights at nowhere"),
        ({"phantom": "0"}, "others"),
    ):
        news = Worker(Task(sweeps.measure, facts, weights, "phantom")).ready()
        assert news.kind == UNFIT and told in news.error
    other = {"versions": {**facts["versions"], "keras": "2.0"}}
    news = Worker(Task(sweeps.measure, other, {"phantom": "0"}, "phantom")).ready()
    assert news.kind == UNFIT and "and 2.0 in the sweep" in news.error


def test_a_function_that_no_worker_can_import_is_refused(log, out):
    def inside(*_):
        raise AssertionError("it was called")

    with pytest.raises(UsageError, match="put them at the top of a module"):
        sweep(inside, asked(log), out=out, engine="processes", weights=None)


def test_ray_that_is_not_installed_or_not_there_is_told(log, out, monkeypatch):
    with pytest.raises(OSError):
        check_answers("127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="type: pip install -r requirements-ray"):
        sweep(sweeps.measure, asked(log), out=out, engine="ray", weights=None)
    assert states(out) == dict.fromkeys(range(6), "waiting")


@pytest.mark.arithmetic
def test_processes_draw_what_this_process_draws(log, tmp_path):
    weights = str(tiny.write_model(tmp_path / "tiny"))
    for engine in ("serial", "processes"):
        run = {"out": tmp_path / engine, "engine": engine, "workers": 1, "weights": weights}
        assert sweep(sweeps.drawn, asked(log, 3), **run).finished == 3
    one, other = (latents(tmp_path / engine) for engine in ("serial", "processes"))
    for seed, expected in one.items():
        assert rounding.hold(other[seed][0], expected[0], expected).passed


def test_workers_compute_with_the_backend_that_is_asked_for(out):
    line = [sys.executable, "-m", "experiments.sweep", "test_text_encoder", "--out", str(out)]
    line += ["--backend", "openvino", "--engine", "processes", "--workers", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr and "finished 1" in done.stdout
    (run,) = (out / RUNS).iterdir()
    _, facts = read_report(run / "report.json")
    assert facts["model"]["backend"] == facts["run"]["backend"] == "openvino"


# --- what it comes to --------------------------------------------------------------------------


def test_the_summary_is_the_mean_over_seeds_for_each_condition(log, out):
    options = [Asked(seed, log, scale) for scale in (1.0, 2.0) for seed in range(8)]
    sweep(sweeps.measure, options, out=out, weights=None)
    one, two = summarize(rows(out))
    assert [*one] == ["scale", "runs", "mean", "up", "steps"]
    means = [np.random.default_rng(seed).standard_normal(100).mean() for seed in range(8)]
    assert one["mean"] == pytest.approx(mean_of(means, "mm"), nan_ok=True, abs=1e-12)
    assert two["mean"].value == pytest.approx(2 * one["mean"].value)
    assert (one["up"].unit, one["up"].n) == ("of", 8) and one["runs"] == 8
    assert (out / "summary.png").stat().st_size > 10_000
    with pytest.raises(UsageError, match="no number fits nothing; there are mean, up, steps"):
        sweep(sweeps.measure, options, out=out, weights=None, numbers=["nothing"])


@pytest.mark.usefixtures("loaded")
def test_the_command_sweeps_an_experiment(tmp_path, monkeypatch, capfd):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n\na “dog”, on a red background\r\n", "utf-8")
    words = ["--seeds", "0,2", "--prompts", prompts, "--set", "weights=phantom"]
    status, said, complained = shell("test_text_encoder", *words, tmp_path, monkeypatch, capfd)
    assert status == 0 and "finished 4" in said
    assert all(line.startswith("sweeping: ") for line in complained.splitlines())
    for kind in ("index.csv", "summary.csv", "summary.png"):
        assert str(tmp_path / "out" / kind) in said
    found = [(row["prompt"], row["seed"]) for row in index(tmp_path / "out")]
    texts = ("a cat", "a “dog”, on a red background")
    assert found == [(text, seed) for text in texts for seed in "02"]
    _, facts = read_report(next((tmp_path / "out" / RUNS).iterdir()) / "report.json")
    assert facts["question"].startswith("What does the text encoder")
    known = script.checksum(script.load_model("phantom").network("text_encoder"))
    assert len(facts["run"]["weights"]) == 64 and facts["weights_hash"]["text_encoder"] == known


def shell(*words) -> tuple[int, str, str]:
    *words, folder, monkeypatch, capfd = words
    line = ["sweep", *map(str, words), "--out", str(folder / "out")]
    monkeypatch.setattr(sys, "argv", line)
    try:
        script.run(command.main)
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, *capfd.readouterr()


# --- what is typed -----------------------------------------------------------------------------

NEAREST = "the experiment has no option guidence; did you mean guidance?"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["test_guidence"], "no experiment test_guidence; did you mean test_guidance?"),
        (["test_guidance", "--set", "guidence=1"], NEAREST),
        (["test_guidance", "--set", "steps"], "names no values"),
        (["test_guidance", "--set", "steps=1,x"], "“x” is no whole number"),
        (["test_guidance", "--set", "guidance=1,x"], "“x” is no number"),
        (["test_guidance", "--set", "scales=1 2,1 x"], "“1 x” is not such a list: number"),
        (["test_guidance", "--set", "scales=2 1"], "--scales takes 2 or more that rise"),
        (["text2image", "--set", "precision=float17"], "“float17” is none of float32, bfloat16"),
        (["text2image", "--set", "html=maybe"], "“maybe” is no True or False"),
        (["test_guidance", "--set", "steps="], "steps has no value, so there is nothing to run"),
        (["test_guidance", "--seeds", "5-3"], "seed has no value, so there is nothing to run"),
        (["test_guidance", "--seeds", "a"], "“a” is no seed and no range; type it as 0-99"),
        (["test_anatomy", "--seeds", "0-3"], "the experiment has no option seed"),
        (["test_guidance", "--set", "backend=jax"], "one backend for all of its runs"),
        (["test_fast_sampling", "--set", "longest=3"], "longest is called steps now"),
        (["test_guidance", "--set", "steps=1", "--set", "steps=2"], "steps is given twice"),
        (["test_guidance", "--prompts", "/nowhere.txt"], "/nowhere.txt cannot be read"),
        (["test_guidance", "--weights", "nowhere"], "no weights at nowhere"),
        (["test_guidance", "--workers", "0"], "0 workers are too few; try 2"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(words, told, tmp_path, monkeypatch, capfd):
    status, said, complained = shell(*words, tmp_path, monkeypatch, capfd)
    assert (status, said) == (2, "") and told in complained and complained.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (b"a cat\n\xff dog\n", "line 2 holds the byte 0xff, which is not UTF-8"),
        (b" \n\n", "holds no prompt; write one on each line"),
        (b"", "holds no prompt"),
        (b"a cat\n\x1b[31m red", "holds what cannot be printed"),
    ],
)
def test_a_prompt_file_with_odd_bytes_is_refused(held, told, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(held)
    with pytest.raises(UsageError) as refused:
        read_prompts(tmp_path / "prompts.txt")
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("guidance=1,4,7.5", ("guidance", [1.0, 4.0, 7.5])),
        ("--steps=10, 25", ("steps", [10, 25])),
        ("scales=1 2,0.5 8 9", ("scales", [(1.0, 2.0), (0.5, 8.0, 9.0)])),
        ('prompt="a cat, a dog",-5 cats', ("prompt", ["a cat, a dog", "-5 cats"])),
    ],
)
def test_values_are_those_of_the_option(text, option):
    assert read_setting(Options, text) == option


def test_seeds_are_ranges_and_numbers():
    assert read_seeds("0-3,7, 9-10") == [0, 1, 2, 3, 7, 9, 10]


def test_models_vary_least():
    values = {"steps": [1, 2], "weights": ["a", "b"], "seed": [0, 1]}
    made = command.grid(Options, values)
    assert [(one.weights, one.steps, one.seed) for one in made[:3]] == [
        ("a", 1, 0), ("a", 1, 1), ("a", 2, 0),
    ]  # fmt: skip
