"""The native WebNN code generator, without a browser: what it writes, folds, packs and refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mconv.errors import UnsupportedError
from mconv.targets._webnn import builder, emit, prepare
from mconv.targets._webnn.emitter import EmitResult
from mconv.targets._webnn.matmul import unpack_codes
from mconv.targets._webnn.resize import compute_positions, make_weights, round_positions
from tests.models import linear


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str],
    tensors: dict[str, np.ndarray] | None = None,
    opset: int = 21,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (tensors or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def write(tmp_path: Path, proto: onnx.ModelProto, **dims: int) -> tuple[EmitResult, str, bytes]:
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    result = emit(tmp_path / "model.onnx", out, dims=dims, precision="fp32")
    return result, (out / "graph.mjs").read_text(), (out / "weights.bin").read_bytes()


def calls(text: str) -> list[str]:
    """The computing builder methods, in order."""
    return [m for m in re.findall(r"= b\.(\w+)\(", text) if m not in ("input", "constant")]


FLOAT = TensorProto.FLOAT


def test_module_and_weights(tmp_path: Path) -> None:
    result, text, data = write(tmp_path, linear(), batch=3)
    assert calls(text) == ["gemm", "relu", "matmul"]
    assert result.operators == {"Gemm": 1, "MatMul": 1, "Relu": 1}
    assert result.nodes == 3
    assert [(s.name, s.shape) for s in (*result.inputs, *result.outputs)] == [
        ("x", (3, 8)),
        ("y", (3, 16)),
    ]
    assert f"weightsByteLength = {len(data)}" in text
    source = {t.name: numpy_helper.to_array(t) for t in linear().graph.initializer}
    for row in result.weights:
        assert row.offset % builder.ALIGNMENT == 0
        assert data[row.offset : row.offset + row.bytes] == source[row.name].tobytes()


def test_same_model_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert write(first, linear(), batch=2)[1:] == write(second, linear(), batch=2)[1:]


def test_free_dimension_without_size(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"batch \(axis 0 of x\)"):
        write(tmp_path, linear())


def test_every_unsupported_operator_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["d"], name="first"),
        helper.make_node("Relu", ["x"], ["r"], name="fine"),
        helper.make_node("NonZero", ["r"], ["z"], name="second"),
        helper.make_node("ArgMax", ["r"], ["a"], name="third", select_last_index=1),
    ]
    with pytest.raises(UnsupportedError) as caught:
        write(tmp_path, model(nodes, {"x": (FLOAT, [2, 2])}, ["d", "z", "a"]))
    for part in ("Det:", "first", "NonZero:", "second", "ArgMax: select_last_index", "third"):
        assert part in caught.value.message
    assert "Relu" not in caught.value.message
    assert not (tmp_path / "out" / "weights.bin").exists()


def test_shape_arithmetic_disappears(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    tensors = {"zero": np.array([0]), "rest": np.array([-1])}
    result, text, data = write(
        tmp_path, model(nodes, {"x": (FLOAT, ["b", 3, 4])}, ["y"], tensors), b=2
    )
    assert calls(text) == ["reshape"]
    assert result.outputs[0].shape == (2, 12)
    assert data == b""


def test_function_operators_are_expanded_with_their_defaults(tmp_path: Path) -> None:
    """MeanVarianceNormalization's axes default to [0, 2, 3]; ONNX's inliner alone would drop
    them."""
    nodes = [helper.make_node("MeanVarianceNormalization", ["x"], ["y"])]
    _, text, _ = write(tmp_path, model(nodes, {"x": (FLOAT, [2, 3, 4, 4])}, ["y"]))
    assert "axes: [0, 2, 3]" in text


def test_range_is_evaluated_not_expanded_to_a_loop(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    tensors = {k: np.array(v, np.float32) for k, v in (("a", 0), ("b", 4), ("c", 1))}
    result, text, _ = write(tmp_path, model(nodes, {"x": (FLOAT, [2, 4])}, ["y"], tensors))
    assert calls(text) == ["add"]
    assert result.operators == {"Add": 1}


def test_softmax_before_opset_13_is_over_all_later_axes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"])]
    inputs = {"x": (FLOAT, [2, 3, 4])}
    assert calls(write(tmp_path, model(nodes, inputs, ["y"], opset=11))[1]) == [
        "reshape",
        "softmax",
        "reshape",
    ]
    assert calls(write(tmp_path, model(nodes, inputs, ["y"], opset=13))[1]) == ["softmax"]


def test_nbit_codes_become_int4_by_flipping_the_top_bit(tmp_path: Path) -> None:
    """ONNX's unsigned nibbles minus 8 are WebNN's int4: every byte XOR 0x88."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (6, 2, 16), dtype=np.uint8)
    tensors = {"w": packed, "s": rng.random((6, 2)).astype(np.float32)}
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", "w", "s"],
            ["y"],
            domain="com.microsoft",
            N=6,
            K=64,
            bits=4,
            block_size=32,
        )
    ]
    result, text, data = write(tmp_path, model(nodes, {"x": (FLOAT, [3, 64])}, ["y"], tensors))
    row = next(w for w in result.weights if w.name == "w")
    assert (row.dtype, row.shape, row.bytes) == ("int4", (6, 2, 32), packed.size)
    assert data[row.offset : row.offset + row.bytes] == bytes(
        packed.tobytes()[i] ^ 0x88 for i in range(packed.size)
    )
    assert "dequantizeLinear" in calls(text)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_are_unpacked_lowest_bits_first(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (5, 16))
    number = [sum(int(c) << (bits * i) for i, c in enumerate(row)) for row in codes]
    packed = np.array([list(n.to_bytes(2 * bits, "little")) for n in number], np.uint8)
    assert np.array_equal(unpack_codes(packed, bits, 16), codes)


def test_int4_packing() -> None:
    assert builder.pack_int4(np.array([1, -2, 7])) == bytes([0xE1, 0x07])


def test_int8_weights_stay_int8(tmp_path: Path) -> None:
    codes = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    tensors = {"w": codes, "s": np.full(4, 0.5, np.float32), "z": np.zeros(4, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=1),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    result, text, data = write(tmp_path, model(nodes, {"x": (FLOAT, [2, 4])}, ["y"], tensors))
    row = next(w for w in result.weights if w.name == "w")
    assert row.dtype == "int8"
    assert data[row.offset : row.offset + row.bytes] == codes.tobytes()
    assert calls(text) == ["dequantizeLinear", "matmul"]


def test_columns_in_blocks_are_stored_along_the_last_axis(tmp_path: Path) -> None:
    codes = np.arange(-8, 8, dtype=np.int8).reshape(8, 2)
    tensors = {"s": np.arange(1, 5, dtype=np.float32).reshape(2, 2)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    proto = model(nodes, {"x": (FLOAT, [1, 8])}, ["y"], tensors)
    proto.graph.initializer.append(
        helper.make_tensor("w", TensorProto.INT4, [8, 2], codes.reshape(-1).tolist())
    )
    result, _, data = write(tmp_path, proto)
    row = next(w for w in result.weights if w.name == "w")
    assert (row.dtype, row.shape) == ("int4", (2, 2, 4))
    assert data[row.offset : row.offset + row.bytes] == builder.pack_int4(codes.T)


def test_large_constants_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "CONSTANT_BYTES", 64)
    table = np.arange(5 * 8, dtype=np.float32).reshape(5, 8)  # rows of 32 bytes
    nodes = [helper.make_node("Gather", ["t", "i"], ["y"])]
    result, text, data = write(
        tmp_path, model(nodes, {"i": (TensorProto.INT64, [2])}, ["y"], {"t": table})
    )
    assert [w.shape for w in result.weights] == [(2, 8), (2, 8), (1, 8)]
    assert "concat" in calls(text)
    assert b"".join(data[w.offset : w.offset + w.bytes] for w in result.weights) == table.tobytes()


def test_a_row_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "CONSTANT_BYTES", 16)
    with pytest.raises(UnsupportedError, match="above the browser's 16 bytes"):
        write(tmp_path, linear(), batch=1)


def test_names_cannot_leave_their_comment_or_string(tmp_path: Path) -> None:
    evil = 'a"\n*/ alert(1) //\u2028'
    nodes = [helper.make_node("Relu", [evil], ["y"], name=evil)]
    _, text, _ = write(tmp_path, model(nodes, {evil: (FLOAT, [2])}, ["y"]))
    assert "\u2028" not in text
    assert not any(line.lstrip().startswith("*/ alert") for line in text.splitlines())


def test_outputs_are_operands_of_their_own(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])]
    _, text, _ = write(
        tmp_path, model(nodes, {"x": (FLOAT, [2, 3]), "unused": (FLOAT, [1])}, ["x", "y", "z"])
    )
    returned = re.findall(r'"(\w)": (v\d+)', text.split("return ")[-1])
    assert len({js for _, js in returned}) == 3
    assert 'unusedInputs = ["unused"]' in text


@pytest.mark.parametrize(
    "transform", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("size", "out"), [(4, 8), (5, 3), (3, 7)])
def test_resize_weights_are_those_of_the_reference(
    transform: str, mode: str, size: int, out: int
) -> None:
    node = helper.make_node(
        "Resize",
        ["x", "", "", "n"],
        ["y"],
        mode=mode,
        coordinate_transformation_mode=transform,
        axes=[1],
    )
    proto = model([node], {"x": (FLOAT, [size, size])}, ["y"], {"n": np.array([out])}, opset=18)
    (want,) = ReferenceEvaluator(proto).run(None, {"x": np.eye(size, dtype=np.float32)})
    positions = compute_positions(transform, size, out, out / size)
    if mode == "nearest":
        have = np.eye(size)[:, round_positions(positions, size, "round_prefer_floor")]
    else:
        have = make_weights(positions, size, mode, -0.75, False)
    assert np.allclose(have, want, atol=1e-6)


def test_ceil_mode_makes_no_window_in_the_end_padding(tmp_path: Path) -> None:
    """5 elements, window 1, stride 3: windows at 0 and 3; ONNX's inference also counts one at 6,
    which lies outside."""
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1], strides=[3], ceil_mode=1)
    result, _, _ = write(tmp_path, model([node], {"x": (FLOAT, [1, 1, 5])}, ["y"]))
    assert result.outputs[0].shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("AveragePool", {"kernel_shape": [1], "strides": [3], "auto_pad": "SAME_UPPER"}),
        ("MaxPool", {"kernel_shape": [2], "dilations": [2]}),
        ("LpPool", {"kernel_shape": [2], "p": 3}),
    ],
)
def test_pools_that_engines_or_the_browser_do_not_share_are_refused(
    tmp_path: Path, op: str, attributes: dict[str, object]
) -> None:
    node = helper.make_node(op, ["x"], ["y"], name="pool", **attributes)
    with pytest.raises(UnsupportedError, match=rf"{op}: .*\(node pool\)"):
        write(tmp_path, model([node], {"x": (FLOAT, [1, 1, 6])}, ["y"]))


def test_transposed_quantized_weights_are_stored_transposed(tmp_path: Path) -> None:
    codes = np.arange(12, dtype=np.int8).reshape(3, 4)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], axis=0),
        helper.make_node("Transpose", ["f"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    tensors = {"w": codes, "s": np.ones(3, np.float32) / 4}
    result, text, data = write(tmp_path, model(nodes, {"x": (FLOAT, [2, 4])}, ["y"], tensors))
    assert calls(text) == ["dequantizeLinear", "matmul"]
    row = next(w for w in result.weights if w.shape == (4, 3) and w.dtype == "int8")
    assert data[row.offset : row.offset + row.bytes] == np.ascontiguousarray(codes.T).tobytes()


def with_local_function(weight: np.ndarray) -> onnx.ModelProto:
    """y = Twice(x w), where the file itself defines Twice."""
    double = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"], name="sum")],
        [helper.make_opsetid("", 21)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Twice", ["m"], ["y"], name="call", domain="own"),
    ]
    proto = model(nodes, {"x": (FLOAT, [2, len(weight)])}, ["y"], {"w": weight})
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(double)
    return proto


def test_functions_of_the_file_are_expanded_around_large_weights(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    result, text, data = write(tmp_path, with_local_function(weight))
    assert calls(text) == ["matmul", "add"]
    assert result.operators == {"Add": 1, "MatMul": 1}
    assert data == weight.tobytes()


def test_external_data_gives_the_same_program(tmp_path: Path) -> None:
    proto = with_local_function(np.ones((32, 32), np.float32))
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    inside = write(tmp_path / "inside", proto)
    path = tmp_path / "outside" / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0, location="w.bin")
    out = tmp_path / "outside" / "out"
    out.mkdir()
    emit(path, out, dims={}, precision="fp32")
    assert (out / "graph.mjs").read_text() == inside[1]
    assert (out / "weights.bin").read_bytes() == inside[2]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Add", ["", "x"], ["y"]), "Add: its input A (number 1) is missing"),
        (helper.make_node("Add", [], ["y"]), "Add: its input A (number 1) is missing"),
        (helper.make_node("Max", ["x", ""], ["y"]), "Max: its input data_0 (number 1) is missing"),
        (helper.make_node("Gather", ["", "x"], ["y"]), "Gather: its input data (number 1)"),
        (helper.make_node("Transpose", [], ["y"]), "Transpose: its input data (number 1)"),
        (helper.make_node("CenterCropPad", ["x"], ["y"]), "CenterCropPad: no equivalent"),
        (helper.make_node("Add", ["x", "nowhere"], ["y"]), "Add: nothing makes its input"),
        (
            helper.make_node("FusedMatMul", ["x"], ["y"], domain="com.microsoft"),
            "com.microsoft.FusedMatMul: ONNX's shape inference refuses it",
        ),
        (
            helper.make_node("GroupNormalization", ["x", "x", "x"], ["y"]),
            "GroupNormalization: its attribute num_groups is missing",
        ),
        (helper.make_node("LSTM", ["x", "x", "x"], ["", "y"]), "LSTM: .* (node y)"),
    ],
)
def test_what_a_node_lacks_is_said(tmp_path: Path, node: onnx.NodeProto, message: str) -> None:
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(UnsupportedError, match=pattern):
        write(tmp_path, model([node], {"x": (FLOAT, [2, 3, 4])}, ["y"]))


def test_a_large_weight_may_stand_in_a_constant_node(tmp_path: Path) -> None:
    weight = np.ones((1024, 300), np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    assert weight.nbytes > prepare.ENLARGED
    _, text, data = write(tmp_path, model(nodes, {"x": (FLOAT, [1, 1024])}, ["y"]))
    assert calls(text) == ["matmul"]
    assert data == weight.tobytes()


def test_an_axis_of_minus_one_is_free(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    proto = model([node], {"x": (FLOAT, [-1, 3])}, ["y"])
    result, _, _ = write(tmp_path, proto, x_0=5)
    assert result.inputs[0].shape == (5, 3)
    with pytest.raises(UnsupportedError, match=r"x_0 \(axis 0 of x\)"):
        write(tmp_path, proto)
