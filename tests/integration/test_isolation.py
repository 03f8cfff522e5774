"""One good model among four that go wrong, each in its own way: the good one passes, the others are
errors of their own."""

from __future__ import annotations

import json
import time

import jsonschema
import pytest
import torch

from mconv.__main__ import main
from mconv.manifest import schema

CODE = """
import os
import time

import torch


def good():
    return torch.nn.Linear(8, 4)


def raises():
    raise KeyError("no such layer")


def aborts():
    print("about to abort")
    os.abort()


def allocates():
    kept = []
    while True:
        kept.append(b"x" * 50_000_000)


def sleeps():
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, dict], dict]:
    folder = tmp_path_factory.mktemp("isolation")
    (folder / "net.py").write_text(CODE)
    torch.save(torch.nn.Linear(8, 4).state_dict(), folder / "w.pt")
    models = "".join(
        f"  - name: {name}\n    source: {{path: w.pt, factory: 'net:{name}'}}\n    inputs: {{x: "
        "{shape: [batch, 8]}}\n"
        f"    targets: [onnx]\n{extra}"
        for name, extra in {
            "raises": "",
            "aborts": "",
            "allocates": "    resources: {memory: 1GB}\n",
            "sleeps": "    resources: {timeout: 6s}\n",
            "good": "",
        }.items()
    )
    (folder / "models.yml").write_text(f"version: 1\nmodels:\n{models}")
    out = folder / "out"
    start = time.monotonic()
    code = main(
        ["run", str(folder / "models.yml"), "--out", str(out), "--store", str(folder / "store")]
    )
    assert time.monotonic() - start < 120
    whole = json.loads((out / "results.json").read_text())
    return code, {v["model"]: v for v in whole["variants"]}, whole


def test_exit_code_and_schema(outcome: tuple[int, dict, dict]) -> None:
    code, _, whole = outcome
    assert code == 1
    jsonschema.validate(whole, schema.make_results_schema())
    assert whole["summary"]["passed"] == 1
    assert whole["summary"]["error"] == 4


def test_the_good_one_passes_with_numbers(outcome: tuple[int, dict, dict]) -> None:
    good = outcome[1]["good"]
    assert good["status"] == "passed"
    assert good["verification"]["outputs"][0]["cosine"] > 0.999999
    assert good["benchmark"]["speedup"] > 0
    assert good["benchmark"]["reference"]["p50_ms"] > 0
    assert good["info"]["parameters"] == 36


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("raises", "SourceError", "KeyError: 'no such layer'"),
        ("aborts", "WorkerCrashError", "SIGABRT"),
        ("allocates", "OutOfMemoryError", "1.00 GB of memory"),
        ("sleeps", "TimeLimitError", "longer than 6 s"),
    ],
)
def test_each_failure_has_its_own_message(
    outcome: tuple[int, dict, dict], model: str, kind: str, words: str
) -> None:
    variant = outcome[1][model]
    assert variant["status"] == "error"
    assert variant["error"]["type"] == kind
    assert words in variant["error"]["message"]
    assert variant["error"]["step"] == "export"
    assert variant["verification"] is None


def test_the_factory_that_raised_is_placed_and_the_log_kept(
    outcome: tuple[int, dict, dict],
) -> None:
    assert outcome[1]["raises"]["error"]["place"]["file"] == "net.py"
    assert outcome[1]["raises"]["error"]["place"]["line"] == 13
    assert "about to abort" in outcome[1]["aborts"]["error"]["log"]
