"""Writes an ONNX file as ``graph.mjs`` and ``weights.bin``. Every operator that cannot be
represented is named in one error."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mconv.errors import UnsupportedError
from mconv.targets._webnn.builder import (
    Builder,
    Pool,
    Refusal,
    Value,
    Weight,
    render_literal,
    webnn_type,
)
from mconv.targets._webnn.embedding import fuse_gathers
from mconv.targets._webnn.names import graph_file
from mconv.targets._webnn.node import Handler, Node
from mconv.targets._webnn.operators import OPERATORS
from mconv.targets._webnn.prepare import Graph, Step, prepare
from mconv.values import TensorSpec

WEIGHTS_FILE = "weights.bin"
NAMED_NODES = 8  # of those that are refused for one reason
# (operator, reason) → names of the nodes that are refused for it
Refused: TypeAlias = dict[tuple[str, str], list[str]]


@dataclass(frozen=True)
class EmitResult:
    """What was written of one graph.

    Attributes:
        nodes: Builder calls that compute.
        operators: ONNX nodes by operator.
        calls: Builder calls by method.
        weights: The table of weights.
        weights_bytes: What the graph needs of weights.bin, in bytes.
        inputs: With ONNX's data types (bool travels as uint8 0/1).
        outputs: With ONNX's data types.
        unused: Inputs that are no part of the graph.
    """

    nodes: int
    operators: dict[str, int]
    calls: dict[str, int]
    weights: tuple[Weight, ...]
    weights_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    unused: tuple[str, ...]


def emit_all(
    model: Path, out: Path, *, shapes: Sequence[Mapping[str, int]], precision: str
) -> list[EmitResult]:
    """Write ``out/graph.mjs``, ``graph-2.mjs`` … and one ``out/weights.bin`` from the .onnx file
    ``model``.

    ``shapes``: for each graph a size for each free dimension, by name. ``precision`` is only named
    in the files' heads: the model is as it is to be. Raises UnsupportedError listing every operator
    that WebNN or this generator cannot represent, with its nodes and reasons.
    """
    pool = Pool(out / WEIGHTS_FILE)
    emitted = []
    try:
        for index, dims in enumerate(shapes):
            file = out / graph_file(index)
            emitted.append(emit(model, file, pool, dims=dims, precision=precision))
    except UnsupportedError:
        pool.close()
        (out / WEIGHTS_FILE).unlink()
        raise
    pool.close()
    return emitted


def emit(
    model: Path, module_file: Path, pool: Pool, *, dims: Mapping[str, int], precision: str
) -> EmitResult:
    """Write one graph's module, its weights into ``pool``. Raises UnsupportedError as
    :func:`emit_all` does."""
    graph = prepare(model, dims, set(OPERATORS))
    fuse_gathers(graph)
    builder = Builder(pool)
    values: dict[str, Value] = {}
    refused: Refused = {}
    unused = declare_inputs(graph, builder, values, refused)
    for step in graph.steps:
        emit_step(step, graph, builder, values, refused)
    outputs = declare_outputs(graph, builder, values, refused)
    if refused:
        raise UnsupportedError(explain_refusals(refused))
    module_file.write_text(
        render_module(graph, builder, outputs, unused, precision), encoding="utf-8"
    )
    return EmitResult(
        nodes=sum(builder.calls.values()),
        operators=dict(sorted(Counter(s.op for s in graph.steps).items())),
        calls=dict(sorted(builder.calls.items())),
        weights=tuple(builder.weights),
        weights_bytes=max((w.offset + w.bytes for w in builder.weights), default=0),
        inputs=tuple(make_spec(graph, name) for name in graph.inputs),
        outputs=tuple(make_spec(graph, name) for name in graph.outputs),
        unused=tuple(unused),
    )


def make_spec(graph: Graph, name: str) -> TensorSpec:
    """Return an input or output of the graph with ONNX's data type."""
    dtype, shape = graph.types[name]
    return TensorSpec(name=name, dtype=dtype, shape=shape or ())


def declare_inputs(
    graph: Graph,
    builder: Builder,
    values: dict[str, Value],
    refused: Refused,
) -> list[str]:
    """Declare the inputs that reach an output as operands, and return the others, which MLGraph
    refuses to be fed."""
    for name in graph.inputs:
        if name in graph.needed:
            dtype, shape = graph.types[name]
            try:
                if shape is None:
                    raise Refusal("its shape is not known")
                values[name] = builder.input(name, webnn_type(dtype), shape)
            except Refusal as problem:
                refused.setdefault(("input", str(problem)), []).append(name)
    return [name for name in graph.inputs if name not in graph.needed]


def emit_step(
    step: Step,
    graph: Graph,
    builder: Builder,
    values: dict[str, Value],
    refused: Refused,
) -> None:
    """Write the calls of one step and note its results in ``values``, or in ``refused`` why it has
    none."""
    handler = OPERATORS.get(step.op)
    mark = len(builder.lines)
    if handler is None:
        refused.setdefault((step.op, "no equivalent in this generator"), []).append(step.name)
    else:
        try:
            call_handler(handler, step, graph, builder, values)
        except Refusal as problem:
            # what follows from an earlier refusal is not said again
            if not refused or all(n in values or n in graph.constants for n in step.inputs if n):
                refused.setdefault((step.op, str(problem)), []).append(step.name)
            del builder.lines[mark:]
    if refused:
        add_placeholders(step, graph, values)


def call_handler(
    handler: Handler, step: Step, graph: Graph, builder: Builder, values: dict[str, Value]
) -> None:
    """Have a handler write a step, and note its results in ``values``. Raises Refusal."""
    types_known = all(name in graph.types for name in step.inputs if name)
    if step.problem and types_known:
        raise Refusal(step.problem)
    builder.comment(f"{step.op} {step.name}")
    results = handler(builder, Node(step, graph, builder, values))
    if isinstance(results, Value):
        results = [results]
    for name, value in zip(step.outputs, results, strict=False):
        if name and value is not None:
            values[name] = check_result(graph, name, value)


def add_placeholders(step: Step, graph: Graph, values: dict[str, Value]) -> None:
    """Give the outputs that a step did not write stand-ins: after a refusal the emitter goes on, to
    name every problem in one message."""
    for name in step.outputs:
        dtype, shape = graph.types.get(name, ("", None))
        if name and name not in values and shape and dtype:
            try:
                values[name] = Value("refused", webnn_type(dtype), shape)
            except Refusal:
                continue


def check_result(graph: Graph, name: str, value: Value) -> Value:
    """Return a handler's result. Raises Refusal where it has not the type and shape that ONNX's
    inference gives: a guard against mistakes here."""
    dtype, shape = graph.types.get(name, ("", None))
    if shape is None or (webnn_type(dtype), shape) != (value.dtype, value.shape):
        raise Refusal(
            f"output {name!r} would be {value.dtype}{list(value.shape)}, ONNX says "
            f"{dtype}{shape and list(shape)}"
        )
    return value


def declare_outputs(
    graph: Graph,
    builder: Builder,
    values: dict[str, Value],
    refused: Refused,
) -> dict[str, Value]:
    """Return every output as an operand of its own: WebNN takes no input, constant or repeated
    operand as an output. Notes in ``refused`` why one cannot be."""
    outputs: dict[str, Value] = {}
    taken = {values[name].js for name in graph.inputs if name in values}
    for name in graph.outputs:
        try:
            value = values.get(name)
            if value is None and name in graph.constants:
                value = builder.constant(graph.constants[name], name)
                taken.add(value.js)
            if value is None:
                if not refused:
                    raise Refusal("it is computed by no node")
                continue
            if value.js in taken:
                value = builder.unary("identity", value)
            taken.add(value.js)
            outputs[name] = value
        except Refusal as problem:
            refused.setdefault(("output", str(problem)), []).append(name)
    return outputs


def explain_refusals(refused: Refused) -> str:
    """Return one sentence that names every operator that is refused, its reason and its nodes."""
    parts = []
    for (op, reason), names in sorted(refused.items()):
        nodes = ", ".join(names[:NAMED_NODES])
        if len(names) > NAMED_NODES:
            nodes += f" and {len(names) - NAMED_NODES} more"
        parts.append(f"{op}: {reason} (node{'s' if len(names) > 1 else ''} {nodes})")
    return "native WebNN cannot represent this model: " + "; ".join(parts)


def render_module(
    graph: Graph, builder: Builder, outputs: Mapping[str, Value], unused: list[str], precision: str
) -> str:
    """Return the text of graph.mjs."""
    inputs = {
        n: {"dataType": webnn_type(graph.types[n][0]), "shape": graph.types[n][1]}
        for n in graph.inputs
        if n not in unused
    }
    body = "\n".join("  " + line for line in builder.lines)
    size = max((w.offset + w.bytes for w in builder.weights), default=0)
    return TEMPLATE.format(
        precision=json.dumps(precision)[1:-1],
        inputs=render_table(inputs),
        outputs=render_table(
            {n: {"dataType": v.dtype, "shape": v.shape} for n, v in outputs.items()}
        ),
        unused=json.dumps(unused),
        size=size,
        body=body,
        result=", ".join(f"{json.dumps(n)}: {v.js}" for n, v in outputs.items()),
    )


def render_table(rows: Mapping[str, object]) -> str:
    """Return an object literal with a line a member."""
    lines = [f"  {json.dumps(name)}: {render_literal(row)},\n" for name, row in rows.items()]
    return "{\n" + "".join(lines) + "}"


TEMPLATE = """\
// A neural network ({precision}) as WebNN calls, written by mconv. https://www.w3.org/TR/webnn/
/* eslint-disable */

/** What the graph takes: data type and shape of every tensor (bool is uint8, 0 or 1). */
export const inputs = {inputs};

/** What the graph gives. */
export const outputs = {outputs};

/** Inputs of the model that no output depends on: the graph does not take them. */
export const unusedInputs = {unused};

/** Bytes of weights.bin that the graph needs. */
export const weightsByteLength = {size};

/**
 * Adds the network to an MLGraphBuilder.
 * @param b {{MLGraphBuilder}}
 * @param weights {{ArrayBuffer}} the content of weights.bin
 * @returns {{Record<string, MLOperand>}} the outputs, for `b.build()`
 */
export function build(b, weights) {{
  const w = (dataType, shape, offset, length) => \
b.constant({{ dataType, shape }}, new Uint8Array(weights, offset, length));
  const s = (dataType, array) => b.constant({{ dataType, shape: [] }}, array);
{body}
  return {{ {result} }};
}}
"""
