"""The scripts as a person runs them: what they save, what they say, what bad input gets."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from experiments import (
    test_anatomy,
    test_guidance,
    test_image_encoder,
    test_precision,
    text2image,
)
from phantom.prompts import GRAMMAR
from stable_diffusion_tf import StableDiffusion
from stable_diffusion_tf.checkpoint import places
from stable_diffusion_tf.checkpoint.shipped import SHIPPED
from stable_diffusion_tf.errors import UsageError
from tests import interrupt
from tests.formats import Call, Global, write_zip
from tests.stable_diffusion_tf.test_taesd import draw_tensors, write_taesd
from tests.xray.film.test_page import held
from xray import measure, script
from xray.pictures import photograph
from xray.report import read_report

ROOT = Path(__file__).resolve().parents[2]
PHOTO = photograph()


def only(folder: Path) -> Path:
    """The one entry of a folder."""
    (entry,) = folder.iterdir()
    return entry


def call(main, *words: str, monkeypatch) -> None:
    """Run a script's main as the shell would."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
    options = getattr(sys.modules[main.__module__], "Options", None)
    if options:
        script.run_experiment(main, options)
    else:
        script.run(main)


def check_refusal(main, words, told: str, out: Path, monkeypatch, capfd) -> None:
    """Bad input gets one line, which tells what is wrong, and status 2; nothing is written."""
    with pytest.raises(SystemExit) as stop:
        call(main, *words, "--out", out, monkeypatch=monkeypatch)
    complained = capfd.readouterr().err
    assert stop.value.code == 2 and not out.exists()
    assert told in complained and complained.count("\n") == 1


def spread(path: Path) -> float:
    """How much there is to see: the deviation of a saved picture's values."""
    with Image.open(path) as image:
        return float(np.asarray(image.convert("RGB"), float).std())


@pytest.mark.arithmetic
@pytest.mark.usefixtures("loaded")
def test_text2image_saves_picture_strip_and_tensors(tmp_path, monkeypatch, capfd):
    prompt = "a zebra left of an apple"
    call(text2image.main, prompt, "--steps", 3, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text2image")
    assert spread(folder / "image.png") > 1 and spread(folder / "figure.png") > 10
    frames = sorted((folder / "frames").iterdir())
    assert [f.name for f in frames] == ["000.safetensors", "001.safetensors", "002.safetensors"]
    first, last = load_file(frames[0]), load_file(frames[-1])
    assert set(first) == {"x", "eps_uncond", "eps_cond", "eps", "x0", "x_prev"}
    assert first["x"].shape == (1, 16, 16, 4) and not np.array_equal(first["x"], last["x"])
    assert json.loads((folder / "film.json").read_text(encoding="utf-8"))["prompt"] == prompt
    said, complained = capfd.readouterr()
    assert complained == "" and "never saw 'zebra'" in said
    for name in ("image-x8.png", "figure.png", "report.json"):
        assert str(folder / name) in said


def test_text2image_reads_a_learned_word_and_previews(tmp_path, monkeypatch, capfd):
    toy, tiny = tmp_path / "toy.safetensors", tmp_path / "taesd"
    save_file({"<toy>": np.ones((1, 128), np.float32)}, toy)
    tiny.mkdir()
    write_taesd(tiny, draw_tensors())
    saved = tmp_path / "spaces.safetensors"
    save_file({"<Le Petit Prince >": np.ones((1, 128), np.float32)}, saved)
    words = [
        "--words",
        toy,
        "--words",
        f"<moon>={saved}",
        "a $\\frac{$ \udcff 猫 <toy> <moon>",
        "--steps",
        2,
    ]
    for out, preview in (("plain", []), ("tiny", ["--preview", tiny])):
        out = tmp_path / out
        call(text2image.main, *words, *preview, "--out", out, monkeypatch=monkeypatch)
    said = capfd.readouterr().out
    for word, path in (("<toy>", toy), ("<moon>", saved)):
        assert f"{word} is a word now, from {path}" in said
    plain, seen = (only(tmp_path / out / "text2image") for out in ("plain", "tiny"))
    assert (plain / "image.png").read_bytes() == (seen / "image.png").read_bytes()
    assert (plain / "figure.png").read_bytes() != (seen / "figure.png").read_bytes()


@pytest.mark.usefixtures("loaded")
def test_text2image_writes_the_run_as_one_page(tmp_path, monkeypatch, capfd):
    words = ["a cat on a red background", "--html", "--steps", 4, "--out", tmp_path]
    call(text2image.main, *words, monkeypatch=monkeypatch)
    folder = only(tmp_path / "text2image")
    assert f"page     {folder / 'run.html'}" in capfd.readouterr().out
    told = held((folder / "run.html").read_text("utf-8"))
    assert told["facts"]["prompt"] == words[0] and len(told["layers"]) == 5 and told["blocks"]
    assert read_report(folder / "report.json")[1]["files"]["page"] == "run.html"


def test_text2image_lists_the_words_and_draws_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(script, "load_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(SystemExit) as stop:
        call(text2image.main, "--list", "--out", tmp_path, monkeypatch=monkeypatch)
    assert stop.value.code == 0 and capfd.readouterr().out.strip() == GRAMMAR
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("loaded")
def test_text2image_enlarges_its_picture_and_warns_of_a_sentence_of_another_world(
    tmp_path, monkeypatch, capfd
):
    words = ["a red cat on a blue background", "--steps", 1, "--out", tmp_path]
    call(text2image.main, *words, monkeypatch=monkeypatch)
    assert "not the sentence" in capfd.readouterr().out
    folder = only(tmp_path / "text2image")
    small, large = (
        np.asarray(Image.open(folder / f"{name}.png")) for name in ("image", "image-x8")
    )
    np.testing.assert_array_equal(small.repeat(8, 0).repeat(8, 1), large)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("toy.pt", (None, Path("toy.pt"))),
        ("<moon>=little prince.pt", ("<moon>", Path("little prince.pt"))),
        ("runs/lr=1e-3/toy.pt", (None, Path("runs/lr=1e-3/toy.pt"))),
    ],
)
def test_a_learned_word_can_be_called_otherwise(given, parts):
    assert text2image.word_and_file(given) == parts


@pytest.mark.usefixtures("loaded")
def test_a_long_prompt_is_told_what_was_cut(tmp_path, monkeypatch, capfd):
    prompt = "cat " * 75 + "dog sun"
    call(text2image.main, prompt, "--steps", 1, "--out", tmp_path, monkeypatch=monkeypatch)
    assert "cut: dog sun" in capfd.readouterr().out


@pytest.mark.usefixtures("loaded")
def test_image_encoder_saves_sheet_and_tensors(tmp_path, monkeypatch, capfd):
    call(test_image_encoder.main, "--size", 64, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(tmp_path / "test_image_encoder")
    assert spread(folder / "figure.png") > 10 and folder.name.endswith("-phantom")
    arrays = load_file(folder / "tensors.safetensors")
    assert arrays["grace_hopper.image"].shape == (1, 64, 64, 3)
    assert arrays["grace_hopper.round_trip"].shape == (1, 64, 64, 3)
    mean, std = arrays["grace_hopper.mean"], arrays["grace_hopper.std"]
    assert mean.shape == std.shape == (1, 16, 16, 4) and (std > 0).all()
    report, _ = read_report(folder / "report.json")
    known = measure.psnr(arrays["grace_hopper.image"], arrays["grace_hopper.round_trip"])[0]
    assert report.numbers["PSNR"].value == pytest.approx(known) and report.control.passed
    said, complained = capfd.readouterr()
    assert complained == "" and "finding  grace_hopper.jpg comes back with " in said


@pytest.mark.usefixtures("loaded")
def test_image_encoder_takes_a_folder(tmp_path, monkeypatch, capfd):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("trip.1.png", "trip.2.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)).save(
            photos / name
        )
    (photos / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    call(test_image_encoder.main, photos, "--size", 64, "--out", out, monkeypatch=monkeypatch)
    folder = only(out / "test_image_encoder")
    assert {"figure.png", "sheet-trip.2.png", "table.csv"} < {p.name for p in folder.iterdir()}
    report, _ = read_report(folder / "report.json")
    assert report.numbers["PSNR"].n == 2 and len(report.table) == 2


def test_image_encoder_tells_the_path_that_was_written(tmp_path, monkeypatch, capfd):
    photo, out = tmp_path / "IMG $_{ 2024.01.05.png", tmp_path / "out"
    Image.effect_noise((64, 64), 50).save(photo)
    call(test_image_encoder.main, photo, "--size", 32, "--out", out, monkeypatch=monkeypatch)
    told = [line.split(maxsplit=1)[1] for line in capfd.readouterr().out.splitlines()[-4:]]
    folder = only(out / "test_image_encoder")
    assert sorted(told) == sorted(map(str, folder.iterdir())) and len(told) == 4


UNET, VAE = (f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae"))
TO_K = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
OTHERS = {  # what is given as a model → a name and a shape that tell what it is
    "sdxl": ("conditioner.embedders.0.weight", (2, 2)),
    "sd2": (TO_K, (32, 1024)),
    "lora": ("lora_unet_down_blocks_0.lora_down.weight", (4, 32)),
}


def phantom_with(change, name: str, folder: Path) -> Path:
    """The phantom in a folder of its own, one file of it changed, its tensors in and out."""
    shutil.copytree(SHIPPED / "phantom", folder)
    save_file(change(load_file(folder / name)), folder / name)
    return folder


def with_nan(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    first = min(name for name in tensors if name.endswith("conv_in.weight"))
    tensors[first][0] = np.nan
    return tensors


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Weights that no model can be made of; where each name begins, its line says why."""
    folder = tmp_path_factory.mktemp("weights")
    cut, page, code = folder / "cut", folder / "page.safetensors", folder / "code.ckpt"
    phantom_with(lambda tensors: tensors, UNET, cut)
    (cut / UNET).write_bytes((cut / UNET).read_bytes()[:-1000])
    single = folder / "short.safetensors"
    single.write_bytes((SHIPPED / "phantom" / UNET).read_bytes()[:-1000])
    page.write_text("<!DOCTYPE html><html>Access denied</html>")
    write_zip(code, {"state_dict": Call(Global("os.system"), ("echo caught",))})
    for name, (tensor, shape) in OTHERS.items():
        save_file({tensor: np.zeros(shape, np.float32)}, folder / f"{name}.safetensors")
    return {
        "cut": cut,
        "short": single,
        "web": page,
        "code": code,
        "nan": phantom_with(with_nan, UNET, folder / "nan"),
        "nan_vae": phantom_with(with_nan, VAE, folder / "nan_vae"),
        **{name: folder / f"{name}.safetensors" for name in OTHERS},
    }


@pytest.fixture
def bad(tmp_path, weights) -> dict[str, Path]:
    """Things that are not what they are taken for."""
    half = tmp_path / "half.jpg"
    half.write_bytes(PHOTO.read_bytes()[:20000])
    page = tmp_path / "page.png"
    page.write_text("<html>not found</html>")
    empty = tmp_path / "empty"
    empty.mkdir()
    own = {"half": half, "page": page, "empty": empty, "file": page, "none": tmp_path / "none"}
    return own | weights


@pytest.mark.parametrize(
    "main, words, told",
    [
        (text2image.main, ["a cat", "--height", "66"], "multiple of 8; try 64"),
        (text2image.main, ["a cat", "--width", "0"], "multiple of 8"),
        (text2image.main, ["a cat", "--guidance", "nan"], "guidance"),
        (text2image.main, ["a cat", "--eta", "2"], "eta"),
        (text2image.main, ["a cat", "--words", "{none}"], "cannot be read: No such file"),
        (text2image.main, ["a cat", "--preview", "{empty}"], "no TAESD decoder in"),
        (text2image.main, ["a cat", "--weights", "{none}"], "no weights at"),
        (text2image.main, ["a cat", "--weights", "{empty}"], "holds no checkpoint"),
        (text2image.main, ["a cat", "--weights", "{cut}"], "is no whole safetensors file"),
        (text2image.main, ["a cat", "--weights", "{short}"], "is no whole safetensors file"),
        (text2image.main, ["a cat", "--weights", "{web}"], "is a web page, not weights"),
        (text2image.main, ["a cat", "--weights", "{code}"], "os.system"),
        (text2image.main, ["a cat", "--weights", "{sdxl}"], "is Stable Diffusion XL"),
        (text2image.main, ["a cat", "--weights", "{sd2}"], "is Stable Diffusion 2"),
        (text2image.main, ["a cat", "--weights", "{lora}"], "is a LoRA"),
        (text2image.main, ["a cat", "--weights", "{nan}"], "1 not finite: conv_in.weight"),
        (text2image.main, ["a cat", "--weights", "sd-v9-9"], "not in the catalogue"),
        (text2image.main, ["a cat", "--weights", "sd-v1-5"], "weights/download.py sd-v1-5"),
        (text2image.main, ["a cat", "--out", "{file}"], "cannot write into"),
        (text2image.main, ["a cat", "--guidance", "1e38"], "a guidance of 1e+38 is no number"),
        (text2image.main, ["a cat", "--height", "16000000000"], "of memory"),
        (test_image_encoder.main, ["--weights", "{nan_vae}"], "not finite: decoder.conv_in.weight"),
        (test_image_encoder.main, ["--weights", "{web}"], "is a web page, not weights"),
        (test_image_encoder.main, ["{half}"], "cannot read"),
        (test_image_encoder.main, ["{page}"], "cannot read"),
        (test_image_encoder.main, ["{none}"], "there is no"),
        (test_image_encoder.main, ["{empty}"], "no picture in"),
        (test_image_encoder.main, ["--size", "62"], "multiples of 4"),
        (test_image_encoder.main, ["--size", "0"], "--size 0 is not from 8 to 4096"),
        (text2image.main, ["a cat", "--size", "100"], "a height of 100 is no multiple"),
        (test_anatomy.main, ["--size", "5000"], "--size 5000 is not from 8 to 4096"),
        (test_precision.main, ["--precision", "bfloat16"], "leave --precision out"),
        (test_image_encoder.main, ["--out", "{file}"], "cannot write into"),
    ],
)
def test_bad_input_is_one_line_and_status_2(main, words, told, bad, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(bad["empty"])
    monkeypatch.setattr(places, "find", lambda name: None)  # whatever was downloaded before
    with pytest.raises(SystemExit) as stop:
        call(main, *(w.format(**bad) for w in words), monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    assert stop.value.code == 2 and said == ""
    assert told in complained and complained.count("\n") == 1
    assert not any(bad["empty"].iterdir()), "something was written"


SHELL = [  # weights → what is said of them
    ("{web}", "is a web page, not weights: the download was refused; fetch it again, signed in"),
    ("{nan}", "holds NaN or infinite numbers; fetch it again, or in float32"),
]


@pytest.mark.parametrize(("given", "told"), SHELL, ids=["a page", "NaN"])
def test_bad_weights_in_the_shell_are_one_line_and_status_2(given, told, bad, tmp_path):
    """As a person types it: TensorFlow says nothing, and no traceback is seen."""
    command = [sys.executable, "experiments/text2image.py", "a cat", "--out", str(tmp_path / "out")]
    command += ["--weights", given.format(**bad)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert told in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_odd_machine_gets_its_picture(tmp_path):
    """No HOME, a dumb terminal, a closed stderr, a log of ASCII, another folder, and a user whose
    Keras has the channels first."""
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    odd = {"TERM": "dumb", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "KERAS_HOME": str(tmp_path)}
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "KERAS_BACKEND")} | odd
    closed = (
        "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", closed, str(ROOT / "experiments" / "text2image.py")]
    command += ["a cat 猫", "--steps", "1", "--out", "out"]
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0 and b"never saw '?'" in done.stdout
    assert spread(only(tmp_path / "out" / "text2image") / "image.png") > 0


def test_no_such_backend_in_the_shell_is_one_line_and_status_2(tmp_path):
    command = [sys.executable, "experiments/text2image.py", "a cat", "--out", str(tmp_path / "out")]
    env = {**os.environ, "KERAS_BACKEND": "nonsense"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and not (tmp_path / "out").exists()
    assert "put KERAS_BACKEND=tensorflow in front" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--stepz", "3"], "unrecognized options: --stepz, 3; did you mean --steps?"),
        (["--seed", "one"], "error parsing --seed: invalid literal for int"),
        (["--precision", "half"], "invalid choice 'half' for argument '--precision'. Expected one"),
        (["a cat", "a dog"], "unrecognized options: a dog; try --help"),
    ],
)
@pytest.mark.parametrize("boxes", [True, False])  # where the terminal has the letters for them
@pytest.mark.parametrize("columns", ["20", "200"])
def test_options_that_there_are_not_get_one_line(
    words, told, columns, boxes, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: boxes)
    check_refusal(text2image.main, words, told, tmp_path / "out", monkeypatch, capfd)


@pytest.mark.parametrize(
    ("main", "script_name"),
    [(text2image.main, "text2image"), (test_image_encoder.main, "test_image_encoder")],
)
def test_precision_is_a_choice(main, script_name, tmp_path, monkeypatch, capfd):
    chosen, load = [], script.load_model
    monkeypatch.setattr(script, "load_model", lambda *given: chosen.append(given) or load(*given))
    smallest = {"text2image": ["a cat", "--steps", 1], "test_image_encoder": ["--size", 32]}
    words = [*smallest[script_name], "--precision", "float16-storage", "--out", tmp_path]
    call(main, *words, monkeypatch=monkeypatch)
    assert [given[:2] for given in chosen] == [("phantom", "float16-storage")]
    for film in only(tmp_path / script_name).glob("film.json"):
        assert json.loads(film.read_text(encoding="utf-8"))["precision"] == "float16-storage"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("main", "words", "tensor"),
    [
        (text2image.main, ["a cat", "--steps", 1], None),
        (test_guidance.main, ["a cat", "--steps", 1, "--pictures", 2], "pictures"),
    ],
)
def test_size_is_a_choice(main, words, tensor, tmp_path, monkeypatch):
    call(main, *words, "--size", 96, "--out", tmp_path, monkeypatch=monkeypatch)
    folder = only(only(tmp_path))
    if tensor:
        assert load_file(folder / "tensors.safetensors")[tensor].shape[-3:] == (96, 96, 3)
    else:
        with Image.open(folder / "image.png") as image:
            assert image.size == (96, 96)


@pytest.mark.parametrize("size", [0, -64, 64.0])
def test_no_size_of_a_picture_is_refused(size):
    with pytest.raises(UsageError, match=r"try size=512"):
        StableDiffusion.load("phantom", size=size)


SLOW = "bfloat16 is slow on this CPU; float16-storage takes as little memory and is quicker"


@pytest.mark.parametrize(
    ("precision", "fast", "lines"),
    [
        ("bfloat16", False, [SLOW]),
        ("bfloat16", True, []),
        ("float16-storage", False, []),
        ("float32", False, []),
    ],
)
def test_bfloat16_on_a_slow_cpu_is_told_once(precision, fast, lines, monkeypatch, capsys):
    monkeypatch.setattr(script, "has_fast_bfloat16", lambda: fast)
    assert script.load_model("phantom", precision).precision == precision
    assert capsys.readouterr().out.splitlines() == lines


def test_an_unknown_precision_is_refused_by_the_command_line(tmp_path, monkeypatch, capfd):
    with pytest.raises(SystemExit) as stop:
        call(text2image.main, "--precision", "float8", "--out", tmp_path, monkeypatch=monkeypatch)
    assert stop.value.code == 2 and not any(tmp_path.iterdir())
    assert "float16-storage" in capfd.readouterr().err


# --- what is not imported


def test_a_module_can_be_imported_again_after_it_was_hidden(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(KeyError), script.hidden("colorsys"):
        with pytest.raises(ImportError):
            importlib.import_module("colorsys")
        raise KeyError
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 1)[2] == 1
    with script.hidden("colorsys"):
        assert importlib.import_module("colorsys") is sys.modules["colorsys"], "it was there before"


def test_the_model_starts_without_jax_which_can_still_be_imported_afterwards():
    """Where JAX is installed: elsewhere only the first half says something."""
    asked = """if True:
        import importlib.util, sys
        from xray import script
        script.load_model("phantom").network("text_encoder")
        assert "jax" not in sys.modules, "JAX was imported"
        if importlib.util.find_spec("jax"):
            import jax
            assert float(jax.numpy.ones(3).sum()) == 3.0
    """
    env = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_two_runs_in_one_second_do_not_meet(tmp_path):
    made = {script.make_folder(tmp_path, "script", "A cat, left!") for _ in range(3)}
    assert len(made) == 3 and all("a-cat-left" in p.name for p in made)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_leaves_whole_frames_and_says_where(tmp_path):
    command = [sys.executable, "experiments/text2image.py", "a cat", "--steps", "1000"]
    command += ["--out", str(tmp_path)]
    run = interrupt.start(command, cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("text2image/*/frames/003.safetensors")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, complained = run.communicate(timeout=60)
    folder = only(tmp_path / "text2image")
    assert run.returncode == 130 and complained.strip().endswith(str(folder))
    frames = [p for p in (folder / "frames").iterdir() if p.suffix == ".safetensors"]
    assert len(frames) >= 4 and all(len(load_file(p)) == 6 for p in frames)


@pytest.mark.parametrize("script", ["text2image.py", "test_image_encoder.py"])
def test_help_is_there_without_waiting_for_tensorflow(script):
    watched = f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
    watched += "try: runpy.run_path('experiments/' + sys.argv[0], run_name='__main__')\n"
    watched += "finally: assert 'tensorflow' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", watched], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--weights" in done.stdout and done.stderr == ""
