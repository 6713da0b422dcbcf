"""The phantom on OpenVINO, in a process that never imports TensorFlow:

KERAS_BACKEND=openvino python -m tests.answers_of_openvino answers.npz
"""

import os
import sys

import keras
import numpy as np

import xray
from stable_diffusion_tf import StableDiffusion, UsageError

PROMPT, RUN = "a cat on a red background", {"steps": 5, "seed": 0}
NOTHING = np.zeros(1, np.float32)  # an array may come first, as with other backends
WORDS = "unet.*.attn2.probs"


def answers() -> dict[str, np.ndarray]:
    """A picture, heat maps, a picture with the words' attention ablated at some steps, and what is
    said of an operation that the backend does not have."""
    sd, int8 = (StableDiffusion.load("phantom", kept) for kept in ("float32", "int8-storage"))
    ablation = xray.Edit(WORDS, lambda p: NOTHING * p, steps=[0, 1], half="cond", heads=[0])
    image, cache = xray.run(sd, PROMPT, read=xray.Probe(WORDS, xray.Mean("head")), **RUN)
    first, kept = sd.generate(PROMPT, **RUN), graphs()
    again = StableDiffusion.load("phantom").generate(PROMPT, **RUN)
    return {
        "image": first,
        "again": again,
        "graphs": np.array([kept, graphs()]),
        "int8": int8.generate(PROMPT, **RUN),
        "kernel": int8.source("unet").get("mid_block.resnets.0.conv1.weight"),
        "seen": image,
        "map": xray.heat_maps(sd, PROMPT, **RUN)["cat"].array,
        "ablated": xray.instrument(sd, edits=ablation).generate(PROMPT, **RUN),
        "attention": cache["unet.mid_block.attentions.0.transformer_blocks.0.attn2.probs"],
        "taps": np.array([tap.address for tap in xray.taps(sd)]),
        "gap": np.array(said_of_a_gap()),
    }


def graphs() -> int:
    """How many are kept on disk."""
    return len(os.listdir(os.environ["XRAY_GRAPHS"]))


class Gap(keras.layers.Layer):
    def call(self, x):
        return keras.ops.linalg.lstsq(x, x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def said_of_a_gap() -> str:
    x = keras.Input((3,), batch_size=3)
    model = keras.Model(x, Gap()(x))
    try:
        xray.capture(model, np.eye(3, dtype=np.float32), "*")
    except UsageError as error:
        return str(error)
    return "nothing"


if __name__ == "__main__":
    made = answers()
    assert "tensorflow" not in sys.modules and os.environ["KERAS_BACKEND"] == "openvino"
    np.savez(sys.argv[1], **made)
