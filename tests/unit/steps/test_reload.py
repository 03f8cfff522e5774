"""Weights out of a source and back: on a model of two matrices, and targets that spoil them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mconv import registry, weights
from mconv.errors import StepError, UnsupportedError
from mconv.steps import reload
from mconv.steps.requests import InSource, WeightsRequest
from mconv.values import SourceConfig, TensorSpec
from mconv.weights import About, Tensor

CONFIG = SourceConfig(format="own", path="net.own", root=".")
OWN = {"a": np.eye(2, dtype=np.float32), "b": np.full(2, 3, np.float32)}


class Net:
    """y = x·a + b; ``c`` is another name of ``a``."""

    inputs = outputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 2)),)
    parameters = 6
    about = About(format="own", architecture="Net", notes=("one is tied",))

    def __init__(self, held: Mapping[str, np.ndarray] = OWN) -> None:
        self.held = dict(held)
        self.aliases = {"c": "a"} if held else {}

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, array in self.held.items():
            yield name, Tensor.of(array)

    def copy_files(self, out: Path) -> None:
        (out / "tokenizer.json").write_text("{}")

    def replace(self, tensors: Mapping[str, Tensor]) -> None:
        self.held = {name: tensors[name].numpy() for name in self.held}

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": feed["x"] @ self.held["a"] + self.held["b"]}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """What the target gives back: the net's own weights, for a test to change."""
    content = {**OWN, "c": OWN["a"]}
    sources = {
        "own": SimpleNamespace(weights=lambda config, part: Net()),
        "bare": SimpleNamespace(weights=lambda config, part: Net({})),
        "graph": SimpleNamespace(weights=None),
    }
    targets = {
        "file": SimpleNamespace(
            read=lambda folder, options: ({n: Tensor.of(a) for n, a in content.items()}, {"row": 1})
        ),
        "blind": SimpleNamespace(read=None),
    }
    monkeypatch.setattr(registry, "sources", lambda: sources)
    monkeypatch.setattr(registry, "targets", lambda: targets)
    return content


def artifact(**changes: Any) -> InSource:
    base = {"source": CONFIG, "part": None, "target": "file", "options": {}, "precision": "fp32"}
    return InSource(**{**base, "threads": 1, **changes})


def test_all_weights_and_the_files_beside_them_are_taken_out(
    written: dict[str, np.ndarray], tmp_path: Path
) -> None:
    answer = reload.extract(WeightsRequest(source=CONFIG), {}, tmp_path)
    assert (answer.tensors, answer.bytes, answer.notes) == (2, 24, ("one is tied",))
    folder = weights.Folder(tmp_path)
    np.testing.assert_array_equal(folder["b"].numpy(), OWN["b"])
    assert folder.index.aliases == {"c": "a"}
    assert [path.name for path in folder.list_files_beside()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("format_", "words"),
    [("graph", "graph sources do not give their weights"), ("bare", "has no weights by name")],
)
def test_a_source_without_weights_is_refused(
    written: dict[str, np.ndarray], tmp_path: Path, format_: str, words: str
) -> None:
    config = SourceConfig(format=format_, path="net.own", root=".")
    with pytest.raises(UnsupportedError, match=words):
        reload.extract(WeightsRequest(source=config), {}, tmp_path)


def test_the_framework_answers_with_the_file_s_weights(
    written: dict[str, np.ndarray], tmp_path: Path
) -> None:
    written["b"] = np.full(2, 4, np.float32)
    session = reload.load(tmp_path, artifact(precision="fp16"))
    np.testing.assert_array_equal(session.run({"x": np.ones((1, 2), np.float32)})["y"], [[5, 5]])
    details = session.details()
    assert (details["tensors"], details["bit_exact"], details["row"]) == (2, 1, 1)
    placement = session.placement()
    assert placement.provider == "own"
    assert "2 tensors taken from the file" in placement.witnesses[0]


def test_fp32_is_bit_for_bit_or_an_error(written: dict[str, np.ndarray], tmp_path: Path) -> None:
    assert reload.load(tmp_path, artifact()).details()["bit_exact"] == 2
    written["a"] = np.nextafter(written["a"], np.float32(9))
    with pytest.raises(StepError, match=r"bit for bit: a$"):
        reload.load(tmp_path, artifact())


def test_names_must_be_the_model_s(written: dict[str, np.ndarray], tmp_path: Path) -> None:
    written["more"] = OWN["b"]
    with pytest.raises(StepError, match="1 weights that the model has not: more"):
        reload.load(tmp_path, artifact())
    del written["more"], written["c"]
    with pytest.raises(StepError, match="the artifact lacks 1 weights of the model: c"):
        reload.load(tmp_path, artifact())


def test_a_target_that_cannot_read_is_refused(
    written: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="blind cannot read what it wrote"):
        reload.load(tmp_path, artifact(target="blind"))
