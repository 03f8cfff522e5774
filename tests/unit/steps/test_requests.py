"""Requests: what of them enters a step's key, and how they travel."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mconv.steps.requests import (
    AnyRequest,
    CalibrateRequest,
    ExportRequest,
    InRuntime,
    InSource,
    MeasureRequest,
    OptimizeRequest,
    QuantizeRequest,
    ReferenceRequest,
    VerifyRequest,
    WeightsRequest,
    WriteRequest,
)
from mconv.values import SourceConfig, from_json, to_json

SOURCE = SourceConfig(format="onnx", path="/here/m.onnx", root="/here")
ELSEWHERE = SourceConfig(format="onnx", path="/there/m.onnx", root="/there")
RUNTIME = InRuntime(runtime="onnxruntime", options={"arena": True}, precision="fp32", threads=2)
IN_SOURCE = InSource(
    source=SOURCE, part=None, target="parquet", options={}, precision="fp32", threads=2
)
REQUESTS: list[AnyRequest] = [
    ExportRequest(source=SOURCE),
    WeightsRequest(source=SOURCE, part="text"),
    ReferenceRequest(source=SOURCE, samples=("/here/s.npz",), labels=None, count=4, seed=1),
    CalibrateRequest(source=SOURCE, data="/here/c.npz", count=4, seed=1),
    OptimizeRequest(passes=("onnxslim",), level="basic"),
    QuantizeRequest(quantizer="nbits", precision="int4", options={"block": 32}),
    WriteRequest(target="onnx", precision="fp32", options={}, name="m", parts=("a", "b")),
    VerifyRequest(artifact=RUNTIME, source=SOURCE),
    VerifyRequest(artifact=IN_SOURCE),
    MeasureRequest(artifact=RUNTIME, source=SOURCE),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.kind)
def test_a_request_reads_back_as_itself(request_: AnyRequest) -> None:
    assert from_json(to_json(request_), AnyRequest) == request_  # type: ignore[arg-type]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.kind)
def test_no_place_on_this_machine_is_in_a_key(request_: AnyRequest) -> None:
    fields = request_.key_fields()
    assert fields["kind"] == request_.kind
    assert "/here" not in str(fields)
    assert "threads" not in str(fields)


def test_a_key_does_not_change_with_the_place_or_the_cores() -> None:
    verify = VerifyRequest(artifact=IN_SOURCE, source=SOURCE)
    moved = VerifyRequest(
        artifact=replace(IN_SOURCE, source=ELSEWHERE, threads=8), source=ELSEWHERE
    )
    assert verify.key_fields() == moved.key_fields()
    reference = REQUESTS[2]
    assert reference.key_fields() == replace(reference, samples=("/there/s.npz",)).key_fields()


@pytest.mark.parametrize(
    ("changes", "artifact"),
    [
        ({"options": {"arena": False}}, True),
        ({"precision": "int8"}, True),
        ({"parts": ("a",)}, False),
    ],
)
def test_what_changes_the_result_changes_the_key(
    changes: dict[str, object], artifact: bool
) -> None:
    before = VerifyRequest(artifact=RUNTIME)
    after = (
        replace(before, artifact=replace(RUNTIME, **changes))
        if artifact
        else replace(before, **changes)
    )
    assert before.key_fields() != after.key_fields()


def test_threads_are_those_of_the_artifact_that_is_run() -> None:
    assert VerifyRequest(artifact=RUNTIME).threads == 2
    assert ExportRequest(source=SOURCE).threads is None
    assert (RUNTIME.name, IN_SOURCE.name) == ("onnxruntime", "onnx")
