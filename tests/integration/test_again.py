"""A second run does nothing; a changed byte redoes one model; a damaged store is mended; failures
are not kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.models import linear, write_linear
from tests.unit.test_startup import HEAVY

MANIFEST = """version: 1
models:
  - {name: one, source: one.onnx, targets: [onnx, 'onnx:int8', openvino]}
  - {name: two, source: two.onnx, targets: [onnx]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    write_linear(folder / "one.onnx", 1)
    write_linear(folder / "two.onnx", 2)
    (folder / "models.yml").write_text(MANIFEST)
    return folder


def run(folder: Path, *argv: str) -> tuple[dict, set[str], str]:
    """(results, modules loaded by the parent, stderr)."""
    code = (
        "import sys\nfrom mconv.__main__ import main\ncode = main(sys.argv[1:])\n"
        "print('LOADED', *{m.split('.')[0] for m in sys.modules}, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *argv],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stderr
    said, _, modules = done.stderr.partition("LOADED")
    return json.loads((folder / "out/results.json").read_text()), set(modules.split()), said


def ran(results: dict) -> set[str]:
    return {
        f"{v['model']}:{s['kind']}"
        for v in results["variants"]
        for s in v["steps"]
        if not s["cached"]
    }


def digests(folder: Path) -> dict[str, str]:
    files = sorted(
        p
        for p in (folder / "out").rglob("*")
        if p.is_file() and p.name not in ("results.json", "report.md", "report.html")
    )
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def test_nothing_changed_then_one_byte(project: Path) -> None:
    first, _, _ = run(project)
    assert first["summary"]["passed"] == 4
    before = digests(project)
    second, modules, said = run(project)
    assert ran(second) == set()
    assert "[1/" not in said  # no step was run
    assert not modules & (HEAVY - {"numpy"})
    assert digests(project) == before
    assert second["variants"] == [
        {**v, "steps": [{**s, "cached": True} for s in v["steps"]]} for v in first["variants"]
    ]

    model = linear(2)
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0] = np.nextafter(weights[0, 0], np.float32(9))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w0"))
    data = model.SerializeToString()
    old = (project / "two.onnx").read_bytes()
    assert len(data) == len(old)
    assert sum(a != b for a, b in zip(data, old, strict=True)) == 1
    (project / "two.onnx").write_bytes(data)
    third, _, _ = run(project)
    assert {step.partition(":")[0] for step in ran(third)} == {"two"}
    after = digests(project)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "out/two/onnx-fp32/model.onnx",
        "out/two/onnx-fp32/mconv.json",
        "out/SHA256SUMS",
    }


def test_two_stores_give_the_same_bytes(project: Path) -> None:
    run(project, "--no-measure")
    before = digests(project)
    run(project, "--no-measure", "--store", "other", "--jobs", "1")
    assert digests(project) == before


def test_a_damaged_store_and_a_damaged_output_are_mended(project: Path) -> None:
    run(project, "--no-measure", "--only", "two")
    before = digests(project)
    for stored in (project / ".mconv/store").rglob("files/model.onnx"):
        stored.write_bytes(stored.read_bytes()[:-1] + b"\x00")
    (project / "out/two/onnx-fp32/model.onnx").write_bytes(b"junk")
    results, _, _ = run(project, "--no-measure", "--only", "two")
    assert results["summary"]["passed"] == 1
    assert digests(project) == before


def test_failures_are_never_stored_and_stale_artifacts_go(project: Path) -> None:
    run(project, "--no-measure", "--only", "two")
    (project / "two.onnx").write_bytes((project / "two.onnx").read_bytes()[:300])
    for _ in range(2):
        results, _, _ = run(project, "--no-measure", "--only", "two")
        assert results["variants"][0]["status"] == "error"
        assert "two:export" in ran(results)
        assert not (project / "out/two/onnx-fp32").exists()
    write_linear(project / "two.onnx", 2)
    assert run(project, "--no-measure", "--only", "two")[0]["summary"]["passed"] == 1


def test_tolerance_changes_the_verdict_without_any_work(project: Path) -> None:
    run(project, "--no-measure")
    (project / "models.yml").write_text(
        MANIFEST + "defaults: {tolerance: {int8: {max_abs: 0.0}}}\n"
    )
    results, _, _ = run(project, "--no-measure")
    assert ran(results) == set()
    status = {v["id"]: v["status"] for v in results["variants"]}
    assert status == {
        "one/onnx/fp32": "passed",
        "one/onnx/int8": "failed",
        "one/openvino/fp32": "passed",
        "two/onnx/fp32": "passed",
    }
    assert onnx.load(project / "out/one/onnx-int8/model.onnx").graph.node
