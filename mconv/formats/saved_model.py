"""TensorFlow SavedModel folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mconv.errors import SourceError
from mconv.formats import _wire
from mconv.values import Facts

SUFFIXES = ()
FILE = "saved_model.pb"
AGAIN = "save it again with tf.saved_model.save()"
# https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/saved_model.proto
# and meta_graph.proto
META, GRAPH, SIGNATURES, OBJECTS = 2, 2, 5, 7
NODE, LIBRARY, FUNCTION, FUNCTION_NODE = 1, 2, 1, 3
NODE_NAME, NODE_OPERATOR = 1, 2
INDEX = "variables/variables.index"
MOST_SHARDS = 1000


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the file in the folder."""
    return path.is_dir() and (path / FILE).is_file()


def inspect(path: Path) -> Facts:
    """Return operators and names of its nodes, functions included, and its signatures.

    Raises SourceError for damage.
    """
    operators: Counter[str] = Counter()
    names: list[str] = []
    signatures: list[str] = []
    with _wire.open_bytes(path / FILE) as data:
        metas = [
            f
            for f in _wire.read_fields(data, what=FILE)
            if (f.number, f.kind) == (META, _wire.BYTES)
        ]
        if not metas:
            raise SourceError(f"{path.name}/{FILE} holds no graph", hint=AGAIN)
        for meta in metas:
            for field in _wire.read_fields(data, meta.start, meta.end, FILE):
                if field.kind != _wire.BYTES:
                    continue
                if field.number == GRAPH:
                    _count_nodes(data, field, operators, names)
                elif field.number == SIGNATURES:
                    signatures += [
                        _wire.read_text(data, f)
                        for f in _wire.read_fields(data, field.start, field.end)
                        if f.number == 1
                    ]
    lost = [
        f"{path.name}/{FILE} is there, but no {name}"
        for name in _list_variable_files(path)
        if not (path / name).is_file()
    ]
    real = sorted(name for name in signatures if not name.startswith("__"))
    return Facts(
        kind="model",
        operators=dict(sorted(operators.items())),
        names=tuple(names),
        config={"signatures": real},
        problems=tuple(lost),
    )


def _list_variable_files(path: Path) -> list[str]:
    """Return the files that hold the variables: all shards that the first one's name tells of."""
    folder = path / "variables"
    shards = sorted(folder.glob("variables.data-*-of-*"))
    if not shards and not (folder.is_dir() and any(folder.iterdir())):
        return []
    count = shards[0].name.rpartition("-of-")[2] if shards else "00001"
    files = [INDEX]
    if count.isdigit():
        for number in range(min(int(count), MOST_SHARDS)):
            files.append(f"variables/variables.data-{number:05d}-of-{count}")
    return files


def _count_nodes(
    data: _wire.Buffer, graph: _wire.Field, operators: Counter[str], names: list[str]
) -> None:
    """Add the nodes of a GraphDef, and of the functions in its library."""
    for node in _read_messages(data, graph, NODE):
        _count_node(data, node, operators, names)
    for library in _read_messages(data, graph, LIBRARY):
        for function in _read_messages(data, library, FUNCTION):
            for node in _read_messages(data, function, FUNCTION_NODE):
                _count_node(data, node, operators, names)


def _read_messages(data: _wire.Buffer, message: _wire.Field, number: int) -> Iterator[_wire.Field]:
    """Yield the fields ``number`` of a message that are messages themselves."""
    for field in _wire.read_fields(data, message.start, message.end, FILE):
        if field.number == number and field.kind == _wire.BYTES:
            yield field


def _count_node(
    data: _wire.Buffer, node: _wire.Field, operators: Counter[str], names: list[str]
) -> None:
    """Add one NodeDef's operator and name."""
    name = ""
    operator = "?"
    for field in _wire.read_fields(data, node.start, node.end, FILE):
        if field.number == NODE_NAME:
            name = _wire.read_text(data, field)
        elif field.number == NODE_OPERATOR:
            operator = _wire.read_text(data, field)
    operators[operator] += 1
    names.append(name)


def check(path: Path) -> list[str]:
    """Check the graph's structure, signatures, and the files of its variables."""
    try:
        facts = inspect(path)
    except SourceError as problem:
        return [problem.message]
    problems = list(facts.problems)
    if not facts.config["signatures"]:
        problems.append(f"it has no signature: {AGAIN} and signatures={{…}}")
    return problems
