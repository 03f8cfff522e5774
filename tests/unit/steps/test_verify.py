"""The verify step: an artifact's answers against the reference, on real sessions of onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mconv import samples
from mconv.answers import VerifyAnswer
from mconv.errors import StepError, UsageError
from mconv.proof.collection import Regimes, save_regimes
from mconv.proof.strength import measure_strength
from mconv.steps._files import EXPECTED_FILE, LABELS_FILE, REFERENCE_FILE, SAMPLES_FILE
from mconv.steps.requests import EvaluateRequest, InRuntime, VerifyRequest
from mconv.steps.verify import verify
from tests.models import write_linear

RUN = InRuntime(runtime="onnxruntime", options={}, precision="fp32", threads=1)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """An artifact, and a reference that NumPy computed from its weights."""
    import onnx
    from onnx import numpy_helper

    for name in ("artifact", "reference"):
        (tmp_path / name).mkdir()
    path = write_linear(tmp_path / "artifact/model.onnx")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((rows, 8)).astype(np.float32)} for rows in (1, 3)]
    answers = []
    for feed in feeds:
        hidden = np.maximum(feed["x"] @ weights["w0"] + weights["b0"], 0)
        answers.append({"y": hidden @ weights["w1"]})
    samples.save_feeds(tmp_path / "reference" / SAMPLES_FILE, feeds)
    samples.save_feeds(tmp_path / "reference" / REFERENCE_FILE, answers)
    regimes = Regimes(
        regimes=("user",) * len(feeds), guessed=False, strength=measure_strength(answers, {})
    )
    save_regimes(tmp_path / "reference", regimes)
    return {name: tmp_path / name for name in ("artifact", "reference")}


def test_right_answers(folders: dict[str, Path], tmp_path: Path) -> None:
    answer = verify(VerifyRequest(artifact=RUN), folders, tmp_path)
    (output,) = answer.outputs
    assert (answer.samples, answer.reference, answer.runtime) == (2, "source", "onnxruntime")
    assert output.cosine is not None
    assert output.cosine > 0.999999
    assert answer.placement.witnesses
    assert answer.evaluation is None


def test_the_users_own_outputs_win(folders: dict[str, Path], tmp_path: Path) -> None:
    wrong = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    samples.save_feeds(folders["reference"] / EXPECTED_FILE, [{"y": -a["y"]} for a in wrong])
    answer = verify(VerifyRequest(artifact=RUN), folders, tmp_path)
    assert answer.reference == "expected"
    assert answer.outputs[0].cosine == pytest.approx(-1.0)


def test_an_output_that_lacks_is_an_error_not_a_skip(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    reference = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    more = [{**a, "z": a["y"]} for a in reference]
    samples.save_feeds(folders["reference"] / REFERENCE_FILE, more)
    with pytest.raises(StepError, match="no output 'z'; it gave y"):
        verify(VerifyRequest(artifact=RUN), folders, tmp_path)


def test_an_output_of_another_shape_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    reference = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    samples.save_feeds(
        folders["reference"] / REFERENCE_FILE, [{"y": a["y"][:, :3]} for a in reference]
    )
    with pytest.raises(StepError, match="shape"):
        verify(VerifyRequest(artifact=RUN), folders, tmp_path)


def test_accuracy_is_counted_by_hand(folders: dict[str, Path], tmp_path: Path) -> None:
    scores = np.concatenate(
        [a["y"] for a in samples.load_feeds(folders["reference"] / REFERENCE_FILE)]
    )
    labels = scores.argmax(1)
    labels[0] = (labels[0] + 1) % scores.shape[1]  # one of four is wrong
    samples.save_feeds(folders["reference"] / LABELS_FILE, [{"labels": labels}])
    request = VerifyRequest(artifact=RUN, evaluate=EvaluateRequest(metric="accuracy"))
    evaluation = verify(request, folders, tmp_path).evaluation
    assert evaluation is not None
    assert (evaluation.source, evaluation.variant, evaluation.drop, evaluation.samples) == (
        0.75,
        0.75,
        0.0,
        4,
    )


@pytest.mark.parametrize(
    ("labels", "output", "words"),
    [
        (np.zeros(3), None, "3\\] labels"),
        (np.zeros((4, 2)), None, "labels"),
        (np.zeros(4), "q", "no output 'q'"),
    ],
)
def test_labels_that_do_not_fit(
    folders: dict[str, Path], tmp_path: Path, labels: np.ndarray, output: str | None, words: str
) -> None:
    samples.save_feeds(folders["reference"] / LABELS_FILE, [{"labels": labels}])
    request = VerifyRequest(
        artifact=RUN, evaluate=EvaluateRequest(metric="accuracy", output=output)
    )
    with pytest.raises(UsageError, match=words):
        verify(request, folders, tmp_path)


def answer_regimes(
    folders: dict[str, Path], tmp_path: Path, precision: str, changes: dict[str, np.ndarray]
) -> VerifyAnswer:
    """Verify against a reference of one sample a regime, into which ``changes`` are written: the
    artifact answers as it does without them."""
    feeds = samples.load_feeds(folders["reference"] / SAMPLES_FILE)
    answers = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    regimes = ["user", "user"]
    scale = {"edges": 1e6, "long": 1.0, "zeros": 0.0}
    artifact = onnxruntime.InferenceSession(str(folders["artifact"] / "model.onnx"))
    for regime, change in changes.items():
        feed = {"x": (scale[regime] * feeds[1]["x"]).astype(np.float32)}
        answer = artifact.run(["y"], feed)[0]
        feeds.append(feed)
        answers.append({"y": (answer + change).astype(np.float32)})
        regimes.append(regime)
    samples.save_feeds(folders["reference"] / SAMPLES_FILE, feeds)
    samples.save_feeds(folders["reference"] / REFERENCE_FILE, answers)
    strength = measure_strength(answers, {})
    save_regimes(
        folders["reference"], Regimes(regimes=tuple(regimes), guessed=False, strength=strength)
    )
    run = InRuntime(runtime="onnxruntime", options={}, precision=precision, threads=1)
    return verify(VerifyRequest(artifact=run), folders, tmp_path)


def test_large_numbers_of_one_regime_hide_no_error_of_the_others(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"edges": np.float32(0), "zeros": np.float32(0.5)}
    (output,) = answer_regimes(folders, tmp_path, "fp32", changes).outputs
    assert output.nrmse is not None
    assert output.nrmse > 1e-2


@pytest.mark.parametrize(
    ("precision", "regime", "counts"),
    [
        ("fp32", "edges", True),
        ("int8", "edges", False),
        ("int8", "long", True),
        ("int4", "long", False),
    ],
)
def test_fewer_bits_are_held_to_the_numbers_of_the_usual_regimes(
    folders: dict[str, Path], tmp_path: Path, precision: str, regime: str, counts: bool
) -> None:
    answer = answer_regimes(folders, tmp_path, precision, {regime: np.float32(100)})
    assert answer.samples == (3 if counts else 2)
    assert (answer.outputs[0].max_abs or 0) == pytest.approx(100 if counts else 0, abs=1)


def test_fewer_bits_answer_with_numbers_in_every_regime(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    import onnx
    from onnx import helper

    model = onnx.load(folders["artifact"] / "model.onnx")
    model.graph.node[-1].output[0] = "before"
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "sum"], ["one"]),  # NaN on zeros
        helper.make_node("Mul", ["before", "one"], ["y"]),
    ]
    model.graph.node.extend(nodes)
    onnx.save(model, folders["artifact"] / "model.onnx")
    zeros = {"zeros": np.float32(0)}
    answers = samples.load_feeds(folders["reference"] / REFERENCE_FILE)
    answer = answer_regimes(folders, tmp_path, "int8", zeros)
    assert answer.samples == 2  # where the source answers NaN, too, nothing is asked
    feeds = samples.load_feeds(folders["reference"] / SAMPLES_FILE)
    samples.save_feeds(
        folders["reference"] / REFERENCE_FILE, [*answers, {"y": np.ones((3, 16), np.float32)}]
    )
    assert len(feeds) == 3
    request = VerifyRequest(
        artifact=InRuntime(runtime="onnxruntime", options={}, precision="int8", threads=1)
    )
    assert verify(request, folders, tmp_path).outputs[0].max_abs is None
