"""Advice: what is wanted, and mistakes that are said before anything is run. The rest is in
tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from mconv import api
from mconv.api._advise import Wish
from mconv.errors import UsageError
from tests.models import write_linear


def test_limits_are_those_that_are_set() -> None:
    assert Wish(tolerance=0.99).limits == {}
    wish = Wish(tolerance=0.99, max_size="20MB", max_latency="5ms")
    assert wish.limits == {"max_size": "20MB", "max_latency": "5ms"}


@pytest.mark.parametrize(
    ("targets", "words"),
    [(["onxx"], "'onxx' is not a known target"), (["parquet"], "'parquet' is not a known target")],
)
def test_targets_that_take_no_graph_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_linear(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=words) as caught:
        api.advise(path, targets=targets)
    assert "onnx" in (caught.value.hint or "")
    assert "parquet" not in (caught.value.hint or "")
    assert not (tmp_path / ".mconv").exists()
