"""Options that several experiments share."""

import sys

import pytest

from experiments import test_image_encoder
from stable_diffusion_tf.errors import UsageError
from xray import script
from xray.options import seconds_in


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("90s", 90), ("5min", 300), ("1h", 3600), ("1.5h", 5400), (" 2 min ", 120), ("0.5s", 0.5)],
)
def test_a_duration_is_read_in_seconds(duration, seconds):
    assert seconds_in(duration) == seconds


WRONG = ["", "5", "min", "5 parsecs", "0s", "-5min", "1h30min", "nan s", "5m\nin", "1e3s"]


@pytest.mark.parametrize("duration", WRONG)
def test_what_is_no_duration_is_refused(duration):
    with pytest.raises(UsageError, match="is no duration; try --budget 5min"):
        seconds_in(duration)


def test_a_bad_budget_is_one_line_and_status_2_before_the_model_is_loaded(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(script, "load_model", lambda *_: pytest.fail("loaded"))
    words = ["script.py", "--budget", "soon", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        script.run_experiment(test_image_encoder.main, test_image_encoder.Options)
    said, complained = capfd.readouterr()
    assert stop.value.code == 2 and said == "" and not (tmp_path / "out").exists()
    assert complained == "script.py: --budget soon is no duration; try --budget 5min\n"


@pytest.mark.usefixtures("loaded")
def test_a_budget_says_what_it_is_spent_on(tmp_path, monkeypatch, capfd):
    words = ["--size", "32", "--budget", "10min", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["script.py", *words])
    script.run_experiment(test_image_encoder.main, test_image_encoder.Options)
    assert capfd.readouterr().err.startswith("about ")
