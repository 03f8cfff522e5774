"""Turns an ONNX file into a flat list of steps with static shapes: free dimensions are frozen,
functions inlined, constant subgraphs evaluated.

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

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files
from mconv.targets._webnn import inference
from mconv.targets._webnn.evaluate import evaluate_node
from mconv.targets._webnn.inference import Attributes, Type

DOMAINS = {"": "", "ai.onnx": ""}  # names of ONNX's own domain
KEEP_PACKED = {"DequantizeLinear", "QuantizeLinear"}
RANDOM = ("Random", "Bernoulli", "Multinomial")  # how operators begin that answer anew every time
KNOWN_DATA = 4096  # elements; constants up to this size are shown to shape inference
# bytes; a constant result above this and twice its inputs is left to the browser
ENLARGED = 1 << 20
INLINE_ROUNDS = 4  # bodies of functions may hold functions again


@dataclass(frozen=True)
class Step:
    """A node that is to be emitted.

    Attributes:
        name: The node's, or its first output's.
        op: Its operator, with its domain as a prefix (none for ONNX's own).
        version: The opset version of that domain.
        attributes: Those that are written in the file.
        inputs: Names of tensors; empty where an optional input is left out.
        outputs: Names of tensors; empty where an optional output is left out.
    """

    name: str
    op: str
    version: int
    attributes: Attributes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Graph:
    """What is left to emit.

    Attributes:
        inputs: Names of the model's inputs.
        outputs: Names of the model's outputs.
        steps: The nodes, in topological order.
        constants: Tensors whose value is known, by name.
        types: NumPy's data type and the static shape of tensors, by name.
        needed: Every tensor that some step or output uses.
        problems: A step's first output → why its type could not be inferred.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)


def prepare(path: Path, dims: Mapping[str, int], known: set[str]) -> Graph:
    """Read an ONNX file, freeze its dimensions to ``dims`` (by name), inline functions and fold
    constants.

    ``known`` are the operators with a handler; others are replaced by their ONNX function body if
    they have one. Raises UnsupportedError for a free dimension without a size, SourceError for a
    bad file.
    """
    model = model_files.load(path)
    freeze_dims(model, dims)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for _ in range(INLINE_ROUNDS):
        graph = fold_constants(model)
        unknown = {step.op for step in graph.steps} - known
        inlined = inline_functions(model, unknown) if unknown else None
        if inlined is None:
            break
        model = inlined
    return graph


def fold_constants(model: onnx.ModelProto) -> Graph:
    """Return the steps that remain once everything constant is evaluated."""
    versions = {DOMAINS.get(o.domain, o.domain): o.version for o in model.opset_import}
    graph = Graph()
    types: dict[str, onnx.TypeProto] = {}

    def add_constant(name: str, array: np.ndarray, kind: onnx.TypeProto) -> None:
        graph.constants[name] = array
        graph.types[name] = (array.dtype.name, tuple(int(d) for d in array.shape))
        types[name] = kind

    for tensor in model.graph.initializer:
        kind = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        add_constant(tensor.name, numpy_helper.to_array(tensor), kind)
    for value in model.graph.input:
        if value.name not in graph.constants:
            graph.inputs.append(value.name)
            types[value.name] = value.type
            graph.types[value.name] = read_type(value.type)
    for node in model.graph.node:
        step = make_step(node, versions)
        inferred, problem = infer_outputs(node, step, types, graph, model)
        arrays = None
        if step.op not in KEEP_PACKED:
            arrays = fold_node(node, step, inferred, graph, model)
        if arrays is None:
            graph.steps.append(step)
            if problem:
                graph.problems[step.outputs[0]] = problem
            for name, kind in inferred.items():
                types[name] = kind
                graph.types[name] = read_type(kind)
            continue
        for name, array in zip(step.outputs, arrays, strict=False):
            if name:
                element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                kind = onnx.helper.make_tensor_type_proto(element, array.shape)
                add_constant(name, array, kind)
    graph.outputs = [value.name for value in model.graph.output]
    remove_unused(graph)
    return graph


def freeze_dims(model: onnx.ModelProto, dims: Mapping[str, int]) -> None:
    """Give every free input dimension its size in place, by its name or by ``<input>_<axis>``.

    Raises UnsupportedError naming all dimensions that lack a size.
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
    """Return the model with those of the ``unknown`` operators that ONNX defines by a function
    replaced by their bodies; None if there is none, or the inliner gives up."""
    version = next((o.version for o in model.opset_import if o.domain in DOMAINS), 0)
    replaced = set()
    for node in model.graph.node:
        if node.domain not in DOMAINS or node.op_type not in unknown:
            continue
        if not onnx.defs.has(node.op_type, version, ""):
            continue
        schema = onnx.defs.get_schema(node.op_type, version, "")
        has_body: bool = schema.has_function  # type: ignore[attr-defined]
        makes_body: bool = schema.has_context_dependent_function  # type: ignore[attr-defined]
        if has_body or makes_body:
            replaced.add(node.op_type)
            _write_defaults(node, schema)
    if not replaced:
        return None
    try:
        return onnx.inliner.inline_selected_functions(
            model, [("", op) for op in sorted(replaced)], inline_schema_functions=True
        )
    except Exception:
        # the inliner gives up on some types: the operators then stay, and are refused by name
        return None


def _write_defaults(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    """Write the attributes that a node leaves at their defaults, which the inliner forgets."""
    present = {attribute.name for attribute in node.attribute}
    for name, attribute in sorted(schema.attributes.items()):
        if name not in present and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def make_step(node: onnx.NodeProto, versions: Mapping[str, int]) -> Step:
    """Return a node as a step; ``versions`` are the model's opset versions by domain."""
    domain = DOMAINS.get(node.domain, node.domain)
    return Step(
        name=node.name or node.output[0],
        op=f"{domain}.{node.op_type}" if domain else node.op_type,
        version=versions.get(domain, 1),
        attributes={attribute.name: read_attribute(attribute) for attribute in node.attribute},
        inputs=tuple(node.input),
        outputs=tuple(node.output),
    )


def read_attribute(attribute: onnx.AttributeProto) -> Any:
    """Return an attribute's value in Python: an array for a tensor, a text for bytes."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def read_type(kind: onnx.TypeProto) -> Type:
    """Return NumPy's data type and the shape of an ONNX type: an empty name where it is no tensor,
    None where a dimension is free."""
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
    """Return the types of a node's outputs by name, as ONNX's inference gives them, and the reason
    where there are none."""
    used = [name for name in node.input if name]
    if any(name not in types for name in used):
        return {}, "the type of an input is not known"
    if step.op in inference.RULES:
        try:
            input_types = [graph.types[n] if n else ("", None) for n in step.inputs]
            outputs = list(step.outputs)
            return inference.infer_types(step.op, step.attributes, input_types, outputs), ""
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
        inferred = onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            {name: types[name] for name in used},
            data,
            opset_imports=list(model.opset_import),
            ir_version=model.ir_version,
        )
    except Exception as problem:  # onnx raises InferenceError and, from its C++ side, RuntimeError
        return {}, str(problem).strip().splitlines()[0]
    shape = graph.types[node.input[0]][1] if used else None
    if step.op in inference.POOLS and step.attributes.get("ceil_mode", 0) and shape is not None:
        for kind in inferred.values():
            inference.drop_partial_windows(step.attributes, shape, kind)
    return dict(inferred), ""


def fold_node(
    node: onnx.NodeProto,
    step: Step,
    inferred: Mapping[str, onnx.TypeProto],
    graph: Graph,
    model: onnx.ModelProto,
) -> list[np.ndarray] | None:
    """Return the outputs of a node whose inputs are all constants (or whose input's shape is, for
    Shape and Size); None to keep the node."""
    if step.op in ("Shape", "Size"):
        return _fold_shape(step, graph)
    if step.op.startswith(RANDOM) or any(a.HasField("g") for a in node.attribute):
        return None
    if any(name and name not in graph.constants for name in step.inputs) or "." in step.op:
        return None
    if _would_enlarge(step, inferred, graph):
        return None
    return evaluate_node(node, [graph.constants[n] if n else None for n in step.inputs], model)


def _fold_shape(step: Step, graph: Graph) -> list[np.ndarray] | None:
    """Return the output of a Shape or Size; None where the shape is not static."""
    shape = graph.types.get(step.inputs[0], ("", None))[1]
    if shape is None:
        return None
    if step.op == "Size":
        return [np.array(math.prod(shape), np.int64)]
    start, end = step.attributes.get("start", 0), step.attributes.get("end")
    return [np.array(shape, np.int64)[start:end]]


def _would_enlarge(step: Step, inferred: Mapping[str, onnx.TypeProto], graph: Graph) -> bool:
    """Whether an output would take more than twice the bytes of the inputs (of a Cast: more than
    they do), and more than a small constant takes."""
    before = sum(graph.constants[name].nbytes for name in step.inputs if name)
    allowed = max(ENLARGED, before if step.op == "Cast" else 2 * before)
    for kind in inferred.values():
        dtype, shape = read_type(kind)
        if shape is None or dtype not in np.sctypeDict or dtype == "str":
            continue
        if math.prod(shape) * np.dtype(dtype).itemsize > allowed:
            return True
    return False


def remove_unused(graph: Graph) -> None:
    """Take the steps out of the graph that no output depends on, and note what is needed."""
    needed = set(graph.outputs)
    steps = []
    for step in reversed(graph.steps):
        if any(name in needed for name in step.outputs if name):
            needed.update(name for name in step.inputs if name)
            steps.append(step)
    graph.steps = steps[::-1]
    graph.needed = needed
