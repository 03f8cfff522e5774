"""Small real models of the families that mconv tells apart, built from their configs; vocabularies
keep their published sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf

TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SOUND = {
    **TEXT,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 4,
}
SOUND |= {"num_conv_pos_embedding_groups": 2, "num_feat_extract_layers": 2}
SEEN = {**TEXT, "image_size": 32, "patch_size": 8}


def _tokens() -> torch.Tensor:
    return torch.ones(1, 8, dtype=torch.long)


def _image(size: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _whisper() -> Any:
    config = tf.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
    )
    return tf.WhisperModel(config)


def _t5() -> Any:
    return tf.T5EncoderModel(tf.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2))


def _mobilenet() -> Any:
    return tf.MobileNetV2Model(tf.MobileNetV2Config(image_size=32, depth_multiplier=0.25))


def _efficientnet() -> Any:
    return tf.EfficientNetModel(
        tf.EfficientNetConfig(
            image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320
        )
    )


def _resnet() -> Any:
    return tf.ResNetModel(tf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2]))


class DenseLayer(torch.nn.Module):
    """Names and joins of torchvision's DenseNet."""

    def __init__(self, width: int, growth: int = 4) -> None:
        super().__init__()
        self.norm1, self.conv1 = (
            torch.nn.BatchNorm2d(width),
            torch.nn.Conv2d(width, 8, 1, bias=False),
        )
        self.norm2, self.conv2 = (
            torch.nn.BatchNorm2d(8),
            torch.nn.Conv2d(8, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(made)))], 1)


def _densenet() -> Any:
    layers = torch.nn.Sequential(*(DenseLayer(8 + 4 * i) for i in range(6)))
    for i, layer in enumerate(list(layers)):
        layers._modules[f"denselayer{i + 1}"] = layer
        del layers._modules[str(i)]
    features = torch.nn.Sequential()
    features.add_module("conv0", torch.nn.Conv2d(3, 8, 3, padding=1))
    features.add_module("denseblock1", layers)
    return torch.nn.ModuleDict({"features": features}).features


class First(torch.nn.Module):
    """One tensor in, the first tensor out."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        # else it looks for packed sequences
        masked = getattr(getattr(self.inner, "config", None), "model_type", "") == "gpt2"
        answer = self.inner(x, attention_mask=torch.ones_like(x)) if masked else self.inner(x)
        return answer if isinstance(answer, torch.Tensor) else answer[0]


# model type → (builds the module, an input)
FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[], torch.Tensor]]] = {
    "bert": (lambda: tf.BertModel(tf.BertConfig(**TEXT)), _tokens),
    "distilbert": (
        lambda: tf.DistilBertModel(
            tf.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32)
        ),
        _tokens,
    ),
    "roberta": (lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**TEXT, vocab_size=50265)), _tokens),
    "gpt2": (
        lambda: tf.GPT2Model(tf.GPT2Config(n_embd=16, n_layer=2, n_head=2, use_cache=False)),
        _tokens,
    ),
    "t5": (_t5, _tokens),
    "vit": (lambda: tf.ViTModel(tf.ViTConfig(**SEEN)), _image),
    "clip-vision": (lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**SEEN)), _image),
    "clip-text": (lambda: tf.CLIPTextModel(tf.CLIPTextConfig(**TEXT)), _tokens),
    "resnet": (_resnet, _image),
    "densenet": (_densenet, _image),
    "efficientnet": (_efficientnet, _image),
    "mobilenet": (_mobilenet, _image),
    "whisper-encoder": (lambda: _whisper().encoder, lambda: torch.zeros(1, 80, 3000)),
    "wav2vec2": (lambda: tf.Wav2Vec2Model(tf.Wav2Vec2Config(**SOUND)), lambda: torch.zeros(1, 400)),
    "hubert": (lambda: tf.HubertModel(tf.HubertConfig(**SOUND)), lambda: torch.zeros(1, 400)),
}
