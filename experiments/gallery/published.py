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


BESIDE = (
    Beside(
        "the UNet's parameters",
        "test_anatomy",
        r"unet ([\d,]+\d)",
        "859,520,964 (SD 1.x)",
        "three narrow levels instead of four wide ones",
    ),
    Beside(
        "VAE round trip of a photograph",
        "test_image_encoder",
        r"back with ([\d.]+ dB)",
        "23.4 ± 3.8 dB, COCO at 256² (model card of sd-vae-ft-mse)",
        "the phantom's VAE has seen sprites only, though it keeps one number of 12, SD's one of 48",
    ),
    Beside(
        "scale of the latents",
        "test_latent_statistics",
        r"give a scale of ([\d.]+\d)",
        "0.18215 (SD 1.x: diffusers issue 437)",
        "each VAE has its own; both are one over the deviation",
    ),
    Beside(
        "share of the decoder that is a linear map, R²",
        "test_image_decoder",
        r"explains ([\d.]+ %)",
        "correlation 0.87–0.93 on photographs, R² about 0.8 (keturn, Hugging Face forum 23204)",
        "here a cell's colour depends on its neighbours too",
    ),
    Beside(
        "the start token's vector, between prompts",
        "test_text_encoder",
        r"start token's differs by (\w+ 0)",
        "the same for every prompt, by the causal mask (arithmetic)",
        "they do not",
    ),
    Beside(
        "the thing appears in the text encoder",
        "text_layers",
        r"appears with (layer \d+)",
        "in the later of twelve layers (Diffusion Lens, arXiv 2403.05846)",
        "three layers and 83 tokens: little is left to compose",
    ),
    Beside(
        "what the padding alone carries",
        "text_padding_and_end",
        r"padding alone leads ([\d.]+ ± [\d.]+ %)",
        "end and padding shape the layout (arXiv 2405.15330, 2501.06751)",
        "short prompts: most of the 77 tokens are padding",
    ),
    Beside(
        "SNR at the last timestep",
        "test_noise_schedule",
        r"timestep's SNR: ([\d.]+)",
        "0.0047 (arXiv 2305.08891)",
        "they do not: it is the same schedule",
    ),
    Beside(
        "a picture inverted and drawn at guidance 7.5",
        "test_ddim_inversion",
        r"with ([\d.]+ ± [\d.]+ dB) at 7\.5",
        "about 14 dB (arXiv 2211.09794; unverified)",
        "flat backgrounds come back by themselves",
    ),
    Beside(
        "the words of the first step alone",
        "test_time_and_context",
        r"in step 1 alone by ([\d.]+ ± [\d.]+ %)",
        "the first 10 of 25 steps are enough (T-GATE, arXiv 2404.02747)",
        "of the distance between two seeds, in runs of few steps",
    ),
    Beside(
        "layout read by a linear probe, IoU",
        "test_unet_features",
        r"with an IoU of ([\d.]+ ± [\d.]+)",
        "Dice 0.85 for what stands out, most of it by step 5 (arXiv 2306.05720)",
        "drawn things have sharper edges than photographed ones; an IoU of 0.74 is a Dice of 0.85",
    ),
    Beside(
        "heat map of a thing's word against its mask, IoU",
        "test_cross_attention",
        r"meet their masks with ([\d.]+) IoU",
        "0.59–0.65 (DAAM, on pictures judged by hand; ACL 2023)",
        "masks are exact here; DAAM's own pooling scores 0.31 on the phantom (README)",
    ),
    Beside(
        "one step of a direction, of the word's own way",
        "test_h_space",
        r"goes ([\d.]+ ± [\d.]+ %) of the word's",
        "linear in its scale, carries over (arXiv 2210.10960; not SD)",
        "a block of the decoder: the phantom's mid block does nothing",
    ),
    Beside(
        "the rest of the picture when a word is exchanged",
        "text_prompt_to_prompt",
        r"source's attention by ([\d.]+ ± [\d.]+ %)",
        "stays as it was (arXiv 2208.01626)",
        "boxes of the judge as masks; the padding carries the word too",
    ),
)
