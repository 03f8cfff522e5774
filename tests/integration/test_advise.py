"""`mconv advise` on real files: targets tried, sizes expected against sizes made, limits that
cannot be met."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from mconv.__main__ import main
from tests.conftest import ROOT


def advise(capsys: pytest.CaptureFixture[str], tmp_path: Path, *argv: str) -> dict[str, Any]:
    assert main(["advise", *argv, "--store", str(tmp_path / "store"), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_digits_sizes_are_as_expected_and_the_first_ones_pass(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "examples/digits")
    model = ("weights/digits.pt", "--factory", "net:build", "--input", "image:float32:batch,1,8,8")
    targets = (
        "--target",
        "onnx",
        "--target",
        "openvino",
        "--samples",
        "samples/digits.npz",
        "--tolerance",
        "0.99",
    )
    expected = advise(capsys, tmp_path, *model, *targets)
    assert {t["target"]: t["status"] for t in expected["targets"]} == {
        "onnx": "passed",
        "openvino": "passed",
    }
    about = expected["architecture"]
    assert sum(r["amount"] for r in about["roles"]) == about["info"]["parameters"]
    assert about["dynamic"] == ["batch"]
    assert any("Conv" in share["name"] for share in about["time"])
    measured = advise(capsys, tmp_path, *model, *targets, "--try", "4")
    assert measured["recommendations"][0]["measured"]
    assert not measured["recommendations"][0]["misses"]
    sizes = {(r["target"], r["precision"]): r["size_bytes"] for r in expected["recommendations"]}
    tried = [r for r in measured["recommendations"] if r["measured"] and r["precision"] != "fp32"]
    assert len(tried) >= 3
    for one in tried:
        assert one["p50_ms"] > 0
        assert one["size_bytes"] == pytest.approx(sizes[one["target"], one["precision"]], rel=0.2)


def test_what_a_target_lacks_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Det", ["h"], ["d"]),
        helper.make_node("Reshape", ["d", "shape"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(
            np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32), "w"
        ),
        numpy_helper.from_array(np.array([-1, 1], np.int64), "shape"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "det", [x], [y], tensors)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "det.onnx",
    )
    argv = [
        str(tmp_path / "det.onnx"),
        "--target",
        "onnx",
        "--target",
        "webgpu",
        "--target",
        "webnn",
        "--max-size",
        "900B",
    ]
    found = advise(capsys, tmp_path, *argv)
    by = {target["target"]: target for target in found["targets"]}
    assert by["onnx"]["status"] == "passed"
    assert by["webgpu"]["status"] == "failed"
    assert by["webgpu"]["operators"] == ["Det"]
    assert by["webnn"]["status"] == "error"
    assert "Det" in by["webnn"]["reasons"][0]
    assert {one["target"] for one in found["recommendations"]} == {"onnx"}
    assert any(
        "above the limit of 900" in miss
        for one in found["recommendations"]
        for miss in one["misses"]
    )


def test_the_text_names_the_parts_the_targets_and_the_ranking(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tests.models import write_linear

    argv = [
        "advise",
        str(write_linear(tmp_path / "net.onnx")),
        "--target",
        "onnx",
        "--store",
        str(tmp_path / "store"),
    ]
    assert main(argv) == 0
    text = capsys.readouterr().out
    for words in (
        "where the parameters are",
        "where the time is",
        "targets, tried in fp32",
        " 1  onnx:",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--target", "tpu"], "'tpu' is not a known target"),
        (["--max-size", "tiny"], "max_size"),
        (["--try", "0"], "not above zero"),
    ],
)
def test_mistakes_are_said(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tests.models import write_linear

    assert (
        main(
            [
                "advise",
                str(write_linear(tmp_path / "net.onnx")),
                "--store",
                str(tmp_path / "s"),
                *argv,
            ]
        )
        == 2
    )
    assert words in capsys.readouterr().err
