"""What a page may ask for, and nothing else."""

import pytest

from stable_diffusion_tf.errors import UsageError
from xray.lab.asks import Ask, Change, read_ask

BLOCK = "unet.mid_block.attentions.0"


def test_a_run_is_read():
    changes = [
        {"kind": "weigh", "tokens": [2, 3], "factor": 0.5},
        {"kind": "off", "address": BLOCK},
        {"kind": "direction", "old": "cat", "new": "dog", "factor": 1},
    ]
    ask = read_ask({"prompt": "a cat", "steps": 5, "seed": 7, "guidance": 4, "changes": changes})
    assert ask == Ask(
        "a cat",
        steps=5,
        seed=7,
        guidance=4,
        changes=(
            Change("weigh", tokens=(2, 3), factor=0.5),
            Change("off", address=BLOCK),
            Change("direction", old="cat", new="dog", factor=1),
        ),
    )


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "an object with a prompt"),
        ({}, "an object with a prompt"),
        ({"prompt": 3}, "prompt is a text"),
        ({"prompt": "a" * 501}, "500 letters"),
        ({"prompt": "a", "steps": 0}, "from 1 to 200"),
        ({"prompt": "a", "steps": True}, "from 1 to 200"),
        ({"prompt": "a", "guidance": float("nan")}, "from -50 to 50"),
        ({"prompt": "a", "eta": "1"}, "from 0 to 1"),
        ({"prompt": "a", "out": "/etc"}, "nothing is called 'out'"),
        ({"prompt": "a", "changes": [{"kind": "exec"}]}, "a change is one of"),
        ({"prompt": "a", "changes": ["off"]}, "a change is one of"),
        ({"prompt": "a", "changes": [{"kind": "off"}] * 21}, "20 at most"),
        ({"prompt": "a", "changes": [{"kind": "off"}]}, "off takes address"),
        ({"prompt": "a", "changes": [{"kind": "off", "address": 3}]}, "an address"),
        (
            {"prompt": "a", "changes": [{"kind": "weigh", "tokens": [77], "factor": 1}]},
            "a list of places",
        ),
        (
            {"prompt": "a", "changes": [{"kind": "off", "address": "x", "head": 1}]},
            "off takes address",
        ),
    ],
)
def test_what_is_no_run_is_said(said, told):
    with pytest.raises(UsageError, match=told):
        read_ask(said)
