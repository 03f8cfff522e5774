"""A YAML document as nodes that know their place, with typed readers that collect every problem
instead of stopping at the first.

PyYAML parses; this module only walks its nodes, so that each message can name file, line and
column."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from mconv.errors import ManifestError
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
    """ " Perhaps you meant 'x'?" for the closest choice, or an empty text."""
    close = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.5)
    return f" Perhaps you meant {close[0]!r}?" if close else ""


class Problems:
    """Collects problems; ``raise_if_any`` raises one ManifestError that carries all of them in file
    order."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[ManifestError] = []
        self.visits = 0

    def add(self, node: Node | None, message: str, hint: str | None = None) -> None:
        place = node.place if node is not None else Place(file=self.file)
        self.found.append(ManifestError(message, hint=hint, place=place))

    def raise_if_any(self) -> None:
        if self.found:
            self.found.sort(key=lambda p: (p.place.line, p.place.column) if p.place else (0, 0))
            first = self.found[0]
            raise ManifestError(
                first.message, hint=first.hint, place=first.place, problems=self.found
            )


class Node:
    """One YAML node. Readers return None after recording a problem, so that reading goes on."""

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
        mark = self.raw.start_mark
        return Place(file=self.problems.file, line=mark.line + 1, column=mark.column + 1)

    def fail(self, message: str, hint: str | None = None) -> None:
        self.problems.add(self, message, hint)

    def kind(self) -> str:
        """What the node is, in words a user knows."""
        if isinstance(self.raw, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.raw, yaml.SequenceNode):
            return "a list"
        value = self.value()
        names = {
            bool: "true/false",
            int: "a whole number",
            float: "a number",
            str: "text",
            type(None): "nothing",
        }
        return (
            f"{names.get(type(value), 'a ' + type(value).__name__)} ({self.raw.value!r})"
            if value is not None
            else "nothing"
        )

    def value(self) -> Any:
        """The plain Python value of the node and all below it."""
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
        return isinstance(self.raw, yaml.MappingNode)

    def is_list(self) -> bool:
        return isinstance(self.raw, yaml.SequenceNode)

    def expect(self, expected: str) -> None:
        self.fail(f"{self.what} must be {expected}, not {self.kind()}")

    def children(self) -> list[Node]:
        """The items of a list; a single value stands for a list of one."""
        if isinstance(self.raw, yaml.SequenceNode):
            return [
                Node(item, self.problems, f"{self.what}[{i}]")
                for i, item in enumerate(self.raw.value)
            ]
        return [self]

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping, merge keys (``<<``) resolved; a repeated key is a
        problem."""
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
        """The mapping's values by key; unknown and missing keys are problems, the nearest known key
        is suggested."""
        allowed = list(allowed)
        found: dict[str, Node] = {}
        for key, child in self.items():
            if key in allowed:
                found[key] = child
            else:
                at = (
                    Node(child.key_node, self.problems, key)
                    if child.key_node is not None
                    else child
                )
                at.fail(
                    f"unknown key {key!r} in {self.what}.{suggest_nearest(key, allowed)}",
                    f"known keys: {', '.join(sorted(allowed))}",
                )
        if self.is_mapping():
            for key in required:
                if key not in found:
                    self.fail(f"{self.what} lacks the key {key!r}")
        return found

    def text(self) -> str | None:
        value = self.value() if not (self.is_mapping() or self.is_list()) else self
        if isinstance(value, str) and value:
            return value
        self.expect(
            "text" + (" (put it in quotes)" if isinstance(value, bool | int | float) else "")
        )
        return None

    def choice(self, choices: Iterable[str]) -> str | None:
        value = self.text()
        choices = list(choices)
        if value is not None and value not in choices:
            self.fail(
                f"{value!r} is not a known {self.what}.{suggest_nearest(value, choices)}",
                f"known: {', '.join(choices)}",
            )
            return None
        return value

    def number(self, low: float | None = None, high: float | None = None) -> float | None:
        value = self.value() if not (self.is_mapping() or self.is_list()) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.expect("a number")
            return None
        if (low is not None and value < low) or (high is not None and value > high):
            self.fail(
                f"{self.what} is {value:g}; it must lie between {low:g} and {high:g}"
                if high is not None
                else f"{self.what} is {value:g}; it must be at least {low:g}"
            )
            return None
        return float(value)

    def size(self) -> int | None:
        """Bytes from ``50MB``, ``1.5GiB`` or a plain number."""
        return _scaled(self, UNITS, str.upper, "a size such as 50MB")

    def duration_ms(self) -> float | None:
        """Milliseconds from ``100ms``, ``2s``, ``10m``."""
        value = _scaled(self, _TIMES, str.lower, "a time such as 100ms or 2s", whole=False)
        return value if value is None else float(value)


def _scaled(
    node: Node, units: dict[str, Any], fold: Callable[[str], str], expected: str, whole: bool = True
) -> Any:
    value = node.value() if not (node.is_mapping() or node.is_list()) else None
    match = (
        re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
        if not isinstance(value, bool)
        else None
    )
    unit = fold(match.group(2)) if match else ""
    if not match or unit not in units:
        node.expect(expected)
        return None
    number = float(match.group(1)) * units[unit]
    if number <= 0:
        node.fail(f"{node.what} must be more than zero")
        return None
    return int(number) if whole else number


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a document. libyaml is ten times as quick as PyYAML's own parser, which has the
    better messages; and it overflows the stack, which nobody can catch, where nesting is as deep as
    these limits keep it from being."""
    nested = text.count("[") + text.count("{")
    if (
        yaml.__with_libyaml__
        and max(nested, *map(len, text.splitlines() or [""])) < DEEPEST
        and len(text) < LARGEST
    ):
        with contextlib.suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def read_document(path: Path, shown: str) -> tuple[Node, Problems]:
    """Parse the file at ``path``, called ``shown`` in messages. Raises ManifestError for what is
    not YAML, or empty."""
    problems = Problems(shown)
    start = Place(file=shown)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        hint = "write one (docs/manifest.md), or name its path"
        raise ManifestError(f"there is no file {shown}", hint=hint, place=start) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ManifestError(
            f"cannot be read: {problem}", hint="it must be a UTF-8 text file", place=start
        ) from problem
    try:
        raw = _compose(text)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = Place(file=shown, line=mark.line + 1, column=mark.column + 1) if mark else start
        said = " ".join(filter(None, (problem.context, problem.problem)))
        raise ManifestError(
            f"not valid YAML: {said}",
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
