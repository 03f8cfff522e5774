"""ONNX to a flat list of steps with static shapes: free dimensions frozen, functions inlined,
constant subgraphs evaluated.

Types and shapes come from ONNX's own inference of each node, fed with the constants known so far,
so shape arithmetic (Shape, Gather, Concat, Reshape …) disappears. Weights stay small: what
dequantizes, casts or enlarges constants is not evaluated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from mconv import graph as files
from mconv.errors import UnsupportedError
from mconv.targets._webnn import inference
from mconv.targets._webnn.evaluate import evaluate_node
from mconv.targets._webnn.inference import Type

DOMAINS = {"": "", "ai.onnx": ""}
KEEP_PACKED = {"DequantizeLinear", "QuantizeLinear"}
KNOWN_DATA = 4096  # elements; constants up to this size are shown to shape inference
# bytes; a constant result above this and twice its inputs is left to the browser
ENLARGED = 1 << 20


@dataclass(frozen=True)
class Step:
    """A node: operator with its domain prefix (none for ONNX's own), opset version, attributes,
    names of inputs and outputs."""

    name: str
    op: str
    version: int
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Graph:
    """What is left to emit, in topological order. ``needed``: every tensor that some step or output
    uses."""

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    # step's first output -> why its type could not be inferred
    problems: dict[str, str] = field(default_factory=dict)


def prepare(path: Path, dims: Mapping[str, int], known: set[str]) -> Graph:
    """Read, freeze, inline, fold. ``known``: operators with a handler; others are replaced by their
    ONNX function body if they have one. Raises UnsupportedError for a free dimension without a
    size, SourceError for a bad file."""
    model = files.load(path)
    freeze_dims(model, dims)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for _ in range(4):  # bodies may hold functions again
        graph = fold_constants(model)
        unknown = {step.op for step in graph.steps} - known
        if not unknown or not (inlined := inline_functions(model, unknown)):
            break
        model = inlined
    return graph


def fold_constants(model: onnx.ModelProto) -> Graph:
    """The steps that remain once everything constant is evaluated."""
    versions = {DOMAINS.get(o.domain, o.domain): o.version for o in model.opset_import}
    graph = Graph()
    types: dict[str, onnx.TypeProto] = {}

    def constant(name: str, array: np.ndarray, kind: onnx.TypeProto) -> None:
        graph.constants[name] = array
        graph.types[name] = (array.dtype.name, tuple(int(d) for d in array.shape))
        types[name] = kind

    for tensor in model.graph.initializer:
        constant(
            tensor.name,
            numpy_helper.to_array(tensor),
            onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims),
        )
    for value in model.graph.input:
        if value.name not in graph.constants:
            graph.inputs.append(value.name)
            types[value.name] = value.type
            graph.types[value.name] = read_type(value.type)
    for node in model.graph.node:
        step = make_step(node, versions)
        inferred, why = infer_outputs(node, step, types, graph, model)
        if (
            step.op not in KEEP_PACKED
            and (values := fold_node(node, step, inferred, graph, model)) is not None
        ):
            for name, array in zip(step.outputs, values, strict=False):
                if name:
                    elem = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                    constant(name, array, onnx.helper.make_tensor_type_proto(elem, array.shape))
            continue
        graph.steps.append(step)
        if why:
            graph.problems[step.outputs[0]] = why
        for name, kind in inferred.items():
            types[name] = kind
            graph.types[name] = read_type(kind)
    graph.outputs = [v.name for v in model.graph.output]
    remove_unused(graph)
    return graph


def freeze_dims(model: onnx.ModelProto, dims: Mapping[str, int]) -> None:
    """Give every free input dimension its size, by its name or by ``<input>_<axis>``. Raises
    UnsupportedError.

    The message names all dimensions that lack a size.
    """
    initializers = {t.name for t in model.graph.initializer}
    missing = []
    for value in model.graph.input:
        if value.name in initializers:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                name = dim.dim_param or f"{value.name}_{axis}"
                if name in dims:
                    dim.dim_value = dims[name]
                else:
                    missing.append(f"{name} (axis {axis} of {value.name})")
    if missing:
        raise UnsupportedError(
            "WebNN graphs have static shapes; these dimensions have no size: " + ", ".join(missing),
            hint="give each one a size in the target's options",
        )
    for value in model.graph.output:  # what was free there follows from the inputs
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def inline_functions(model: onnx.ModelProto, unknown: set[str]) -> onnx.ModelProto | None:
    """Replace those of the ``unknown`` operators that ONNX defines by a function by their bodies;
    None if there is none."""
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    found = set()
    for node in model.graph.node:
        if (
            node.domain in ("", "ai.onnx")
            and node.op_type in unknown
            and onnx.defs.has(node.op_type, version, "")
        ):
            schema = onnx.defs.get_schema(node.op_type, version, "")
            if schema.has_function or schema.has_context_dependent_function:
                found.add(node.op_type)
                present = {a.name for a in node.attribute}
                # the inliner forgets the defaults
                for name, attribute in sorted(schema.attributes.items()):
                    if name not in present and attribute.default_value.type:
                        node.attribute.append(attribute.default_value)
    if not found:
        return None
    try:
        return onnx.inliner.inline_selected_functions(
            model, [("", op) for op in sorted(found)], inline_schema_functions=True
        )
    except Exception:
        # the inliner gives up on some types: the operators then stay, and are refused by name
        return None


def make_step(node: onnx.NodeProto, versions: Mapping[str, int]) -> Step:
    domain = DOMAINS.get(node.domain, node.domain)
    attributes = {a.name: read_attribute(a) for a in node.attribute}
    op = f"{domain}.{node.op_type}" if domain else node.op_type
    return Step(
        node.name or node.output[0],
        op,
        versions.get(domain, 1),
        attributes,
        tuple(node.input),
        tuple(node.output),
    )


def read_attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def read_type(kind: onnx.TypeProto) -> Type:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.elem_type:
        return ("", None)
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return (dtype, None)
    return (dtype, tuple(d.dim_value for d in tensor.shape.dim))


def infer_outputs(
    node: onnx.NodeProto,
    step: Step,
    types: dict[str, onnx.TypeProto],
    graph: Graph,
    model: onnx.ModelProto,
) -> tuple[dict[str, onnx.TypeProto], str]:
    """The types of a node's outputs by ONNX's inference, and the reason where there are none."""
    used = [name for name in node.input if name]
    if any(name not in types for name in used):
        return {}, "the type of an input is not known"
    if step.op in inference.RULES:
        try:
            types_in = [graph.types[n] if n else ("", None) for n in step.inputs]
            return inference.infer_types(step.op, step.attributes, types_in, list(step.outputs)), ""
        except (KeyError, IndexError, TypeError) as problem:
            return {}, f"attributes or inputs are missing: {problem}"
    if "." in step.op or not onnx.defs.has(node.op_type, step.version, ""):
        return {}, "the operator is not ONNX's"
    data = {
        name: numpy_helper.from_array(graph.constants[name], name)
        for name in used
        if name in graph.constants and graph.constants[name].size <= KNOWN_DATA
    }
    schema = onnx.defs.get_schema(node.op_type, step.version, "")
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            {n: types[n] for n in used},
            data,
            opset_imports=list(model.opset_import),
            ir_version=model.ir_version,
        )
    except Exception as problem:  # onnx raises InferenceError and, from its C++ side, RuntimeError
        return {}, str(problem).strip().splitlines()[0]
    shape = graph.types[node.input[0]][1] if used else None
    if step.op in inference.POOLS and step.attributes.get("ceil_mode", 0) and shape is not None:
        for kind in found.values():
            inference.drop_partial_windows(step.attributes, shape, kind)
    return dict(found), ""


def fold_node(
    node: onnx.NodeProto,
    step: Step,
    inferred: Mapping[str, onnx.TypeProto],
    graph: Graph,
    model: onnx.ModelProto,
) -> list[np.ndarray] | None:
    """The outputs of a node whose inputs are all constants (or whose input's shape is, for Shape
    and Size); None to keep it."""
    if step.op in ("Shape", "Size"):
        shape = graph.types.get(step.inputs[0], ("", None))[1]
        if shape is None:
            return None
        if step.op == "Size":
            return [np.array(math.prod(shape), np.int64)]
        start, end = step.attributes.get("start", 0), step.attributes.get("end")
        return [np.array(shape, np.int64)[start:end]]
    if step.op.startswith(("Random", "Bernoulli", "Multinomial")) or any(
        a.HasField("g") for a in node.attribute
    ):
        return None
    if any(name and name not in graph.constants for name in step.inputs) or "." in step.op:
        return None
    before = sum(graph.constants[n].nbytes for n in step.inputs if n)
    for kind in inferred.values():
        dtype, shape = read_type(kind)
        if shape is not None and dtype not in ("", "str"):
            after = math.prod(shape) * np.dtype(dtype).itemsize if dtype in np.sctypeDict else 0
            if after > max(ENLARGED, 2 * before) or (
                step.op == "Cast" and after > max(ENLARGED, before)
            ):
                return None
    return evaluate_node(node, [graph.constants[n] if n else None for n in step.inputs], model)


def remove_unused(graph: Graph) -> None:
    needed = set(graph.outputs)
    kept = []
    for step in reversed(graph.steps):
        if any(name in needed for name in step.outputs if name):
            needed.update(name for name in step.inputs if name)
            kept.append(step)
    graph.steps = kept[::-1]
    graph.needed = needed
