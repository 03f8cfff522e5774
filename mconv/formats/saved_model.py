"""TensorFlow SavedModel folders."""

from __future__ import annotations

from collections import Counter
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
NODE, LIBRARY, FUNCTION = 1, 2, 1


def sniff(path: Path, head: bytes) -> bool:
    return path.is_dir() and (path / FILE).is_file()


def inspect(path: Path) -> Facts:
    """Operators and names of its nodes, functions included, and its signatures.

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
                    _nodes(data, field, operators, names)
                elif field.number == SIGNATURES:
                    signatures += [
                        _wire.read_text(data, f)
                        for f in _wire.read_fields(data, field.start, field.end)
                        if f.number == 1
                    ]
    lost = [
        f"{path.name}/{FILE} is there, but no {n}"
        for n in _variables(path)
        if not (path / n).is_file()
    ]
    real = sorted(s for s in signatures if not s.startswith("__"))
    return Facts(
        kind="model",
        operators=dict(sorted(operators.items())),
        names=tuple(names),
        config={"signatures": real},
        problems=tuple(lost),
    )


def _variables(path: Path) -> list[str]:
    """Files that hold the variables: all of the shards that the first one's name tells of."""
    shards = sorted((path / "variables").glob("variables.data-*-of-*"))
    if not shards:
        filled = (path / "variables").is_dir() and any((path / "variables").iterdir())
        return (
            ["variables/variables.index", "variables/variables.data-00000-of-00001"]
            if filled
            else []
        )
    count = shards[0].name.rpartition("-of-")[2]
    known = (
        [f"variables/variables.data-{i:05d}-of-{count}" for i in range(int(count))]
        if count.isdigit()
        else []
    )
    return ["variables/variables.index", *known[:1000]]


def _nodes(
    data: _wire.Buffer, graph: _wire.Field, operators: Counter[str], names: list[str]
) -> None:
    """Nodes of a GraphDef and of the functions in its library (FunctionDef.node_def is field 3)."""
    for field in _wire.read_fields(data, graph.start, graph.end, FILE):
        if field.number == NODE and field.kind == _wire.BYTES:
            _node(data, field, operators, names)
        elif field.number == LIBRARY and field.kind == _wire.BYTES:
            for function in _wire.read_fields(data, field.start, field.end, FILE):
                if function.number == FUNCTION and function.kind == _wire.BYTES:
                    for part in _wire.read_fields(data, function.start, function.end, FILE):
                        if part.number == 3 and part.kind == _wire.BYTES:
                            _node(data, part, operators, names)


def _node(
    data: _wire.Buffer, field: _wire.Field, operators: Counter[str], names: list[str]
) -> None:
    said = {
        f.number: _wire.read_text(data, f)
        for f in _wire.read_fields(data, field.start, field.end, FILE)
        if f.number in (1, 2)
    }
    operators[said.get(2, "?")] += 1
    names.append(said.get(1, ""))


def check(path: Path) -> list[str]:
    """The graph's structure, signatures, and the files of its variables."""
    try:
        found = inspect(path)
    except SourceError as problem:
        return [problem.message]
    more = (
        [] if found.config["signatures"] else [f"it has no signature: {AGAIN} and signatures={{…}}"]
    )
    return [*found.problems, *more]
