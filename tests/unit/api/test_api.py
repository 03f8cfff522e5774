"""The Python API: its documentation's examples run, it prints nothing, it types, and what is
registered reaches the workers."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mconv import api, registry
from mconv.errors import MconvError, StepError, UsageError
from tests.conftest import ROOT
from tests.models import write_linear

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_linear(tmp_path / "model.onnx")
    np.savez(
        tmp_path / "calibration.npz",
        x=np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32),
    )
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels:\n  - name: net\n    source: model.onnx\n    targets: [onnx, "
        "openvino]\n"
    )
    return tmp_path


def script(text: str, folder: Path, *, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(), re.S)


def test_the_documentation_runs(folder: Path) -> None:
    """All examples in one process, as in a notebook; what it printed is what its print() calls
    printed, and errors say where."""
    code = "import sys\nsys.path.insert(0, '')\n" + "\n".join(blocks())
    done = script(code, folder)
    assert done.returncode == 0, done.stderr
    assert "wrong.yml:5:15" in done.stdout
    assert "Perhaps you meant 'onnx'?" in done.stdout
    assert "success" in done.stdout
    assert not done.stderr
    assert (folder / "out/model/onnx-fp16/mconv.json").is_file()
    assert (folder / "out/results.json").is_file()


def test_nothing_is_printed_and_no_signal_is_touched(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    report = api.convert("model.onnx", "onnx", out=None, measure=False)
    api.find(".")
    api.check("model.onnx")
    api.quantize("model.onnx", "int8", out="q.onnx")
    assert report.variants[0].status == "passed"
    assert capfd.readouterr() == ("", "")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_importing_it_loads_no_framework() -> None:
    done = script("import sys, mconv.api\nprint(*{m.split('.')[0] for m in sys.modules})", ROOT)
    assert not set(done.stdout.split()) & {
        "torch",
        "tensorflow",
        "onnx",
        "onnxruntime",
        "openvino",
        "numpy",
        "transformers",
    }


CONSUMER = """
from collections.abc import Mapping
from mconv import api
from mconv.values import Checked, Device, Found, Pair, Quantized, Report, Verification

def main() -> int:
    report: Report = api.convert("model.onnx", ["onnx", {"openvino": {"precision": "int8"}}], factory="a:b")
    sizes: list[int | None] = [v.size_bytes for v in report.variants]
    proof: Verification = api.verify("out/x")
    checked: Checked = api.check("a")
    made: Quantized = api.quantize("a", "int4")
    devices: tuple[Device, ...] = api.detect()
    found: tuple[Found, ...] = api.find(".")
    pairs: tuple[Pair, ...] = api.pairs("onnx")
    api.register_target("my.module")
    counts = [len(sizes), len(devices), len(found), len(pairs), len(checked.path)]
    return report.summary.passed + sum(counts) + made.size_bytes + proof.samples
"""


def test_a_consumer_is_type_checked(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(CONSUMER)
    (tmp_path / "bad.py").write_text(
        "from mconv import api\nx: int = api.find('.')\napi.convert(3, 'onnx')\napi.run(jobs='2')\n"
    )
    argv = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--config-file=",
        "--ignore-missing-imports",
    ]
    argv += ["--cache-dir", str(ROOT / ".mypy_cache"), "--python-version", "3.11"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    good = subprocess.run(
        [*argv, "good.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert good.returncode == 0, good.stdout
    bad = subprocess.run(
        [*argv, "bad.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert re.findall(r"bad.py:(\d)", bad.stdout) == ["2", "3", "4"], bad.stdout
    assert (ROOT / "mconv/py.typed").is_file()


def test_everything_public_is_documented() -> None:
    text = (ROOT / "docs/api.md").read_text()
    functions = [n for n in api.__all__ if inspect.isfunction(getattr(api, n))]
    for name in functions:
        assert getattr(api, name).__doc__, name
    for name in set(functions) - {"load_manifest", "register", "register_source"}:
        assert f"api.{name}(" in text, name


def test_pairs_are_every_source_and_target() -> None:
    pairs = api.pairs()
    assert {(p.source, p.target) for p in pairs} >= {(s, "onnx") for s in api.sources()}
    assert api.pair("onnx", "openvino").runtimes == ("openvino",)
    with pytest.raises(UsageError, match="Perhaps you meant 'openvino'"):
        api.pairs(target="openvin")


def test_errors_are_mconvs_own(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        api.convert("absent.onnx", "onnx")
    with pytest.raises(MconvError, match="not a known target"):
        api.convert("model.onnx", "onxn")
    with pytest.raises(MconvError, match="threads must be at least 1") as told:
        api.convert("model.onnx", {"onnx": {"threads": 0}})
    assert re.match(r"the call:\d+:\d+: ", str(told.value))
    with pytest.raises(UsageError, match="fail_on"):
        api.run("models.yml", fail_on="nothing")
    with pytest.raises(UsageError, match=r"there is no file .*mconv\.json"):
        api.verify(".")
    with pytest.raises(UsageError, match="there is no file"):
        api.quantize("absent.onnx", "int4")
    with pytest.raises(UsageError, match="must be one of"):
        api.quantize("model.onnx", "int4", options={"block_size": 7})
    with pytest.raises(UsageError, match="not a known precision"):
        api.quantize("model.onnx", "int5")


def test_an_artifact_that_was_changed_is_not_run(folder: Path) -> None:
    api.convert("model.onnx", "onnx", out="out", measure=False)
    (folder / "out/model/onnx-fp32/model.onnx").write_bytes(b"changed")
    with pytest.raises(StepError, match="its SHA-256 differs"):
        api.verify("out/model/onnx-fp32", against="model.onnx")


def test_a_plug_in_without_a_file_or_contract_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    (tmp_path / "lame.py").write_text('"""Lame."""\nPRECISIONS = {"fp32": None}\n')
    with pytest.raises(MconvError, match=r"has no write\(\)"):
        api.register_target("lame")
    with pytest.raises(MconvError, match="cannot be imported"):
        api.register_target("nowhere_to_be_found")
    (tmp_path / "openvino.py").write_text("")
    with pytest.raises(MconvError, match="already"):
        api.register("targets", "mconv.targets.onnx")
    with pytest.raises(MconvError, match="no family"):
        api.register("pets", "lame")  # type: ignore[arg-type]
    assert "lame" not in api.targets()
