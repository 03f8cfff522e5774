"""What a step does in another environment: real processes of a Python that this test makes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mconv import registry, samples
from mconv import weights as neutral
from mconv.errors import StepError, WorkerCrashError
from mconv.steps import elsewhere
from mconv.steps._files import MEASURED_FILE
from mconv.values import Interpreter, SourceConfig

SOURCE = """
'''A format of this test.'''
import os
import sys
import numpy as np
from mconv.errors import SourceError


class Model:
    inputs = outputs = ()
    parameters = None
    calls = 0

    def run(self, feed):
        print("code of the repository prints")
        Model.calls += 1
        if feed["x"].shape[0] == 2:
            os._exit(3)
        return feed


def detect(path):
    return False


def export(config, out):
    raise AssertionError


def load(config):
    assert sys.executable == os.environ["EXPECTED"], sys.executable
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "a GPU is seen"
    if config.path.endswith("broken"):
        raise SourceError("it is broken", hint="mend it")
    if config.path.endswith("raises"):
        raise KeyError("x")
    return Model()
"""


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """This Python by another name, which the step's own process has not."""
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text(
        (Path(sys.prefix) / "pyvenv.cfg").read_text()
        if Path(sys.prefix, "pyvenv.cfg").exists()
        else f"home = {Path(sys.executable).parent}\n"
    )
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    monkeypatch.setenv("EXPECTED", str(python))
    return Interpreter(name="training", python=str(python), layers=(packages,))


@pytest.fixture(autouse=True)
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere_source.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_REGISTERED", {})
    registry.register("sources", "elsewhere_source")
    yield
    registry.plugins.cache_clear()


def clock(
    interpreter: Interpreter, folder: Path, name: str = "m", rows: int = 1
) -> elsewhere.Process:
    samples.save_feeds(folder / MEASURED_FILE, [{"x": np.ones((rows, 3), np.float32)}])
    config = SourceConfig(format="elsewhere_source", path=name, root=str(folder))
    process = elsewhere.Process(interpreter)
    process.ask(elsewhere.ClockRequest(source=config, reference=str(folder)))
    return process


def test_a_source_is_timed_in_its_own_environment(
    interpreter: Interpreter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # the step's own process is on a GPU
    process = clock(interpreter, tmp_path)
    try:
        assert process.listen().milliseconds == ()
        for _ in range(2):
            times = process.ask_again().milliseconds
            assert elsewhere.MIN_RUNS <= len(times) <= elsewhere.MAX_RUNS
            assert all(0 < each < 1000 for each in times)
    finally:
        process.close()
    assert process.process.poll() is not None


@pytest.mark.parametrize(
    ("name", "words"), [("broken", "it is broken"), ("raises", "KeyError: 'x'")]
)
def test_what_goes_wrong_there_is_said(
    interpreter: Interpreter, tmp_path: Path, name: str, words: str
) -> None:
    process = clock(interpreter, tmp_path, name)
    with pytest.raises(StepError, match=words):
        process.listen()
    process.close()


def test_a_process_that_dies_is_noticed(interpreter: Interpreter, tmp_path: Path) -> None:
    process = clock(interpreter, tmp_path, rows=2)
    with pytest.raises(WorkerCrashError, match="'training' ended without an answer"):
        process.listen()
    with pytest.raises(WorkerCrashError):
        process.ask_again()
    process.close()


def test_weights_are_read_by_their_target(interpreter: Interpreter, tmp_path: Path) -> None:
    """Bit for bit, NaNs and types that NumPy lacks too."""
    weights = {
        "a": neutral.Tensor.of(np.array([[1.5, np.nan], [-0.0, 3.0]], np.float32)),
        "b": neutral.Tensor("bfloat16", (2,), np.array([1, 2, 3, 4], np.uint8)),
    }
    source, written = tmp_path / "weights", tmp_path / "written"
    source.mkdir()
    written.mkdir()
    about = neutral.About(format="pytorch", architecture="Net")
    neutral.save(source, about, weights.items(), {})
    target = registry.targets()["parquet"]
    options: dict[str, object] = {
        name: schema["default"] for name, schema in target.options.items() if "default" in schema
    }
    target.write(source, written, precision="fp32", options=options, name="m", calibration=None)
    read, details = elsewhere.read_weights(
        interpreter, "parquet", written, options, tmp_path / "read"
    )
    expected, same = target.read(written, options=options)  # type: ignore[misc]
    assert details == same
    assert set(read) == set(expected)
    assert all(read[name].equals(expected[name]) for name in expected)
