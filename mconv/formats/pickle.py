"""Pickles: scikit-learn estimators and other Python objects, named without being loaded."""

from __future__ import annotations

import pickletools
import re
from pathlib import Path

from mconv.errors import SourceError
from mconv.values import Facts

SUFFIXES = (".pkl", ".pickle", ".joblib")
ORDER = 60
_CLASS = re.compile(r"^(sklearn|xgboost|lightgbm|catboost|torch|numpy|keras)\b")


def sniff(path: Path, head: bytes) -> bool:
    """Tell by the protocol, 2 to 5, and by opcodes that follow one another."""
    if len(head) < 4 or head[0] != 0x80 or not 2 <= head[1] <= 5:
        return False
    return bool(_list_globals(head)) or _count_operations(head) > 3


def _count_operations(data: bytes) -> int:
    """Return how many opcodes follow one another."""
    count = 0
    try:
        for _ in pickletools.genops(data):
            count += 1
    except Exception:  # cut off here, as it must be: what came before counts
        return count
    return count


def _list_globals(data: bytes) -> list[str]:
    """Return ``module.name`` of what a pickle would import, in order; only opcodes are read."""
    names: list[str] = []
    texts: list[str] = []
    try:
        for code, argument, _ in pickletools.genops(data):
            if code.name == "GLOBAL":
                names.append(str(argument).replace(" ", "."))
            elif code.name == "STACK_GLOBAL" and len(texts) > 1:
                names.append(f"{texts[-2]}.{texts[-1]}")
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # joblib's files hold raw arrays between opcodes, and damaged ones anything
        return names
    return names


def inspect(path: Path) -> Facts:
    """Return the classes that it would build. Raises SourceError where it names none."""
    with path.open("rb") as file:
        names = _list_globals(file.read(1 << 20))
    if not names:
        raise SourceError(
            f"{path.name} is a pickle that builds no object, or is cut off", hint="save it again"
        )
    first = next((name for name in names if _CLASS.match(name)), names[0])
    return Facts(kind="object", names=tuple(dict.fromkeys(names)), config={"class": first})
