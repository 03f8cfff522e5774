"""How iris.onnx and iris.npz were made: a scikit-learn MLP on the bundled iris data, written with
onnx.helper.

The expected outputs in iris.npz are scikit-learn's own predict_proba, so the example shows a user's
outputs as the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent


def main() -> None:
    iris = load_iris()
    x = iris.data.astype(np.float32)
    x = (x - x.mean(0)) / x.std(0)
    model = MLPClassifier((64, 32), random_state=0, max_iter=600).fit(x, iris.target)
    nodes, tensors, last = [], [], "measurements"
    for i, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"weight_{i}"))
        tensors.append(numpy_helper.from_array(bias.astype(np.float32), f"bias_{i}"))
        nodes.append(
            helper.make_node(
                "Gemm", [last, f"weight_{i}", f"bias_{i}"], [f"gemm_{i}"], name=f"gemm_{i}"
            )
        )
        last = f"gemm_{i}"
        if i + 1 < len(model.coefs_):
            nodes.append(helper.make_node("Relu", [last], [f"relu_{i}"], name=f"relu_{i}"))
            last = f"relu_{i}"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], name="softmax", axis=-1))
    inputs = [helper.make_tensor_value_info("measurements", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "iris", inputs, outputs, tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    (HERE / "iris.onnx").write_bytes(made.SerializeToString(deterministic=True))
    expected = model.predict_proba(x).astype(np.float32)
    np.savez(HERE / "iris.npz", measurements=x.astype(np.float32), probabilities=expected)


if __name__ == "__main__":
    main()
