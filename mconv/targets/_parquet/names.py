"""Renaming of tensors by prefixes and patterns, whatever the order of the rules."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from mconv.errors import UnsupportedError


def check(rules: Mapping[str, str]) -> None:
    """Raises UnsupportedError for a pattern that is none, or a replacement that does not fit it."""
    for key, value in rules.items():
        if not key:
            raise UnsupportedError(
                "a rule of `map` has no prefix or pattern",
                hint='`"^": "new."` puts a prefix before every name',
            )
        if key.startswith("^"):
            try:
                pattern = re.compile(key)
                re._parser.parse_template(value, pattern)  # type: ignore[attr-defined]
            except (re.error, IndexError) as problem:
                raise UnsupportedError(
                    f"the rule {key!r}: {value!r} of `map` is no pattern with its replacement: "
                    f"{problem}",
                    hint="keys that begin with ^ are regular expressions of Python; \\1 is their "
                    "first group",
                ) from problem


def rename(names: Iterable[str], rules: Mapping[str, str]) -> dict[str, str]:
    """Old name → new name. A rule is a prefix, or a regular expression where it begins with ``^``.
    Of the prefixes that fit a name the longest counts, and patterns only where none does. Raises
    UnsupportedError where two patterns fit one name, two names become one, or a rule fits none."""
    names = list(names)
    patterns = {key: re.compile(key) for key in rules if key.startswith("^")}
    prefixes = sorted((key for key in rules if key not in patterns), key=lambda k: (-len(k), k))
    unused = set(rules)
    made: dict[str, str] = {}
    for name in names:
        fit = [key for key in prefixes if name.startswith(key)]
        matched = [key for key, pattern in patterns.items() if pattern.search(name)]
        unused -= {*fit, *matched}
        if fit:
            made[name] = rules[fit[0]] + name[len(fit[0]) :]
        elif len(matched) > 1:
            raise UnsupportedError(
                f"the patterns {' and '.join(map(repr, sorted(matched)))} of `map` both fit "
                f"{name!r}"
            )
        else:
            made[name] = patterns[matched[0]].sub(rules[matched[0]], name) if matched else name
    if unused:
        rule = min(unused)
        near = difflib.get_close_matches(rule, names, n=1, cutoff=0.3) or names[:1]
        raise UnsupportedError(
            f"no tensor's name fits the rule {rule!r} of `map`",
            hint=f"there is {near[0]!r}, for example" if near else None,
        )
    by_new: dict[str, str] = {}
    for old, new in made.items():
        if not new or new in by_new:
            said = (
                f"makes {old!r} into {new!r}, which is {by_new[new]!r} already"
                if new
                else f"leaves {old!r} no name"
            )
            raise UnsupportedError(f"`map` {said}")
        by_new[new] = old
    return made
