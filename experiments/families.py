"""Families of prompts: what a family has in common, and in what its prompts differ."""

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

Table = Mapping[str, tuple[str, str]]  # family → its wording, and what stands in it

THINGS = "cat, pizza, car, tree, house, key"
EVERYDAY: Table = {
    "animals": ("{}", "cat, dog, cow, lion, rabbit, fox"),
    "furniture": ("{}", "chair, table, sofa, bed, desk, shelf"),
    "cities": ("{}", "Paris, London, Rome, Berlin, Tokyo, Madrid"),
    "counts": ("{} apples", "two, three, four, five, six, seven"),
    "articles": ("{} house", "a, the, this, that, one, my"),
    "in a forest": ("a {} in a forest", THINGS),
    "on a beach": ("a {} on a beach", THINGS),
    "on the moon": ("a {} on the moon", THINGS),
}
SPRITES: Table = {  # of words that the phantom knows
    "animals": ("{}", "a cat, a dog, a cow, a lion, a rabbit, a fox"),
    "food": ("{}", "a pizza, a burger, a donut, an apple, a banana, a watermelon"),
    "outdoors": ("{}", "a sun, a moon, a star, a tree, a cactus, a sunflower"),
    "small": ("a small {}", THINGS),
    "big": ("a big {}", THINGS),
    "left of": ("a {} left of a frog", THINGS),
    "on red": ("a {} on a red background", THINGS),
    "on blue": ("a {} on a blue background", THINGS),
}


def table_for(sd: "StableDiffusion") -> Table:
    """The everyday families, where the model has seen every word of them."""
    ids = sd.tokenize([*chain(*prompts_of(EVERYDAY).values())])
    return EVERYDAY if sd.known_tokens[ids].all() else SPRITES


def prompts_of(table: Table) -> dict[str, list[str]]:
    """Family → its prompts."""
    return {
        name: [wording.format(words) for words in inside.split(", ")]
        for name, (wording, inside) in table.items()
    }


def of_one_wording(table: Table) -> list[str]:
    """The families that share their wording with another, and differ only in the kind of thing."""
    wordings = [wording for wording, _ in table.values()]
    return [name for name, (wording, _) in table.items() if wordings.count(wording) > 1]
