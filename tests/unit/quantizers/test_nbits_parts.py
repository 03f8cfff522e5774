"""nbits, part by part: which layers there are, where their tensors go, what stands in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mconv.errors import StepError, UsageError
from mconv.onnx_graph.serialization import is_in_memory
from mconv.quantizers._nbits import activations as activations_module
from mconv.quantizers._nbits import loading, unpacking
from mconv.quantizers._nbits.activations import (
    Activations,
    count_needed,
    expose_layers,
    relative_error,
)
from mconv.quantizers._nbits.awq import scale_products
from mconv.quantizers._nbits.grid import fit_grid, split_blocks
from mconv.quantizers._nbits.layers import Layer, find_layers
from mconv.quantizers._nbits.replacement import RoundedLayer, replace_layer
from mconv.quantizers._nbits.rounding import Rounder
from mconv.quantizers._nbits.settings import Settings
from mconv.quantizers._nbits.storage import ALIGNMENT, LayerBuilder, PackedTensors
from mconv.quantizers._nbits.widths import choose_widths
from tests.unit.quantizers.graphs import (
    CASES,
    INT64,
    answer,
    body,
    feeds_of,
    model,
    node,
    tensor,
    value,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")
X, Y = value("x", ["b", 32]), value("y", ["b", 32])
FEED = {"x": weights(4, 32, seed=9)}


def graph_of(nodes: list[Any], tensors: list[Any], outputs: list[Any] | None = None) -> ir.Model:
    """A model from x [b, 32] to y [b, 32]."""
    return ir.from_proto(model(nodes, [X], outputs or [Y], tensors))


def two_products() -> ir.Model:
    """Two MatMul in a row, with weights W and V."""
    return graph_of(
        [node("MatMul", "x W", "h", name="first"), node("MatMul", "h V", "y", name="second")],
        [tensor("W", weights(32, 32)), tensor("V", weights(32, 32, seed=1))],
    )


def round_to(layer: Layer, array: np.ndarray, bits: int, block: int = 16) -> RoundedLayer:
    """A layer rounded to the nearest."""
    matrix = layer.to_matrix(array)
    grid = fit_grid(matrix, bits, block)
    return RoundedLayer(layer, grid.encode(matrix), grid)


# layers


def test_weights_that_more_than_nodes_of_the_graph_read_are_no_layers() -> None:
    then = body("t", [node("MatMul", "x W", "a")], [], [value("a", ["b", 32])])
    otherwise = body("e", [node("Neg", "h", "c")], [], [value("c", ["b", 32])])
    graph = graph_of(
        [
            node("MatMul", "x W", "h0"),
            node("MatMul", "h0 U", "h1"),
            node("MatMul", "h1 V", "h"),
            node("If", "q", "y", then_branch=then, else_branch=otherwise),
        ],
        [
            tensor("W", weights(32, 32)),
            tensor("U", weights(32, 32)),
            tensor("V", weights(32, 32)),
            tensor("q", True, "?"),
        ],
        [Y, value("U", [32, 32])],
    )
    assert [layer.name for layer in find_layers(graph)] == ["V"]


def test_a_weight_that_a_node_takes_as_floats_only_is_no_layer() -> None:
    nodes = [node("MatMul", "x W", "h"), node("Add", "h W", "y")]
    graph = graph_of(nodes, [tensor("W", weights(32, 32))], [value("y", [32, 32])])
    assert find_layers(graph, refuse=False) == []
    graph = graph_of([node("MatMul", "x W", "y")], [tensor("W", weights(32, 32))])
    assert [layer.name for layer in find_layers(graph)] == ["W"]


@pytest.mark.parametrize(
    ("case", "kind", "transposed"),
    [
        ("gemm", "product", True),
        ("gemm-without-bias", "product", False),
        ("gemm-scaled", "folded", False),
        ("gemm-shared-both-ways", "folded", False),
        ("conv", "folded", False),
        ("lstm", "folded", False),
    ],
)
def test_the_kind_of_a_layer_follows_from_its_readers(
    case: str, kind: str, transposed: bool
) -> None:
    layer = find_layers(ir.from_proto(CASES[case]))[0]
    assert (layer.kind, layer.transposed) == (kind, transposed)
    array = np.arange(layer.elements, dtype=np.float32).reshape(layer.shape)
    assert layer.to_matrix(array).shape == (layer.rows, layer.columns)
    np.testing.assert_array_equal(layer.from_matrix(layer.to_matrix(array)), array)


def test_blocks_are_halved_until_they_divide_a_table_s_row() -> None:
    table, product = Layer("t", "table", (50, 24), False), Layer("p", "product", (24, 50), True)
    assert Settings().block_of(table, 4) == 16  # the least there is
    assert Settings(block_size=64).block_of(Layer("t", "table", (8, 96), False), 4) == 32
    assert Settings().block_of(product, 4) == 16
    assert Settings().block_of(product, 8) == 128
    assert Settings(block_size=64).block_of(product, 8) == 64


# loading


def test_a_model_is_loaded_with_its_constants_as_initializers_and_its_data_in_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = model(
        [
            node("Constant", "", "C", value=tensor("c", weights(32, 32))),
            node("MatMul", "x C", "h"),
            node("MatMul", "h W", "y"),
        ],
        [X],
        [Y],
        [tensor("W", weights(32, 32))],
        opset=13,
    )
    path = tmp_path / "in.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, size_threshold=0, location="d")
    size = path.stat().st_size + 32 * 32 * 4  # W; the constant is in the file itself
    for limit, is_large in ((size, False), (size - 1, True)):
        monkeypatch.setattr(loading, "LARGE", limit)
        loaded = loading.load_model(path)
        assert loaded.is_large == is_large
        assert loaded.model.opset_imports[""] == loading.OPSET
        held = loaded.model.graph.initializers
        assert {"C", "W"} <= set(held)
        assert not is_in_memory(held["W"].const_value)  # type: ignore[arg-type]


# activations


def test_layers_are_exposed_in_a_copy() -> None:
    graph = two_products()
    exposed = expose_layers(graph, find_layers(graph))
    assert [each.name for each in exposed.graph.inputs] == ["x", "W", "V"]
    assert [each.name for each in exposed.graph.outputs] == ["y", "h"]
    assert not exposed.graph.initializers
    assert set(graph.graph.initializers) == {"W", "V"}
    assert [each.name for each in graph.graph.inputs] == ["x"]


def test_moments_and_magnitudes_are_those_of_what_products_read() -> None:
    graph = two_products()
    measured = Activations(graph, find_layers(graph), [FEED])
    hidden = FEED["x"] @ weights(32, 32)
    np.testing.assert_allclose(measured.measure_magnitude("h"), np.abs(hidden).mean(0), rtol=1e-5)
    own, both = measured.measure_moments("h", {"W": 2 * weights(32, 32)})
    wide = hidden.astype(np.float64)
    np.testing.assert_allclose(own, 4 * wide.T @ wide / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both, 2 * wide.T @ wide / 4, rtol=1e-4, atol=1e-6)
    (answers,) = measured.answer_feeds({})
    np.testing.assert_allclose(answers[0], hidden @ weights(32, 32, seed=1), rtol=1e-4, atol=1e-5)


def test_samples_of_one_shape_are_run_together_and_padding_is_left_out() -> None:
    graph = ir.from_proto(
        model(
            [
                node("Gather", "E ids", "e"),
                node("Cast", "attention_mask", "m", to=1),
                node("Unsqueeze", "m one", "m1"),
                node("Mul", "e m1", "h"),
                node("MatMul", "h W", "y"),
            ],
            [value("ids", ["b", "s"], INT64), value("attention_mask", ["b", "s"], INT64)],
            [value("y", ["b", "s", 32])],
            [
                tensor("E", np.ones((64, 32))),
                tensor("W", weights(32, 32)),
                tensor("one", [2], "i8"),
            ],
        )
    )
    feeds = [
        {"ids": np.array([[1, 2, 3]]), "attention_mask": np.array([[1, 1, 0]])},
        {"ids": np.array([[4, 5, 6]]), "attention_mask": np.array([[1, 0, 0]])},
        {"ids": np.array([[4, 5]]), "attention_mask": np.array([[1, 0]])},
    ]
    measured = Activations(graph, find_layers(graph), feeds)
    assert [feed["ids"].shape for feed in measured.feeds] == [(2, 3), (1, 2)]
    np.testing.assert_array_equal(measured.measure_magnitude("h"), np.ones(32))
    assert [len(each[0]) for each in measured.answer_feeds({})] == [3, 1]


def test_no_more_samples_are_run_than_moments_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations_module, "ROWS", 10)
    assert count_needed([4, 4, 4, 4], 4) == 3
    assert count_needed([4, 8, 8], 4) == 2
    assert count_needed([4, 4], 4) == 2


def test_samples_that_make_numbers_without_end_are_refused() -> None:
    graph = two_products()
    measured = Activations(graph, find_layers(graph), [{"x": np.full((1, 32), np.inf, "f4")}])
    with pytest.raises(StepError, match="not finite"):
        measured.measure_moments("h", {})
    with pytest.raises(UsageError, match="no calibration sample"):
        Activations(graph, find_layers(graph), [])


def test_the_error_is_relative_and_of_floats_only() -> None:
    reference = [[np.array([3.0, 4.0]), np.array([7])]]
    assert relative_error([[np.array([3.0, 3.0]), np.array([9])]], reference) == 1 / 25
    assert relative_error([[np.array([9])]], [[np.array([7])]]) == 0


# widths


def test_globs_go_before_the_precision() -> None:
    graph = two_products()
    layers = find_layers(graph)
    widths = choose_widths(graph, layers, 4, Settings(layers={"V*": 8}), None)
    assert widths.bits == {"W": 4, "V": 8}
    assert widths.errors == {}
    all_given = choose_widths(graph, layers, None, Settings(layers={"V": 2, "W": 3}), None)
    assert all_given.bits == {"W": 3, "V": 2}
    with pytest.raises(UsageError, match="no layer matches 'Z'"):
        choose_widths(graph, layers, 4, Settings(layers={"Z": 8}), None)


# scaling


@pytest.mark.parametrize("read", ["x", "h"])
def test_scaled_channels_keep_the_function(read: str) -> None:
    graph = two_products()
    exact = answer(ir.to_proto(graph), FEED)["y"]
    layer = next(layer for layer in find_layers(graph) if layer.activation == read)
    activation = layer.nodes[0].inputs[0]
    assert activation is not None
    factors = np.linspace(0.5, 2, 32, dtype=np.float32)
    scale_products(graph, activation, [layer], factors)
    names = [each.name for each in graph.graph]
    assert names.index(f"{read}_smooth") == names.index(layer.nodes[0].name) - 1
    got = answer(ir.to_proto(graph), FEED)["y"]
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-5)


# storage


def test_packed_tensors_are_held_or_written_as_they_are_made(tmp_path: Path) -> None:
    small, large = np.arange(3, dtype=np.uint8), np.arange(3000, dtype=np.int16).reshape(30, 100)
    assert is_in_memory(PackedTensors().store(large))
    file = tmp_path / "model.onnx.data"
    file.write_bytes(b"of a run before")
    tensors = PackedTensors(file)
    assert is_in_memory(tensors.store(small))
    written = [tensors.store(large + i) for i in range(2)]
    for i, each in enumerate(written):
        assert isinstance(each, ir.ExternalTensor)
        assert each.offset is not None
        assert each.offset % ALIGNMENT == 0
        np.testing.assert_array_equal(each.numpy(), large + i)
    assert file.stat().st_size == -(-6000 // ALIGNMENT) * ALIGNMENT + 6000
    scalar = PackedTensors().store(np.array(2, np.uint8))
    assert scalar.shape.numpy() == ()


def test_what_is_built_stands_in_front_of_the_reader() -> None:
    graph = two_products()
    builder = LayerBuilder(graph.graph[1], "V_q4", PackedTensors())
    builder.node("Neg", [builder.constant("c", np.ones(2, np.float32))], "n")
    assert [each.name for each in graph.graph] == ["first", "V_q4_n", "second"]
    assert builder.shared_byte(3) is builder.shared_byte(3)
    with pytest.raises(ValueError, match="V_q4_c"):
        builder.constant("c", np.ones(2, np.float32))


# unpacking


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_single_codes_come_back_through_onnx(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 2, 16)).astype(np.uint8)
    graph = two_products()
    builder = LayerBuilder(graph.graph[0], "w", PackedTensors())
    held = set(graph.graph.initializers)
    result = unpacking.add_single_codes(builder, codes, bits)
    stored = [
        each.const_value
        for name, each in graph.graph.initializers.items()
        if name not in held and each.const_value is not None and each.const_value.size > 1
    ]
    assert sum(each.nbytes for each in stored) * 8 == codes.size * bits
    if bits == 8:
        np.testing.assert_array_equal(stored[0].numpy(), codes)
        return
    result.type = ir.TensorType(ir.DataType.UINT8)
    graph.graph.outputs.append(result)
    got = answer(ir.to_proto(graph), FEED)[result.name or ""]
    if bits > 4:
        got = got.reshape(codes.shape)
    np.testing.assert_array_equal(got, codes)


# replacement


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(
    ("case", "operator"),
    [
        ("gemm", "MatMulNBits"),
        ("gemm-shared", "MatMulNBits"),
        ("gemm-scaled", None),
        ("tied-embedding", None),
        ("conv", None),
    ],
)
def test_a_layer_answers_as_its_rounded_weight_does(
    case: str, operator: str | None, bits: int
) -> None:
    proto = CASES[case]
    graph = ir.from_proto(proto)
    layer = find_layers(graph)[0]
    made = [name for each in layer.nodes for name in (each.outputs[0].name, each.name)]
    weight = graph.graph.initializers[layer.name].const_value
    assert weight is not None
    rounded = round_to(layer, weight.numpy(), bits)
    replace_layer(graph, rounded, PackedTensors())
    assert layer.name not in graph.graph.initializers
    names = {each.outputs[0].name for each in graph.graph} | {each.name for each in graph.graph}
    assert set(made) <= names
    assert (operator in {each.op_type for each in graph.graph}) == (operator is not None)
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for each in changed.graph.initializer:
        if each.name == layer.name:
            decoded = layer.from_matrix(rounded.grid.decode(rounded.codes))
            each.CopyFrom(tensor(layer.name, decoded))
    feed = feeds_of(proto)
    got, expected = answer(ir.to_proto(graph), feed)["y"], answer(changed, feed)["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_a_weight_that_is_an_input_too_is_none_any_more() -> None:
    proto = model(
        [node("MatMul", "x W", "y")],
        [X, value("W", [32, 32])],
        [Y],
        [tensor("W", weights(32, 32))],
    )
    del proto.opset_import[1:]
    graph = ir.from_proto(proto)
    (layer,) = find_layers(graph)
    replace_layer(graph, round_to(layer, weights(32, 32), 4), PackedTensors(), accuracy_level=4)
    assert [each.name for each in graph.graph.inputs] == ["x"]
    assert graph.opset_imports["com.microsoft"] == 1
    (product,) = [each for each in graph.graph if each.op_type == "MatMulNBits"]
    assert product.attributes.get_int("accuracy_level") == 4


def test_a_bias_is_added_times_beta() -> None:
    proto = model(
        [node("Gemm", "x W B", "y", beta=0.5)],
        [X],
        [Y],
        [tensor("W", weights(32, 32)), tensor("B", weights(32, seed=1))],
    )
    graph = ir.from_proto(proto)
    (layer,) = find_layers(graph)
    replace_layer(graph, round_to(layer, weights(32, 32), 8), PackedTensors())
    assert [each.op_type for each in graph.graph][-3:] == ["MatMulNBits", "Mul", "Add"]
    got, expected = answer(ir.to_proto(graph), FEED)["y"], answer(proto, FEED)["y"]
    np.testing.assert_allclose(got, expected, atol=0.05)


def test_a_ragged_table_is_folded() -> None:
    graph = ir.from_proto(
        model(
            [node("Gather", "E i", "y")],
            [value("i", ["b"], INT64)],
            [value("y", ["b", 24])],
            [tensor("E", weights(50, 24))],
        )
    )
    (layer,) = find_layers(graph)
    rounded = round_to(layer, weights(50, 24), 8)
    assert rounded.is_ragged
    assert rounded.blocks.shape == split_blocks(weights(50, 24), 16).shape == (50, 2, 16)
    replace_layer(graph, rounded, PackedTensors())
    assert [each.op_type for each in graph.graph][-3:] == ["Slice", "Reshape", "Gather"]
    got = answer(ir.to_proto(graph), {"i": np.arange(50)})["y"]
    decoded = rounded.grid.decode(rounded.codes)
    np.testing.assert_allclose(got, decoded, rtol=1e-5, atol=1e-6)


# rounding


@pytest.mark.parametrize(
    ("settings", "feeds", "method", "of"),
    [
        (Settings(), [FEED], "gptq", "outputs"),
        (Settings(), None, "nearest", "weights"),
        (Settings(rounding="hqq"), [FEED], "hqq", "weights"),
        (Settings(rounding="hqq", symmetric=True), None, "nearest", "weights"),
    ],
)
def test_layers_are_rounded_by_the_method_that_can(
    settings: Settings, feeds: Any, method: str, of: str
) -> None:
    graph = two_products()
    rounder = Rounder(graph, find_layers(graph), settings, feeds)
    rounded = list(rounder.round_all({"W": 4, "V": 8}))
    assert [(each.layer.name, each.grid.bits) for each in rounded] == [("W", 4), ("V", 8)]
    assert rounder.count_methods() == {f"rounded by {method}": 2}
    assert [(noise["name"], noise["of"]) for noise in rounder.noise] == [("W", of), ("V", of)]
    assert rounder.noise[1]["sqnr_db"] > rounder.noise[0]["sqnr_db"]
