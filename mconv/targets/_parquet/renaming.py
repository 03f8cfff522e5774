"""Renames tensors by prefixes and patterns, whatever the order of the rules."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from mconv.errors import UnsupportedError


def check_rules(rules: Mapping[str, str]) -> None:
    """Raise UnsupportedError for a pattern that is none, or a replacement that does not fit it."""
    for rule, replacement in rules.items():
        if not rule:
            raise UnsupportedError(
                "a rule of `map` has no prefix or pattern",
                hint='`"^": "new."` puts a prefix before every name',
            )
        if not rule.startswith("^"):
            continue
        try:
            pattern = re.compile(rule)
            re._parser.parse_template(replacement, pattern)  # type: ignore[attr-defined]
        except (re.error, IndexError) as problem:
            raise UnsupportedError(
                f"the rule {rule!r}: {replacement!r} of `map` is no pattern with its replacement: "
                f"{problem}",
                hint="keys that begin with ^ are regular expressions of Python; \\1 is their "
                "first group",
            ) from problem


def rename_tensors(names: Iterable[str], rules: Mapping[str, str]) -> dict[str, str]:
    """Return the new name of each of ``names``.

    A rule is a prefix, or a regular expression where it begins with ``^``. Of the prefixes that fit
    a name the longest counts, and patterns only where none does. Raises UnsupportedError where two
    patterns fit one name, two names become one, or a rule fits none.
    """
    names = list(names)
    patterns = {rule: re.compile(rule) for rule in rules if rule.startswith("^")}
    prefixes = [rule for rule in rules if rule not in patterns]
    prefixes.sort(key=lambda prefix: (-len(prefix), prefix))
    unused = set(rules)
    renamed: dict[str, str] = {}
    for name in names:
        fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
        matching = [rule for rule, pattern in patterns.items() if pattern.search(name)]
        unused -= {*fitting, *matching}
        if fitting:
            prefix = fitting[0]
            renamed[name] = rules[prefix] + name.removeprefix(prefix)
        elif len(matching) > 1:
            raise UnsupportedError(
                f"the patterns {' and '.join(map(repr, sorted(matching)))} of `map` both fit "
                f"{name!r}"
            )
        elif matching:
            rule = matching[0]
            renamed[name] = patterns[rule].sub(rules[rule], name)
        else:
            renamed[name] = name
    _check_all_used(unused, names)
    _check_distinct(renamed)
    return renamed


def _check_all_used(unused: set[str], names: Sequence[str]) -> None:
    """Raise UnsupportedError where a rule fitted no name, with a name that is like it."""
    if not unused:
        return
    rule = min(unused)
    similar = difflib.get_close_matches(rule, names, n=1, cutoff=0.3) or names[:1]
    raise UnsupportedError(
        f"no tensor's name fits the rule {rule!r} of `map`",
        hint=f"there is {similar[0]!r}, for example" if similar else None,
    )


def _check_distinct(renamed: Mapping[str, str]) -> None:
    """Raise UnsupportedError where a new name is empty, or that of two tensors."""
    by_new: dict[str, str] = {}
    for old, new in renamed.items():
        if not new:
            raise UnsupportedError(f"`map` leaves {old!r} no name")
        if new in by_new:
            raise UnsupportedError(
                f"`map` makes {old!r} into {new!r}, which is {by_new[new]!r} already"
            )
        by_new[new] = old
