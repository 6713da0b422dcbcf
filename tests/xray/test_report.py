"""Reports: what they say, what they save, and the frame that runs an experiment."""

import csv
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.measure import Estimate, share_of
from xray.options import Batch, Options, Prompt, Sampling
from xray.report import Control, Report, read_report

EIGHT = share_of(np.ones(8, bool))
TABLE = [
    {"replaced": "words", "shows B": EIGHT, "moved": 1.25},
    {"replaced": "end <b>", "shows B": None, "moved": float("nan")},
]


def report(passed: bool = True, **parts) -> Report:
    control = Control("the same twice", Estimate(0.5, 0.25, 0.75, 9, "dB"), passed, "it drifts")
    return Report("Words carry.", control, **{"table": TABLE, **parts})


def test_it_is_printed_as_a_table_a_finding_and_a_control():
    assert str(report(notes=["a note"])).splitlines() == [
        "a note",
        "replaced             shows B  moved",
        "words     8 of 8 [68, 100 %]   1.25",
        "end <b>                         nan",
        "finding  Words carry.",
        "control  the same twice: 0.50 dB [0.25, 0.75]",
    ]


def test_a_notebook_shows_it_escaped():
    shown = report()._repr_html_()
    assert "<b>Words carry.</b>" in shown and "<td>end &lt;b&gt;</td>" in shown


def test_all_of_it_is_saved_and_told_in_json(tmp_path):
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    tensors = {"x": np.arange(6.0).reshape(2, 3).T}
    picture = np.zeros((4, 4, 3), np.uint8)
    made = report(figure=figure, tensors=tensors, pictures={"image": picture})
    files = made.save(tmp_path, {"question": "who?"})
    assert {kind: path.name for kind, path in files.items()} == {
        "figure": "figure.png",
        "table": "table.csv",
        "tensors": "tensors.safetensors",
        "image": "image.png",
        "report": "report.json",
    }
    np.testing.assert_array_equal(load_file(files["tensors"])["x"], tensors["x"])
    with open(files["table"], encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert rows[0]["shows B"] == "1.0" and rows[0]["shows B n"] == "8" and rows[1]["moved"] == "nan"
    said = json.loads(files["report"].read_text("utf-8"))
    assert said["question"] == "who?" and said["finding"] == "Words carry."
    assert said["control"]["passed"] is True and said["control"]["outcome"]["high"] == 0.75
    assert said["numbers"]["words: shows B"]["n"] == 8 and said["numbers"]["end <b>: moved"] is None
    assert said["files"]["figure"] == "figure.png"


def test_numbers_of_its_own_stand_for_the_table():
    assert report(numbers={"x": np.float32(2)}).as_data()["numbers"] == {"x": 2.0}


def test_a_report_is_read_again(tmp_path):
    made = report(notes=["a note"])
    made.save(tmp_path, {"question": "who?"})
    read, facts = read_report(tmp_path / "report.json")
    assert read.finding == made.finding and read.control == made.control
    assert read.table[0] == TABLE[0] and read.table[1]["shows B"] is None
    assert read.numbers["words: shows B"] == EIGHT and read.notes == ["a note"]
    assert facts["question"] == "who?" and facts["files"] == {"table": "table.csv"}


@pytest.mark.parametrize("said", [None, "", "{}", "[1]", '{"control": 3}'])
def test_what_is_no_report_is_refused(said, tmp_path):
    if said is not None:
        (tmp_path / "report.json").write_text(said)
    with pytest.raises(UsageError, match="is no report"):
        read_report(tmp_path / "report.json")


# --- the frame ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mine(Batch):
    guided: ClassVar[bool] = True
    renamed: ClassVar[dict] = {"--alike": "--self-replace-steps"}

    prompt: Prompt = "a cat"
    """what to draw."""
    fail: str = ""
    """what goes wrong."""


def experiment(act) -> types.FunctionType:
    """A main in a module of its own, as scripts have it."""
    doc = "Who is it?\n\nNobody knows."
    module = {"__doc__": doc, "__file__": "test_mine.py", "act": act}
    exec("def main(sd, options): return act(sd, options)", module)
    return module["main"]


def start(act, *words: object, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["test_mine.py", *map(str, words)])
    script.run_experiment(experiment(act), Mine)


@pytest.mark.usefixtures("loaded")
def test_the_frame_makes_the_folder_and_tells_what_ran(tmp_path, monkeypatch, capfd):
    seen = []

    def act(sd, options):
        sd.encode_text("a cat")
        seen.append(options.folder)
        return report()

    start(act, "a dog", "--pictures", 3, "--out", tmp_path, monkeypatch=monkeypatch)
    (folder,) = (tmp_path / "test_mine").iterdir()
    assert seen == [folder] and folder.name.endswith("-a-dog")
    said = json.loads((folder / "report.json").read_text("utf-8"))
    assert said["question"] == "Who is it?" and said["script"] == "test_mine"
    assert said["options"]["prompt"] == "a dog" and said["options"]["pictures"] == 3
    assert "folder" not in said["options"] and said["model"]["weights"] == "phantom"
    assert len(said["weights_hash"]["text_encoder"]) == 64
    assert said["seconds"] > 0 and said["peak_gb"] > 0
    assert said["evaluations"] == {"text_encoder": 1}  # a row
    told = capfd.readouterr().out
    assert "finding  Words carry.\n" in told and f"report   {folder / 'report.json'}\n" in told


@pytest.mark.usefixtures("loaded")
def test_a_control_that_fails_is_an_error_and_all_is_saved(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="the control failed: it drifts"):
        start(lambda *_: report(False), "--out", tmp_path, monkeypatch=monkeypatch)
    (folder,) = (tmp_path / "test_mine").iterdir()
    assert (folder / "report.json").exists()


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("error", [UsageError("no cat"), KeyboardInterrupt(), OSError(28, "full")])
def test_where_nothing_is_saved_no_folder_stays(error, tmp_path, monkeypatch, capfd):
    def act(*_):
        raise error

    with pytest.raises(SystemExit):
        start(act, "--out", tmp_path / "new" / "out", monkeypatch=monkeypatch)
    assert not (tmp_path / "new").exists()
    assert capfd.readouterr().err.count("\n") <= 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pictures", "1"], "--pictures 1 is not from 2 to 64"),
        (["--steps", "0"], "--steps 0 is not from 1 to 1000"),
        (["--seed", "-1"], "seed of -1 is negative"),
        (["--alike", "0.5"], "--alike is called --self-replace-steps now"),
        (["--alike=0.5"], "--alike is called --self-replace-steps now"),
    ],
)
def test_bad_options_are_told_before_the_model_is_loaded(words, told, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(script, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SystemExit) as stop:
        start(None, *words, "--out", tmp_path, monkeypatch=monkeypatch)
    assert stop.value.code == 2 and told in capfd.readouterr().err


@pytest.mark.usefixtures("loaded")
def test_a_model_without_two_halves_is_refused(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(StableDiffusion, "is_lcm", True)
    with pytest.raises(SystemExit):
        start(None, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "has no ε_uncond; name other weights" in capfd.readouterr().err


def test_help_asks_the_question_and_shows_the_names(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        start(None, "--help", monkeypatch=monkeypatch)
    said = " ".join(capsys.readouterr().out.split())
    assert "Who is it?" in said and "PROMPT" in said and "[STR]" not in said
    assert "what to draw." in said and "scale of classifier-free guidance" in said
    assert "folder" not in said.replace("folder or file", "").replace("the folder to save into", "")


def test_options_name_their_run():
    assert Options().subject == "phantom" and Sampling(weights="sd").subject == "sd"
    assert Mine(prompt="a dog").subject == "a dog" and Mine(out=Path("x")).folder is None
