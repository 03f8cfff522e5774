"""Tells where nodes ran, from the profile that onnxruntime-web prints and the counters hooked into
the page."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypedDict

from typing_extensions import NotRequired

from mconv.values import Placement

# provider of onnxruntime-web → what its profile calls it
PROVIDERS = {
    "webgpu": ("WebGpuExecutionProvider", "JsExecutionProvider"),
    "webnn": ("WebNNExecutionProvider", "WEBNN"),
    "wasm": ("CPUExecutionProvider",),
}
# provider → the method by which its work reaches the device
DISPATCHES = {
    "webgpu": "GPUComputePassEncoder.dispatchWorkgroups",
    "webnn": "MLContext.dispatch",
}
# Operators of shape arithmetic: accepted on the CPU where every tensor they touch is of integers or
# booleans. A Cast may have floats on one side where int64 is on the other: GPUs in browsers have no
# int64, so that is where such arithmetic ends.
SHAPE_ARITHMETIC = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "Cast",
        "Concat",
        "ConstantOfShape",
        "CumSum",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Size",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
    }
)
# onnxruntime's own, between a provider's memory and the CPU's
COPIES = frozenset({"MemcpyToHost", "MemcpyFromHost"})
SMALL = 4096  # elements a tensor of shape arithmetic has at most
WHOLE = ("int", "uint", "bool")  # how the types of shape arithmetic begin


class ProfileNode(TypedDict):
    """One node as onnxruntime's profile tells of it.

    Attributes:
        op_name: Its operator.
        provider: The execution provider that ran it.
        input_type_shape: Data type → shape of each input.
        output_type_shape: Data type → shape of each output.
    """

    op_name: str
    provider: str
    input_type_shape: NotRequired[list[dict[str, list[int]]]]
    output_type_shape: NotRequired[list[dict[str, list[int]]]]


def read_nodes(lines: Iterable[str]) -> list[ProfileNode]:
    """Return the nodes of a profile: one JSON object a line, with a trailing comma. Lines that are
    none are left out."""
    nodes = []
    for line in lines:
        try:
            event = json.loads(line.strip().rstrip(","))
        except json.JSONDecodeError:
            continue
        if event.get("cat") == "Node" and event.get("args", {}).get("provider"):
            nodes.append(event["args"])
    return nodes


def is_shape_arithmetic(node: ProfileNode) -> bool:
    """Whether a node is shape arithmetic: small and of integers or booleans, as far as the profile
    shows."""
    inputs, outputs = node.get("input_type_shape", []), node.get("output_type_shape", [])
    # Shape reads a tensor of any type, but not its elements
    tensors = outputs if node["op_name"] == "Shape" else [*inputs, *outputs]
    if node["op_name"] not in SHAPE_ARITHMETIC or not tensors:
        return False
    any_type = node["op_name"] == "Cast" and any("int64" in tensor for tensor in tensors)
    for tensor in tensors:
        for dtype, shape in tensor.items():
            if not (dtype.startswith(WHOLE) or any_type) or math.prod(shape) > SMALL:
                return False
    return True


def place_nodes(
    provider: str,
    profile: Sequence[ProfileNode],
    dispatches: int,
    *,
    adapter: str | None,
    device: str,
    software: bool,
) -> Placement:
    """Return where the nodes of one profiled run went, with the evidence.

    ``dispatches`` is how often the page was seen to hand work to the provider; where it was not
    seen to, nothing counts as run on a provider that dispatches.
    """
    here = 0
    elsewhere: Counter[str] = Counter()
    allowed: Counter[str] = Counter()
    for node in profile:
        op = node["op_name"]
        if node["provider"].startswith(PROVIDERS[provider]):
            here += 1
            continue
        elsewhere[op] += 1
        if op in COPIES or is_shape_arithmetic(node):
            allowed[op] += 1
    method = DISPATCHES.get(provider)
    has_run = bool(profile) and (method is None or dispatches > 0)
    witnesses = []
    if has_run:
        witnesses.append("onnxruntime profile")
        if method is not None:
            witnesses.append(f"{method} ×{dispatches}")
    return Placement(
        provider=provider,
        device=device,
        nodes=here if has_run else 0,
        elsewhere=dict(sorted(elsewhere.items())),
        allowed=dict(sorted(allowed.items())),
        adapter=adapter,
        software=software,
        witnesses=tuple(witnesses),
    )
