"""Print what every artifact of the examples is, so that a change of the structure can be seen to
change none of them.

    python scripts/artifacts.py [--checkout DIR] [--work DIR] [EXAMPLE …] > before.txt
    python scripts/artifacts.py --compare before.txt after.txt

One line a file: its SHA-256, for an ONNX file also the digest of its graph's normal form, and its
path. The normal form holds nodes, attributes, names, types, opsets and the bytes of every tensor,
in an order of its own: two files of one graph have the same normal form however they were
serialised. ``mconv.json`` is left out, since it holds the keys of steps, which name mconv's code.
The examples must be prepared (`make demo` does that)."""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("digits", "minilm", "keras", "ready")
LEFT_OUT = ("mconv.json", "results.json", "report.md", "report.html", "SHA256SUMS")


def digest_graph(path: Path) -> str:
    """Return the SHA-256 of the normal form of an ONNX file, external data included."""
    model = onnx.load(str(path))
    opsets = sorted((o.domain, o.version) for o in model.opset_import)
    functions = sorted(json.dumps(_nodes_of(f.node)) for f in model.functions)
    form = {
        "ir": model.ir_version,
        "opsets": opsets,
        "graph": _form_of(model.graph),
        "functions": functions,
    }
    return hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()


def _form_of(graph: onnx.GraphProto) -> dict[str, object]:
    tensors = {t.name: _form_of_tensor(t) for t in graph.initializer}
    tensors |= {
        t.values.name: [_form_of_tensor(t.values), _form_of_tensor(t.indices)]
        for t in graph.sparse_initializer
    }
    return {
        "inputs": [_form_of_value(v) for v in graph.input],
        "outputs": [_form_of_value(v) for v in graph.output],
        "initializers": tensors,
        "nodes": _nodes_of(graph.node),
    }


def _form_of_value(value: onnx.ValueInfoProto) -> list[str]:
    return [value.name, str(value.type)]


def _form_of_tensor(tensor: onnx.TensorProto) -> list[object]:
    array = numpy_helper.to_array(tensor)
    data = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return [tensor.data_type, list(tensor.dims), hashlib.sha256(data).hexdigest()]


def _nodes_of(nodes: Sequence[onnx.NodeProto]) -> list[object]:
    """The nodes in the one topological order that takes the least form of those that are ready."""
    forms = [_form_of_node(node) for node in nodes]
    keys = [json.dumps(form, sort_keys=True) for form in forms]
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waiting = [{makers[name] for name in _read_names(node) if name in makers} for node in nodes]
    users: dict[int, list[int]] = {}
    for index, before in enumerate(waiting):
        for maker in before:
            users.setdefault(maker, []).append(index)
    ready = [(keys[index], index) for index, before in enumerate(waiting) if not before]
    heapq.heapify(ready)
    ordered: list[object] = []
    while ready:
        _, index = heapq.heappop(ready)
        ordered.append(forms[index])
        for user in users.get(index, ()):
            waiting[user].discard(index)
            if not waiting[user]:
                heapq.heappush(ready, (keys[user], user))
    return ordered


def _read_names(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, those that its subgraphs take from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_names(inner)


def _form_of_node(node: onnx.NodeProto) -> list[object]:
    attributes = {a.name: _form_of_attribute(a) for a in node.attribute}
    return [node.domain, node.op_type, node.name, list(node.input), list(node.output), attributes]


def _form_of_attribute(attribute: onnx.AttributeProto) -> object:
    value = onnx.helper.get_attribute_value(attribute)
    values = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return [attribute.type, [_form_of_item(item) for item in values]]


def _form_of_item(item: object) -> object:
    if isinstance(item, onnx.GraphProto):
        return _form_of(item)
    if isinstance(item, onnx.TensorProto):
        return _form_of_tensor(item)
    if isinstance(item, bytes):
        return item.hex()
    return item if isinstance(item, int | str) else repr(item)


def describe(out: Path, example: str) -> Iterator[str]:
    """Yield one line for each artifact file of a run's OUT."""
    for path in sorted(p for p in out.rglob("*") if p.is_file() and p.name not in LEFT_OUT):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        graph = digest_graph(path) if path.suffix == ".onnx" else "-"
        yield f"{digest} {graph} {example}/{path.relative_to(out).as_posix()}"


def convert(checkout: Path, example: str, work: Path) -> Path:
    """Convert an example with the mconv of ``checkout``, without measurements; return its OUT.
    Raises SystemExit where it fails."""
    out = work / "out" / example
    manifest = ROOT / "examples" / example / "models.yml"
    command = [
        sys.executable,
        "-m",
        "mconv",
        "run",
        str(manifest),
        "--no-measure",
        "--out",
        str(out),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "MCONV_NODE_MODULES": str(ROOT / "node_modules"),
    }
    done = subprocess.run(
        [*command, "--store", str(work / "store")], cwd=checkout, env=environment, stdout=sys.stderr
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{example} could not be converted")
    return out


def compare(before: Path, after: Path) -> int:
    """Print how two outputs differ; return 1 where a file is missing, or one that is no ONNX
    differs, or a graph does."""
    old, new = (
        {
            line.split(maxsplit=2)[2]: line.split(maxsplit=2)[:2]
            for line in path.read_text().splitlines()
        }
        for path in (before, after)
    )
    worse = 0
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        same_graph = was is not None and now is not None and was[1] == now[1] != "-"
        worse += not same_graph
        if same_graph:
            print(f"{name}: other bytes, the same graph")
        else:
            print(f"{name}: {'missing' if was is None or now is None else 'DIFFERS'}")
    print(f"{len(old.keys() & new.keys())} files in both, {worse} differ")
    return int(worse > 0)


def main() -> int:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("examples", nargs="*", help=f"default: {', '.join(EXAMPLES)}")
    parser.add_argument(
        "--checkout", type=Path, default=ROOT, help="where mconv itself is taken from"
    )
    parser.add_argument(
        "--work", type=Path, help="keep OUT and store here (default: a temporary folder)"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    arguments = parser.parse_args()
    if arguments.compare:
        return compare(*arguments.compare)
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        for example in arguments.examples or EXAMPLES:
            out = convert(arguments.checkout.resolve(), example, work.resolve())
            for line in describe(out, example):
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
