"""Model types by config, by names, and by structure alone, on real modules and their exports with
every name taken away."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from mconv import registry
from mconv.discovery import architecture
from mconv.values import Facts
from tests.families import FAMILIES, First

pytestmark = pytest.mark.filterwarnings("ignore")
ALIKE = {"hubert": "wav2vec2"}  # of the same names and shapes where the task's prefix is missing


@pytest.mark.parametrize("name", FAMILIES)
def test_by_names_and_by_structure(name: str, tmp_path: Path) -> None:
    build, given = FAMILIES[name]
    torch.manual_seed(0)
    module = build().eval()
    expected = ALIKE.get(name, name)
    assert architecture.guess_from_names(module.state_dict()) == expected
    file = tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(First(module), (given(),), str(file), dynamo=False, opset_version=17)
    facts = registry.formats()["onnx"].inspect(file)
    told = architecture.guess_architecture(facts)
    assert told is not None
    assert told.model_type == expected
    shapes = {str(i): shape for i, shape in enumerate(facts.tensors.values())}
    nameless = architecture.guess_architecture(
        Facts(kind="model", operators=facts.operators, tensors=shapes)
    )
    assert nameless == (expected, "structure")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "bert"),
        ({"architectures": ["Swin2SRModel"]}, "Swin2SRModel"),
        ({"class": "sklearn.ensemble._forest.RandomForestClassifier"}, "RandomForestClassifier"),
        ({"model_type": 3, "architectures": []}, None),
        ({}, None),
    ],
)
def test_by_config(config: dict[str, object], expected: str | None) -> None:
    assert architecture.guess_from_config(config) == expected


def test_a_prefix_tells_hubert_from_wav2vec2() -> None:
    names = [
        "hubert.feature_extractor.conv_layers.0.conv.weight",
        "hubert.feature_projection.projection.weight",
    ]
    assert architecture.guess_from_names(names) == "hubert"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["model.encoder.conv1.weight", "model.decoder.layers.0.encoder_attn.q_proj.weight"],
            "whisper",
        ),
        (["layer1.0.conv1.weight", "layer1.0.bn1.weight", "fc.weight"], "resnet"),  # torchvision
        (["features.1.conv.0.0.weight", "classifier.1.weight"], "mobilenet"),  # torchvision
        (["features.denseblock1.denselayer1.conv1.weight"], "densenet"),  # torchvision
        (["block1a_dwconv/kernel", "block1a_se_reduce/kernel"], "efficientnet"),  # Keras
        (
            [
                "vision_model.encoder.layers.0.mlp.fc1.weight",
                "text_model.encoder.layers.0.mlp.fc1.weight",
            ],
            "clip",
        ),
        (
            [
                "model.layers.0.self_attn.q_proj.weight",
                "model.layers.0.mlp.gate_proj.weight",
                "input_layernorm.weight",
            ],
            "llama",
        ),
        (["0.weight", "0.bias"], None),
    ],
)
def test_names_of_other_libraries(names: list[str], expected: str | None) -> None:
    assert (
        architecture.guess_from_names(
            [n.replace("input_layernorm", "model.layers.0.input_layernorm") for n in names]
        )
        == expected
    )


def test_a_plain_classifier_is_called_nothing() -> None:
    assert architecture.guess_from_structure({"Gemm": 3, "Relu": 2}, {"w": (8, 4)}) is None
    assert (
        architecture.guess_from_structure({"Conv": 4, "Relu": 3}, {"w": (8, 3, 3, 3)})
        == "convolutional"
    )
