"""int4 and int8-static of OpenVINO: codes read back, answers against the float graph, what stays in
float, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from onnx import numpy_helper

from mconv.errors import UnsupportedError, UsageError
from mconv.targets import _nncf_scope
from mconv.targets import openvino as openvino_target
from tests.models import convolution, linear
from tests.unit.quantizers.graphs import INT64, answer, model, node, tensor, value, weights

pytestmark = pytest.mark.filterwarnings("ignore")


def spiky() -> onnx.ModelProto:
    """Two products; the second reads the cube of the first, whose range 256 levels do not cover."""
    nodes = [
        node("Gather", "E ids", "e"),
        node("MatMul", "e W0", "h"),
        node("Mul", "h h", "square"),
        node("Mul", "square h", "cube"),
        node("MatMul", "cube W1", "y"),
    ]
    tensors = [
        tensor("E", weights(40, 64)),
        tensor("W0", weights(64, 64, seed=1)),
        tensor("W1", weights(64, 32, seed=2)),
    ]
    return model(nodes, [value("ids", ["b", "n"], INT64)], [value("y", ["b", "n", 32])], tensors)


def ids(count: int = 6, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Of different lengths."""
    rng = np.random.default_rng(seed)
    return [{"ids": rng.integers(0, 40, (1 + i % 2, 4 + 3 * (i % 3)))} for i in range(count)]


def rows(count: int = 6, width: int = 8) -> list[dict[str, np.ndarray]]:
    return [
        {"x": np.random.default_rng([1, i]).standard_normal((4, width)).astype("f4")}
        for i in range(count)
    ]


def write(proto: Any, folder: Path, precision: str, calibration: Any, **options: Any) -> Any:
    folder.mkdir(parents=True)
    source = folder.parent / f"{folder.name}.onnx"
    source.write_bytes(proto.SerializeToString())
    return openvino_target.write(
        source, folder, precision=precision, options=options, name="m", calibration=calibration
    )


def read(folder: Path) -> Any:
    return openvino.Core().read_model(str(folder / "openvino_model.xml"))


def kinds(folder: Path) -> dict[tuple[int, ...], str]:
    """Shape → element type of every constant of two axes or more."""
    constants = [op for op in read(folder).get_ordered_ops() if op.get_type_name() == "Constant"]
    return {
        tuple(op.get_output_shape(0)): op.get_element_type().get_type_name()
        for op in constants
        if len(op.get_output_shape(0)) > 1
    }


def noise_db(folder: Path, proto: Any, feeds: list[dict[str, np.ndarray]]) -> float:
    compiled = openvino.compile_model(read(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    exact = [next(iter(answer(proto, feed).values())).astype("f8") for feed in feeds]
    error = sum(
        float(np.square(compiled(feed)[0] - r).sum()) for feed, r in zip(feeds, exact, strict=True)
    )
    return 10 * np.log10(sum(float(np.square(r).sum()) for r in exact) / error)


@pytest.mark.parametrize(("scheme", "kind"), [("asymmetric", "u4"), ("symmetric", "i4")])
def test_int4_codes_are_in_groups_and_embeddings_too(
    tmp_path: Path, scheme: str, kind: str
) -> None:
    write(spiky(), tmp_path / "a", "int4", None, scheme=scheme)
    types = kinds(tmp_path / "a")
    assert {types[40, 2, 32], types[64, 2, 32], types[32, 2, 32]} == {kind}
    write(spiky(), tmp_path / "b", "int4", None, scheme=scheme, group_size=16, all_layers=False)
    types = kinds(tmp_path / "b")
    assert types[64, 4, 16] == kind
    assert types[40, 64] in ("u8", "i8")


def test_int4_codes_are_within_a_step_of_the_weights(tmp_path: Path) -> None:
    write(spiky(), tmp_path / "a", "int4", None)
    network = read(tmp_path / "a")
    by_shape: dict[tuple[int, ...], list[Any]] = {}
    for op in network.get_ordered_ops():
        if op.get_type_name() == "Constant":
            by_shape.setdefault(tuple(op.get_output_shape(0)), []).append(op)
    (codes,) = by_shape[40, 2, 32]
    scale = (
        next(op for op in by_shape[40, 2, 1] if op.get_element_type().is_real())
        .get_data()
        .astype("f4")
    )
    zero = next(op for op in by_shape[40, 2, 1] if not op.get_element_type().is_real())
    plain = [_unpacked(op) for op in (codes, zero)]
    table = numpy_helper.to_array(
        next(t for t in spiky().graph.initializer if t.name == "E")
    ).reshape(40, 2, 32)
    assert (np.abs((plain[0] - plain[1]) * scale - table) <= scale * 1.02).all()


def _unpacked(op: Any) -> np.ndarray:
    """u4: two codes a byte, the lower half first."""
    shape = tuple(op.get_output_shape(0))
    packed = np.frombuffer(op.get_data().tobytes(), np.uint8)
    if packed.size == np.prod(shape):
        return packed.reshape(shape).astype("f4")
    return np.stack([packed & 15, packed >> 4], -1).reshape(shape).astype("f4")


def test_learned_int4_needs_calibration_and_lowers_the_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int4 with gptq needs calibration samples"):
        write(spiky(), tmp_path / "none", "int4", None, gptq=True)
    noises = {}
    for name, options in (
        ("plain", {}),
        ("gptq", {"gptq": True}),
        ("estimated", {"scale_estimation": True}),
        ("half", {"ratio": 0.5}),
    ):
        write(spiky(), tmp_path / name, "int4", ids(24), **options)
        noises[name] = noise_db(tmp_path / name, spiky(), ids(24))
    assert noises["gptq"] > noises["plain"]
    assert noises["half"] > noises["plain"]
    assert (tmp_path / "half" / "openvino_model.bin").stat().st_size > (
        tmp_path / "plain" / "openvino_model.bin"
    ).stat().st_size
    assert noises["estimated"] != noises["plain"]


def test_int8_static_leaves_what_is_too_rough_in_float(tmp_path: Path) -> None:
    write(spiky(), tmp_path / "all", "int8-static", ids(), max_noise=1.0)
    write(spiky(), tmp_path / "kept", "int8-static", ids(), max_noise=1e-3)
    counts = {}
    for name in ("all", "kept"):
        operators = [op.get_type_name() for op in read(tmp_path / name).get_ordered_ops()]
        counts[name] = operators.count("FakeQuantize")
        assert set(kinds(tmp_path / name).values()) & {"i8", "u8"}
    assert counts["all"] > counts["kept"]
    assert noise_db(tmp_path / "kept", spiky(), ids(seed=5)) > max(
        25, noise_db(tmp_path / "all", spiky(), ids(seed=5))
    )
    small = {kind for shape, kind in kinds(tmp_path / "kept").items() if np.prod(shape) >= 2048}
    assert small <= {"i8", "u8"}  # the weights of what is left in float are stored as int8 as well


def test_the_worst_operator_is_found(tmp_path: Path) -> None:
    source = tmp_path / "m.onnx"
    source.write_bytes(spiky().SerializeToString())
    network = openvino.convert_model(str(source))
    names = _nncf_scope.find_products(network)
    assert len(names) == 2
    exact = _nncf_scope.run_network(network, ids())
    errors = _nncf_scope.measure_each_alone(network, ids(), exact)
    first, second = names
    assert errors[second] > errors[first] > 0
    # by hand: the cube through 256 levels between its extremes
    table, w0, w1 = (numpy_helper.to_array(t).astype("f8") for t in spiky().graph.initializer)
    cubes = [(table[feed["ids"]] @ w0) ** 3 for feed in ids()]
    low, high = min(c.min() for c in cubes), max(c.max() for c in cubes)
    step = (high - low) / 255
    wrong = sum(np.square(((np.rint((c - low) / step) * step + low) - c) @ w1).sum() for c in cubes)
    assert errors[second] == pytest.approx(
        wrong / sum(np.square(c @ w1).sum() for c in cubes), rel=0.02
    )


@pytest.mark.parametrize("precision", ["int4", "int8-static"])
def test_the_same_bytes_every_time(tmp_path: Path, precision: str) -> None:
    for name in ("a", "b"):
        write(spiky(), tmp_path / name, precision, ids(), max_noise=1e-3)
    for file in ("openvino_model.xml", "openvino_model.bin"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_convolutional_network_is_quantized_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = [{"image": rng.standard_normal((4, 3, 8, 8)).astype("f4")} for _ in range(4)]
    write(convolution(), tmp_path / "c", "int8-static", images)
    assert noise_db(tmp_path / "c", convolution(), images) > 25
    assert kinds(tmp_path / "c")[16, 3, 3, 3] == "i8"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int8-static needs calibration samples"):
        write(linear(), tmp_path / "a", "int8-static", None)
    with pytest.raises(UsageError, match="sample 0 holds z; the model takes x"):
        write(linear(), tmp_path / "b", "int8-static", [{"z": np.zeros((1, 8), "f4")}])
    with pytest.raises(
        UsageError, match=r"x is float32 \[4, 9\], the model takes float32 \['batch', 8\]"
    ):
        write(linear(), tmp_path / "c", "int4", rows(1, 9))
    for precision in ("int8", "int4", "int8-static"):
        bare = model([node("Relu", "x", "y")], [value("x", ["b", 8])], [value("y", ["b", 8])], [])
        with pytest.raises(UnsupportedError, match="no weights to quantize"):
            write(bare, tmp_path / f"bare-{precision}", precision, rows())
    maps = [value("x", ["b", 8, 6, 6])], [value("y", ["b", 32, 6, 6])]
    conv = model(
        [node("Conv", "x W", "y", pads=[1] * 4)], *maps, [tensor("W", weights(32, 8, 3, 3))]
    )
    with pytest.raises(UnsupportedError, match="no weight came out in 4 bits"):
        write(conv, tmp_path / "conv", "int4", None)
    coded = model(
        [node("DequantizeLinear", "c s", "W"), node("MatMul", "x W", "y")],
        [value("x", ["b", 8])],
        [value("y", ["b", 8])],
        [tensor("c", np.ones((8, 8)), "i1"), tensor("s", 0.5)],
    )
    with pytest.raises(UnsupportedError, match="quantized already: it has DequantizeLinear"):
        write(coded, tmp_path / "coded", "int4", None)
