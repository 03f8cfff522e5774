"""OpenVINO IR: an XML of layers and edges, a .bin of constants."""

from __future__ import annotations

import re
import xml.parsers.expat
from collections import Counter
from pathlib import Path

from mconv.errors import SourceError
from mconv.values import Facts

SUFFIXES = (".xml",)
TOOLS = ("openvino",)
BITS = {
    **dict.fromkeys(("f64", "i64", "u64"), 64),
    **dict.fromkeys(("f32", "i32", "u32"), 32),
    **dict.fromkeys(("f16", "bf16", "i16", "u16"), 16),
    **dict.fromkeys(("i8", "u8", "boolean", "f8e4m3", "f8e5m2", "f8e8m0"), 8),
    **dict.fromkeys(("i4", "u4", "nf4", "f4e2m1"), 4),
    "u6": 6,
    "u3": 3,
    "u2": 2,
    "u1": 1,
}
_NET = re.compile(rb"<net\s[^>]*\bversion=")


class _Layer:
    def __init__(self, number: str, name: str, kind: str) -> None:
        self.number, self.name, self.kind = number, name, kind
        self.data: dict[str, str] = {}
        self.ports: dict[str, set[str]] = {"input": set(), "output": set()}


class _Net:
    """Layers and edges as the parser meets them."""

    def __init__(self) -> None:
        self.layers: dict[str, _Layer] = {}
        self.edges: list[dict[str, str]] = []
        self.twice: list[str] = []
        self.current: _Layer | None = None
        self.side = ""
        self.depth = 0  # bodies of loops have layers of their own, with numbers of their own

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in ("body", "then_body", "else_body"):
            self.depth += 1
        if self.depth:
            return
        if tag == "layer":
            self.current = _Layer(
                attributes.get("id", ""), attributes.get("name", ""), attributes.get("type", "")
            )
            if self.current.number in self.layers:
                self.twice.append(self.current.number)
            self.layers[self.current.number] = self.current
        elif tag in ("input", "output"):
            self.side = tag
        elif tag == "port" and self.current is not None and self.side:
            self.current.ports[self.side].add(attributes.get("id", ""))
        elif tag == "data" and self.current is not None:
            self.current.data = attributes
        elif tag == "edge":
            self.edges.append(attributes)

    def end(self, tag: str) -> None:
        if tag in ("body", "then_body", "else_body"):
            self.depth -= 1
        if self.depth:
            return
        if tag == "layer":
            self.current = None
        elif tag in ("input", "output"):
            self.side = ""


def sniff(path: Path, head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and bool(_NET.search(head))


def _parse(path: Path) -> _Net:
    net = _Net()
    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = net.start
    parser.EndElementHandler = net.end

    def refuse(*_: object) -> None:
        raise SourceError(
            f"{path.name} declares entities, which no IR does", hint="convert the model again"
        )

    parser.EntityDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as problem:
        raise SourceError(
            f"{path.name} is not complete XML: {problem}", hint="copy or convert it again"
        ) from problem
    return net


def inspect(path: Path) -> Facts:
    """Layers, names, sizes of constants, the .bin beside it.

    Raises SourceError for XML that does not end.
    """
    net = _parse(path)
    tensors = {each.name: _shape(each) for each in net.layers.values() if each.kind == "Const"}
    operators = Counter(each.kind for each in net.layers.values())
    beside = path.with_suffix(".bin").name
    return Facts(
        kind="model",
        tensors=tensors,
        operators=dict(sorted(operators.items())),
        names=tuple(each.name for each in net.layers.values()),
        companions=(beside,) if operators["Const"] else (),
    )


def _shape(layer: _Layer) -> tuple[int, ...]:
    return tuple(int(d) for d in layer.data.get("shape", "").split(",") if d.strip().isdigit())


def check(path: Path) -> list[str]:
    """Edges meet ports that are there, constants lie inside the .bin and fill their shapes; then
    OpenVINO reads both."""
    try:
        net = _parse(path)
    except SourceError as problem:
        return [problem.message]
    found = [f"two layers have the id {number}" for number in net.twice]
    for edge in net.edges:
        for side, layer, port in (
            ("output", edge.get("from-layer", ""), edge.get("from-port", "")),
            ("input", edge.get("to-layer", ""), edge.get("to-port", "")),
        ):
            if layer not in net.layers:
                found.append(f"an edge names layer {layer}, which is not there")
            elif port not in net.layers[layer].ports[side]:
                found.append(
                    f"an edge names {side} {port} of layer {layer} ({net.layers[layer].name}), "
                    "which it does not have"
                )
    found += _constants(net, path.with_suffix(".bin"))
    return found[:20] or _read(path)


def _constants(net: _Net, binary: Path) -> list[str]:
    constants = [each for each in net.layers.values() if each.kind == "Const"]
    if not constants:
        return []
    if not binary.is_file():
        return [f"{binary.name} with the constants is not beside it"]
    room = binary.stat().st_size
    found = []
    for each in constants:
        offset, size = each.data.get("offset", ""), each.data.get("size", "")
        if not offset.isdigit() or not size.isdigit():
            found.append(f"constant {each.name!r} does not say where its data lie")
            continue
        end = int(offset) + int(size)
        if end > room:
            found.append(
                f"constant {each.name!r} ends at byte {end:,} of {binary.name}, which has "
                f"{room:,}: it is cut off"
            )
        bits = BITS.get(each.data.get("element_type", ""))
        needed = 1
        for size_of_axis in _shape(each):
            needed *= size_of_axis
        if bits and int(size) < -(-needed * bits // 8):
            found.append(
                f"constant {each.name!r} has {int(size):,} bytes; its shape needs "
                f"{-(-needed * bits // 8):,}"
            )
    return found


def _read(path: Path) -> list[str]:
    import openvino

    try:
        openvino.Core().read_model(str(path))
    except Exception as problem:  # OpenVINO raises plain RuntimeError
        return [f"OpenVINO says: {' '.join(str(problem).split())[:500]}"]
    return []
