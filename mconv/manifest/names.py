"""The names that models and variants get, each made in one place: ids, folders of OUT, and what
they are held to.

A name is that of a folder, of a file in a release and of a job's report, on every system: no two
may be equal where case is ignored.
"""

from __future__ import annotations

import re

from mconv import plain_files

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# what mconv and its action write into OUT and into a release themselves
OWN_FILES = (
    "SHA256SUMS",
    "baseline.json",
    "mconv.json",
    "provenance.json",
    "report.html",
    "report.md",
    "results.json",
)


def name_variant(model: str, label: str, precision: str) -> str:
    """Return the id of a variant; ``label`` is its target's name, or what ``as:`` has in place."""
    return f"{model}/{label}/{precision}"


def name_directory(model: str, label: str, precision: str) -> str:
    """Return where a variant's files lie, relative to OUT."""
    return f"{model}/{label}-{precision}"


def find_name_problem(name: str) -> tuple[str, str] | None:
    """Return why ``name`` cannot be a model's, and what can be; None where it can."""
    if not NAME.fullmatch(name):
        return (
            f"the name {name!r} cannot name a folder",
            "use letters, digits, '.', '_' and '-', at most 100",
        )
    if plain_files.fold_name(name) in map(plain_files.fold_name, OWN_FILES):
        return f"the name {name!r} is that of a file which mconv writes", "choose another name"
    if (reason := plain_files.find_portability_problem(name)) is not None:
        return f"the name {name!r} cannot name a folder everywhere: {reason}", "choose another name"
    return None


def make_model_name(text: str) -> str:
    """Return the beginning of ``text`` that can name a model; ``model`` where there is none."""
    match = NAME.match(text.lstrip("._-"))
    name = match.group().rstrip(".") if match else "model"
    return name if find_name_problem(name) is None else f"model-{name}"[:100]
