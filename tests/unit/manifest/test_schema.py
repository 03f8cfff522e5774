"""The JSON Schemas: made from the code, current in schemas/, and no laxer than the reader."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from mconv import registry
from mconv.manifest import schema
from mconv.values import Report, to_json
from tests.conftest import ROOT
from tests.unit.manifest.test_reader import BROKEN, GOOD
from tests.unit.reports.factory import report

MIXED: dict[str, Any] = {
    "version": 1,
    "quantizer": "nbits",
    "layers": {"w": {"bits": 4, "error": {"4": 0.1}}},
}


@pytest.mark.parametrize(
    "case",
    ["unknown key", "wrong type", "unknown target", "bad shape", "wrong version"],
)
def test_the_schema_refuses_what_the_reader_refuses(case: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(BROKEN[case][0]), schema.make_models_schema())


@pytest.mark.parametrize("name", schema.NAMES)
def test_committed_schemas_are_current(name: str) -> None:
    committed = json.loads((ROOT / f"schemas/{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(committed)
    assert committed == json.loads(to_json(schema.make_schema(name))), "run `make schemas`"


def test_the_options_of_every_target_are_in_the_schema() -> None:
    made = schema.make_models_schema()
    models = made["properties"]["models"]["items"]["properties"]
    _, mapping = models["targets"]["oneOf"][0]["items"]["oneOf"]
    assert mapping["properties"].keys() == registry.targets().keys()
    for name, target in registry.targets().items():
        body = mapping["properties"][name]
        assert body["additionalProperties"] is False
        assert target.options.keys() <= body["properties"].keys()


@pytest.mark.parametrize(
    ("targets", "good"),
    [
        ("onnx", True),
        ("['onnx:int8', openvino]", True),
        ("[{onnx: {precision: [fp32, auto]}}]", True),
        ("['onnx:int5']", False),
        ("[{onnx: {}, openvino: {}}]", False),
        ("[{onnx: {no_such_option: 1}}]", False),
    ],
)
def test_forms_of_targets(targets: str, good: bool) -> None:
    manifest = yaml.safe_load(GOOD.replace("[onnx]", targets))
    assert jsonschema.Draft202012Validator(schema.make_models_schema()).is_valid(manifest) == good


def test_a_report_fits_the_schema_of_results() -> None:
    validator = jsonschema.Draft202012Validator(schema.make_results_schema())
    written = json.loads(to_json(report(passed=1, failed=1, errors=1)))
    validator.validate(written)
    assert not validator.is_valid({**written, "more": 1})


def test_fields_are_described_by_their_docstrings_in_one_line() -> None:
    described = schema.make_results_schema()["$defs"]["Latency"]
    assert "Attributes" not in described["description"]
    for field in described["properties"].values():
        assert field["description"]
        assert "\n" not in field["description"]
    assert Report.__doc__ is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"version": 2}, "version"),
        ({"layers": {"w": {"bits": 7}}}, "bits"),
        ({"layers": {"w": {}}}, "bits"),
        ({"more": 1}, "more"),
    ],
)
def test_mixed_json(change: dict[str, Any], words: str | None) -> None:
    content = {**MIXED, **change}
    problem = schema.find_mixed_problem(content)
    assert (problem is None) == (words is None)
    assert words is None or words in (problem or "")
    validator = jsonschema.Draft202012Validator(schema.make_mixed_schema())
    assert validator.is_valid(content) == (words is None)
