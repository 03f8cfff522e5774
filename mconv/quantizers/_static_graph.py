"""The graph that static quantization works on: checks, plain matrix products, which operators may be computed on 8 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mconv import graph
from mconv.errors import UnsupportedError, UsageError
from mconv.quantizers.int8_dynamic import QUANTIZED, SMALLEST, _at_least, _plain_products, _replace, symmetric

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

MIN_OPSET = 13  # per-axis DequantizeLinear starts here
JOINTS = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool")  # have int8 kernels; worth it between convolutions only
PASSING = ("MaxPool", "Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")  # carry 8-bit codes through
BOUNDING = ("Relu", "Clip")  # a convolution's range is taken behind them, and onnxruntime drops them
WEIGHTS = {"MatMul": -1, "Conv": 0, "ConvTranspose": 1, "Gemm": 1}  # operator → axis of the output channels of input 1
ROWS = "_rows"  # suffix of an embedding's codes


@dataclass(frozen=True)
class Candidate:
    """An operator that could be computed on 8 bits. ``output`` is set where the kernel needs its output quantized as well."""

    name: str
    kind: str
    activations: tuple[str, ...]
    weight: str | None
    output: str | None


def prepare(model: Path) -> Any:
    """Read a float model, with Gemm as MatMul and Add and every node named.

    Raises UnsupportedError for a model quantized already, of 16-bit floats, or without weights of 256 elements or more.
    """
    import onnx

    proto = graph.load(model)
    present = sorted({n.op_type for n in proto.graph.node} & QUANTIZED)
    if present:
        raise UnsupportedError(f"the model is quantized already: it has {', '.join(present)}", hint="start from the float model")
    if any(t.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16) for t in proto.graph.initializer):
        raise UnsupportedError("the model's weights are 16-bit floats; int8 is made from 32-bit ones", hint="export it as fp32")
    proto = _at_least(proto, MIN_OPSET)
    _plain_products(proto)
    taken: Counter[str] = Counter(n.name for n in proto.graph.node)
    for index, node in enumerate(proto.graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"
    constant = floats(proto)
    if not any(n.op_type in (*WEIGHTS, "Gather") and constant.keys() & set(n.input) for n in proto.graph.node):
        raise UnsupportedError(
            "the model has no weights to quantize: no matrix product, convolution or embedding of constants",
            hint="deliver it as fp16",
        )
    return proto


def check_feeds(proto: Any, feeds: Sequence[Mapping[str, np.ndarray]] | None) -> None:
    """Calibration feeds fit the model's inputs by name, type and shape. Raises UsageError naming the array that does not."""
    if not feeds:
        raise UsageError("static quantization needs calibration samples; there are none", hint="set `calibration: {data: ….npz}`")
    constant = {t.name for t in proto.graph.initializer}
    specs = [graph.value_spec(v) for v in proto.graph.input if v.name not in constant]
    for index, feed in enumerate(feeds):
        if feed.keys() != {s.name for s in specs}:
            raise UsageError(
                f"calibration sample {index} holds {', '.join(sorted(feed)) or 'nothing'}; "
                f"the model takes {', '.join(s.name for s in specs)}",
                hint="name one array after each model input",
            )
        for spec in specs:
            array = feed[spec.name]
            fits = len(array.shape) == len(spec.shape) and all(
                isinstance(want, str) or want == got for want, got in zip(spec.shape, array.shape, strict=True)
            )
            if not fits or str(array.dtype) != spec.dtype:
                raise UsageError(
                    f"calibration sample {index}: {spec.name} is {array.dtype} {list(array.shape)}, "
                    f"the model takes {spec.dtype} {list(spec.shape)}"
                )


def floats(proto: Any, smallest: int = SMALLEST) -> dict[str, Any]:
    """32-bit float initializers of two axes or more and ``smallest`` elements or more, by name."""
    import math

    return {
        t.name: t
        for t in proto.graph.initializer
        if t.data_type == 1 and len(t.dims) > 1 and math.prod(t.dims) >= smallest  # 1: TensorProto.FLOAT
    }


def readers(proto: Any) -> dict[str, list[Any]]:
    """Tensor → the nodes that read it; a graph output counts as read by None."""
    found: dict[str, list[Any]] = {v.name: [None] for v in proto.graph.output}
    for node in proto.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def candidates(proto: Any) -> list[Candidate]:
    """Matrix products (of weights, or of two activations), convolutions, and what joins convolutions, in graph order."""
    constant = {t.name for t in proto.graph.initializer}
    weights = floats(proto, 1)
    read = readers(proto)
    spatial: set[str] = set()  # tensors that come from convolutions alone
    found = []
    for node in proto.graph.node:
        inputs = [name for name in node.input if name]
        active = tuple(name for name in inputs if name not in constant)
        if node.op_type == "Conv" and inputs[1] in weights:
            spatial.add(node.output[0])
            found.append(Candidate(node.name, node.op_type, active[:1], inputs[1], _bounded(node, read)))
        elif node.op_type == "MatMul":
            weight = inputs[1] if inputs[1] in weights else None
            if (weight and len(weights[weight].dims) == 2) or len(active) == 2:
                found.append(Candidate(node.name, node.op_type, active, weight, None))
        elif node.op_type in PASSING and set(active) <= spatial:
            spatial.update(node.output)
        elif node.op_type in JOINTS and len(active) == len(inputs) and set(active) <= spatial:
            spatial.update(node.output)
            found.append(Candidate(node.name, node.op_type, active, None, _bounded(node, read)))
    return found


def carried(proto: Any, found: Sequence[Candidate]) -> dict[str, tuple[str, ...]]:
    """Nodes between convolutions that only pass codes on → their outputs; and each candidate with an output → that output."""
    made = {}
    spatial: set[str] = set()
    names = {c.name for c in found if c.output}
    for node in proto.graph.node:
        if node.name in names or (node.op_type in PASSING and node.input[0] in spatial):
            spatial.update(node.output)
            made[node.name] = tuple(node.output)
    return made


def _bounded(node: Any, read: Mapping[str, list[Any]]) -> str:
    """The tensor whose range is the node's output: that of a Relu or Clip behind it, if nothing else reads it."""
    name = str(node.output[0])
    following = read.get(name, [])
    if len(following) == 1 and following[0] is not None and following[0].op_type in BOUNDING:
        return str(following[0].output[0])
    return name


def store_rows(proto: Any) -> int:
    """Embedding tables as int8 codes with one scale a row, looked up before they are turned to float; returns how many.

    Gather(codes) · Gather(scales): only the rows asked for are dequantized. Tables that are also read elsewhere stay.
    """
    from onnx import TensorProto, helper, numpy_helper

    tables = {name: t for name, t in floats(proto).items() if len(t.dims) == 2}
    read = readers(proto)
    nodes, done = [], 0
    for node in proto.graph.node:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        name = node.input[0] if node.input else ""
        if node.op_type != "Gather" or axis != 0 or name not in tables or any(n is None or n.op_type != "Gather" for n in read[name]):
            nodes.append(node)
            continue
        stored, steps, out = f"{name}_int8", f"{name}_scale", node.output[0]
        if not any(t.name == stored for t in proto.graph.initializer):
            codes, scale = symmetric(numpy_helper.to_array(tables[name]), 0)
            proto.graph.initializer.extend([numpy_helper.from_array(codes, stored), numpy_helper.from_array(scale, steps)])
        nodes += [
            helper.make_node("Gather", [stored, node.input[1]], [f"{out}_codes"], name=f"{node.name}_codes", axis=0),
            helper.make_node("Gather", [steps, node.input[1]], [f"{out}_scale"], name=f"{node.name}_scale", axis=0),
            helper.make_node("Cast", [f"{out}_codes"], [f"{out}_cast"], name=f"{node.name}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{out}_cast", f"{out}_scale"], [out], name=f"{node.name}_rows"),
        ]
        done += 1
    _replace(proto.graph, nodes)
    return done


def store_weights(proto: Any) -> int:
    """Float weights that are left, as int8 codes with a scale a channel behind Cast and Mul; returns of how many nodes.

    Constant arithmetic: onnxruntime folds it when it loads the model, and computes in float.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensors = floats(proto)
    nodes, done, made = [], 0, set()
    for node in proto.graph.node:
        name = node.input[1] if node.op_type in WEIGHTS and len(node.input) > 1 else ""
        if name in tensors:
            said = {a.name: a.i for a in node.attribute if a.name in ("transB", "group")}
            rank = len(tensors[name].dims)
            axis = WEIGHTS[node.op_type] % rank
            if said.get("transB") or (node.op_type == "ConvTranspose" and said.get("group", 1) != 1):
                axis = 0
            base = f"{name}_float{axis}"
            if base not in made:
                made.add(base)
                codes, scale = symmetric(numpy_helper.to_array(tensors[name]), axis)
                parts = [numpy_helper.from_array(codes, f"{base}_int8"), numpy_helper.from_array(scale, f"{base}_scale")]
                proto.graph.initializer.extend(parts)
                nodes.append(
                    helper.make_node("Cast", [f"{base}_int8"], [f"{base}_cast"], name=f"{base}_cast", to=TensorProto.FLOAT)
                )
                nodes.append(helper.make_node("Mul", [f"{base}_cast", f"{base}_scale"], [base], name=base))
            node.input[1] = base
            done += 1
        nodes.append(node)
    _replace(proto.graph, nodes)
    return done
