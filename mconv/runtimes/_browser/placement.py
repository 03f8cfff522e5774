"""Tells where nodes ran, from the profile that onnxruntime-web prints and the counters hooked into
the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from mconv.runtimes._profiles import COPIES, ProfileNode, is_shape_arithmetic
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
