"""The CLIP text encoder: token ids → context. Radford et al., arXiv 2103.00020, section 2.4."""

import keras
import numpy as np
from keras import ops

from .attention import Attention
from .config import CLIPTextConfig
from .layers import Block, Network, Tap, build

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def quick_gelu(x):
    """x · sigmoid(1.702 x). Hendrycks & Gimpel, arXiv 1606.08415, section 2."""
    return x * ops.sigmoid(1.702 * x)


class Embeddings(Block):
    """The vector of each token plus the vector of its position."""

    def __init__(self, config: CLIPTextConfig, **options):
        super().__init__(**options)
        size, length = config.hidden_size, config.max_position_embeddings
        self.token_embedding = keras.layers.Embedding(
            config.vocab_size, size, name="token_embedding"
        )
        self.position_embedding = keras.layers.Embedding(length, size, name="position_embedding")

    def call(self, ids):  # (b, n)
        positions = self.position_embedding(np.arange(ids.shape[1], dtype="int32"))  # (n, c)
        return self.token_embedding(ids) + positions  # (b, n, c)


class MLP(Block):
    """Wider, quick GELU, and back."""

    def __init__(self, width: int, inner: int, **options):
        super().__init__(**options)
        self.fc1 = keras.layers.Dense(inner, name="fc1")
        self.activation = Tap(name="activation")
        self.fc2 = keras.layers.Dense(width, name="fc2")

    def call(self, x):
        return self.fc2(self.activation(quick_gelu(self.fc1(x))))


class EncoderLayer(Block):
    """Causal self-attention and MLP, each after a LayerNorm and added to what came in."""

    def __init__(self, config: CLIPTextConfig, **options):
        super().__init__(**options)
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.layer_norm1 = keras.layers.LayerNormalization(epsilon=epsilon, name="layer_norm1")
        self.self_attn = Attention(
            width, config.num_attention_heads, bias=True, names=PROJECTIONS, name="self_attn"
        )
        self.after_attn = Tap(name="after_attn")
        self.layer_norm2 = keras.layers.LayerNormalization(epsilon=epsilon, name="layer_norm2")
        self.mlp = MLP(width, config.intermediate_size, name="mlp")

    def call(self, x):  # (b, n, c)
        n = x.shape[1]
        later = np.triu(np.full((n, n), -np.inf, np.float32), k=1)  # no token sees a later one
        x = self.after_attn(x + self.self_attn(self.layer_norm1(x), offset=later))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(Block):
    def __init__(self, config: CLIPTextConfig, **options):
        super().__init__(**options)
        self.layers = [
            EncoderLayer(config, name=f"layers-{i}") for i in range(config.num_hidden_layers)
        ]

    def call(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class TextModel(Block):
    def __init__(self, config: CLIPTextConfig, **options):
        super().__init__(**options)
        self.embeddings = Embeddings(config, name="embeddings")
        self.encoder = Encoder(config, name="encoder")
        self.final_layer_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_eps, name="final_layer_norm"
        )

    def call(self, ids):
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))


class CLIPText(Network):
    """Token ids (b, 77) → context (b, 77, width), the last hidden state after its norm."""

    def __init__(self, config: CLIPTextConfig, name: str = "text_encoder"):
        super().__init__(name=name)
        self.text_model = TextModel(config, name="text_model")

    def call(self, ids):
        return self.text_model(ids)


def build_clip(config: CLIPTextConfig) -> CLIPText:
    ids = keras.KerasTensor((1, config.max_position_embeddings), dtype="int32")
    return build(CLIPText(config), ids)
