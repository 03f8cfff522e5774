"""Where nodes ran, from the profile that onnxruntime-web prints and the counters hooked into the
page."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mconv.values import Placement

PROVIDERS = {
    "webgpu": ("WebGpuExecutionProvider", "JsExecutionProvider"),
    "webnn": ("WebNNExecutionProvider", "WEBNN"),
    "wasm": ("CPUExecutionProvider",),
}
# Operators of shape arithmetic: accepted on the CPU where every tensor they touch is of integers or
# booleans. A Cast may have floats on one side where int64 is on the other: GPUs in browsers have no
# int64, so that is where such arithmetic ends.
SHAPE_ARITHMETIC = {
    *(
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
    ),
    *(
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
    ),
    *(
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
    ),
    *(
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
    ),
}
# onnxruntime's own, between a provider's memory and the CPU's
COPIES = frozenset({"MemcpyToHost", "MemcpyFromHost"})
SMALL = 4096  # elements a tensor of shape arithmetic has at most
WHOLE = ("int", "uint", "bool")


def nodes(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The nodes of a profile: one JSON object a line, with a trailing comma. Lines that are none
    are left out."""
    found = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line.strip().rstrip(","))
            if event.get("cat") == "Node" and event.get("args", {}).get("provider"):
                found.append(event["args"])
    return found


def is_shape_arithmetic(node: Mapping[str, Any]) -> bool:
    """Small and of integers or booleans, as far as the profile shows: ``input_type_shape`` is
    [{type: shape}, …]."""
    touched = [*node.get("input_type_shape", ()), *node.get("output_type_shape", ())]
    if node["op_name"] == "Shape":
        # reads a tensor of any type, not its elements
        touched = list(node.get("output_type_shape", ()))
    if node["op_name"] not in SHAPE_ARITHMETIC or not touched:
        return False
    wide = node["op_name"] == "Cast" and any("int64" in tensor for tensor in touched)
    for tensor in touched:
        for kind, shape in tensor.items():
            size = 1
            for dim in shape:
                size *= dim
            if not (kind.startswith(WHOLE) or wide) or size > SMALL:
                return False
    return True


def of_profile(
    provider: str,
    profile: list[dict[str, Any]],
    dispatches: int,
    *,
    adapter: str | None,
    device: str,
    software: bool,
) -> Placement:
    """Evidence of one profiled run. Without a dispatch seen, nothing counts as run on a provider
    that dispatches."""
    here: Counter[str] = Counter()
    elsewhere: Counter[str] = Counter()
    allowed: Counter[str] = Counter()
    for node in profile:
        op = node["op_name"]
        if node["provider"].startswith(PROVIDERS[provider]):
            here[op] += 1
            continue
        elsewhere[op] += 1
        if op in COPIES or is_shape_arithmetic(node):
            allowed[op] += 1
    proof = {
        "webgpu": "GPUComputePassEncoder.dispatchWorkgroups",
        "webnn": "MLContext.dispatch",
    }.get(provider)
    ran = bool(profile) and (proof is None or dispatches > 0)
    witnesses = ["onnxruntime profile"] if profile else []
    if proof and dispatches:
        witnesses.append(f"{proof} ×{dispatches}")
    return Placement(
        provider=provider,
        device=device,
        nodes=sum(here.values()) if ran else 0,
        elsewhere=dict(sorted(elsewhere.items())),
        allowed=dict(sorted(allowed.items())),
        adapter=adapter,
        software=software,
        witnesses=tuple(witnesses) if ran else (),
    )
