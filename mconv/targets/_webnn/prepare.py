"""Turns an ONNX file into a flat list of steps with static shapes: free dimensions are frozen,
functions inlined, constant subgraphs evaluated.

Types and shapes come from ONNX's own inference of each node, fed with the constants known so far,
so shape arithmetic (Shape, Gather, Concat, Reshape …) disappears. Weights stay small: what
dequantizes, casts or enlarges constants is not evaluated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from mconv.errors import UnsupportedError
from mconv.onnx_graph import model_files, surgery
from mconv.onnx_graph.opsets import opset_of
from mconv.targets._webnn import inference
from mconv.targets._webnn.evaluate import evaluate_node, read_tensor
from mconv.targets._webnn.inference import Attributes, Type
from mconv.targets._webnn.inlining import inline_local_functions, inline_operators

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
        problem: Why the types of its outputs are not known; empty where they are.
    """

    name: str
    op: str
    version: int
    attributes: Attributes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    problem: str = ""

    def input(self, index: int) -> str:
        """Return the name of an input; an empty one where it is left out or not written."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def output(self, index: int) -> str:
        """Return the name of an output; an empty one where it is left out or not written."""
        return self.outputs[index] if index < len(self.outputs) else ""


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
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)


def prepare(path: Path, dims: Mapping[str, int], known: set[str]) -> Graph:
    """Read an ONNX file, freeze its dimensions to ``dims`` (by name), inline functions and fold
    constants.

    ``known`` are the operators with a handler; others are replaced by their ONNX function body if
    they have one. Raises UnsupportedError for a free dimension without a size, SourceError for a
    bad file.
    """
    model = model_files.load_model(path)
    freeze_dims(model, dims)
    if model.functions:
        model = inline_local_functions(model)
    for _ in range(INLINE_ROUNDS):
        graph = fold_constants(model)
        unknown = {step.op for step in graph.steps} - known
        inlined = inline_operators(model, unknown) if unknown else None
        if inlined is None:
            break
        model = inlined
    return graph


def freeze_dims(model: ir.Model, dims: Mapping[str, int]) -> None:
    """Give every free input dimension its size in place, by its name or by ``<input>_<axis>``.

    Raises UnsupportedError naming all dimensions that lack a size.
    """
    missing = []
    for value in model.graph.inputs:
        if value.is_initializer() or value.shape is None or not _is_tensor(value):
            continue
        sizes: list[int | str] = []
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int) and dim >= 0:
                sizes.append(dim)
                continue
            name = (not isinstance(dim, int) and dim.value) or f"{value.name}_{axis}"
            sizes.append(dims.get(name, name))
            if name not in dims:
                missing.append(f"{name} (axis {axis} of {value.name})")
        surgery.set_shape(value, sizes)
    if missing:
        raise UnsupportedError(
            "WebNN graphs have static shapes; these dimensions have no size: " + ", ".join(missing),
            hint="give each one a size in the target's options",
        )
    surgery.forget_types(model.graph)
    for value in model.graph.outputs:  # what was free there follows from the inputs
        if value.producer() is not None:
            value.shape = None


def _is_tensor(value: ir.Value) -> bool:
    """Whether a value is a tensor, for all that the file says."""
    return value.type is None or isinstance(value.type, ir.TensorType)


def fold_constants(model: ir.Model) -> Graph:
    """Return the steps that remain once everything constant is evaluated."""
    folding = _Folding(model)
    for node in model.graph:
        folding.add_node(node)
    graph = folding.graph
    graph.outputs = [value.name or "" for value in model.graph.outputs]
    remove_unused(graph)
    return graph


class _Folding:
    """Takes the nodes of a model in their order, evaluates those that are constant, and makes steps
    of the others.

    Attributes:
        graph: What there is to emit so far.
    """

    def __init__(self, model: ir.Model) -> None:
        self.graph = Graph()
        self._model = model
        self._types: dict[str, ir.TypeAndShape] = {}
        self._versions = {**model.opset_imports, "": opset_of(model)}
        for name, value in model.graph.initializers.items():
            if value.const_value is not None:
                self._add_constant(name, read_tensor(value.const_value))
        for value in model.graph.inputs:
            name = value.name or ""
            if name not in self.graph.constants:
                self.graph.inputs.append(name)
                self._add_type(name, ir.TypeAndShape(value.type, value.shape))

    def _add_type(self, name: str, kind: ir.TypeAndShape) -> None:
        self._types[name] = kind
        self.graph.types[name] = inference.read_type(kind)

    def _add_constant(self, name: str, array: np.ndarray) -> None:
        self.graph.constants[name] = array
        self.graph.types[name] = (array.dtype.name, tuple(int(d) for d in array.shape))
        self._types[name] = inference.make_type(array.dtype, array.shape)

    def add_node(self, node: ir.Node) -> None:
        """Evaluate a node, or make a step of it."""
        step = make_step(node, self._versions)
        if missing := inference.find_missing_input(node, step.version):
            self.graph.steps.append(dataclasses.replace(step, problem=missing))
            return
        inferred, problem = self._infer_outputs(node, step)
        arrays = None
        if step.op not in KEEP_PACKED:
            arrays = self._evaluate(node, step, inferred)
        if arrays is None:
            if problem:
                problem = f"ONNX's shape inference refuses it: {problem}"
            self.graph.steps.append(dataclasses.replace(step, problem=problem))
            for name, kind in inferred.items():
                self._add_type(name, kind)
            return
        for name, array in zip(step.outputs, arrays, strict=False):
            if name:
                self._add_constant(name, array)

    def _infer_outputs(self, node: ir.Node, step: Step) -> tuple[dict[str, ir.TypeAndShape], str]:
        """Return the types of a node's outputs by name, and the reason where there are none."""
        used = [name for name in step.inputs if name]
        if any(name not in self._types for name in used):
            return {}, "the type of an input is not known"
        if step.op in inference.RULES:
            input_types = [self.graph.types[n] if n else ("", None) for n in step.inputs]
            try:
                return inference.infer_by_rule(
                    step.op, step.attributes, input_types, step.outputs
                ), ""
            except (KeyError, IndexError, TypeError, ValueError) as problem:
                return {}, f"attributes or inputs are missing: {problem}"
        if "." in step.op or not onnx.defs.has(node.op_type, step.version, ""):
            return {}, "the operator is not ONNX's"
        types = {name: self._types[name] for name in used}
        data = {
            name: self.graph.constants[name]
            for name in used
            if name in self.graph.constants and self.graph.constants[name].size <= KNOWN_DATA
        }
        try:
            inferred = inference.infer_by_onnx(node, step.version, types, data, self._model)
        except Exception as problem:
            # onnx raises InferenceError and, from its C++ side, RuntimeError
            text = str(problem).strip() or type(problem).__name__
            return {}, text.splitlines()[0]
        return self._correct_pools(step, inferred), ""

    def _correct_pools(
        self, step: Step, inferred: dict[str, ir.TypeAndShape]
    ) -> dict[str, ir.TypeAndShape]:
        """Return the types of a step's outputs, without windows that do not exist."""
        if step.op not in inference.POOLS or not step.attributes.get("ceil_mode", 0):
            return inferred
        shape = self.graph.types.get(step.input(0), ("", None))[1]
        if shape is None:
            return inferred
        return {
            name: inference.drop_partial_windows(step.attributes, shape, kind)
            for name, kind in inferred.items()
        }

    def _evaluate(
        self, node: ir.Node, step: Step, inferred: Mapping[str, ir.TypeAndShape]
    ) -> list[np.ndarray] | None:
        """Return the outputs of a node whose inputs are all constants (or whose input's shape is,
        for Shape and Size); None to keep the node."""
        if step.op in ("Shape", "Size"):
            return _fold_shape(step, self.graph)
        if step.op == "Constant" and "value" in step.attributes:
            return [step.attributes["value"]]
        if step.op.startswith(RANDOM) or "." in step.op or _has_bodies(node):
            return None
        constants = self.graph.constants
        if any(name and name not in constants for name in step.inputs):
            return None
        if _would_enlarge(step, inferred, self.graph):
            return None
        inputs = [constants[name] if name else None for name in step.inputs]
        return evaluate_node(node, inputs, self._model)


def make_step(node: ir.Node, versions: Mapping[str, int]) -> Step:
    """Return a node as a step; ``versions`` are the model's opset versions by domain."""
    inputs = tuple("" if value is None else value.name or "" for value in node.inputs)
    outputs = tuple(value.name or "" for value in node.outputs)
    attributes = {}
    for attribute in node.attributes.values():
        if not attribute.is_ref():
            is_tensor = attribute.type == ir.AttributeType.TENSOR
            value = attribute.value
            attributes[attribute.name] = read_tensor(value) if is_tensor else value
    return Step(
        name=node.name or next(filter(None, outputs), ""),
        op=f"{node.domain}.{node.op_type}" if node.domain else node.op_type,
        version=versions.get(node.domain) or 1,
        attributes=attributes,
        inputs=inputs,
        outputs=outputs,
    )


def _has_bodies(node: ir.Node) -> bool:
    """Whether a node is control flow."""
    bodies = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in bodies for attribute in node.attributes.values())


def _fold_shape(step: Step, graph: Graph) -> list[np.ndarray] | None:
    """Return the output of a Shape or Size; None where the shape is not static."""
    shape = graph.types.get(step.input(0), ("", None))[1]
    if shape is None:
        return None
    if step.op == "Size":
        return [np.array(math.prod(shape), np.int64)]
    start, end = step.attributes.get("start", 0), step.attributes.get("end")
    return [np.array(shape, np.int64)[start:end]]


def _would_enlarge(step: Step, inferred: Mapping[str, ir.TypeAndShape], graph: Graph) -> bool:
    """Whether an output would take more than twice the bytes of the inputs (of a Cast: more than
    they do), and more than a small constant takes."""
    before = sum(graph.constants[name].nbytes for name in step.inputs if name)
    allowed = max(ENLARGED, before if step.op == "Cast" else 2 * before)
    for kind in inferred.values():
        dtype, shape = inference.read_type(kind)
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
