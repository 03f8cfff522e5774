"""Model families as small real models: transformers' own classes and configs, seeded weights, saved as users have them.

What transformers lacks (DenseNet; torchvision is not needed for it) is written here as the paper has it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

SEED = 20260101
TEXT = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SOUND = {
    "vocab_size": 24, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": (16, 16, 16), "conv_stride": (10, 8, 4), "conv_kernel": (10, 8, 4), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}


class _DenseLayer(nn.Sequential):
    """BN-ReLU-Conv 1×1 to 4k, BN-ReLU-Conv 3×3 to k channels, joined to what came in."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, super().forward(x)], 1)


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al., 2017, arXiv:1608.06993): dense blocks, transitions of compression 0.5, 7×7 stem."""

    def __init__(self, growth: int = 8, blocks: tuple[int, ...] = (2, 2, 2), classes: int = 10) -> None:
        super().__init__()
        channels = 2 * growth
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        for index, count in enumerate(blocks):
            for _ in range(count):
                layers.append(_DenseLayer(channels, growth))
                channels += growth
            if index < len(blocks) - 1:
                layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.classifier = nn.Linear(channels, classes)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(pixel_values).mean((2, 3)))


def densenet() -> nn.Module:
    """The factory that models.yml names."""
    return DenseNet()


def _bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=3, **TEXT))


def _distilbert() -> Any:
    config = transformers.DistilBertConfig(vocab_size=96, dim=32, n_layers=2, n_heads=2, hidden_dim=64, num_labels=3)
    return transformers.DistilBertForSequenceClassification(config)


def _roberta() -> Any:
    config = transformers.RobertaConfig(max_position_embeddings=80, num_labels=3, pad_token_id=1, **TEXT)
    return transformers.RobertaForSequenceClassification(config)


def _talkative(model: Any, positions: tuple[str, ...], *, layers: float = 2.0, place: float = 1.0) -> Any:
    """Weights under which greedy tokens hang on history and position, and are far from ties: what a trained model's do.

    Fresh weights repeat one token for ever, whatever a cache holds; a generation check on those would prove nothing.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in positions):
                weight.normal_(0, place)
            elif weight.ndim == 2 and not any(part in name for part in ("shared", "embed", "wte", "lm_head", "proj_out")):
                weight.mul_(layers)
    return model


def _gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=96,
        n_positions=96,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return _talkative(transformers.GPT2LMHeadModel(config), ("wpe",))


def _t5() -> Any:
    config = transformers.T5Config(
        vocab_size=96, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0,
        tie_word_embeddings=False, initializer_factor=1.0,
    )  # fmt: skip
    return _talkative(transformers.T5ForConditionalGeneration(config), ("relative_attention_bias",), layers=4.0, place=4.0)


def _whisper() -> Any:
    config = transformers.WhisperConfig(
        vocab_size=96, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=16, max_source_positions=32, max_target_positions=64,
        decoder_start_token_id=2, init_std=0.3, tie_word_embeddings=False, **SPECIAL,
    )  # fmt: skip
    return _talkative(transformers.WhisperForConditionalGeneration(config), ("decoder.embed_positions",))


def _vit() -> Any:
    config = transformers.ViTConfig(
        image_size=32, patch_size=8, num_labels=5, **{k: v for k, v in TEXT.items() if k != "vocab_size"}
    )
    return transformers.ViTForImageClassification(config)


def _clip() -> Any:
    text = {**TEXT, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"image_size": 32, "patch_size": 8, **{k: v for k, v in TEXT.items() if k != "vocab_size"}}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def _resnet() -> Any:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="bottleneck", num_labels=5)
    return transformers.ResNetForImageClassification(config)


def _efficientnet() -> Any:
    config = transformers.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320, num_labels=5, kernel_sizes=[3, 3, 5],
        in_channels=[32, 16, 24], out_channels=[16, 24, 40], strides=[1, 2, 2], num_block_repeats=[1, 2, 2],
        expand_ratios=[1, 6, 6], depthwise_padding=[],
    )  # fmt: skip
    return transformers.EfficientNetForImageClassification(config)


def _mobilenet() -> Any:
    config = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.25, output_stride=32, num_labels=5)
    return transformers.MobileNetV2ForImageClassification(config)


def _wav2vec2() -> Any:
    return transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SOUND))


def _hubert() -> Any:
    return transformers.HubertForCTC(transformers.HubertConfig(**SOUND))


# name → (the family as people call it, how it is built, the source's options)
FAMILIES: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "bert": ("BERT", _bert, {}),
    "distilbert": ("DistilBERT", _distilbert, {}),
    "roberta": ("RoBERTa", _roberta, {}),
    "gpt2": ("GPT-2", _gpt2, {}),
    "gpt2-cache": ("GPT-2 with KV cache", _gpt2, {"cache": True}),
    "t5": ("T5 (encoder, decoder, decoder with past)", _t5, {}),
    "vit": ("ViT", _vit, {}),
    "clip-vision": ("CLIP, vision", _clip, {"parts": ["vision"]}),
    "clip-text": ("CLIP, text", _clip, {"parts": ["text"]}),
    "clip": ("CLIP, both", _clip, {}),
    "resnet": ("ResNet", _resnet, {}),
    "densenet": ("DenseNet", densenet, {"format": "pytorch", "factory": "family_models:densenet"}),
    "efficientnet": ("EfficientNet", _efficientnet, {}),
    "mobilenet": ("MobileNetV2", _mobilenet, {}),
    "whisper": ("Whisper (encoder, decoder, decoder with past)", _whisper, {}),
    "wav2vec2": ("Wav2Vec2", _wav2vec2, {}),
    "hubert": ("HuBERT", _hubert, {}),
}


def write(name: str, folder: Path) -> dict[str, Any]:
    """Save the family's model under ``folder``; returns its entry for models.yml, without targets. Same bytes every time."""
    _, make, options = FAMILIES[name]
    torch.manual_seed(SEED)
    model = make().eval()
    for module in model.modules():  # batch statistics of a trained model, not zeros and ones
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if options.get("format") != "pytorch":
        model.save_pretrained(folder / name)
        return {"name": name, "source": {"format": "huggingface", "path": name, **options}}
    torch.save(model.state_dict(), folder / f"{name}.pt")
    (folder / "family_models.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    shape = {"pixel_values": {"shape": ["batch", 3, 32, 32], "dtype": "float32"}}
    return {"name": name, "source": {"path": f"{name}.pt", **options}, "inputs": shape}
