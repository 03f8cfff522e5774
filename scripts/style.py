"""Print how the code of mconv/ reads, in numbers, and hold them from growing.

    python scripts/style.py            # the figures, beside their ceilings in pyproject.toml
    python scripts/style.py --check    # exit code 1 where one is above its ceiling

Per 1,000 lines of mconv/ (all of a file's lines): the name ``Any`` outside of imports, the types
``dict[str, Any]`` and ``Mapping[str, Any]`` (which count as ``Any`` too), comprehensions. In all:
lines over 100 columns, modules that mypy skips, modules that lie directly in mconv/, docstrings of
public functions and classes that do not begin with a sentence, and locals with names that say
nothing of what they hold."""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100  # columns
EMPTY_NAMES = ("found", "said", "made", "kept", "about")
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
MAPPINGS = ("dict", "Mapping")


def measure(root: Path = ROOT) -> dict[str, float]:
    """Return every figure by name, for the checkout in ``root``."""
    files = sorted((root / "mconv").rglob("*.py"))
    lines = 0
    counts = dict.fromkeys(
        ("any", "any_mappings", "comprehensions", "long_lines", "fragments", "empty_names"), 0
    )
    for path in files:
        text = path.read_text(encoding="utf-8")
        lines += len(text.splitlines())
        counts["long_lines"] += sum(len(line) > WIDTH for line in text.splitlines())
        for node in ast.walk(ast.parse(text)):
            counts["any"] += isinstance(node, ast.Name) and node.id == "Any"
            counts["any_mappings"] += _is_any_mapping(node)
            counts["comprehensions"] += isinstance(node, COMPREHENSIONS)
            counts["fragments"] += _is_fragment(node)
            counts["empty_names"] += _is_empty_name(node)
    project = tomllib.loads((root / "pyproject.toml").read_text())
    per_thousand = 1000 / lines
    return {
        "Any per 1,000 lines": round(counts["any"] * per_thousand, 1),
        "mappings of Any per 1,000 lines": round(counts["any_mappings"] * per_thousand, 1),
        "comprehensions per 1,000 lines": round(counts["comprehensions"] * per_thousand, 1),
        "lines over 100 columns": counts["long_lines"],
        "docstrings that are fragments": counts["fragments"],
        "locals with empty names": counts["empty_names"],
        "modules that mypy skips": len(list(_skipped(project))),
        "modules directly in mconv": sum(
            not p.stem.startswith("__") for p in (root / "mconv").glob("*.py")
        ),
    }


def ceilings(root: Path = ROOT) -> dict[str, float]:
    """Return what each figure may be at most: [tool.mconv.style] of pyproject.toml."""
    held: dict[str, float] = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["mconv"][
        "style"
    ]
    return held


def _is_any_mapping(node: ast.AST) -> bool:
    """Whether it is the type ``dict[str, Any]`` or ``Mapping[str, Any]``."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name):
        return False
    if node.value.id not in MAPPINGS or not isinstance(node.slice, ast.Tuple):
        return False
    return [getattr(each, "id", None) for each in node.slice.elts] == ["str", "Any"]


def _is_fragment(node: ast.AST) -> bool:
    """Whether it is a public function or class whose docstring's first paragraph is no sentence: it
    does not begin with a capital letter, or does not end with a full stop or a colon."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return False
    docstring = ast.get_docstring(node)
    if not docstring:
        return False
    first = " ".join(docstring.partition("\n\n")[0].split())
    return not (first[0].isupper() and first.endswith((".", ":", "::")))


def _is_empty_name(node: ast.AST) -> bool:
    """Whether it gives a value a name that tells nothing of it."""
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in EMPTY_NAMES


def _skipped(project: dict[str, object]) -> Iterator[str]:
    """The modules whose imports mypy does not follow."""
    overrides = project["tool"]["mypy"]["overrides"]  # type: ignore[index]
    for override in overrides:
        if override.get("follow_imports") == "skip":
            yield from override["module"]


def main() -> int:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="fail where a figure is above its ceiling"
    )
    arguments = parser.parse_args()
    held = ceilings()
    above = 0
    for name, figure in measure().items():
        worse = figure > held[name]
        above += worse
        print(f"{figure:>8g}  of at most {held[name]:<8g}  {name}{'  ABOVE' if worse else ''}")
    return int(arguments.check and above > 0)


if __name__ == "__main__":
    sys.exit(main())
