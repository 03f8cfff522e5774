"""A YAML document as nodes that know their place, with typed readers that collect every problem.

PyYAML parses; this module only walks its nodes, so that each message can name file, line and
column.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mconv.errors import ManifestError, describe_unreadable
from mconv.values import Place

MAX_VISITS = 200_000  # aliases can make a small file expand without end
DEEPEST = 10_000  # opening brackets of a document, and characters of a line, that libyaml is given
LARGEST = 10_000_000  # characters: nesting by indentation takes a square of them
UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_TIMES = {"ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6, "us": 1e-3}


def suggest_nearest(word: str, choices: Iterable[str]) -> str:
    """Return " Perhaps you meant 'x'?" for the closest choice, or an empty text."""
    close = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.5)
    return f" Perhaps you meant {close[0]!r}?" if close else ""


def describe_unknown(name: str, what: str, known: Iterable[str]) -> tuple[str, str]:
    """Return the message and the hint of an error: there is no ``what`` of this name."""
    known = list(known)
    return (
        f"{name!r} is not a known {what}.{suggest_nearest(name, known)}",
        f"known: {', '.join(known)}",
    )


class Problems:
    """Collects the problems of one document.

    Attributes:
        file: The name of the document in messages.
        found: The problems so far.
        visits: How many nodes have been made.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[ManifestError] = []
        self.visits = 0

    def add(self, node: Node | None, message: str, hint: str | None = None) -> None:
        """Record a problem at the place of ``node``, or of the file where that is None."""
        place = node.place if node is not None else Place(file=self.file)
        self.found.append(ManifestError(message, hint=hint, place=place))

    def raise_if_any(self) -> None:
        """Raise one ManifestError that carries all problems in file order, if there are any."""
        if self.found:
            self.found.sort(key=lambda p: (p.place.line, p.place.column) if p.place else (0, 0))
            first = self.found[0]
            raise ManifestError(
                first.message, hint=first.hint, place=first.place, problems=self.found
            )


class Node:
    """One YAML node. Its readers return None after recording a problem, so that reading goes on.

    Attributes:
        raw: PyYAML's node.
        problems: Where problems are recorded.
        what: What the node is called in messages.
        key_node: PyYAML's node of the key whose value this is.
    """

    def __init__(self, raw: yaml.Node, problems: Problems, what: str) -> None:
        self.raw = raw
        self.problems = problems
        self.what = what
        problems.visits += 1
        if problems.visits > MAX_VISITS:
            raise ManifestError(
                "the document expands without end through its aliases", place=self.place
            )

    @property
    def place(self) -> Place:
        """Where the node begins."""
        mark = self.raw.start_mark
        return Place(file=self.problems.file, line=mark.line + 1, column=mark.column + 1)

    def fail(self, message: str, hint: str | None = None) -> None:
        """Record a problem at this node."""
        self.problems.add(self, message, hint)

    def kind(self) -> str:
        """Return what the node is, in words a user knows."""
        if isinstance(self.raw, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.raw, yaml.SequenceNode):
            return "a list"
        value = self.value()
        if value is None:
            return "nothing"
        names = {bool: "true/false", int: "a whole number", float: "a number", str: "text"}
        name = names.get(type(value), f"a {type(value).__name__}")
        return f"{name} ({self.raw.value!r})"

    def value(self) -> Any:
        """Return the plain Python value of the node and all below it."""
        if isinstance(self.raw, yaml.MappingNode):
            return {key: child.value() for key, child in self.items()}
        if isinstance(self.raw, yaml.SequenceNode):
            return [child.value() for child in self.children()]
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(self.raw)  # type: ignore[no-untyped-call]
        except (yaml.YAMLError, ValueError) as problem:
            self.fail(f"{self.what} cannot be read: {problem}")
            return None

    def is_mapping(self) -> bool:
        """Return whether the node is a mapping."""
        return isinstance(self.raw, yaml.MappingNode)

    def is_list(self) -> bool:
        """Return whether the node is a list."""
        return isinstance(self.raw, yaml.SequenceNode)

    def expect(self, expected: str) -> None:
        """Record that the node is not what it must be."""
        self.fail(f"{self.what} must be {expected}, not {self.kind()}")

    def children(self) -> list[Node]:
        """Return the items of a list; a single value stands for a list of one."""
        if isinstance(self.raw, yaml.SequenceNode):
            return [
                Node(item, self.problems, f"{self.what}[{i}]")
                for i, item in enumerate(self.raw.value)
            ]
        return [self]

    def items(self) -> Iterator[tuple[str, Node]]:
        """Yield keys and values of a mapping, merge keys (``<<``) resolved.

        A repeated key is a problem.
        """
        if not isinstance(self.raw, yaml.MappingNode):
            self.expect("a mapping")
            return
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in self.raw.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for child in Node(value_node, self.problems, self.what).children():
                    for key, value in child.items():
                        merged.setdefault(key, value)
                continue
            key = str(key_node.value)
            if key in own:
                Node(key_node, self.problems, self.what).fail(
                    f"{key!r} is given twice in {self.what}", "keep one of the two"
                )
            child = Node(value_node, self.problems, key)
            child.key_node = key_node
            own[key] = child
        yield from {**merged, **own}.items()

    key_node: yaml.Node | None = None

    def mapping(self, allowed: Iterable[str], required: Iterable[str] = ()) -> dict[str, Node]:
        """Return the mapping's values by key.

        Unknown and missing keys are problems; the nearest known key is suggested.
        """
        allowed = list(allowed)
        fields: dict[str, Node] = {}
        for key, child in self.items():
            if key in allowed:
                fields[key] = child
                continue
            place = child
            if child.key_node is not None:
                place = Node(child.key_node, self.problems, key)
            place.fail(
                f"unknown key {key!r} in {self.what}.{suggest_nearest(key, allowed)}",
                f"known keys: {', '.join(sorted(allowed))}",
            )
        if self.is_mapping():
            for key in required:
                if key not in fields:
                    self.fail(f"{self.what} lacks the key {key!r}")
        return fields

    def text(self) -> str | None:
        """Return a text that is not empty."""
        value = self.value() if not (self.is_mapping() or self.is_list()) else self
        if isinstance(value, str) and value:
            return value
        self.expect(
            "text" + (" (put it in quotes)" if isinstance(value, bool | int | float) else "")
        )
        return None

    def choice(self, choices: Iterable[str]) -> str | None:
        """Return a text that is one of ``choices``; otherwise the nearest one is suggested."""
        value = self.text()
        choices = list(choices)
        if value is not None and value not in choices:
            self.fail(*describe_unknown(value, self.what, choices))
            return None
        return value

    def number(self, low: float | None = None, high: float | None = None) -> float | None:
        """Return a number from ``low`` to ``high``."""
        value = self.value() if not (self.is_mapping() or self.is_list()) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.expect("a number")
            return None
        if (low is not None and value < low) or (high is not None and value > high):
            if high is not None:
                rule = f"lie between {low:g} and {high:g}"
            else:
                rule = f"be at least {low:g}"
            self.fail(f"{self.what} is {value:g}; it must {rule}")
            return None
        return float(value)

    def size(self) -> int | None:
        """Return the bytes that ``50MB``, ``1.5GiB`` or a plain number stand for."""
        value = _scaled(self, UNITS, str.upper, "a size such as 50MB")
        return None if value is None else int(value)

    def duration_ms(self) -> float | None:
        """Return the milliseconds that ``100ms``, ``2s`` or ``10m`` stand for."""
        return _scaled(self, _TIMES, str.lower, "a time such as 100ms or 2s")


def _scaled(
    node: Node, units: Mapping[str, float], fold: Callable[[str], str], expected: str
) -> float | None:
    """Return the number of a text such as ``50MB`` times its unit.

    A number that is not above zero is a problem.
    """
    value = node.value() if not (node.is_mapping() or node.is_list()) else None
    match = None
    if not isinstance(value, bool):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
    unit = fold(match.group(2)) if match else ""
    if not match or unit not in units:
        node.expect(expected)
        return None
    number = float(match.group(1)) * units[unit]
    if number <= 0:
        node.fail(f"{node.what} must be more than zero")
        return None
    return number


def _compose(text: str) -> yaml.Node | None:
    """Return the nodes of a document. Raises yaml.YAMLError.

    libyaml is ten times as quick as PyYAML's own parser, which has the better messages; and it
    overflows the stack, which nobody can catch, where nesting is as deep as these limits keep it
    from being.
    """
    nested = text.count("[") + text.count("{")
    longest_line = max(map(len, text.splitlines()), default=0)
    shallow = max(nested, longest_line) < DEEPEST and len(text) < LARGEST
    if yaml.__with_libyaml__ and shallow:
        with contextlib.suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def read_document(path: Path, shown: str) -> tuple[Node, Problems]:
    """Parse the file at ``path``, called ``shown`` in messages.

    Raises ManifestError for a file that is not there, is not YAML, or is empty.
    """
    problems = Problems(shown)
    start = Place(file=shown)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as problem:
        raise ManifestError(
            describe_unreadable(Path(shown), problem),
            hint="write one (docs/manifest.md), or name its path",
            place=start,
        ) from problem
    except UnicodeDecodeError as problem:
        raise ManifestError(
            f"{shown!r} cannot be read: {problem}",
            hint="it must be a UTF-8 text file",
            place=start,
        ) from problem
    try:
        raw = _compose(text)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = Place(file=shown, line=mark.line + 1, column=mark.column + 1) if mark else start
        reason = " ".join(filter(None, (problem.context, problem.problem)))
        raise ManifestError(
            f"not valid YAML: {reason}",
            hint="check the indentation, quotes and brackets here",
            place=place,
        ) from problem
    except (yaml.YAMLError, RecursionError) as problem:
        raise ManifestError(f"not valid YAML: {problem}", place=start) from problem
    if raw is None:
        raise ManifestError(
            "the file is empty",
            hint="a manifest begins with `version: 1` and `models:`",
            place=start,
        )
    return Node(raw, problems, "the manifest"), problems
