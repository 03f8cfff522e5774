"""Domains found from graphs that are built by hand, node by node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from mconv.onnx_graph import model_files, model_info
from mconv.proof.domains import Domain, find_constant_outputs, infer_domains

FLOAT, INT64, INT32, UINT8, BOOL = (
    TensorProto.FLOAT,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.UINT8,
    TensorProto.BOOL,
)


def infer(
    folder: Path,
    kind: int,
    shape: list[object],
    nodes: list[object],
    constants: dict[str, np.ndarray],
    output: int = FLOAT,
) -> Domain:
    """The domain of the input ``x`` of a graph whose output is ``y``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    save(helper.make_model(graph, opset_imports=opsets), folder / "m.onnx")
    inputs = model_info.describe(folder / "m.onnx").inputs
    graph = model_files.load_model(folder / "m.onnx").graph
    return infer_domains(graph, inputs)["x"]


node = helper.make_node


def test_ids_go_to_the_end_of_their_table(tmp_path: Path) -> None:
    domain = infer(
        tmp_path,
        INT32,
        ["batch", "len"],
        [node("Cast", ["x"], ["c"], to=INT64), node("Gather", ["t", "c"], ["y"])],
        {"t": np.zeros((97, 4), np.float32)},
    )
    assert (domain.kind, domain.low, domain.high, domain.guessed) == ("ids", 0, 96, False)
    assert "97 rows" in domain.reason


def test_ids_that_are_chosen_by_products_go_to_the_end_of_their_table(tmp_path: Path) -> None:
    """As TensorFlow's converter writes a Where of integers, whose types had no Where."""
    domain = infer(
        tmp_path,
        INT32,
        ["batch", "len"],
        [
            node("Add", ["x", "n"], ["moved"]),
            node("Cast", ["x"], ["float"], to=FLOAT),
            node("Less", ["float", "zero"], ["less"]),
            node("Not", ["less"], ["more"]),
            node("Cast", ["less"], ["one"], to=INT32),
            node("Cast", ["more"], ["other"], to=INT32),
            node("Mul", ["one", "moved"], ["a"]),
            node("Mul", ["x", "other"], ["b"]),
            node("Add", ["a", "b"], ["chosen"]),
            node("Gather", ["t", "chosen"], ["y"]),
        ],
        {"t": np.zeros((2000, 4), np.float32), "n": np.int32(2000), "zero": np.float32(0)},
    )
    assert (domain.kind, domain.low, domain.high) == ("ids", 0, 1999)


def test_ids_of_a_one_hot_end_at_its_depth(tmp_path: Path) -> None:
    domain = infer(
        tmp_path,
        INT32,
        ["batch", 8],
        [node("OneHot", ["x", "d", "v"], ["y"])],
        {"d": np.array(257, np.int32), "v": np.array([0, 1], np.float32)},
    )
    assert (domain.kind, domain.high) == ("ids", 256)


def test_what_integers_are_compared_with_is_tried(tmp_path: Path) -> None:
    domain = infer(
        tmp_path, INT64, [], [node("Equal", ["x", "k"], ["y"])], {"k": np.array(16000)}, BOOL
    )
    assert domain.kind == "integers"
    assert domain.marks == (16000.0,)
    assert domain.guessed


def test_bytes_of_a_picture_are_an_image(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["f"], to=FLOAT),
        node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w"], ["y"]),
    ]
    domain = infer(
        tmp_path, UINT8, ["n", 32, 32, 3], nodes, {"w": np.zeros((4, 3, 3, 3), np.float32)}
    )
    assert (domain.kind, domain.low, domain.high, domain.guessed) == ("image", 0, 255, False)


@pytest.mark.parametrize(
    ("scale", "shift", "wanted"),
    [
        (np.float32(1 / 255), None, (0, 255)),
        (np.float32(1 / 127.5), np.float32(-1), (0, 255)),
        # the means and deviations that ImageNet's nets are trained with
        (
            1 / np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1),
            -np.array([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225], np.float32).reshape(
                1, 3, 1, 1
            ),
            (0, 1),
        ),
    ],
)
def test_the_range_of_pictures_shows_in_their_scale(
    tmp_path: Path, scale: np.ndarray, shift: np.ndarray | None, wanted: tuple[int, int]
) -> None:
    nodes = [node("Mul", ["x", "s"], ["m"])]
    constants = {"s": scale, "w": np.zeros((4, 3, 3, 3), np.float32)}
    if shift is not None:
        nodes.append(node("Add", ["m", "b"], ["a"]))
        constants["b"] = shift
    nodes.append(node("Conv", [nodes[-1].output[0], "w"], ["y"]))
    domain = infer(tmp_path, FLOAT, ["n", 3, 32, 32], nodes, constants)
    assert (domain.kind, domain.low, domain.high) == ("image", *wanted)


def test_features_lie_where_the_scaler_has_seen_them(tmp_path: Path) -> None:
    mean, deviation = np.array([5.0, -2.0, 100.0]), np.array([0.5, 3.0, 20.0])
    nodes = [
        node("Sub", ["x", "m"], ["c"]),
        node("Div", ["c", "d"], ["s"]),
        node("MatMul", ["s", "w"], ["y"]),
    ]
    constants = {
        "m": mean.astype(np.float32),
        "d": deviation.astype(np.float32),
        "w": np.ones((3, 2), np.float32),
    }
    domain = infer(tmp_path, FLOAT, ["n", 3], nodes, constants)
    assert domain.mean == pytest.approx(mean)
    assert domain.deviation == pytest.approx(deviation)
    assert not domain.guessed


def test_a_gain_alone_is_no_unit(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "s"], ["m"]), node("MatMul", ["m", "w"], ["y"])]
    constants = {"s": np.array([1e4, 1, 1], np.float32), "w": np.ones((3, 2), np.float32)}
    domain = infer(tmp_path, FLOAT, ["n", 3], nodes, constants)
    assert domain.guessed
    assert domain.mean == ()


def test_features_of_trees_lie_around_their_thresholds(tmp_path: Path) -> None:
    tree = node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[1, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[250.0, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    domain = infer(tmp_path, FLOAT, ["n", 2], [tree], {})
    assert domain.mean[1] == 250
    assert not domain.guessed


def test_a_logarithm_takes_what_is_not_negative(tmp_path: Path) -> None:
    nodes = [node("Add", ["x", "e"], ["a"]), node("Log", ["a"], ["y"])]
    domain = infer(tmp_path, FLOAT, ["n", 40], nodes, {"e": np.float32(1e-10)})
    assert (domain.kind, domain.low) == ("positive", 0)


def test_what_becomes_a_size_stays_small(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", ["x"], ["y"])]
    domain = infer(tmp_path, INT64, [2], nodes, {})
    assert domain.kind == "count"
    assert domain.high is not None
    assert domain.high <= 16


def test_constant_outputs_are_known_by_the_graph(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Shape", ["x"], ["s"]),
            node("ConstantOfShape", ["s"], ["zeros"]),
            node("Identity", ["c"], ["anchors"]),
            node("Relu", ["x"], ["y"]),
        ],
        "g",
        [value("x", FLOAT, ["n", 2])],
        [value(name, FLOAT, None) for name in ("zeros", "anchors", "y")],
        [numpy_helper.from_array(np.ones(3, np.float32), "c")],
    )
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets), tmp_path / "m.onnx")
    graph = model_files.load_model(tmp_path / "m.onnx").graph
    assert find_constant_outputs(graph) == {"zeros", "anchors"}
