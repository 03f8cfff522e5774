"""int8-static: ranges against their definitions and onnxruntime's, smoothing against the float
function, kernels, refusals."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from mconv.errors import UnsupportedError, UsageError
from mconv.quantizers import int8_static
from mconv.quantizers._graphs import copy_model
from mconv.quantizers._int8_static import (
    candidates,
    preparation,
    qdq,
    ranges,
    selection,
    smoothing,
    storage,
)
from mconv.quantizers._norm_folding import fold_smoothing
from tests.models import convolution, linear
from tests.unit.quantizers.graphs import INT64, answer, model, node, tensor, value, weights

pytestmark = pytest.mark.filterwarnings("ignore")

X, Y = value("x", ["b", 32]), value("y", ["b", 32])
LONG = value("x", ["b", "n", 64])


def outliers(seed: int = 0, width: int = 64) -> np.ndarray:
    """Factors by channel: a few a hundred times the rest, as in the residual stream of
    transformers."""
    rng = np.random.default_rng(seed)
    made = np.exp(rng.standard_normal(width) / 3)
    made[rng.choice(width, 3, replace=False)] *= 20
    return made.astype(np.float32)


def block() -> Any:
    """LayerNormalization with outlier channels → two products; one of them through GELU to a third;
    a lookup table; attention."""
    nodes = [
        node("Gather", "table ids", "rows"),
        node("Add", "x rows", "sum"),
        node("LayerNormalization", "sum gamma beta", "n"),
        node("MatMul", "n W0", "q"),
        node("MatMul", "n W1", "k"),
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p q", "c"),
        node("MatMul", "c W2", "y"),
    ]
    tensors = [
        tensor("table", weights(50, 64, seed=9)),
        tensor("gamma", outliers()),
        tensor("beta", weights(64, seed=5)),
        *(tensor(f"W{i}", weights(64, 64, seed=i) / 8) for i in range(3)),
    ]
    return model(
        nodes, [LONG, value("ids", ["b", "n"], INT64)], [value("y", ["b", "n", 64])], tensors
    )


def feeds(count: int = 6, seed: int = 3) -> list[dict[str, np.ndarray]]:
    """Of different lengths."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        shape = (1 + index % 2, 5 + 3 * (index % 3))
        made.append(
            {"x": rng.standard_normal((*shape, 64)).astype("f4"), "ids": rng.integers(0, 50, shape)}
        )
    return made


def rows(count: int, width: int, seed: int = 3) -> list[dict[str, np.ndarray]]:
    return [
        {"x": np.random.default_rng([seed, i]).standard_normal((4, width)).astype("f4")}
        for i in range(count)
    ]


def convert(
    proto: Any, folder: Path, calibration: Any, **options: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    (folder / "in.onnx").write_bytes(proto.SerializeToString())
    notes = int8_static.quantize(
        folder / "in.onnx",
        folder / "out.onnx",
        precision="int8-static",
        options=options,
        calibration=calibration,
    )
    return onnx.load(folder / "out.onnx"), notes


def kernels(folder: Path) -> list[str]:
    """Operators that onnxruntime runs, after its own fusions."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(
        str(folder / "out.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return [n.op_type for n in onnx.load(folder / "optimised.onnx").graph.node]


def noise_db(got: list[np.ndarray], exact: list[np.ndarray]) -> float:
    error = sum(float(np.square(a.astype("f8") - r).sum()) for a, r in zip(got, exact, strict=True))
    return 10 * np.log10(sum(float(np.square(r.astype("f8")).sum()) for r in exact) / error)


def test_minmax_and_percentile_are_those_of_all_values(tmp_path: Path) -> None:
    proto, many = block(), feeds()
    graph = ir.from_proto(proto)
    seen = np.concatenate([answer(exposed(proto, "n"), f)["n"].ravel() for f in many])
    low, high = ranges.measure_ranges(graph, many, ["n"], "minmax", tmp_path)["n"]
    assert (low, high) == pytest.approx((seen.min(), seen.max()), rel=1e-5)
    low, high = ranges.measure_ranges(graph, many, ["n"], "percentile", tmp_path)["n"]
    bin_width = 2 * np.abs(seen).max() / ranges.BINS
    for got, share in ((low, 0.0005), (high, 99.9995)):  # per cent
        assert abs(got - np.percentile(seen, share, method="inverted_cdf")) <= bin_width


def exposed(proto: Any, name: str) -> Any:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    made.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return made


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy"])
def test_entropy_is_that_of_onnxruntime_on_equal_lengths(kind: str) -> None:
    from onnxruntime.quantization.calibrate import HistogramCollector

    rng = np.random.default_rng(1)
    values = {
        "normal": rng.standard_normal(9000),
        "relu": np.maximum(rng.standard_normal(9000), 0),
        "heavy": rng.standard_t(3, 9000),
    }
    data, bins = values[kind].astype("f4"), 512
    with contextlib.redirect_stdout(io.StringIO()):
        collector = HistogramCollector("entropy", False, bins, ranges.LEVELS, 99.999, "same")
        collector.collect({"t": data})
        theirs = collector.compute_collection_result()["t"][:2]
    bound = float(np.abs(data).max())
    low, high = ranges.entropy_range(np.histogram(data, bins, (-bound, bound))[0], bound)
    np.testing.assert_allclose((max(low, data.min()), min(high, data.max())), theirs, rtol=1e-5)


@given(st.floats(-100, 100), st.floats(0, 100))
def test_codes_hold_zero_exactly_and_cover_the_range(low: float, width: float) -> None:
    scale, zero = qdq.code_parameters(low, low + width)
    assert 0 <= zero <= 255
    for bound in (low, low + width):
        assert -zero - 0.51 <= bound / scale <= 255 - zero + 0.51


def test_smoothing_keeps_the_float_function(tmp_path: Path) -> None:
    graph = prepared(block(), tmp_path)
    found = candidates.find_candidates(graph)
    sampled = ranges.sample_vectors(graph, feeds(), ["n", "c"], tmp_path)
    factors = smoothing.find_factors(graph, found, sampled)
    assert "n" in factors
    smoothed = smoothing.smooth_products(graph, found, factors)
    for folded in (0, 1):
        if folded:
            assert fold_smoothing(smoothed) == 1
        muls = [n for n in smoothed.graph if n.op_type == "Mul"]
        assert len(muls) == len(factors) - folded
        for feed in feeds(seed=8):
            exact = answer(ir.to_proto(graph), feed)["y"]
            got = answer(ir.to_proto(smoothed), feed)["y"]
            np.testing.assert_allclose(got, exact, rtol=2e-4, atol=2e-5 * np.abs(exact).max())


def test_factors_follow_the_paper() -> None:
    peak, matrix = (
        np.array([8.0, 1.0, 0.5], "f4"),
        np.array([[0.5, -1.0], [2.0, 0.25], [0.125, 0.5]], "f4"),
    )
    got = smoothing.smoothing_factors(peak, matrix, 0.5)
    plain = peak**0.5 / np.array([1.0, 2.0, 0.5]) ** 0.5  # equation 4 of SmoothQuant
    np.testing.assert_allclose(got / got[0], plain / plain[0], rtol=1e-6)


def prepared(proto: Any, folder: Path) -> ir.Model:
    (folder / "p.onnx").write_bytes(proto.SerializeToString())
    return preparation.prepare_model(folder / "p.onnx")


@pytest.mark.parametrize("ranges", ["minmax", "entropy", "percentile"])
def test_a_transformer_block_keeps_its_budget(ranges: str, tmp_path: Path) -> None:
    made, notes = convert(block(), tmp_path, feeds(), ranges=ranges, max_noise=0.003)
    onnx.checker.check_model(made)
    held = feeds(seed=11)
    assert (
        noise_db([answer(made, f)["y"] for f in held], [answer(block(), f)["y"] for f in held]) > 22
    )
    assert notes["computed on int8"] >= 2
    assert "MatMulIntegerToFloat" in kernels(tmp_path)
    large = [
        t.name
        for t in made.graph.initializer
        if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 256
    ]
    assert large == []


def test_smoothing_brings_more_onto_int8_within_the_same_budget(tmp_path: Path) -> None:
    plain, smoothed = (
        convert(block(), tmp_path, feeds(), smoothing=s, max_noise=0.003)[1] for s in (False, True)
    )
    assert plain["computed on int8"] < smoothed["computed on int8"] == 5
    assert smoothed["smoothed by LayerNormalization itself"] == 1
    # not needed: no Mul is spent
    assert "activations smoothed" not in convert(block(), tmp_path, feeds(), max_noise=1.0)[1]


def test_what_exceeds_the_budget_stays_in_float(tmp_path: Path) -> None:
    counts = [
        convert(block(), tmp_path, feeds(), max_noise=b)[1].get("computed on int8", 0)
        for b in (0.0, 1e-4, 1e-2, 1.0)
    ]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == 5
    made, notes = convert(block(), tmp_path, feeds(), max_noise=0.0)
    assert notes["stored as int8 weights, computed in float"] == 3
    assert not any(n.op_type == "QuantizeLinear" for n in made.graph.node)
    held = feeds(seed=11)
    # 8 bits in blocks of 64
    assert (
        noise_db([answer(made, f)["y"] for f in held], [answer(block(), f)["y"] for f in held]) > 35
    )


def test_the_trial_measures_what_is_then_written(tmp_path: Path) -> None:
    graph, many = prepared(block(), tmp_path), feeds()
    found = candidates.find_candidates(graph)
    bounds = ranges.measure_ranges(
        graph, many, [t for c in found for t in c.activations], "minmax", tmp_path
    )
    trial = selection.Trial(graph, found, bounds, many, tmp_path)
    for numbers in ([0], [0, 1, 4], list(range(len(found)))):
        told = trial.measure_error(numbers)
        written = copy_model(graph)
        qdq.write_codes(written, [found[i] for i in numbers], bounds)
        truth = noise_db(
            [answer(ir.to_proto(written), f)["y"] for f in trial.feeds],
            [answer(ir.to_proto(graph), f)["y"] for f in trial.feeds],
        )
        assert -10 * np.log10(told) == pytest.approx(truth, abs=0.3)


def test_reduced_range_keeps_weights_in_seven_bits(tmp_path: Path) -> None:
    worst = {}
    for reduced in (False, True):
        made, _ = convert(linear(), tmp_path, rows(4, 8), reduced_range=reduced, max_noise=1.0)
        codes = [
            numpy_helper.to_array(t)
            for t in made.graph.initializer
            if t.data_type == TensorProto.INT8 and len(t.dims) > 1
        ]
        worst[reduced] = [int(np.abs(c.astype(int)).max()) for c in codes]
        exact = [answer(linear(), f)["y"] for f in rows(4, 8)]
        assert noise_db([answer(made, f)["y"] for f in rows(4, 8)], exact) > 28
    assert worst == {False: [127, 127], True: [63, 63]}


def test_other_readers_of_a_quantized_tensor_stay_in_float(tmp_path: Path) -> None:
    proto = model(
        [node("MatMul", "x W", "h"), node("Add", "h x", "y")],
        [X],
        [Y],
        [tensor("W", weights(32, 32))],
    )
    made, _ = convert(proto, tmp_path, rows(4, 32))
    assert "x" in next(n for n in made.graph.node if n.op_type == "Add").input


def test_convolutions_run_on_codes_from_end_to_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = [{"image": rng.standard_normal((4, 3, 8, 8)).astype("f4")} for _ in range(4)]
    made, notes = convert(convolution(), tmp_path, images)
    onnx.checker.check_model(made)
    assert (
        noise_db(
            [answer(made, f)["scores"] for f in images],
            [answer(convolution(), f)["scores"] for f in images],
        )
        > 25
    )
    assert notes["computed on int8"] == 3
    found = kernels(tmp_path)
    assert {"QLinearConv", "QLinearGlobalAveragePool", "MatMulIntegerToFloat"} <= set(found)
    assert not {"Conv", "FusedConv", "MatMul", "Relu"} & set(found)


def test_a_relu_that_is_an_output_stays(tmp_path: Path) -> None:
    image = value("x", ["b", 8, 6, 6])
    proto = model(
        [node("Conv", "x W B", "h", pads=[1] * 4), node("Relu", "h", "y")],
        [image],
        [value("y", ["b", 16, 6, 6])],
        [tensor("W", weights(16, 8, 3, 3)), tensor("B", weights(16, seed=1))],
    )
    rng = np.random.default_rng(5)
    images = [{"x": rng.standard_normal((2, 8, 6, 6)).astype("f4")} for _ in range(3)]
    made, notes = convert(proto, tmp_path, images)
    assert notes["computed on int8"] == 1
    exact = [answer(proto, feed)["y"] for feed in images]
    assert noise_db([answer(made, feed)["y"] for feed in images], exact) > 25


def test_products_of_two_axes_become_integer_gemm(tmp_path: Path) -> None:
    """Gemm of PyTorch, or MatMul and Add of Keras: onnxruntime has an int8 kernel for the first
    only."""
    dense = model(
        [node("MatMul", "x W", "h"), node("Add", "h B", "y")],
        [X],
        [Y],
        [tensor("W", weights(32, 32)), tensor("B", weights(32, seed=1))],
    )
    turned = model(
        [node("Gemm", "x W B", "y", transB=1)],
        [X],
        [Y],
        [tensor("W", weights(32, 32)), tensor("B", weights(32, seed=1))],
    )
    for proto in (dense, turned):
        made, _ = convert(proto, tmp_path, rows(4, 32))
        held = rows(3, 32, seed=4)
        assert (
            noise_db([answer(made, f)["y"] for f in held], [answer(proto, f)["y"] for f in held])
            > 30
        )
        assert "QGemm" in kernels(tmp_path)
    assert [n.op_type for n in convert(linear(), tmp_path, rows(4, 8))[0].graph.node].count(
        "QuantizeLinear"
    ) == 2


def test_lookups_dequantize_only_their_rows(tmp_path: Path) -> None:
    table = weights(50, 128) * np.exp(np.random.default_rng(2).standard_normal((50, 2))).repeat(
        64, 1
    )
    proto = model(
        [node("Gather", "E i", "e"), node("Relu", "e", "y")],
        [value("i", ["b", "n"], INT64)],
        [value("y", ["b", "n", 128])],
        [tensor("E", table)],
    )
    ids = [{"i": np.arange(8).reshape(2, 4)}]
    made, notes = convert(proto, tmp_path, ids)
    assert notes == {"embeddings stored as int8": 1}
    steps = np.abs(table.reshape(50, 2, 64)).max(2)[ids[0]["i"]].repeat(64, -1) / 127
    got = answer(made, ids[0])["y"]
    assert (np.abs(got - np.maximum(table, 0)[ids[0]["i"]]) <= steps * 0.501).all()


def test_fused_attention_is_opened_for_its_projection(tmp_path: Path) -> None:
    attention = node("Attention", "x W B m", "y", domain="com.microsoft", num_heads=4)
    tensors = [tensor("W", weights(64, 192)), tensor("B", weights(192, seed=1))]
    proto = model(
        [attention],
        [LONG, value("m", ["b", "n"], TensorProto.INT32)],
        [value("y", ["b", "n", 64])],
        tensors,
    )
    many = [
        {"x": f["x"], "m": np.tile(np.arange(f["x"].shape[1]) < 5, (len(f["x"]), 1)).astype("i4")}
        for f in feeds()
    ]
    opened = prepared(proto, tmp_path)
    assert [n.op_type for n in opened.graph] == ["MatMul", "Split", "MultiHeadAttention"]
    for feed in many:
        np.testing.assert_allclose(
            answer(ir.to_proto(opened), feed)["y"], answer(proto, feed)["y"], rtol=1e-4, atol=1e-5
        )
    made, notes = convert(proto, tmp_path, many)
    assert notes["computed on int8"] == 1
    assert (
        noise_db([answer(made, f)["y"] for f in many], [answer(proto, f)["y"] for f in many]) > 25
    )


RECURRENT = model(
    [node("LSTM", "x W R", "_ y", hidden_size=32)],
    [value("x", [5, "b", 32])],
    [value("y", [1, "b", 32])],
    [tensor("W", weights(1, 128, 32)), tensor("R", weights(1, 128, 32, seed=2))],
)
TIED = model(
    [
        node("Gather", "E i", "h"),
        node("Transpose", "E", "T", perm=[1, 0]),
        node("MatMul", "h T", "y"),
    ],
    [value("i", ["b"], INT64)],
    [value("y", ["b", 64])],
    [tensor("E", weights(64, 32))],
)
LEFT = model(
    [node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "W t", "y")],
    [X],
    [value("y", [64, "b"])],
    [tensor("W", weights(64, 32))],
)


@pytest.mark.parametrize(
    ("proto", "feed"),
    [
        (RECURRENT, {"x": np.random.default_rng(0).standard_normal((5, 2, 32)).astype("f4")}),
        (TIED, {"i": np.arange(8)}),
        (LEFT, {"x": np.random.default_rng(0).standard_normal((3, 32)).astype("f4")}),
    ],
    ids=["recurrent", "tied", "left"],
)
def test_weights_without_an_integer_kernel_are_stored_as_int8(
    proto: Any, feed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    made, _ = convert(proto, tmp_path, [feed])
    onnx.checker.check_model(made)
    assert [
        t.name
        for t in made.graph.initializer
        if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 256
    ] == []
    assert noise_db([answer(made, feed)["y"]], [answer(proto, feed)["y"]]) > 30


def test_the_same_file_every_time(tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        convert(block(), tmp_path, feeds(), max_noise=1e-3)
        files.append((tmp_path / "out.onnx").read_bytes())
    assert files[0] == files[1]


def test_weights_in_files_come_out_the_same(tmp_path: Path) -> None:
    convert(block(), tmp_path, feeds())
    inside = (tmp_path / "out.onnx").read_bytes()
    path = tmp_path / "external" / "in.onnx"
    path.parent.mkdir()
    proto = onnx.load(tmp_path / "in.onnx")
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    out = path.with_name("out.onnx")
    int8_static.quantize(path, out, precision="int8-static", options={}, calibration=feeds())
    assert out.read_bytes() == inside


def test_refusals(tmp_path: Path) -> None:
    bare = model([node("Relu", "x", "y")], [X], [Y], [])
    with pytest.raises(UnsupportedError, match="no weights to quantize"):
        convert(bare, tmp_path, rows(2, 32))
    made, _ = convert(linear(), tmp_path, rows(2, 8))
    with pytest.raises(
        UnsupportedError, match=r"quantized already: it has DequantizeLinear, QuantizeLinear"
    ):
        convert(made, tmp_path, rows(2, 8))
    with pytest.raises(UsageError, match="needs calibration samples"):
        convert(linear(), tmp_path, None)
    with pytest.raises(UsageError, match=r"sample 1 holds z; the model takes x"):
        convert(linear(), tmp_path, [rows(1, 8)[0], {"z": np.zeros((1, 8), "f4")}])
    with pytest.raises(
        UsageError, match=r"x is float32 \[4, 9\], the model takes float32 \['batch', 8\]"
    ):
        convert(linear(), tmp_path, rows(1, 9))
    with pytest.raises(UsageError, match="x is float64"):
        convert(linear(), tmp_path, [{"x": np.zeros((1, 8))}])
    with pytest.raises(UnsupportedError, match="sample 0 makes NaN or infinity"):
        convert(linear(), tmp_path, [{"x": np.full((1, 8), np.nan, "f4")}])
    with pytest.raises(UnsupportedError, match="fails on calibration sample 0"):
        convert(block(), tmp_path, [{"x": np.zeros((1, 4, 64), "f4"), "ids": np.full((1, 4), 99)}])
    half = onnx.helper.make_tensor_value_info
    proto = model(
        [node("MatMul", "x W", "y")],
        [half("x", 10, ["b", 32])],
        [half("y", 10, ["b", 32])],
        [tensor("W", weights(32, 32), "f2")],
    )
    with pytest.raises(UnsupportedError, match="16-bit floats"):
        convert(proto, tmp_path, rows(1, 32))


def test_codes_of_weights_left_in_float_follow_the_formula(tmp_path: Path) -> None:
    for axis in (0, 1):
        values = weights(128, 192)
        codes, scale = storage.block_codes(values, axis)
        assert codes.dtype == np.int8
        assert (
            np.abs((codes * scale).reshape(values.shape) - values)
            <= np.abs(values).max() / 127 * 0.501
        ).all()
        assert scale.size == values.size // 64
    made, _ = convert(block(), tmp_path, feeds(), max_noise=0.0)
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    restored = (stored["W0_float1_int8"] * stored["W0_float1_scale"]).reshape(64, 64)
    np.testing.assert_allclose(
        np.abs(restored).max(0), np.abs(weights(64, 64, seed=0) / 8).max(0), rtol=1e-5
    )
    # that of the lookup; those of the weights are folded at load
    assert kernels(tmp_path).count("Cast") == 1
