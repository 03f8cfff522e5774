"""OpenVINO IR: an XML of layers and edges, a .bin of constants."""

from __future__ import annotations

import math
import re
import xml.parsers.expat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mconv.errors import SourceError, one_line
from mconv.values import Facts

ENVIRONMENT = "openvino"
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


@dataclass
class _Layer:
    """A layer.

    Attributes:
        number: Its id, which edges name.
        name: Its name.
        kind: Its type.
        data: The attributes of its ``data``.
        ports: The ids of its ports by side, ``input`` or ``output``.
    """

    number: str
    name: str
    kind: str
    data: dict[str, str] = field(default_factory=dict)
    ports: dict[str, set[str]] = field(default_factory=lambda: {"input": set(), "output": set()})


class _Net:
    """Layers and edges as the parser meets them; those in bodies of loops are left out.

    Attributes:
        layers: The layers by id.
        edges: The attributes of each edge.
        twice: Ids that more than one layer has.
        current: The layer that the parser is in.
        side: The side of its ports that the parser is in.
        depth: How many bodies the parser is in. They have layers with ids of their own.
    """

    def __init__(self) -> None:
        self.layers: dict[str, _Layer] = {}
        self.edges: list[dict[str, str]] = []
        self.twice: list[str] = []
        self.current: _Layer | None = None
        self.side = ""
        self.depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
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
        """Take the end of an element."""
        if tag in ("body", "then_body", "else_body"):
            self.depth -= 1
        if self.depth:
            return
        if tag == "layer":
            self.current = None
        elif tag in ("input", "output"):
            self.side = ""


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the element ``net`` in the first bytes of an XML file."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and bool(_NET.search(head))


def _parse(path: Path) -> _Net:
    """Read the XML. Raises SourceError where it is not complete, or declares entities."""
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
    """Return layers, names, sizes of constants, and the .bin beside the file.

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
    """Return the shape of a constant."""
    sizes = layer.data.get("shape", "").split(",")
    return tuple(int(size) for size in sizes if size.strip().isdigit())


def check(path: Path) -> list[str]:
    """Check that edges meet ports and that constants lie inside the .bin and fill their shapes.

    Where they do, OpenVINO reads both files.
    """
    try:
        net = _parse(path)
    except SourceError as problem:
        return [problem.message]
    problems = [f"two layers have the id {number}" for number in net.twice]
    for edge in net.edges:
        for side, layer, port in (
            ("output", edge.get("from-layer", ""), edge.get("from-port", "")),
            ("input", edge.get("to-layer", ""), edge.get("to-port", "")),
        ):
            if layer not in net.layers:
                problems.append(f"an edge names layer {layer}, which is not there")
            elif port not in net.layers[layer].ports[side]:
                problems.append(
                    f"an edge names {side} {port} of layer {layer} ({net.layers[layer].name}), "
                    "which it does not have"
                )
    problems += _check_constants(net, path.with_suffix(".bin"))
    return problems[:20] or _check_with_openvino(path)


def _check_constants(net: _Net, binary: Path) -> list[str]:
    """Return a sentence for each constant that does not lie whole in the .bin."""
    constants = [each for each in net.layers.values() if each.kind == "Const"]
    if not constants:
        return []
    if not binary.is_file():
        return [f"{binary.name} with the constants is not beside it"]
    room = binary.stat().st_size
    problems: list[str] = []
    for each in constants:
        offset, size = each.data.get("offset", ""), each.data.get("size", "")
        if not offset.isdigit() or not size.isdigit():
            problems.append(f"constant {each.name!r} does not say where its data lie")
            continue
        end = int(offset) + int(size)
        if end > room:
            problems.append(
                f"constant {each.name!r} ends at byte {end:,} of {binary.name}, which has "
                f"{room:,}: it is cut off"
            )
        bits = BITS.get(each.data.get("element_type", ""))
        needed = -(-math.prod(_shape(each)) * (bits or 0) // 8)
        if int(size) < needed:
            problems.append(
                f"constant {each.name!r} has {int(size):,} bytes; its shape needs {needed:,}"
            )
    return problems


def _check_with_openvino(path: Path) -> list[str]:
    """Return what OpenVINO says against the model, if anything."""
    import openvino

    try:
        openvino.Core().read_model(str(path))
    except Exception as problem:  # OpenVINO raises plain RuntimeError
        return [f"OpenVINO says: {one_line(problem, 500)}"]
    return []
