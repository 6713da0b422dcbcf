"""Whatever happens to a run or to its files: the film opens, and says what it lacks."""

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stable_diffusion_tf.errors import UsageError
from tests.xray import reel
from tests.xray.reel import PROBS
from xray.film import Film
from xray.film.camera import in_order, write_step
from xray.film.storage import fault, fault_of_frame, frame_path, write_json, write_tensors

ROOT = Path(__file__).resolve().parents[3]
MISMATCH = "does not match its checksum"


@pytest.fixture
def folder(tmp_path) -> Path:
    return reel.write(tmp_path / "run", 4)


def flipped(held: bytes, bit: int) -> bytes:
    made = bytearray(held)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)


# --- files -------------------------------------------------------------------------------------


def test_every_flip_of_a_bit_and_every_length_is_found(tmp_path):
    """All of a small frame: the length of its header, the header, the numbers, the end."""
    place = tmp_path / "003.safetensors"
    write_tensors(
        place, {"x": reel.drawn(2, 3, seed=0), "eps": reel.drawn(5, seed=1)}, t=7, index=3
    )
    held = place.read_bytes()
    assert fault_of_frame(place) is None
    for changed in [
        *(flipped(held, bit) for bit in range(8 * len(held))),
        *(held[:length] for length in range(len(held))),
        held + b"\0",
    ]:
        place.write_bytes(changed)
        assert fault_of_frame(place) == MISMATCH


def test_every_flip_of_a_bit_of_the_facts_is_found_and_the_film_opens(tmp_path):
    folder = reel.write(tmp_path / "run", 1)
    place = folder / "film.json"
    write_json(place, {"prompt": "a cat", "steps": 1})
    held = place.read_bytes()
    for bit in range(8 * len(held)):
        place.write_bytes(flipped(held, bit))
        film = Film.open(folder)
        assert film.damaged["film.json"] == MISMATCH and len(film) == 1


@pytest.mark.parametrize("where", [3, 12, 200, -900, -1])
def test_a_damaged_frame_is_named_and_the_others_read(folder, where):
    place = frame_path(folder, 2)
    held = bytearray(place.read_bytes())
    held[where] ^= 1
    place.write_bytes(held)
    film = Film.open(folder)
    assert film.damaged == {"frames/002.safetensors": MISMATCH} and not film.finished
    assert film.state == f"3 of 4 steps; frames/002.safetensors {MISMATCH}"
    assert [frame.index for frame in film] == [0, 1, 3] and film[-1].index == 3
    np.testing.assert_array_equal(film.read(PROBS), [reel.reads(i)[PROBS] for i in (0, 1, 3)])
    with pytest.raises(UsageError, match=r"no frame of step 2.*002\.safetensors"):
        film[2]


def test_all_that_is_damaged_is_named(folder):
    frame_path(folder, 1).unlink()
    frame_path(folder, 3).unlink()  # there is a picture, so there was a last step
    frame_path(folder, 2).rename(frame_path(folder, 1))
    for name in ("text.safetensors", "image.png"):
        held = (folder / name).read_bytes()
        (folder / name).write_bytes(held[: len(held) // 2])
    film = Film.open(folder)
    assert film.damaged == {
        "frames/001.safetensors": "is the frame of step 2",
        "frames/002.safetensors": "is missing",
        "frames/003.safetensors": "is missing",
        "text.safetensors": MISMATCH,
        "image.png": "is no whole PNG",
    }
    assert [*film.frames] == [0] and film.image is None and not film.text
    np.testing.assert_array_equal(film[0]["x"], reel.step(0).x)


def test_a_film_that_ended_early_is_not_damaged(tmp_path):
    film = Film.open(reel.write(tmp_path / "run", 2, asked=5))
    assert film.damaged == {} and not film.finished and film.image is None
    assert film.state == "2 of 5 steps"


def test_what_is_half_written_is_left_alone(folder):
    held = frame_path(folder, 3).read_bytes()
    (folder / "frames" / "004.safetensors.part").write_bytes(held[:100])
    film = Film.open(folder)
    assert film.damaged == {} and len(film) == 4


def test_a_frame_is_whole_or_not_there(tmp_path, monkeypatch):
    folder = reel.write(tmp_path / "run", 1, asked=2)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_step(folder, reel.step(1), in_order(reel.step(1), {}))
    assert [path.name for path in (folder / "frames").iterdir()] == ["000.safetensors"]


def test_a_file_without_a_checksum_is_not_trusted(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "other").write_bytes(b'{"crc32": "none"}')
    assert fault(tmp_path / "empty") == fault(tmp_path / "other") == MISMATCH


# --- runs --------------------------------------------------------------------------------------


def start(*words: object) -> subprocess.Popen:
    """A process that writes a long film and tells of each step when it is done."""
    command = [sys.executable, "-m", "tests.xray.reel", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("moment", range(10))
def test_a_run_that_is_killed_leaves_all_that_was_finished(tmp_path, moment):
    with start(tmp_path / "run") as process:
        process.stdout.readline()
        time.sleep(random.Random(moment).uniform(0, 0.2))
        process.kill()
        told = process.stdout.read()
    finished = 1 + len(told.splitlines())  # steps, each told once its frame was there
    film = Film.open(tmp_path / "run")
    assert film.damaged == {} and finished <= len(film) <= finished + 1 < 10_000
    assert [*film.frames] == list(range(len(film)))
    for i in (0, len(film) // 2, len(film) - 1):
        np.testing.assert_array_equal(film[i]["x_prev"], reel.step(i).x_prev)
        np.testing.assert_array_equal(film[i][PROBS], reel.reads(i)[PROBS])


def test_a_full_disk_is_told_in_one_line_and_the_film_opens(tmp_path):
    """Full: the system takes no file of more than 20 kB."""
    pytest.importorskip("resource")
    with start(tmp_path / "run", 20_000) as process:
        told, complaint = process.communicate()
    finished = len(told.splitlines())
    assert process.returncode == 1 and 2 < finished < 10_000
    assert complaint.count("\n") == 1 and str(tmp_path / "run") in complaint
    film = Film.open(tmp_path / "run")
    assert film.damaged == {} and len(film) == finished
    assert not list((tmp_path / "run" / "frames").glob("*.part"))
