"""No two variants of a manifest have a name in common, whatever it lists."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from mconv.errors import ManifestError
from mconv.manifest import names, reader
from mconv.manifest.config import Manifest
from mconv.plain_files import fold_name
from mconv.values import name_asset
from tests.models import write_linear

Model = tuple[str, Sequence[tuple[str, str]]]


def load(folder: Path, models: Sequence[Model]) -> Manifest:
    """The manifest of these models: their names, and the labels and precisions of ``onnx``."""
    listed = []
    for name, variants in models:
        targets: list[Mapping[str, object]] = []
        for label, precision in variants:
            targets.append({"onnx": {"as": label, "precision": precision}})
        listed.append({"name": name, "source": "a.onnx", "targets": targets})
    (folder / "models.yml").write_text(yaml.safe_dump({"version": 1, "models": listed}))
    return reader.load(folder / "models.yml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_linear(tmp_path / "a.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COLLIDING: dict[str, tuple[Sequence[Model], str]] = {
    "a dash between model and label": (
        [("a", [("b-onnx", "fp32")]), ("a-b", [("onnx", "fp32")])],
        r"a-b/onnx/fp32 and a/b-onnx/fp32 at models.yml:\d+:\d+ would both be "
        r"the file a-b-onnx-fp32.zip of a release",
    ),
    "a dash between label and precision": (
        [("a", [("onnx-int8", "fp16"), ("onnx", "fp16")]), ("a-onnx", [("int8", "fp16")])],
        r"a-onnx/int8/fp16 and a/onnx-int8/fp16 at",
    ),
    "labels that differ in case": (
        [("a", [("Mine", "fp32"), ("mine", "fp32")])],
        r"a/mine/fp32 and a/Mine/fp32 at models.yml:\d+:\d+ would both be the folder a/mine-fp32",
    ),
    "models that differ in case": (
        [("net", [("onnx", "fp32")]), ("Net", [("onnx", "int8")])],
        r"the name 'Net' is already used at models.yml:\d+:\d+",
    ),
    "a file of OUT": ([("sha256sums", [("onnx", "fp32")])], "is that of a file which mconv writes"),
}


@pytest.mark.parametrize("what", COLLIDING)
def test_a_name_that_two_would_have_is_refused_with_both_places(folder: Path, what: str) -> None:
    models, message = COLLIDING[what]
    with pytest.raises(ManifestError, match=message) as caught:
        load(folder, models)
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert problem.place.line > 1


PARTS = st.lists(st.sampled_from(["a", "A", "b", "onnx", "fp16", "int8"]), min_size=1, max_size=3)
WORDS = PARTS.map("-".join)
VARIANTS = st.lists(st.tuples(WORDS, st.sampled_from(["fp32", "fp16", "int8"])), min_size=1)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(WORDS, VARIANTS.map(lambda each: each[:3])), min_size=1, max_size=3))
def test_names_of_a_valid_manifest_are_distinct_where_case_is_ignored(
    folder: Path, models: Sequence[Model]
) -> None:
    try:
        manifest = load(folder, models)
    except ManifestError:
        event("refused")
        return
    event("taken")
    made: dict[str, list[str]] = {"id": [], "folder": [], "asset": []}
    for model in manifest.models:
        for each in model.variants:
            named = (model.name, each.label, each.precision)
            made["id"].append(names.name_variant(*named))
            made["folder"].append(names.name_directory(*named))
            made["asset"].append(name_asset(made["folder"][-1]))
    tops = {model.name for model in manifest.models} | set(names.OWN_FILES)
    assert len({fold_name(top) for top in tops}) == len(manifest.models) + len(names.OWN_FILES)
    for kind, values in made.items():
        for first, second in itertools.combinations(values, 2):
            assert fold_name(first) != fold_name(second), kind
    own = {fold_name(name) for name in names.OWN_FILES}
    assert not own & {fold_name(name) for name in made["asset"]}
