"""A file that is not there is one event: every command answers it in the same words and exits 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv.__main__ import main


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "absent.onnx", "--to", "onnx"),
        ("quantize", "absent.onnx", "--precision", "int8"),
        ("quantize", "absent.onnx"),
        ("verify", "absent.onnx"),
        ("advise", "absent.onnx"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_one_wording_and_one_exit_code(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(list(arguments)) == 2
    assert "there is no file 'absent.onnx'" in capsys.readouterr().err
