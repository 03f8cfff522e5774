"""`mconv quantize`: files, settings written, changed by hand and given back, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from mconv.__main__ import main
from tests.models import write_linear

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez(
        tmp_path / "data.npz",
        x=np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32),
    )
    return write_linear(tmp_path / "net.onnx")


def bits_of(path: Path) -> dict[str, int]:
    products = [n for n in onnx.load(path).graph.node if n.op_type == "MatMulNBits"]
    return {
        n.input[1].partition("_q")[0]: int(n.input[1].partition("_q")[2].partition("_")[0])
        for n in products
    }


def test_a_file_is_quantized(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(file.parent / "data.npz")
    assert (
        main(
            [
                "quantize",
                str(file),
                "-p",
                "int3",
                "--calibration",
                data,
                "-o",
                str(file.parent / "o.onnx"),
            ]
        )
        == 0
    )
    assert bits_of(file.parent / "o.onnx") == {"w0": 3, "w1": 3}
    assert "rounded by gptq: 2" in capsys.readouterr().err
    assert sorted(p.name for p in file.parent.glob("[a-z]*")) == ["data.npz", "net.onnx", "o.onnx"]


def test_settings_are_written_changed_by_hand_and_obeyed(file: Path) -> None:
    settings = file.parent / "mixed.json"
    assert (
        main(
            [
                "quantize",
                str(file),
                "-p",
                "mixed",
                "--emit-config",
                str(settings),
                "--option",
                "average_bits=6",
            ]
        )
        == 0
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--schemafile",
            str(ROOT / "schemas/mixed.schema.json"),
            str(settings),
        ],
        check=True,
    )
    found = json.loads(settings.read_text())
    assert set(found["layers"]) == {"w0", "w1"}
    assert set(found["layers"]["w1"]["error"]) == {"2", "3", "4", "5", "6", "8"}
    found["layers"]["w0"]["bits"], found["layers"]["w1"]["bits"] = 5, 2
    settings.write_text(json.dumps(found))
    assert (
        main(["quantize", str(file), "--config", str(settings), "-o", str(file.parent / "o.onnx")])
        == 0
    )
    assert bits_of(file.parent / "o.onnx") == {"w0": 5, "w1": 2}


def test_options_may_be_left_out_of_the_settings(file: Path) -> None:
    settings = file.parent / "mixed.json"
    settings.write_text(
        '{"version": 1, "quantizer": "nbits", "layers": {"w0": {"bits": 4}, "w1": {"bits": 8}}}'
    )
    target = file.parent / "o.onnx"
    assert main(["quantize", str(file), "--config", str(settings), "-o", str(target)]) == 0
    assert bits_of(target) == {"w0": 4, "w1": 8}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["-p", "int4", "--option", "nothing=1"], "has no option 'nothing'"),
        (["-p", "int4", "--option", "block_size=7"], "must be one of 16"),
        (["-p", "int4", "--calibration", "absent.npz"], "absent.npz"),
        (["-p", "int4", "--config", "broken.json"], "bits"),
        (["-p", "int8", "--emit-config", "x.json"], "no settings a layer"),
        ([], "say what to quantize to"),
        (["-p", "int4", "-o", "net.onnx"], "overwrite"),
    ],
)
def test_mistakes_are_said(
    argv: list[str],
    words: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(file.parent)
    Path("broken.json").write_text(
        '{"version": 1, "quantizer": "nbits", "layers": {"w0": {"bits": 9}}}'
    )
    before = file.read_bytes()
    assert main(["quantize", "net.onnx", *argv]) in (1, 2)
    assert words in capsys.readouterr().err
    assert file.read_bytes() == before
