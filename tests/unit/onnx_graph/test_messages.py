"""Graphs are onnx_ir's; protobuf messages stand only where onnx itself, or a tool on it, takes or
gives them."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

WHERE = {
    "formats/onnx.py": "says what is wrong with files that are no model",
    "onnx_graph/model_files.py": "reads and writes files",
    "onnx_graph/opsets.py": "onnx's converter of opsets",
    "onnx_graph/serialization.py": "makes messages and their bytes",
    "quantizers/_fp16/converter.py": "onnxruntime's converter",
    "sources/_jax/conversion.py": "jax2onnx",
    "sources/_torch.py": "onnxruntime's inference of shapes",
    "sources/sklearn.py": "skl2onnx",
    "sources/tensorflow.py": "tf2onnx",
    "sources/tflite.py": "tf2onnx",
    "targets/_webnn/evaluate.py": "engines that run one node",
    "targets/_webnn/inference.py": "onnx's inference of one node",
    "targets/_webnn/inlining.py": "onnx's inliner",
}


def names_messages(path: Path) -> bool:
    """Whether a module names a class of messages of onnx (``onnx.NodeProto``)."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "onnx":
            names.extend(alias.name for alias in node.names)
    return any(name.endswith("Proto") for name in names)


def test_messages_stand_where_a_tool_takes_them() -> None:
    package = ROOT / "mconv"
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if names_messages(path)
    }
    assert naming - WHERE.keys() == set()
    assert "onnx_graph/serialization.py" in naming
