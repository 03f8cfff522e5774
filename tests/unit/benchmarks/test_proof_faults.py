"""Faults of benchmarks/proof.py: each changes a graph as it says, by the numbers, and has no place
in a graph that lacks what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks._proof.faults import FAULTS, Seen, list_places
from benchmarks._proof.graphs import Graph, infer_shapes, open_session

Arrays = Mapping[str, np.ndarray]
Dims = Sequence[int | str]
RNG = np.random.default_rng(0)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Dims]],
    outputs: Mapping[str, tuple[int, Dims | None]],
    weights: Arrays | None = None,
) -> onnx.ModelProto:
    """A graph of opset 18 from nodes, inputs and outputs (name → type, shape) and weights."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, *about) for n, about in inputs.items()],
        [helper.make_tensor_value_info(n, *about) for n, about in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), output.split(), name=output, **attributes)


def run(path: Path, feed: Arrays) -> dict[str, np.ndarray]:
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def mutate(
    proto: onnx.ModelProto,
    kind: str,
    feed: Arrays,
    folder: Path,
    *,
    place: int = 0,
    typical: Mapping[str, float] | None = None,
    centre: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """What the graph answers with the fault at one place."""
    fault = next(each for each in FAULTS if each.name == kind)
    whole = infer_shapes(proto)
    seen = Seen(whole, feed, typical or {}, centre or {})
    graph = Graph(whole)
    list_places(fault, graph, seen)[place].edit()
    path = folder / "mutant.onnx"
    graph.save(path)
    onnx.checker.check_model(str(path))
    return run(path, feed)


FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
WEIGHT = RNG.standard_normal((4, 6)).astype(np.float32)
OTHER = RNG.standard_normal((6, 6)).astype(np.float32)
THIRD = RNG.standard_normal((6, 6)).astype(np.float32)
BIAS = RNG.standard_normal(6).astype(np.float32)
X = RNG.standard_normal((3, 4)).astype(np.float32)


def layers() -> onnx.ModelProto:
    nodes = [
        node("Gemm", "x w b", "h"),
        node("MatMul", "h v", "k"),
        node("MatMul", "k u", "y"),
    ]
    weights = {"w": WEIGHT, "b": BIAS, "v": OTHER, "u": THIRD}
    return make_model(nodes, {"x": (FLOAT, ["n", 4])}, {"y": (FLOAT, ["n", 6])}, weights)


def logarithm() -> onnx.ModelProto:
    nodes = [node("Add", "x eps", "s"), node("Log", "s", "y")]
    return make_model(
        nodes,
        {"x": (FLOAT, ["n", 4])},
        {"y": (FLOAT, ["n", 4])},
        {"eps": np.array(1e-10, np.float32)},
    )


def identity(kind: int, shape: Dims, operator: str = "Identity") -> onnx.ModelProto:
    return make_model([node(operator, "x", "y")], {"x": (kind, shape)}, {"y": (kind, shape)})


def resized() -> onnx.ModelProto:
    """Fold [n, c, h, w] to [n, c × h, w] by sizes that it reads itself."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s two", "h"),
        node("Gather", "s three", "w"),
        node("Concat", "minus h w", "form", axis=0),
        node("Reshape", "x form", "y"),
    ]
    weights = {
        "two": np.array([2]),
        "three": np.array([3]),
        "minus": np.array([-1]),
    }
    dims = ["n", 2, "h", "w"]
    return make_model(nodes, {"x": (FLOAT, dims)}, {"y": (FLOAT, None)}, weights)


class Case(NamedTuple):
    """A fault in a tiny graph: what it is fed, and what must come of it there."""

    model: Callable[[], onnx.ModelProto]
    feed: Arrays
    right: Callable[[Arrays], np.ndarray]
    wrong: Callable[[Arrays], np.ndarray]
    place: int = 0
    typical: Mapping[str, float] = {}
    centre: Arrays = {}


def changed(array: np.ndarray, index: object, value: object) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


def four_bits(array: np.ndarray) -> np.ndarray:
    scale = np.abs(array).max() / 7
    return np.round(array / scale) * scale


def layered(w: np.ndarray = WEIGHT, b: np.ndarray = BIAS, v: np.ndarray = OTHER) -> np.ndarray:
    return (X @ w + b) @ v @ THIRD


def tabled() -> onnx.ModelProto:
    table = np.arange(160, dtype=np.float32).reshape(80, 2)
    return make_model(
        [node("Gather", "t x", "y")], {"x": (INT64, ["n"])}, {"y": (FLOAT, ["n", 2])}, {"t": table}
    )


def placed() -> onnx.ModelProto:
    nodes = [
        node("Shape", "x", "s", start=1, end=2),
        node("Squeeze", "s", "l"),
        node("Range", "zero l one", "r"),
        node("Add", "x r", "y"),
    ]
    return make_model(
        nodes,
        {"x": (INT64, ["n", "t"])},
        {"y": (INT64, ["n", "t"])},
        {"zero": np.array(0), "one": np.array(1)},
    )


def masked() -> onnx.ModelProto:
    nodes = [
        node("Equal", "mask one", "c"),
        node("Where", "c x low", "z"),
        node("Softmax", "z", "y", axis=-1),
    ]
    return make_model(
        nodes,
        {"x": (FLOAT, ["n", 4]), "mask": (INT64, ["n", 4])},
        {"y": (FLOAT, ["n", 4])},
        {"one": np.array(1), "low": np.array(-1e9, np.float32)},
    )


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def heads() -> onnx.ModelProto:
    nodes = [
        node("Reshape", "x form", "q"),
        node("Transpose", "q", "y", perm=[0, 2, 1, 3]),
    ]
    return make_model(
        nodes,
        {"x": (FLOAT, ["n", "t", 6])},
        {"y": (FLOAT, None)},
        {"form": np.array([0, 0, 3, 2])},
    )


def floored() -> onnx.ModelProto:
    """Floor division as exporters write it: what truncates, less one where the signs differ."""
    nodes = [
        node("Div", "x three", "q"),
        node("Mod", "x three", "rest"),
        node("Equal", "rest zero", "whole"),
        node("Less", "x zero", "negative"),
        node("Not", "whole", "part"),
        node("And", "negative part", "low"),
        node("Sub", "q one", "less"),
        node("Where", "low less q", "y"),
    ]
    weights = {"three": np.array(3), "zero": np.array(0), "one": np.array(1)}
    return make_model(nodes, {"x": (INT64, ["n"])}, {"y": (INT64, ["n"])}, weights)


def bytes_in() -> onnx.ModelProto:
    nodes = [node("Cast", "x", "f", to=FLOAT), node("Mul", "f two", "y")]
    return make_model(
        nodes, {"x": (UINT8, ["n"])}, {"y": (FLOAT, ["n"])}, {"two": np.array(2, np.float32)}
    )


def convolved() -> onnx.ModelProto:
    nodes = [node("Conv", "x w", "y", pads=[1, 1], kernel_shape=[3])]
    weights = {"w": np.array([[[1.0, 2.0, 3.0]]], np.float32)}
    return make_model(nodes, {"x": (FLOAT, [1, 1, 5])}, {"y": (FLOAT, None)}, weights)


def two_inputs() -> onnx.ModelProto:
    return make_model(
        [node("Add", "x z", "y")],
        {"x": (FLOAT, ["n", 4]), "z": (FLOAT, ["n", 4])},
        {"y": (FLOAT, ["n", 4])},
    )


IMAGE = RNG.standard_normal((2, 2, 3, 3)).astype(np.float32)
WIDE = RNG.standard_normal((1, 2, 3, 72)).astype(np.float32)
TOKENS = np.arange(2 * 60, dtype=np.int64).reshape(2, 60)
SIGNED = np.array([-7, -3, -1, 0, 4, 7])
LARGE = np.array([-(2**40), -40_000, 5, 40_000, 2**40])
TEXT = RNG.standard_normal((2, 5, 6)).astype(np.float32)
ROWS = {"x": X}
SEEN = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
CASES: dict[str, Case] = {
    "epsilon-dropped": Case(
        logarithm,
        {"x": np.zeros((1, 4), np.float32)},
        lambda f: np.full((1, 4), np.log(1e-10)),
        lambda f: np.full((1, 4), -np.inf),
    ),
    "channel-zeroed": Case(
        layers,
        ROWS,
        lambda f: layered(),
        # the channel hangs on the weight's name, "w" is 119
        lambda f: layered(w=changed(WEIGHT, (slice(None), 119 % 6), 0)),
    ),
    "bias-shifted": Case(
        layers,
        ROWS,
        lambda f: layered(),
        lambda f: layered(b=BIAS + max(np.abs(BIAS).max(), 0.3) / 3),
    ),
    "weights-swapped": Case(layers, ROWS, lambda f: layered(), lambda f: layered(v=THIRD)),
    "weights-coarse": Case(
        layers, ROWS, lambda f: layered(), lambda f: layered(w=four_bits(WEIGHT))
    ),
    "constant-halved": Case(
        logarithm,
        {"x": np.zeros((1, 4), np.float32)},
        lambda f: np.full((1, 4), np.log(1e-10)),
        lambda f: np.full((1, 4), -np.inf),
    ),
    "table-cut": Case(
        tabled,
        {"x": np.array([0, 39, 40, 79])},
        lambda f: np.stack([f["x"] * 2, f["x"] * 2 + 1], 1),
        lambda f: np.stack([f["x"] * 2, f["x"] * 2 + 1], 1) * (f["x"] < 40)[:, None],
    ),
    "axes-swapped": Case(
        lambda: identity(FLOAT, ["n", 2, 3, 3]),
        {"x": IMAGE},
        lambda f: f["x"],
        lambda f: f["x"].swapaxes(2, 3),
        place=1,
    ),
    "sizes-swapped": Case(
        resized,
        {"x": WIDE},
        lambda f: f["x"].reshape(-1, 3, 72),
        lambda f: f["x"].reshape(-1, 3, 3),  # height for width
        place=1,
    ),
    "size-baked": Case(
        resized,
        {"x": IMAGE},
        lambda f: f["x"].reshape(-1, 3, 3),
        lambda f: f["x"].reshape(-1, 3, 3),  # at the size that was tried it cannot be seen
    ),
    "size-capped": Case(
        resized,
        {"x": WIDE},
        lambda f: f["x"].reshape(-1, 3, 72),
        lambda f: f["x"].reshape(-1, 3, 48),
        place=1,
    ),
    "tail-lost": Case(
        lambda: identity(INT64, ["n", "t"]),
        {"x": TOKENS},
        lambda f: f["x"],
        lambda f: f["x"] * (np.arange(60) < 48),
    ),
    "saturated-16": Case(
        lambda: identity(INT64, ["n"]),
        {"x": LARGE},
        lambda f: f["x"],
        lambda f: f["x"].clip(-(2**15), 2**15 - 1),
    ),
    "saturated-32": Case(
        lambda: identity(INT64, ["n"]),
        {"x": LARGE},
        lambda f: f["x"],
        lambda f: f["x"].clip(-(2**31), 2**31 - 1),
    ),
    "floor-to-trunc": Case(
        floored,
        {"x": SIGNED},
        lambda f: f["x"] // 3,
        lambda f: np.trunc(f["x"] / 3).astype(np.int64),
        place=1,
    ),
    "negatives-lost": Case(
        lambda: identity(INT64, ["n"]),
        {"x": SIGNED},
        lambda f: f["x"],
        lambda f: np.maximum(f["x"], 0),
    ),
    "bytes-signed": Case(
        bytes_in,
        {"x": np.array([0, 127, 128, 255], np.uint8)},
        lambda f: f["x"].astype(np.float32) * 2,
        lambda f: f["x"].astype(np.int8).astype(np.float32) * 2,
    ),
    "mask-ignored": Case(
        masked,
        {"x": X, "mask": SEEN},
        lambda f: softmax(np.where(SEEN == 1, X, -1e9)),
        lambda f: softmax(X),
        place=1,
    ),
    "positions-off": Case(
        placed,
        {"x": TOKENS},
        lambda f: f["x"] + np.arange(60),
        lambda f: f["x"] + np.arange(60) + 1,
    ),
    "heads-permuted": Case(
        heads,
        {"x": TEXT},
        lambda f: f["x"].reshape(2, 5, 3, 2).swapaxes(1, 2),
        lambda f: f["x"].reshape(2, 5, 3, 2)[:, :, [2, 0, 1]].swapaxes(1, 2),
    ),
    "input-ignored": Case(
        two_inputs,
        {"x": X, "z": 2 * X},
        lambda f: 3 * X,
        lambda f: X + 7,
        place=1,
        typical={"x": 1.0, "z": 7.0},
    ),
    "output-constant": Case(
        lambda: identity(FLOAT, ["n", 4]),
        ROWS,
        lambda f: X,
        lambda f: np.tile(np.arange(4), (3, 1)),
        centre={"y": np.arange(4.0)},
    ),
    "nan-on-silence": Case(
        lambda: identity(FLOAT, ["n", 4]),
        {"x": changed(X, 1, 0)},
        lambda f: f["x"],
        lambda f: changed(f["x"], 1, np.nan),
    ),
    "input-clipped": Case(
        lambda: identity(FLOAT, ["n", 4]),
        {"x": X * 20},
        lambda f: f["x"],
        lambda f: f["x"].clip(-6, 6),
    ),
    "rows-mixed": Case(
        lambda: identity(FLOAT, ["n", 4]),
        ROWS,
        lambda f: X,
        lambda f: np.tile(X[:1], (3, 1)),
    ),
    "borders-moved": Case(
        convolved,
        {"x": np.arange(5, dtype=np.float32).reshape(1, 1, 5)},
        lambda f: np.convolve(np.arange(5), [3, 2, 1])[1:-1].reshape(1, 1, 5),
        lambda f: np.convolve(np.arange(5), [3, 2, 1])[2:].reshape(1, 1, 5),
    ),
}


@pytest.mark.parametrize("kind", [fault.name for fault in FAULTS])
def test_a_fault_changes_what_it_says(kind: str, tmp_path: Path) -> None:
    case = CASES[kind]
    path = tmp_path / "right.onnx"
    path.write_bytes(case.model().SerializeToString())
    (before,) = run(path, case.feed).values()
    np.testing.assert_allclose(before, case.right(case.feed), rtol=1e-4, atol=1e-5)
    (after,) = mutate(
        case.model(),
        kind,
        case.feed,
        tmp_path,
        place=case.place,
        typical=case.typical,
        centre=case.centre,
    ).values()
    np.testing.assert_allclose(after, case.wrong(case.feed), rtol=1e-4, atol=1e-5)


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == {fault.name for fault in FAULTS}
    assert len(FAULTS) >= 15


def test_a_size_is_baked_for_others(tmp_path: Path) -> None:
    """Baked at 3 × 3, another height does not fit any more."""
    fault = next(each for each in FAULTS if each.name == "size-baked")
    proto = infer_shapes(resized())
    graph = Graph(proto)
    list_places(fault, graph, Seen(proto, {"x": IMAGE}, {}, {}))[0].edit()
    path = tmp_path / "mutant.onnx"
    graph.save(path)
    taller = np.arange(36, dtype=np.float32).reshape(1, 2, 6, 3)
    np.testing.assert_array_equal(run(path, {"x": taller})["y"], taller.reshape(-1, 3, 3))


@pytest.mark.parametrize("kind", sorted(set(CASES) - {"input-clipped"}))
def test_no_place_where_nothing_fits(kind: str) -> None:
    """A lone Relu of a vector has nothing to be dropped, swapped, baked or masked."""
    fault = next(each for each in FAULTS if each.name == kind)
    proto = infer_shapes(identity(FLOAT, [1], "Relu"))
    seen = Seen(proto, {"x": np.zeros(1, np.float32)}, {}, {})
    assert not list_places(fault, Graph(proto), seen)


def test_readers_of_a_shared_constant_keep_it(tmp_path: Path) -> None:
    """An ε that two nodes share is dropped in one of them only."""
    nodes = [node("Add", "x eps", "a"), node("Add", "a eps", "y")]
    weights = {"eps": np.array(1e-4, np.float32)}
    dims = ["n", 4]
    model = make_model(nodes, {"x": (FLOAT, dims)}, {"y": (FLOAT, dims)}, weights)
    feed = {"x": np.zeros((1, 4), np.float32)}
    after = mutate(model, "epsilon-dropped", feed, tmp_path)
    np.testing.assert_allclose(after["y"], np.full((1, 4), 1e-4), rtol=1e-5)
