"""The native WebNN generator in a real browser: ONNX's node tests, models against torch, quantized
weights, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mconv.targets._webnn import emit
from tests.browser import webnn_node_tests
from tests.browser.page import Page, PageError, find_browser, open_page
from tests.models import convolution, linear

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def page(root: Path) -> Iterator[Page]:
    with open_page(root, find_browser()) as opened:
        yield opened


def answer(
    page: Page, folder: Path, model: Path, feeds: dict[str, np.ndarray], **dims: int
) -> dict[str, np.ndarray]:
    folder.mkdir(exist_ok=True)
    return page.run(folder, feeds, emit(model, folder, dims=dims, precision="test"))


def reference(model: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """onnxruntime without its fusions: with them, dequantized products are computed on quantized
    activations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(onnxruntime.InferenceSession(str(model), options).run(None, feeds))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.mark.parametrize(
    ("every", "most"),
    [pytest.param(8, 125, id="a sample"), pytest.param(1, 1000, id="all", marks=pytest.mark.full)],
)
def test_onnx_node_cases(every: int, most: int) -> None:
    """No case is wrong, and most of what is claimed passes (1052 of all when written)."""
    outcomes = webnn_node_tests.run_all(browser=find_browser(), every=every)
    total = Counter(o.status for o in outcomes)
    assert [f"{o.case}: {o.detail}" for o in outcomes if o.status == "wrong"] == []
    assert total["passed"] > most


@pytest.mark.parametrize("build", [linear, convolution])
def test_small_models(page: Page, root: Path, tmp_path: Path, build: object) -> None:
    assert callable(build)
    path = tmp_path / "model.onnx"
    path.write_bytes(build().SerializeToString())
    name, shape = ("x", (2, 8)) if build is linear else ("image", (2, 3, 8, 8))
    feeds = {name: np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    (got,) = answer(page, root / build.__name__, path, feeds, batch=2).values()
    assert np.abs(got - reference(path, feeds)[0]).max() < 1e-5


def torch_model(kind: str, path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Export a small seeded model of transformers; gives its inputs and torch's own answer."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            vocab_size=200,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
        )
        net, names = BertModel(config), ["input_ids", "attention_mask"]
        mask = torch.ones(2, 16, dtype=torch.int64)
        mask[1, 9:] = 0
        inputs = (torch.randint(0, 200, (2, 16)), mask)
    elif kind == "vit":
        config = ViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=32,
            patch_size=8,
        )
        net, names, inputs = (
            ViTForImageClassification(config),
            ["pixel_values"],
            (torch.randn(1, 3, 32, 32),),
        )
    else:
        config = ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 48, 64],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            num_labels=10,
        )
        net, names, inputs = (
            ResNetForImageClassification(config),
            ["pixel_values"],
            (torch.randn(1, 3, 64, 64),),
        )
    net.eval()

    with torch.no_grad():
        want = net(**dict(zip(names, inputs, strict=True)))[0].numpy()
    export(net, names, inputs, path)
    return {n: t.numpy() for n, t in zip(names, inputs, strict=True)}, want


def export(net: Any, names: list[str], inputs: tuple[Any, ...], path: Path) -> None:
    """The first output of a model of transformers, as ONNX."""
    import torch

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, *tensors: torch.Tensor) -> Any:
            return self.net(**dict(zip(names, tensors, strict=True)))[0]

    torch.onnx.export(
        First().eval(),
        inputs,
        str(path),
        input_names=names,
        output_names=["out"],
        dynamo=False,
        opset_version=17,
    )


@pytest.mark.parametrize("kind", ["bert", "vit", "resnet"])
def test_transformers_against_torch(page: Page, root: Path, tmp_path: Path, kind: str) -> None:
    feeds, want = torch_model(kind, tmp_path / "model.onnx")
    got = answer(page, root / kind, tmp_path / "model.onnx", feeds)["out"]
    assert got.shape == want.shape
    assert cosine(got, want) > 0.99999
    assert np.abs(got - want).max() < 1e-4
    assert not any("ort" in url or url.endswith(".wasm") for url in page.requests)


def test_minilm_against_torch(page: Page, root: Path, tmp_path: Path, examples: Path) -> None:
    """The acceptance of the native flavour: cosine at least 0.9999 in fp32, and no file of a
    runtime is loaded."""
    import torch
    from transformers import AutoModel

    net = AutoModel.from_pretrained(
        examples / "minilm" / "model", attn_implementation="eager"
    ).eval()
    ids = torch.randint(1000, 20000, (1, 32), generator=torch.Generator().manual_seed(0))
    inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with torch.no_grad():
        want = net(**dict(zip(names, inputs, strict=True)))[0].numpy()
    path = tmp_path / "model.onnx"
    export(net, names, inputs, path)
    feeds = {n: t.numpy() for n, t in zip(names, inputs, strict=True)}
    del page.requests[:]
    got = answer(page, root / "minilm", path, feeds)["out"]
    assert cosine(got, want) >= 0.9999
    assert {url.split("/")[-1].split("?")[0] for url in page.requests} <= {
        "",
        "runtime.mjs",
        "graph.mjs",
        "weights.bin",
    }


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nbit_weights(page: Page, root: Path, tmp_path: Path, bits: int) -> None:
    """MatMulNBits with zero points, over two blocks and over one (which the browser wants as a
    scale a row)."""
    rng = np.random.default_rng(bits)
    for block in (32, 64):
        blocks, path = 64 // block, tmp_path / "model.onnx"
        tensors = [
            numpy_helper.from_array(
                rng.integers(0, 256, (6, blocks, block * bits // 8), dtype=np.uint8), "w"
            ),
            numpy_helper.from_array(rng.random((6, blocks)).astype(np.float32), "s"),
            numpy_helper.from_array(
                rng.integers(0, 256, (6, (blocks * bits + 7) // 8), dtype=np.uint8), "z"
            ),
        ]
        attributes = {"N": 6, "K": 64, "bits": bits, "block_size": block}
        node = helper.make_node(
            "MatMulNBits", ["x", "w", "s", "z"], ["y"], domain="com.microsoft", **attributes
        )
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 64])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3, 6])],
            tensors,
        )
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        path.write_bytes(
            helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
        )
        feeds = {"x": rng.standard_normal((3, 64)).astype(np.float32)}
        got = answer(page, root / f"n{bits}b{block}", path, feeds)["y"]
        want = reference(path, feeds)[0]
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize(
    "kind", [onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.INT8]
)
def test_rows_of_a_quantized_table(page: Page, root: Path, tmp_path: Path, kind: int) -> None:
    rng = np.random.default_rng(kind)
    low, high = {
        onnx.TensorProto.INT4: (-8, 8),
        onnx.TensorProto.UINT4: (0, 16),
        onnx.TensorProto.INT8: (-128, 128),
    }[kind]
    tensors = [
        helper.make_tensor("w", kind, [20, 64], rng.integers(low, high, 20 * 64).tolist()),
        helper.make_tensor("z", kind, [20, 2], rng.integers(low, high, 40).tolist()),
        numpy_helper.from_array(rng.random((20, 2)).astype(np.float32), "s"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=1, block_size=32),
        helper.make_node("Gather", ["f", "i"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [2, 3])]
    graph = helper.make_graph(nodes, "g", inputs, [onnx.ValueInfoProto(name="y")], tensors)
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
        ).SerializeToString()
    )
    feeds = {"i": np.array([[0, 19, 7], [-1, 5, 5]])}
    assert np.array_equal(
        answer(page, root / f"rows{kind}", path, feeds)["y"], reference(path, feeds)[0]
    )


def test_transposed_weights_with_a_scale_for_each_row(
    page: Page, root: Path, tmp_path: Path
) -> None:
    """The browser cannot compile them as they are; the weight is transposed when the graph is
    written. A 1-D Conv too."""
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.integers(-127, 128, (6, 12)).astype(np.int8), "w"),
        numpy_helper.from_array(rng.random(6).astype(np.float32), "s"),
        numpy_helper.from_array(rng.integers(-127, 128, (6, 3, 5)).astype(np.int8), "k"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=0),
        helper.make_node("Transpose", ["f"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
        helper.make_node("DequantizeLinear", ["k", "s"], ["g"], axis=0),
        helper.make_node("Conv", ["x", "g"], ["z"]),
    ]
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 12])]
    graph = helper.make_graph(
        nodes, "g", inputs, [onnx.ValueInfoProto(name="y"), onnx.ValueInfoProto(name="z")], tensors
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9
        ).SerializeToString()
    )
    feeds = {"x": rng.standard_normal((2, 3, 12)).astype(np.float32)}
    got = answer(page, root / "rows", path, feeds)
    for have, want in zip(got.values(), reference(path, feeds), strict=True):
        assert np.abs(have - want).max() < 1e-4 * np.abs(want).max()


# operator -> attributes, shapes of float inputs (None: left out; a tuple of one dtype and shape: a
# mask)
FUSED = {
    "Attention": ({"num_heads": 2}, [(2, 5, 8), (8, 24), (24,), ("mask", 2, 5)]),
    "BiasGelu": ({}, [(2, 3, 8), (8,)]),
    "FastGelu": ({}, [(2, 3, 8), (8,)]),
    "FusedMatMul": ({"alpha": 0.5, "transB": 1}, [(2, 3, 8), (2, 4, 8)]),
    "Gelu": ({}, [(3, 8)]),
    "MultiHeadAttention": (
        {"num_heads": 2},
        [(2, 5, 8), (2, 7, 8), (2, 7, 8), (24,), ("mask", 2, 7)],
    ),
    "QuickGelu": ({"alpha": 1.5}, [(3, 8)]),
    "SkipLayerNormalization": ({"epsilon": 1e-5}, [(2, 3, 8), (2, 3, 8), (8,), (8,), (8,)]),
}


@pytest.mark.parametrize("op", sorted(FUSED))
def test_fused_operators_of_onnxruntime(page: Page, root: Path, tmp_path: Path, op: str) -> None:
    rng = np.random.default_rng(0)
    attributes, shapes = FUSED[op]
    feeds: dict[str, np.ndarray] = {}
    inputs = []
    for i, shape in enumerate(shapes):
        masked = shape[0] == "mask"
        size = shape[1:] if masked else shape
        array = (
            np.tril(np.ones(size)).astype(np.int32)
            if masked
            else rng.standard_normal(size).astype(np.float32)
        )
        feeds[f"x{i}"] = array
        kind = onnx.TensorProto.INT32 if masked else onnx.TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(f"x{i}", kind, size))
    node = helper.make_node(op, list(feeds), ["y"], domain="com.microsoft", **attributes)
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    )
    got = answer(page, root / op, path, feeds)["y"]
    assert np.allclose(got, reference(path, feeds)[0], atol=5e-6)


def test_truncated_weights_are_refused(page: Page, root: Path, tmp_path: Path) -> None:
    path, folder = tmp_path / "model.onnx", root / "truncated"
    path.write_bytes(linear().SerializeToString())
    folder.mkdir()
    result = emit(path, folder, dims={"batch": 1}, precision="fp32")
    data = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(data[:-64])
    with pytest.raises(PageError, match="truncated or of another model"):
        page.run(folder, {"x": np.zeros((1, 8), np.float32)}, result)


def test_a_wrong_input_is_refused(page: Page, root: Path, tmp_path: Path) -> None:
    path, folder = tmp_path / "model.onnx", root / "wrong"
    path.write_bytes(linear().SerializeToString())
    folder.mkdir()
    result = emit(path, folder, dims={"batch": 1}, precision="fp32")
    with pytest.raises(PageError, match="'x' must be Float32Array of 8 elements"):
        page.run(folder, {"x": np.zeros((2, 8), np.float32)}, result)
