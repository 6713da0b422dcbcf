"""Pictures from disk, for scripts that look at one or at many."""

import stat
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import cbook
from PIL import Image, ImageOps

from stable_diffusion_tf.errors import UsageError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
LONGEST = 255  # bytes of a file's name, on the file systems in use
UNREADABLE = (  # what Pillow's readers raise for files that are damaged, or not what they seem
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    NotImplementedError,
    Image.DecompressionBombError,
)


def photograph() -> Path:
    """The photograph that comes with matplotlib: Grace Hopper, 1984, US Navy, public domain."""
    return Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def read_pictures(place: Path, size: int, most: int) -> np.ndarray:
    """A picture, or a folder's first `most` by name: the middle square of each, (n, size, size, 3)
    uint8. Raises UsageError where there is none, or one cannot be read."""
    return np.stack([read_image(path, size) for path in find_pictures(place)[:most]])


def find_pictures(place: Path) -> list[Path]:
    """The picture itself, or all in the folder, by name. Raises UsageError where there is none."""
    if not stat.S_ISDIR(mode_of(place)):
        return [place]
    try:
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UsageError(
            f"cannot read the folder {place}: {error.strerror}; name another"
        ) from None
    if not found:
        raise UsageError(f"no picture in {place}; known are {', '.join(sorted(SUFFIXES))}")
    return found


def names_for(paths: Sequence[Path], longest_suffix: str) -> list[str]:
    """What to call what is saved of each picture: its name without the suffix, or with it where
    two would share one, as `a.png` and `a.jpg` do. Raises UsageError where a name is too long."""
    stems = [path.stem for path in paths]
    shared = len({stem.casefold() for stem in stems}) < len(stems)
    names = [path.name for path in paths] if shared else stems
    for name in names:
        if len(f"{name}{longest_suffix}".encode(errors="surrogateescape")) > LONGEST:
            most = LONGEST - len(longest_suffix)
            raise UsageError(f"the name {name} is too long; rename it to {most} bytes at most")
    return names


def read_image(path: Path, size: int) -> np.ndarray:
    """The middle square of a picture, (size, size, 3) uint8, RGB, turned as its EXIF says; on
    white where it is transparent. 16-bit grey is scaled to 8. Raises UsageError."""
    if not 16 <= size <= 4096:
        raise UsageError(f"a size of {size} is not from 16 to 4096 pixels; try 256")
    if not stat.S_ISREG(mode_of(path)):  # of a pipe, reading would wait for ever
        raise UsageError(f"cannot read {path}: it is no regular file; name a PNG or JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, and allowed
            with Image.open(path) as opened:
                upright = as_rgb(ImageOps.exif_transpose(opened))
    except UNREADABLE as error:
        raise UsageError(f"cannot read {path} ({error}); name a whole PNG or JPEG") from None
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))


def mode_of(path: Path) -> int:
    """What kind of file it is, as `stat` knows them. Raises UsageError where there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(f"there is no {path}; name a picture or a folder of pictures") from None
    except (OSError, ValueError) as error:  # not allowed, too long; a zero byte
        raise UsageError(
            f"cannot read {path}: {getattr(error, 'strerror', error)}; name another picture"
        ) from None


def as_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's → RGB. Raises ValueError where the values have no agreed white."""
    if image.mode[0] in "IF":  # Pillow's own conversion cuts off at 255
        return Image.fromarray(to_8_bits(np.asarray(image))).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    return Image.alpha_composite(white, seen).convert("RGB")


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey of 16 bits, 0 … 65535, or floats, 0 … 1 → uint8, rounded. Raises ValueError."""
    white = 1.0 if np.issubdtype(values.dtype, np.floating) else 65535.0
    if not (values.min() >= 0 and values.max() <= white):  # NaN is not either
        raise ValueError(
            f"its values go from {values.min():g} to {values.max():g}, and white is {white:g}: "
            f"scale them, and save it with 8 bits"
        )
    return np.rint(values * (255 / white)).astype(np.uint8)
