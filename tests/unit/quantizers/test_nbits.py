"""Weights of 2 to 8 bits: packing against plain loops, grids against their formula, GPTQ against
rounding, files in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mconv.errors import UnsupportedError, UsageError
from mconv.quantizers import nbits
from mconv.quantizers._nbits import allocate, gptq, loading, pack
from mconv.quantizers._nbits.awq import scale_channels
from mconv.quantizers._nbits.grid import fit_grid, fit_half_quadratic, split_blocks
from mconv.quantizers._nbits.layers import find_layers
from mconv.quantizers._nbits.storage import LayerBuilder, PackedTensors
from mconv.quantizers._nbits.unpacking import join_planes
from tests.models import linear
from tests.unit.quantizers.graphs import (
    CASES,
    INT64,
    answer,
    feeds_of,
    model,
    node,
    tensor,
    value,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore")
WIDTHS = {"int8": 8, "int4": 4, "int3": 3, "int2": 2}
MEASURABLE = sorted(CASES.keys() - {"fused-attention"})


def correlated(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Inputs [rows, columns] of a few strong directions, as activations are."""
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((rows, 6)) @ rng.standard_normal((6, columns))
        + 0.3 * rng.standard_normal((rows, columns))
    ).astype(np.float32)


@given(st.sampled_from([2, 4, 8]), st.data())
def test_bytes_hold_the_first_code_in_the_low_bits(bits: int, data: st.DataObject) -> None:
    codes = data.draw(
        arrays(np.uint8, st.integers(1, 40), elements=st.integers(0, (1 << bits) - 1))
    )
    packed = pack.pack_codes(codes, bits)
    each = 8 // bits
    for i, code in enumerate(codes):
        assert (packed[i // each] >> (bits * (i % each))) & ((1 << bits) - 1) == code


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([2, 3, 5, 6, 7]), st.sampled_from([16, 32]), st.integers(0, 1000))
def test_planes_are_of_the_true_size_and_come_back_through_onnx(
    bits: int, block: int, seed: int
) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (3, 2, block)).astype(np.uint8)
    stored = pack.split_planes(codes, bits)
    assert sum(part.size for part in stored) * 8 == codes.size * bits
    made = ir.from_proto(
        model(
            [node("Identity", "x", "y")],
            [value("x", [1])],
            [value("y", [1])],
            [tensor("spare", weights(1))],
        )
    )
    builder = LayerBuilder(made.graph[0], "w", PackedTensors())
    planes = [builder.constant(f"part{i}", part) for i, part in enumerate(stored)]
    containers = join_planes(builder, planes, bits)
    containers.type = ir.TensorType(ir.DataType.UINT8)
    made.graph.outputs.append(containers)
    got = answer(ir.to_proto(made), {"x": np.zeros(1, np.float32)})[containers.name or ""]
    np.testing.assert_array_equal(got, pack.pack_codes(codes, pack.CONTAINER[bits]))


@given(
    arrays(np.float32, (3, 40), elements=st.floats(-50, 50, width=32)),
    st.sampled_from([2, 3, 4, 8]),
    st.booleans(),
)
def test_the_whole_range_is_on_the_grid(values: np.ndarray, bits: int, symmetric: bool) -> None:
    grid = fit_grid(values, bits, 16, symmetric=symmetric, search=False)
    codes = grid.encode(values)
    assert codes.max() <= grid.largest
    scale, _ = grid.spread(40)
    top = split_blocks(np.abs(values), 16).max(-1).repeat(16, 1)[:, :40]
    # of scales to whole steps
    rounding = np.maximum(np.repeat(grid.step[:, None], 40, 1) * grid.largest, top * 2 / 255)
    assert (np.abs(grid.decode(codes) - values) <= scale * 1.01 + rounding).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_ranges_chosen_by_error_are_never_worse(bits: int) -> None:
    values = np.random.default_rng(bits).standard_t(4, (64, 128)).astype(np.float32)
    plain, searched = fit_grid(values, bits, 32, search=False), fit_grid(values, bits, 32)

    def error(grid: Any) -> float:
        return float(np.square(grid.decode(grid.encode(values)) - values).sum())

    assert error(searched) < error(plain)
    if bits == 2:
        assert error(fit_grid(values, bits, 32, fine=True)) < error(searched)
    half_quadratic = fit_half_quadratic(values, bits, 32)
    assert np.abs(half_quadratic.decode(half_quadratic.encode(values)) - values).mean() <= (
        np.abs(plain.decode(plain.encode(values)) - values).mean() * 1.001
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_beats_rounding_where_inputs_are_correlated(bits: int) -> None:
    inputs = correlated(400, 96)
    matrix = np.random.default_rng(1).standard_normal((48, 96)).astype(np.float32)
    moments = inputs.astype(np.float64).T @ inputs / len(inputs)
    codes, grid = gptq.round_weights(matrix, moments, bits, 32)
    nearest = fit_grid(matrix, bits, 32)

    def error(values: np.ndarray) -> float:
        return float(np.square(inputs @ (values - matrix).T).mean())

    assert error(grid.decode(codes)) < 0.5 * error(nearest.decode(nearest.encode(matrix)))
    assert error(grid.decode(codes)) == pytest.approx(
        gptq.output_loss(grid.decode(codes) - matrix, moments) / 48, rel=1e-3
    )


def test_disturbed_inputs_are_made_up_for() -> None:
    clean = correlated(500, 32)
    disturbed = clean * 0.9 + 0.05 * correlated(500, 32, seed=5)
    matrix = np.random.default_rng(2).standard_normal((16, 32)).astype(np.float32)
    x, q = clean.astype(np.float64), disturbed.astype(np.float64)
    better = gptq.compensate_inputs(matrix, q.T @ q / 500, x.T @ q / 500)
    assert (
        np.square(q @ better.T - x @ matrix.T).mean()
        < 0.7 * np.square(q @ matrix.T - x @ matrix.T).mean()
    )


def convert(
    proto: onnx.ModelProto, folder: Path, precision: str, calibration: Any = None, **options: Any
) -> onnx.ModelProto:
    (folder / "in.onnx").write_bytes(proto.SerializeToString())
    nbits.quantize(
        folder / "in.onnx",
        folder / "out.onnx",
        precision=precision,
        options=options,
        calibration=calibration,
    )
    return onnx.load(folder / "out.onnx")


@pytest.mark.parametrize("precision", nbits.PRECISIONS)
@pytest.mark.parametrize("name", MEASURABLE)
def test_answers_stay_close_and_the_file_shrinks(name: str, precision: str, tmp_path: Path) -> None:
    before = CASES[name]
    feed = feeds_of(before)
    expected = answer(before, feed)["y"]
    made = convert(before, tmp_path, precision, [feed])
    onnx.checker.check_model(made)
    got = answer(made, feed)["y"]
    cosine = float((got * expected).sum() / np.linalg.norm(got) / np.linalg.norm(expected))
    # a step of range / (2^b - 1) over Gaussian weights: about 44, 20, 14 and 8 dB a layer;
    # recurrent layers add theirs up
    assert (
        cosine > {"int8": 0.999, "int4": 0.98, "int3": 0.92, "int2": 0.6, "mixed": 0.85}[precision]
    )
    again = convert(before, tmp_path, precision, [feed])
    assert made.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("precision", "share"), [("int8", 0.27), ("int4", 0.16), ("int3", 0.13), ("int2", 0.11)]
)
def test_the_file_is_of_the_true_size(precision: str, share: float, tmp_path: Path) -> None:
    big = model(
        [node("Gather", "E i", "h"), node("MatMul", "h W", "y")],
        [value("i", ["b"], INT64)],
        [value("y", ["b", 512])],
        [tensor("E", weights(4096, 256)), tensor("W", weights(256, 512))],
    )
    convert(big, tmp_path, precision, [{"i": np.arange(64)}])
    assert (tmp_path / "out.onnx").stat().st_size <= share * (tmp_path / "in.onnx").stat().st_size


def test_kernels_are_used_and_nothing_is_left_to_compute_at_inference(tmp_path: Path) -> None:
    """What onnxruntime's optimiser leaves has no bit operators: planes are put together once, when
    the model is loaded."""
    import onnxruntime

    convert(CASES["tied-embedding"], tmp_path, "int3", [feeds_of(CASES["tied-embedding"])])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    convert(linear(), tmp_path, "int3", None)
    onnxruntime.InferenceSession(
        str(tmp_path / "out.onnx"), options, providers=["CPUExecutionProvider"]
    )
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("MatMulNBits") == 2
    assert not {"BitShift", "BitwiseAnd", "BitwiseOr", "Concat", "Mul", "Cast"} & set(kinds)


def test_what_cannot_be_quantized_is_said(tmp_path: Path) -> None:
    made = convert(CASES["gemm"], tmp_path, "int4")
    with pytest.raises(UnsupportedError, match="quantized already"):
        convert(made, tmp_path, "int4")
    small = model(
        [node("Add", "x B", "y")], [value("x", [4])], [value("y", [4])], [tensor("B", weights(4))]
    )
    with pytest.raises(UnsupportedError, match="no weights"):
        convert(small, tmp_path, "int4")
    with pytest.raises(UsageError, match=r"shape \[2, 7\], the model takes"):
        convert(CASES["gemm"], tmp_path, "int4", [{"x": np.zeros((2, 7), np.float32)}])
    with pytest.raises(UsageError, match="has no x"):
        convert(CASES["gemm"], tmp_path, "int4", [{"z": np.zeros((2, 32), np.float32)}])


def test_layers_know_what_they_do() -> None:
    (layer,) = find_layers(ir.from_proto(CASES["tied-embedding"]))
    assert (layer.kind, layer.rows, layer.columns) == ("folded", 64, 32)
    gemm = ir.from_proto(CASES["gemm"])
    assert {layer.kind for layer in find_layers(gemm)} == {"product"}


def deep() -> onnx.ModelProto:
    """Four products in a row, the second of which matters little: its result is scaled down before
    it is added."""
    names = ["a", "b", "c", "d"]
    nodes = [
        node("MatMul", "x a", "h0"),
        node("MatMul", "h0 b", "h1"),
        node("Mul", "h1 small", "h2"),
        node("Add", "h0 h2", "h3"),
        node("MatMul", "h3 c", "h4"),
        node("MatMul", "h4 d", "y"),
    ]
    tensors = [tensor(name, weights(64, 64, seed=i)) for i, name in enumerate(names)] + [
        tensor("small", np.float32(1e-3))
    ]
    return model(nodes, [value("x", ["b", 64])], [value("y", ["b", 64])], tensors)


FEEDS = [
    {"x": np.random.default_rng(i).standard_normal((4, 64)).astype(np.float32)} for i in range(4)
]


@pytest.mark.parametrize("average", [3.5, 4.5, 6.0])
def test_bits_go_where_the_outputs_need_them(average: float, tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(deep().SerializeToString())
    options = {"average_bits": average}
    layers = nbits.configure(
        tmp_path / "in.onnx", precision="mixed", options=options, calibration=FEEDS
    )["layers"]
    assert layers["b"]["bits"] == min(layer["bits"] for layer in layers.values())
    assert layers["b"]["error"]["2"] < 1e-4 < layers["a"]["error"]["2"]
    assert sum(layer["bits"] for layer in layers.values()) / 4 <= average
    made = convert(deep(), tmp_path, "mixed", FEEDS, **options)
    got = {
        n.output[0]: next(a.i for a in n.attribute if a.name == "bits")
        for n in made.graph.node
        if n.op_type == "MatMulNBits"
    }
    assert len(got) == 4


def test_a_budget_is_met_with_the_least_error_of_all_choices() -> None:
    """Against trying every combination, with one layer far larger than the others."""
    import itertools

    layers = find_layers(ir.from_proto(deep()))
    errors = {
        layer.name: {b: (i + 1) * 4.0**-b for b in allocate.WIDTHS}
        for i, layer in enumerate(layers)
    }
    layers[0].shape = (64 * 9, 64)
    budget = 4.4 * sum(layer.elements for layer in layers)

    def size(choice: dict[str, int]) -> float:
        return sum(
            layer.elements * allocate.stored_bits(layer, choice[layer.name], 32) for layer in layers
        )

    def total(choice: dict[str, int]) -> float:
        return sum(errors[name][bits] for name, bits in choice.items())

    chosen = allocate.allocate_bits(layers, errors, lambda layer, bits: 32, budget)
    names = [layer.name for layer in layers]
    every = [
        dict(zip(names, widths, strict=True))
        for widths in itertools.product(allocate.WIDTHS, repeat=4)
    ]
    # sizes are rounded up to units
    best = min(total(c) for c in every if size(c) <= budget * (1 - 8 / allocate.UNITS))
    assert size(chosen) <= budget
    assert total(chosen) <= best * (1 + 1e-9)


def test_the_recipe_needs_no_data(tmp_path: Path) -> None:
    (tmp_path / "in.onnx").write_bytes(deep().SerializeToString())
    configured = nbits.configure(
        tmp_path / "in.onnx", precision="mixed", options={}, calibration=None
    )
    layers = configured["layers"]
    assert layers["a"]["bits"] > layers["b"]["bits"]  # the first layer higher
    assert "error" not in layers["a"]


def test_layers_named_by_a_glob_get_their_bits(tmp_path: Path) -> None:
    made = convert(deep(), tmp_path, "int4", None, layers={"[ab]": 8, "c": 32})
    bits = {
        n.output[0]: next(a.i for a in n.attribute if a.name == "bits")
        for n in made.graph.node
        if n.op_type == "MatMulNBits"
    }
    assert bits == {"h0": 8, "h1": 8, "y": 4}
    with pytest.raises(UsageError, match="no layer matches 'nothing'"):
        convert(deep(), tmp_path, "int4", None, layers={"nothing": 8})


def test_a_large_model_is_streamed_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights mapped from external data, packed ones written as they are made: what comes out
    answers as the other way does."""
    plain = convert(deep(), tmp_path, "int4", None)
    folder = tmp_path / "large"
    folder.mkdir()
    onnx.save_model(
        deep(),
        str(folder / "in.onnx"),
        save_as_external_data=True,
        location="in.onnx.data",
        size_threshold=1024,
    )
    monkeypatch.setattr(loading, "LARGE", 1000)
    nbits.quantize(
        folder / "in.onnx", folder / "out.onnx", precision="int4", options={}, calibration=FEEDS
    )
    assert (folder / "out.onnx").stat().st_size < (folder / "in.onnx").stat().st_size + 10_000
    assert (folder / "out.onnx.data").stat().st_size == 4 * 64 * 64 // 2
    np.testing.assert_array_equal(
        answer(onnx.load(folder / "out.onnx"), FEEDS[0])["y"], answer(plain, FEEDS[0])["y"]
    )


def salient(tmp_path: Path) -> tuple[Path, list[dict[str, np.ndarray]]]:
    """[batch, 64] → LayerNorm → MatMul → MatMul, a few channels of the first large; and inputs."""
    rng = np.random.default_rng(3)
    gain = np.ones(64, np.float32)
    gain[:4] = 30
    nodes = [
        onnx.helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["n"], name="norm"),
        onnx.helper.make_node("MatMul", ["n", "w0"], ["h"], name="first"),
        onnx.helper.make_node("MatMul", ["h", "w1"], ["y"], name="second"),
    ]
    tensors = [
        onnx.numpy_helper.from_array(gain, "gain"),
        onnx.numpy_helper.from_array(rng.standard_normal(64).astype(np.float32), "shift"),
        onnx.numpy_helper.from_array(rng.standard_normal((64, 48)).astype(np.float32), "w0"),
        onnx.numpy_helper.from_array(rng.standard_normal((48, 16)).astype(np.float32), "w1"),
    ]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 64])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 16])
    graph = onnx.helper.make_graph(nodes, "salient", [x], [y], tensors)
    path = tmp_path / "salient.onnx"
    path.write_bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
        ).SerializeToString()
    )
    return path, [{"x": rng.standard_normal((16, 64)).astype(np.float32)} for _ in range(8)]


def test_awq_keeps_the_function_and_lowers_the_error(tmp_path: Path) -> None:
    path, feeds = salient(tmp_path)
    scaled = loading.load_model(path).model
    widths = {"w0": 4, "w1": 4}
    count = scale_channels(scaled, find_layers(scaled), widths, lambda *_: 32, feeds[:4])
    assert count >= 1
    # folded into the LayerNormalization before
    assert "n_smooth" not in {n.name for n in scaled.graph}
    exact = answer(onnx.load(path), feeds[5])["y"]
    got = answer(ir.to_proto(scaled), feeds[5])["y"]
    np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-3)
    errors = {}
    for how in ("none", "awq"):
        out = tmp_path / f"{how}.onnx"
        options = {"rounding": "nearest", "scaling": how, "block_size": 32}
        notes = nbits.quantize(path, out, precision="int4", options=options, calibration=feeds[:4])
        errors[how] = float(np.square(answer(onnx.load(out), feeds[5])["y"] - exact).sum())
    assert notes["scaled activations"] == count
    assert errors["awq"] < 0.75 * errors["none"]


def test_widths_between_measured_ones_follow_their_neighbours() -> None:
    # a bit more is a quarter of the noise
    errors = {bits: 3 * 4.0**-bits for bits in allocate.MEASURED}
    assert [allocate.interpolate_error(errors, bits) for bits in allocate.WIDTHS] == pytest.approx(
        [3 * 4.0**-b for b in allocate.WIDTHS]
    )
    assert allocate.interpolate_error({4: 0.0, 8: 0.0}, 6) == pytest.approx(0, abs=1e-20)
