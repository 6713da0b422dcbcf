"""What the gallery shows in which order, and which published figures stand beside ours."""

from typing import NamedTuple

BLOCKS = {  # building block → its experiments
    "The whole": ("text2image", "test_anatomy", "test_precision"),
    "Image encoder and decoder": (
        "test_image_encoder",
        "test_image_encoder_noise_corruption",
        "test_image_decoder",
        "test_latent_statistics",
    ),
    "Text encoder": (
        "test_text_encoder",
        "text_semantic_similarity",
        "text_padding_and_end",
        "text_layers",
        "text_image_interpolation",
        "text_latent_interpolation",
        "text_symbol_image2image",
    ),
    "Scheduler": (
        "test_noise_schedule",
        "test_stabilizing_noise",
        "test_fast_sampling",
        "test_ddim_inversion",
    ),
    "UNet": (
        "test_training_step",
        "test_time_and_context",
        "test_guidance",
        "test_unet_features",
        "test_cross_attention",
        "test_unet_ablation",
        "test_h_space",
        "text_prompt_to_prompt",
    ),
}


class Beside(NamedTuple):
    """A published figure, and where its script prints ours: a pattern with one group."""

    what: str
    script: str
    ours: str
    published: str
    why: str


BESIDE: tuple[Beside, ...] = ()
