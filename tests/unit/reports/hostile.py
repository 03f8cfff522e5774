"""Results as an enemy writes them: any value that fits the schema, with hostile text in every field
and in every key."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from mconv.values import Report

TEXTS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</script><svg onload=alert(1)>",
    "</details></table><iframe src=//evil>",
    "[click](http://evil.example)",
    "![](http://evil.example/x.png)",
    "<http://evil.example>",
    "http://evil.example www.evil.example a@evil.example",
    "javascript:alert(1)",
    "@octocat @org/team",
    "#12 octo/models#3 GH-4",
    "\n::error::INJECTED\n",
    "##[error]INJECTED",
    "::set-output name=x::INJECTED",
    "| a | b |\n| - | - |\n| c | d |",
    "`code` ```\nfence\n```",
    "**bold** _em_ ~~gone~~ $x$ :smile:",
    "# heading\n- list\n1. one\n> quote\n---",
    "&lt;b&gt; &#64;octocat",
    "\\<b> \\[x](y)",
    "-->  ]]> <!-- {{ x }} ${x}",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "\u202egnp.exe\u2066 \u200b\ufeff",
    "\x1b[31mred\x1b]8;;http://evil\x07\x00",
    "W" * 3000,
    "[^1]\n\n[^1]: note",
    "[x]: http://evil.example\n\n[x]",
    "-5",
    "",
)
INSIDE = ("<b>/x", "a|b", "@octocat", "a b/[c](d)")
PLACES = (0.0, 1e-300, 1e308, -1e308, -5.0, 0.5, 1.0, 3e9)
WHOLE = (0, 1, -1, 7, 99_999, 2**53)

texts = st.sampled_from(TEXTS) | st.text(max_size=40)


def make_strategy(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Return what fits a type of msgspec's, as JSON's values."""
    match kind:
        case inspect.StrType(pattern=None):
            return texts
        case inspect.StrType():
            return st.sampled_from(INSIDE)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=least):
            return st.sampled_from([n for n in WHOLE if least is None or n >= least])
        case inspect.FloatType():
            bounds = [n for n in PLACES if _is_within(n, kind)]
            return st.sampled_from(bounds)
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.UnionType(types=types):
            return st.one_of(*[make_strategy(each) for each in types])
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return st.lists(make_strategy(item), max_size=2)
        case inspect.DictType(value_type=item):
            return st.dictionaries(texts, make_strategy(item), max_size=2)
        case inspect.StructType(fields=fields):
            return st.fixed_dictionaries(
                {f.encode_name: make_strategy(f.type) for f in fields if f.encode_name != "schema"}
            )
        case inspect.AnyType():
            return texts | st.integers(0, 9) | st.dictionaries(texts, texts, max_size=1)
        case _:
            raise NotImplementedError(kind)


def _is_within(number: float, kind: inspect.FloatType) -> bool:
    return (
        (kind.ge is None or number >= kind.ge)
        and (kind.gt is None or number > kind.gt)
        and (kind.le is None or number <= kind.le)
        and (kind.lt is None or number < kind.lt)
    )


results = make_strategy(msgspec.inspect.type_info(Report))
