"""Names of models and variants: what can be one, and that no two are one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mconv import api
from mconv.manifest import names
from mconv.plain_files import find_portability_problem, fold_name
from tests.models import write_linear

REFUSED = [
    ("a/b", "cannot name a folder"),
    ("SHA256SUMS", "that of a file which mconv writes"),
    ("sha256sums", "that of a file which mconv writes"),
    ("Results.JSON", "that of a file which mconv writes"),
    ("provenance.json", "that of a file which mconv writes"),
    ("report.html", "that of a file which mconv writes"),
    ("results.json.", "that of a file which mconv writes"),
    ("net.", "Windows drops what it ends with"),
    ("con", "on Windows it is a device"),
    ("NUL.onnx", "on Windows it is a device"),
    ("com1", "on Windows it is a device"),
]


@pytest.mark.parametrize(("name", "reason"), REFUSED)
def test_names_that_are_taken_elsewhere_are_refused(name: str, reason: str) -> None:
    problem = names.find_name_problem(name)
    assert problem is not None
    assert reason in problem[0]
    assert repr(name) in problem[0]


@pytest.mark.parametrize("name", ["net", "results", "a.b", "console", "com", "SHA256SUMS-1"])
def test_usual_names_are_none_of_them(name: str) -> None:
    assert names.find_name_problem(name) is None


@given(st.text(max_size=120))
@example("con")
@example("SHA256SUMS")
@example("...")
@example("a" * 100 + ".")
@example("results.json" + "." * 90)
def test_a_name_is_made_of_any_file(text: str) -> None:
    assert names.find_name_problem(names.make_model_name(text)) is None


@given(st.text(max_size=8), st.text(max_size=8))
@example("ẞ", "ss")
def test_names_that_differ_in_case_fold_to_one(first: str, second: str) -> None:
    assert fold_name(fold_name(first)) == fold_name(first)
    if first.casefold() == second.casefold():
        assert fold_name(first) == fold_name(second)


def test_forms_of_one_name_are_one() -> None:
    for first, second in (("a\u0308", "ä"), ("ﬁle", "FILE"), ("A.", "a"), ("K", "K")):
        assert fold_name(first) == fold_name(second)
    assert find_portability_problem("lpt9.txt") is not None
    assert find_portability_problem("lpt10.txt") is None


def test_what_lies_in_out_beside_the_models_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "a.onnx")
    api.convert("a.onnx", "onnx", out=tmp_path / "out", measure=False)
    written = {path.name for path in (tmp_path / "out").iterdir() if not path.is_dir()}
    assert {"results.json", "SHA256SUMS"} <= written <= set(names.OWN_FILES)
    assert "mconv.json" in {path.name for path in (tmp_path / "out/a/onnx-fp32").iterdir()}
