"""What onnxruntime's profiles tell of nodes, and which of those may run on the CPU where another
provider is claimed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from typing_extensions import NotRequired

from mconv.values import Placement

MOST_STRAYS = 10  # nodes that are named
TIMED = "_kernel_time"  # behind the name of a node in a profile

# Operators of shape arithmetic: accepted on the CPU where every tensor they touch is of integers or
# booleans. A Cast may have floats on one side where int64 is on the other: that is where such
# arithmetic ends, and GPUs in browsers have no int64.
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


class Kernel(NamedTuple):
    """One node as onnxruntime tells of it.

    Attributes:
        name: Its name.
        operator: The ONNX operator, ``?`` where the profile names none.
        provider: The execution provider that ran it.
        is_shape_arithmetic: It is small and of integers or booleans.
    """

    name: str
    operator: str
    provider: str
    is_shape_arithmetic: bool = False


def read_kernels(profile: Path) -> list[Kernel]:
    """Return the nodes of a profile that onnxruntime wrote, in the order in which they ran."""
    kernels = []
    for event in json.loads(profile.read_text()):
        if event.get("cat") != "Node" or not event.get("name", "").endswith(TIMED):
            continue
        arguments = event.get("args") or {}
        if "provider" in arguments:
            node: ProfileNode = {
                "op_name": arguments.get("op_name", "?"),
                "provider": arguments["provider"],
                "input_type_shape": arguments.get("input_type_shape", []),
                "output_type_shape": arguments.get("output_type_shape", []),
            }
            kernels.append(
                Kernel(
                    name=event["name"].removesuffix(TIMED),
                    operator=node["op_name"],
                    provider=node["provider"],
                    is_shape_arithmetic=is_shape_arithmetic(node),
                )
            )
    return kernels


def place_kernels(
    provider: str,
    kernels: Sequence[Kernel],
    assigned: Collection[Kernel] | None,
    *,
    device: str,
    adapter: str | None,
) -> Placement:
    """Return where the nodes of one profiled run went, with the evidence.

    ``assigned`` is how onnxruntime shared the whole graph, where it does: shape arithmetic is
    accepted elsewhere then. A node that it gave to another provider counts as one that ran there,
    also where the run did not come by; but that of shape arithmetic, which is often folded
    afterwards.
    """
    here = [each for each in kernels if each.provider == provider and each.operator not in COPIES]
    others = [each for each in kernels if each.provider != provider]
    allowed = [each for each in others if assigned is not None and _is_accepted(each)]
    elsewhere = Counter(each.operator for each in others)
    strays = [each for each in others if each not in allowed]
    ran = {each.name for each in others}
    for each in assigned or ():
        whole = each.operator in SHAPE_ARITHMETIC
        if each.provider != provider and each.name not in ran and not whole:
            elsewhere[each.operator] += 1
            strays.append(each)
    witnesses = ["profile"] * bool(kernels) + ["assignment of nodes"] * bool(assigned)
    return Placement(
        provider=provider,
        device=device,
        nodes=len(here),
        elsewhere=dict(sorted(elsewhere.items())),
        allowed=dict(sorted(Counter(each.operator for each in allowed).items())),
        strays=tuple(dict.fromkeys(each.name for each in strays))[:MOST_STRAYS],
        adapter=adapter,
        witnesses=tuple(witnesses) if kernels else (),
    )


def _is_accepted(kernel: Kernel) -> bool:
    """Return whether a node may run elsewhere than is claimed."""
    return kernel.operator in COPIES or kernel.is_shape_arithmetic
