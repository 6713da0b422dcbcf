"""The wheel: what it carries, and that it works where there is no repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
OFFLINE = ["--no-deps", "--no-index"]
# Without `site`, which would put the repository on the path: .venv remembers where it is.
USE = """
import sys
sys.path += [{installed!r}, {libraries!r}]
from pathlib import Path
import stable_diffusion_tf, xray
assert all(Path(m.__file__).is_relative_to({installed!r}) for m in (stable_diffusion_tf, xray))
sd = stable_diffusion_tf.StableDiffusion.load("phantom")
image, cache = xray.run(sd, "a cat on a red background", read="unet.mid_block", steps=2)
heat = xray.heat_maps(sd, "a cat on a red background", steps=2)
from phantom.prompts import counts
from xray.report import Report
print(image.shape, cache["unet.mid_block"].shape, heat["cat"].array.shape)
print(*counts(image[None], "a cat"))
try:
    stable_diffusion_tf.StableDiffusion.load("nothing-such")
except stable_diffusion_tf.UsageError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what git knows, as pip leaves its own folders behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "experiments/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", out, source]
    subprocess.run(command, check=True)
    (made,) = out.iterdir()
    return made


def test_it_carries_three_packages_and_the_phantom(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"stable_diffusion_tf", "xray", "phantom"}
    weights = [n for n in names if n.endswith(".safetensors")]
    shipped = {n.removeprefix("phantom/weights/").partition("/")[0] for n in weights}
    assert len(weights) == 6 and shipped == {"phantom", "phantom-registers"}
    for needed in (
        "phantom/sprites.png",
        "phantom/weights/catalog.json",
        "xray/film/film.py",
        "xray/viewer/film.js",
    ):
        assert needed in names


def test_it_works_from_any_folder_without_the_repository(wheel, tmp_path):
    installed, libraries = tmp_path / "installed", str(Path(pytest.__file__).parents[1])
    subprocess.run([*PIP, "install", *OFFLINE, "--target", installed, wheel], check=True)
    code = USE.format(installed=str(installed), libraries=libraries)
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shapes, marks, refusal = done.stdout.splitlines()
    assert shapes == "(64, 64, 3) (2, 2, 8, 8, 96) (64, 64)" and marks == "things"
    assert "type: python -m phantom.weights.download" in refusal
