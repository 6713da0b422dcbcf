"""What a prompt of the phantom's world asks for, and which pictures show it."""

import re

import numpy as np

from phantom.judge import Findings, judge
from phantom.world import BACKGROUNDS, SIDE, THINGS


def shown(images: np.ndarray, prompt: str) -> np.ndarray | None:
    """Whether pictures (n, H, W, 3) uint8 show all things and the background that a prompt names,
    (n,) bool. Where the things stand, and how large, is not judged. None where the prompt names
    no thing that was learned, or the pictures are not of the size of the phantom's world."""
    things, ground = asked(prompt)
    if not things or images.shape[1:3] != (SIDE, SIDE):
        return None
    findings = (judge(image, len(things)) for image in images)
    return np.array([has(found, things, ground) for found in findings])


def asked(prompt: str) -> tuple[set[str], set[str]]:
    """The things that a prompt names, and its background: none, or one."""
    things = {name for name in THINGS if re.search(rf"\b{name}\b", prompt)}
    said = r"\bon {0}\b|\b{0} background\b"
    return things, {name for name in BACKGROUNDS if re.search(said.format(name), prompt)}


def has(found: Findings, things: set[str], ground: set[str]) -> bool:
    seen = {match.thing.name for match in found.matches}
    return seen == things and (not ground or found.background in ground)
