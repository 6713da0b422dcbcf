"""The frame of every script: what goes wrong at its edges is one line and a status."""

import os
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import tyro
from safetensors.numpy import load_file, save_file

from stable_diffusion_tf.errors import UsageError
from xray import script


def shell(main: Callable[..., None], *words: object, monkeypatch, capsys) -> tuple[int, str]:
    """The status and the complaint of a script that is run with these words."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
    try:
        script.run(main)
    except SystemExit as stop:
        return stop.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


def draw(
    prompt: Annotated[str, tyro.conf.Positional] = "a cat",
    /,
    negative: str = "",
    out: Path = Path("outputs"),
) -> None:
    print(f"drawn: {prompt}, not {negative}")


# --- the folder it saves into ------------------------------------------------------------------


@pytest.mark.parametrize("out", ["{file}", "{file}/below", "{long}", "/proc/none"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(out, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    out = out.format(file=tmp_path / "file", long=tmp_path / ("a" * 300))
    if not Path(out).is_relative_to(tmp_path) and not Path("/proc/self").exists():
        pytest.skip("no such system")
    work = []

    def main(out: Path = Path("outputs")) -> None:
        work.append(out)

    status, told = shell(main, "--out", out, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2 and not work and told.count("\n") == 1
    assert f"cannot write into {out}" in told and "name another --out" in told


def test_trying_a_folder_leaves_nothing(tmp_path):
    script.check_out(tmp_path / "a" / "b")
    assert not any(tmp_path.iterdir())


def test_a_full_disk_under_the_tensors_is_one_line(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UsageError) as refused, script.saving_into(tmp_path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            save_file({"x": np.zeros(10**5)}, tmp_path / "x.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(refused.value) == (
        f"cannot write {tmp_path}: File too large; free it or name another --out"
    )


def test_a_broken_file_is_not_blamed_on_the_disk(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    with pytest.raises(Exception, match="header"), script.saving_into(tmp_path):
        load_file(tmp_path / "x.safetensors")


# --- what is typed -----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["-5 cats"], ["-- cats"], ["--negative", "x", "-5 cats"]])
def test_a_prompt_that_begins_with_a_dash_is_told_how_to_be_typed(words, monkeypatch, capsys):
    status, told = shell(draw, *words, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 2 and told.endswith(f"end the line with -- '{words[-1]}'\n")
    status, told = shell(draw, *words[:-1], "--", words[-1], monkeypatch=monkeypatch, capsys=capsys)
    assert (status, told) == (0, "")


@pytest.mark.parametrize("words", [["--negative", "-5 dogs"], ["--negative=-5 dogs", "cat"]])
def test_the_value_of_an_option_may_begin_with_a_dash(words, monkeypatch, capsys):
    assert shell(draw, *words, monkeypatch=monkeypatch, capsys=capsys) == (0, "")


# --- what is said ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["“猫”", "a \udcff cat"])
def test_letters_that_the_log_does_not_know_are_question_marks(text, monkeypatch, capsys):
    log = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", log)
    status, told = shell(draw, "--negative", text, monkeypatch=monkeypatch, capsys=capsys)
    log.flush()
    assert (status, told) == (0, "")
    said = log.buffer.getvalue().decode("ascii")
    assert said == f"drawn: a cat, not {''.join(c if c.isascii() else '?' for c in text)}\n"


def test_names_cannot_steer_the_terminal(monkeypatch, capsys):
    def main() -> None:
        raise UsageError("no tensor \x1b[31m\nred é\u202e")

    told = shell(main, monkeypatch=monkeypatch, capsys=capsys)
    assert told == (2, "script.py: no tensor \\x1b[31m\\nred é\\u202e\n")


def test_a_closed_stderr_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with script.native_stderr_closed():
        os.write(2, b"")
