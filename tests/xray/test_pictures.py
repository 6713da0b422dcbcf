"""Pictures as people have them: 16 bits, transparent, of odd names, damaged, or none at all."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stable_diffusion_tf.errors import UsageError
from xray import pictures
from xray.pictures import find_pictures, names_for, read_image

GREY = np.full((64, 64), 20000, np.uint16)  # of 65535: 78 of 255


def pgm(path: Path) -> None:
    path.write_bytes(b"P5 64 64 65535\n" + GREY.astype(">u2").tobytes())


DEEP = {  # file → who writes a grey of 20000 into it
    "16.png": lambda path: Image.fromarray(GREY).save(path),
    "16.tif": lambda path: Image.fromarray(GREY).save(path),
    "16.pgm": pgm,
    "32.tif": lambda path: Image.fromarray(GREY.astype(np.int32)).save(path),
    "float.tif": lambda path: Image.fromarray((GREY / 65535).astype(np.float32)).save(path),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_grey_is_scaled_not_cut_off(name, tmp_path):
    DEEP[name](tmp_path / name)
    assert (read_image(tmp_path / name, 64) == 78).all()


@pytest.mark.parametrize("values", [-1, 70000, np.float32(2), np.float32("nan")])
def test_a_grey_without_a_white_is_refused(values, tmp_path):
    kind = np.int32 if isinstance(values, int) else np.float32
    Image.fromarray(np.full((64, 64), values, kind)).save(tmp_path / "ct.tif")
    with pytest.raises(UsageError, match="save it with 8 bits"):
        read_image(tmp_path / "ct.tif", 64)


def test_what_is_transparent_is_white(tmp_path):
    seen = Image.new("RGBA", (32, 32), (255, 0, 0, 255))
    seen.paste((9, 9, 9, 0), (0, 0, 32, 16))
    seen.save(tmp_path / "logo.png")
    grey = Image.new("L", (32, 32), 7)
    grey.save(tmp_path / "keyed.png", transparency=7)
    logo = read_image(tmp_path / "logo.png", 32)
    assert (logo[:16] == 255).all() and (logo[16:] == [255, 0, 0]).all()
    assert (read_image(tmp_path / "keyed.png", 32) == 255).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path: Path) -> None:
    """A PNG that says it has 60,000 × 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b""))


def unknown_dds(path: Path) -> None:
    """A DirectDraw surface of a pixel format that Pillow has no reader for."""
    form = struct.pack("<II4sIIIII", 32, 4, b"NONE", 0, 0, 0, 0, 0)
    head = struct.pack("<IIIIIII44x", 124, 0x1007, 8, 8, 0, 0, 0) + form + bytes(20)
    path.write_bytes(b"DDS " + head)


BROKEN = {
    "bomb.png": bomb,
    "unknown.dds": unknown_dds,
    "page.png": lambda path: path.write_text("<html>"),
    "pipe.png": lambda path: os.mkfifo(path),
    "folder.png": lambda path: path.mkdir(),
    "a" * 300: lambda path: None,
    "zero\0.png": lambda path: None,
    "none.png": lambda path: None,
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipe among its files")
@pytest.mark.parametrize("name", BROKEN, ids=lambda name: ascii(name[:12]))
def test_what_cannot_be_read_is_one_line(name, tmp_path):
    BROKEN[name](tmp_path / name)
    with pytest.raises(UsageError, match=r"cannot read|there is no") as refused:
        read_image(tmp_path / name, 64)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied")])
def test_a_folder_that_may_not_be_read_is_one_line(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match=r"cannot read the folder .*: Permission denied"):
        find_pictures(tmp_path)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*: Permission denied"):
        find_pictures(tmp_path)


def test_a_large_picture_is_read_without_a_warning(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)  # a warning up to twice as many
    assert read_image(tmp_path / "large.png", 64).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["trip.1.png", "trip.2.png"], ["trip.1", "trip.2"]),
        (["IMG_2024.01.05.jpg"], ["IMG_2024.01.05"]),
        (["a.png", "a.jpg", "b.png"], ["a.png", "a.jpg", "b.png"]),
        (["A.png", "a.jpg"], ["A.png", "a.jpg"]),  # one file on a Mac
    ],
)
def test_each_picture_has_a_name_of_its_own(files, names):
    assert names_for([Path(file) for file in files], ".safetensors") == names


def test_a_name_that_leaves_no_room_for_the_suffix_is_refused():
    fits = "a" * (pictures.LONGEST - len(".safetensors"))
    assert names_for([Path(f"{fits}.png")], ".safetensors") == [fits]
    with pytest.raises(UsageError, match="is too long; rename it to 243 bytes"):
        names_for([Path(f"{fits}a.png")], ".safetensors")
