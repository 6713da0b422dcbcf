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


READERS = {  # whom it is for → experiments in the order of reading, and what each is for
    "A student, who wants to see how a picture comes about": (
        ("text2image", "One run, from noise to picture."),
        ("test_noise_schedule", "What is undone: noise that was added step by step."),
        ("test_training_step", "How the network learns to undo it."),
        ("test_image_encoder", "Why all of this happens in a latent."),
        ("test_text_encoder", "What the words become."),
        ("test_guidance", "How strongly they pull."),
        (
            "test_cross_attention",
            "Where the model attends to them, and whether that explains anything.",
        ),
        ("test_fast_sampling", "How many steps are enough."),
    ),
    "A researcher, who wants to intervene": (
        ("text_padding_and_end", "Activation patching: which tokens carry the prompt."),
        ("text_layers", "A logit lens, and the ablation of one attention."),
        ("test_unet_ablation", "Zero ablation of every block and head."),
        ("test_time_and_context", "The conditioning patched, block by block, step by step."),
        ("test_h_space", "Steering vectors, and when they are not linear."),
        ("test_unet_features", "Linear probes of the layout."),
        ("text_prompt_to_prompt", "Attention injected from another run."),
        ("test_ddim_inversion", "From a picture back to its noise."),
        ("text_symbol_image2image", "A word learned by gradient descent."),
    ),
    "An engineer, who wants to debug": (
        ("test_anatomy", "What there is, how large, and what it costs."),
        ("test_precision", "Where precisions and backends deviate."),
        ("test_latent_statistics", "What the scaling factor is for."),
        ("test_image_decoder", "How far one latent position reaches."),
        ("test_stabilizing_noise", "What goes wrong when the sampler's noise does."),
        ("test_image_encoder_noise_corruption", "How much error the decoder tolerates."),
    ),
}


class Beside(NamedTuple):
    """A published figure, and the number of a script's report that is ours."""

    what: str
    script: str
    number: str
    published: str
    why: str


BESIDE = (
    Beside(
        "the UNet's parameters",
        "test_anatomy",
        "unet, parameters",
        "859,520,964 (SD 1.x)",
        "two narrow levels instead of four wide ones",
    ),
    Beside(
        "VAE round trip of a photograph, PSNR",
        "test_image_encoder",
        "PSNR",
        "23.4 ± 3.8 dB, COCO at 256² (model card of sd-vae-ft-mse)",
        "it keeps one number of 12, SD one of 48; a tenth of what the VAE saw were photographs",
    ),
    Beside(
        "scaling factor of the latents",
        "test_latent_statistics",
        "scaling factor",
        "0.18215 (SD 1.x: diffusers issue 437)",
        "each VAE has its own; both are one over the standard deviation",
    ),
    Beside(
        "share of the decoder that is a linear map, R²",
        "test_image_decoder",
        "R² of positions",
        "correlation 0.87–0.93 on photographs, R² about 0.8 (keturn, Hugging Face forum 23204)",
        "here the colour at a position depends on its neighbours too",
    ),
    Beside(
        "the start token's vector, between prompts",
        "test_text_encoder",
        "vectors before it, and the start's of any prompt",
        "the same for every prompt, by the causal mask (arithmetic)",
        "they do not",
    ),
    Beside(
        "the thing appears in the text encoder with",
        "text_layers",
        "things appear with",
        "the later of twelve layers (Diffusion Lens, arXiv 2403.05846)",
        "three layers and 122 tokens: little is left to compose",
    ),
    Beside(
        "what the padding alone carries, of the way to the other picture",
        "text_padding_and_end",
        "padding: moved to B",
        "end and padding shape the layout (arXiv 2405.15330, 2501.06751)",
        "trained so that padding is silent; that of phantom-registers carries all",
    ),
    Beside(
        "SNR at the last timestep",
        "test_noise_schedule",
        "SNR at the last timestep",
        "0.0047 (arXiv 2305.08891)",
        "they do not: it is the same schedule",
    ),
    Beside(
        "a picture inverted and drawn at guidance 7.5, PSNR",
        "test_ddim_inversion",
        "guidance 7.5: 25 steps",
        "about 14 dB (arXiv 2211.09794; unverified)",
        "flat backgrounds come back by themselves",
    ),
    Beside(
        "the other prompt in the first step alone",
        "test_time_and_context",
        "the other prompt, step 1",
        "the first 10 of 25 steps are enough (T-GATE, arXiv 2404.02747)",
        "of the distance between two seeds, in runs of few steps",
    ),
    Beside(
        "layout read by a linear probe, IoU",
        "test_unet_features",
        "up_blocks.1: t = 20",
        "Dice 0.85 for what stands out, most of it by step 5 (arXiv 2306.05720)",
        "drawn things have sharper edges than photographed ones; an IoU of 0.74 is a Dice of 0.85",
    ),
    Beside(
        "heat map of a thing's word against its mask, IoU",
        "test_cross_attention",
        "IoU, own map",
        "0.59–0.65 (DAAM, on pictures judged by hand; ACL 2023)",
        "masks are exact here; DAAM's own pooling scores 0.36 on the phantom (README)",
    ),
    Beside(
        "a direction at scale 1, of the word's own way",
        "test_h_space",
        "at scale 1",
        "linear in its scale, carries over (arXiv 2210.10960; not SD)",
        "things of the phantom stand anywhere, and a direction is added everywhere",
    ),
    Beside(
        "the rest of the picture when a word is replaced",
        "text_prompt_to_prompt",
        "replace: outside",
        "stays as it was (arXiv 2208.01626)",
        "squares of the judge as masks",
    ),
)
