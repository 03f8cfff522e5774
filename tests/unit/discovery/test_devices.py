"""`mconv detect`: each engine asked in a child: one that hangs, crashes or raises hurts no other;
only what ran counts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mconv import api, hardware, registry
from mconv.__main__ import main
from mconv.discovery import devices
from mconv.values import Device

pytestmark = pytest.mark.filterwarnings("ignore")

PLUGIN = '''"""A runtime that answers so."""
import os, time
from mconv.values import Device
def load(directory, **settings):
    raise NotImplementedError
def devices():
    {body}
'''
BODIES = {
    "hangs": "time.sleep(600)",
    "crashes": "os.abort()",
    "raises": "raise OSError('libdriver.so.1: cannot open shared object file')",
    "lies": "return ['not a device']",
    "answers": "return [Device(engine='x', name='unit 7', available=True, "
    "description=os.environ.get('MARK', ''))]",
}


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    for name, body in BODIES.items():
        (tmp_path / f"probe_{name}.py").write_text(PLUGIN.format(body=body))
        registry.register("runtimes", f"probe_{name}")
    monkeypatch.setattr(
        registry, "plugins", lambda family, real=registry.plugins: only_ours(real(family))
    )
    yield
    monkeypatch.undo()
    registry.plugins.cache_clear()


def only_ours(found: dict[str, object]) -> dict[str, object]:
    return {name: plugin for name, plugin in found.items() if name.startswith("probe_")}


def test_one_failing_probe_breaks_no_other(plugged: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", "seen")
    begin = time.monotonic()
    found = {d.name: d for d in devices.detect_devices(timeout_s=20)}
    assert time.monotonic() - begin < 100
    assert found["CPU"].available
    assert found["unit 7"].available
    # a probe sees the caller's environment: drivers are found by it
    assert found["unit 7"].description == "seen"
    assert "no answer in 20 s" in str(found["probe_hangs"].reason)
    assert "SIGABRT" in str(found["probe_crashes"].reason)
    assert "libdriver.so.1" in str(found["probe_raises"].reason)
    assert not found["probe_lies"].available
    assert found["probe_lies"].reason


def test_the_processor_is_what_the_system_says() -> None:
    about = hardware.describe_cpu().details
    text = Path("/proc/cpuinfo").read_text()
    assert str(about["vendor"]) in text
    assert set(about["instruction_sets"]) <= set(text.split())


def test_engines_answer_for_what_ran_here() -> None:
    import onnxruntime

    from mconv.runtimes import onnxruntime as ort
    from mconv.runtimes import openvino
    from mconv.sources import pytorch

    found = {d.name: d for d in ort.devices()}
    assert set(found) == set(onnxruntime.get_all_providers())
    assert found["CPUExecutionProvider"].available
    assert "DirectML" in found["DmlExecutionProvider"].description
    assert "Qualcomm QNN" in found["QNNExecutionProvider"].description
    for name, device in found.items():
        assert device.available or device.reason
        assert not device.available or name in onnxruntime.get_available_providers()
    if "AzureExecutionProvider" in onnxruntime.get_available_providers():  # there, and runs nothing
        assert "to CPUExecutionProvider instead" in str(found["AzureExecutionProvider"].reason)
    assert {d.name: d.available for d in openvino.devices()}["CPU"]
    assert {d.name for d in pytorch.devices()} == {"cuda", "rocm", "mps", "xpu"}


def test_table_and_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = (
        hardware.describe_cpu(),
        Device(engine="e", name="gpu", available=True, description="A card", software=True),
        Device(engine="e", name="npu", available=False, reason="no driver"),
        Device(engine="e", name="dsp", available=False, reason="no driver"),
    )
    monkeypatch.setattr(api.devices, "detect_devices", lambda timeout_s: said)
    assert main(["detect"]) == 0
    table = capsys.readouterr().out
    assert "A card (software)" in table
    assert "no   npu, dsp: no driver" in table
    assert main(["detect", "--json"]) == 0
    assert [d["name"] for d in json.loads(capsys.readouterr().out)] == ["CPU", "gpu", "npu", "dsp"]
