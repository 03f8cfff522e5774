"""The architecture of a model: from its config, its parameters' names, or operators and shapes.

What is returned is the ``model_type`` that Hugging Face configs use. Names are those of
transformers, torchvision, timm and Keras; shapes are the marks that survive an export which renames
everything: vocabularies, patch and frame convolutions, how paths join.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from mconv.values import Facts

Evidence = Literal["config", "names", "structure"]


class Guess(NamedTuple):
    """A model type, and how it is known.

    Attributes:
        model_type: The type, as Hugging Face configs call it.
        evidence: What it was told by.
    """

    model_type: str
    evidence: Evidence


def guess_architecture(facts: Facts) -> Guess | None:
    """Return the model type of a file, or None where nothing tells it."""
    if model_type := guess_from_config(facts.config):
        return Guess(model_type, "config")
    if model_type := guess_from_names([*facts.tensors, *facts.names]):
        return Guess(model_type, "names")
    model_type = guess_from_structure(facts.operators, facts.tensors)
    return Guess(model_type, "structure") if model_type else None


def guess_from_config(config: Mapping[str, object]) -> str | None:
    """Return ``model_type`` of a config, else the first architecture's or class's name, or None."""
    for key in ("model_type", "architectures", "class"):
        value = config.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, str) and value:
            return value.rpartition(".")[2] if key == "class" else value
    return None


# (model type, patterns that must all be there, patterns that must not); the first that fits. "." is
# one step of a path.
_NAMES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("whisper", (r"encoder\.conv[12]\b", r"decoder\.layers\.\d+\.encoder_attn\b"), ()),
    (
        "whisper-encoder",
        (r"\bconv1\b", r"\bconv2\b", r"layers\.\d+\.self_attn\.k_proj\b", r"embed_positions"),
        (r"encoder_attn",),
    ),
    ("hubert", (r"\bhubert\.", r"feature_extractor\.conv_layers\.\d"), ()),
    ("wav2vec2", (r"feature_extractor\.conv_layers\.\d", r"feature_projection\."), ()),
    ("clip", (r"vision_model\.", r"text_model\."), ()),
    (
        "clip-vision",
        (r"(patch_embedding\b|pre_layrnorm)", r"encoder\.layers\.\d+\.self_attn\.q_proj"),
        (r"token_embedding",),
    ),
    (
        "clip-text",
        (r"token_embedding\b", r"encoder\.layers\.\d+\.self_attn\.q_proj"),
        (r"patch_embedding",),
    ),
    (
        "vit",
        (
            r"(patch_embeddings\.projection|patch_embed\.proj|conv_proj)",
            r"(attention\.|self_attention|attn\.)",
        ),
        (),
    ),
    ("t5", (r"layer\.\d+\.SelfAttention\.q\b",), ()),
    ("distilbert", (r"transformer\.layer\.\d+\.attention\.q_lin\b",), ()),
    ("gpt2", (r"\bh\.\d+\.attn\.c_attn\b", r"\bwpe\b|\bh\.\d+\.mlp\.c_fc\b"), ()),
    ("roberta", (r"\broberta\.encoder\.layer\.\d+\.attention\.self\.query\b",), ()),
    (
        "bert",
        (
            r"layer\.\d+\.attention\.self\.query\b",
            r"token_type_embeddings|\bbert\.|embeddings\.word_embeddings",
        ),
        (),
    ),
    (
        "llama",
        (
            r"layers\.\d+\.self_attn\.q_proj\b",
            r"layers\.\d+\.mlp\.gate_proj\b",
            r"input_layernorm\b",
        ),
        (),
    ),
    ("densenet", (r"denseblock\d\.denselayer\d|conv\d_block\d+_concat",), ()),
    (
        "efficientnet",
        (r"depthwise_conv|block\d+[a-z]_dwconv|blocks\.\d\.\d\.conv_dw", r"\bse\b|squeeze|_se_"),
        (),
    ),
    (
        "efficientnet",
        (r"features\.\d+\.\d+\.block\.\d+\.(fc1|avgpool)", r"features\.\d+\.\d+\.block\.\d+\.0"),
        (r"conv\.0\.0",),
    ),
    (
        "mobilenet",
        (r"mobilenet|layer\.\d+\.(expand_1x1|conv_3x3)\b|expanded_conv_\d+_depthwise|conv_dw_\d+",),
        (),
    ),
    ("mobilenet", (r"features\.\d+\.conv\.\d\.\d|block_\d+_depthwise",), ()),
    (
        "resnet",
        (
            r"(layer1\.0\.conv1|encoder\.stages\.0\.layers\.0\.layer\.0|"
            r"conv2_block1_1_conv|\bresnet\.)",
        ),
        (),
    ),
)
_COMPILED = tuple(
    (n, tuple(map(re.compile, yes)), tuple(map(re.compile, no))) for n, yes, no in _NAMES
)


def guess_from_names(names: Iterable[str]) -> str | None:
    """Return the model type by parameter and layer names, or None.

    ``/`` and ``.`` part their steps alike.
    """
    text = "\n".join(dict.fromkeys(n.replace("/", ".") for n in names))
    for name, yes, no in _COMPILED:
        if all(p.search(text) for p in yes) and not any(p.search(text) for p in no):
            return name
    return None


# Rows of an embedding table that only one family has, from the published checkpoints' configs.
VOCABULARIES = {
    **dict.fromkeys((30522, 28996, 30000, 119547, 105879), "bert"),
    **dict.fromkeys((50265, 250002), "roberta"),
    **dict.fromkeys((50257, 50258), "gpt2"),
    **dict.fromkeys((51864, 51865, 51866), "whisper-decoder"),
    **dict.fromkeys((32128, 250112), "t5"),
    49408: "clip-text",
}


def guess_from_structure(
    operators: Mapping[str, int], tensors: Mapping[str, tuple[int, ...]]
) -> str | None:
    """Return the model type by what no export renames, or None.

    Weights of a convolution have the shape [out, in / groups, …] in ONNX and [out, height, width,
    in] in TFLite.
    """
    short: Counter[str] = Counter()
    for name, count in operators.items():
        short[name.rpartition(".")[2].lower().replace("_", "")] += count
    shapes = set(tensors.values())
    attends = short["softmax"] + short["attention"] + short["multiheadattention"] >= 1 and (
        short["matmul"]
        + short["batchmatmul"]
        + short["attention"]
        + short["multiheadattention"]
        + short["gemm"]
        > 0
    )
    if attends:
        return _transformer(short, shapes)
    if short["conv"] + short["conv2d"] + short["fusedconv"] >= 3:
        return _network(short, tensors)
    if short["lstm"] or short["gru"] or short["rnn"]:
        return "recurrent"
    return None


def _transformer(short: Counter[str], shapes: set[tuple[int, ...]]) -> str | None:
    """Return the model type of a graph with attention, or None."""
    if any(s[1:] == (1, 10) and len(s) == 3 for s in shapes):
        # or HuBERT: a first convolution of ten samples of sound; the two differ by name only
        return "wav2vec2"
    if any(len(s) == 3 and s[1] in (80, 128) and s[2] == 3 for s in shapes) and short["conv"] == 2:
        return "whisper-encoder"  # two convolutions of three frames over the mel bands
    if (
        any(len(s) == 4 and s[1] == 3 and s[2] == s[3] and s[2] >= 8 for s in shapes)
        and short["conv"] == 1
    ):
        # a patch at a time; CLIP's GELU is x·σ(1.702x)
        return "clip-vision" if short["sigmoid"] and not short["erf"] else "vit"
    for shape in sorted(shapes):
        if len(shape) == 2 and shape[0] > shape[1] and (known := VOCABULARIES.get(shape[0])):
            if known == "bert" and (2, shape[1]) not in shapes:
                return "distilbert"  # no table of the two segments
            return known
    return "transformer" if short["gather"] and short["matmul"] >= 4 else None


def _network(short: Counter[str], tensors: Mapping[str, tuple[int, ...]]) -> str:
    """Return the model type of a graph of convolutions."""
    convolutions = short["conv"] + short["conv2d"] + short["depthwiseconv2d"]
    depthwise = short["depthwiseconv2d"] + sum(
        len(s) == 4 and s[1] == 1 and s[0] > 1 and s[2] == s[3] > 1 for s in tensors.values()
    )
    if (
        depthwise < 3
        and short["concat"] + short["concatenation"] >= convolutions / 3 >= 3
        and short["add"] < convolutions / 3
    ):
        return "densenet"
    if depthwise >= 3:
        squeezed = short["globalaveragepool"] + short["reducemean"] + short["mean"] > 2
        swish = short["sigmoid"] + short["logistic"] + short["swish"] >= depthwise
        return "efficientnet" if swish and squeezed else "mobilenet"
    if short["add"] >= 2 and short["relu"] >= short["add"] >= convolutions / 5:
        return "resnet"
    return "convolutional"
