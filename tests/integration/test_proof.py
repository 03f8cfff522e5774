"""Models that a weaker proof called right: each is a graph of a few nodes with one such habit, and
what is said of it is held to what NumPy says."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

from mconv import api
from mconv.proof import plausible

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
RNG = np.random.default_rng(5)
node = helper.make_node

MANIFEST = """
version: 1
models:
  - {name: pictures, source: pictures.onnx, targets: ["onnx:int8-static"]}
  - {name: outlier, source: outlier.onnx, targets: ["onnx:int4"]}
  - {name: buckets, source: buckets.onnx, targets: [onnx, openvino]}
  - {name: silence, source: silence.onnx, targets: [onnx, "onnx:fp16"]}
  - {name: masked, source: masked.onnx, targets: ["onnx:int8"]}
  - {name: offset, source: offset.onnx, targets: [onnx, "onnx:int8"]}
  - {name: nan, source: nan.onnx, targets: [onnx]}
  - {name: zeros, source: zeros.onnx, targets: [onnx]}
  - {name: empty, source: empty.onnx, targets: [onnx]}
  - {name: unread, source: unread.onnx, targets: [onnx]}
  - {name: filled, source: filled.onnx, targets: [onnx]}
  - {name: rate, source: rate.onnx, targets: [onnx]}
  - {name: sides, source: sides.onnx, targets: [onnx]}
  - {name: guess, source: guess.onnx, targets: ["onnx:int8-static", "onnx:int2"]}
  - {name: photographs, source: pictures.onnx, samples: photographs, targets: ["onnx:int8-static"]}
  - name: windowed
    source: {path: windowed.pt, factory: "windowed_net:windowed"}
    inputs: {ids: {shape: [batch, time], dtype: int64}}
    targets: [onnx, "onnx:int8", openvino, wasm]
"""

NET = """
import torch


class Windowed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(65, 16)
        self.places = torch.nn.Embedding(32, 16)
        self.scores = torch.nn.Linear(16, 65)

    def forward(self, ids):
        if ids.size(1) > 32:
            ids = ids[:, -32:]
        x = self.words(ids) + self.places(torch.arange(ids.size(1)))
        return self.scores(torch.tanh(x.cumsum(1)))


def windowed():
    torch.manual_seed(0)
    return Windowed()
"""


def write(
    folder: Path,
    name: str,
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, np.ndarray],
    outputs: Sequence[tuple[str, int, int]] = (("y", FLOAT, 2),),
) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        name,
        [value(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [value(n, kind, [f"{n}{axis}" for axis in range(rank)]) for n, kind, rank in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / f"{name}.onnx")


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs, and what came of them in ``out``."""
    place = tmp_path_factory.mktemp("proof")
    write_graphs(place)
    (place / "windowed_net.py").write_text(NET)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        net = importlib.import_module("windowed_net")
    torch.save(net.windowed().state_dict(), place / "windowed.pt")
    (place / "photographs").mkdir()
    for index in range(8):
        picture = Image.fromarray(plausible.draw_image(48, 40, 500 + index))
        picture.save(place / f"photographs/{index}.png")
    (place / "models.yml").write_text(MANIFEST)
    api.run(place / "models.yml", out=place / "out", store=str(place / "store"), measure=False)
    return place


def write_graphs(place: Path) -> None:
    x = {"x": (FLOAT, ["n", 16])}
    write(
        place,
        "pictures",
        [
            node("Cast", ["x"], ["f"], to=FLOAT),
            node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
            node("Mul", ["t", "s"], ["m"]),
            node("Conv", ["m", "w"], ["c"], strides=[4, 4]),
            node("Relu", ["c"], ["r"]),
            node("GlobalAveragePool", ["r"], ["g"]),
            node("Flatten", ["g"], ["h"]),
            node("Gemm", ["h", "v"], ["y"]),
        ],
        {"x": (UINT8, ["n", 32, 32, 3])},
        {
            "s": np.float32(1 / 255),
            "w": normal(32, 3, 4, 4, scale=0.3),
            "v": normal(32, 10, scale=0.5),
        },
    )
    table = normal(400, 16)
    table[2:] *= RNG.choice([0.01, 30.0], (398, 1)).astype(np.float32)
    write(
        place,
        "outlier",
        [node("Gather", ["t", "x"], ["e"]), node("MatMul", ["e", "w"], ["y"])],
        {"x": (INT64, ["n", "len"])},
        {"t": table, "w": normal(16, 64)},
        (("y", FLOAT, 3),),
    )
    write(
        place,
        "buckets",
        [
            node("Mod", ["x", "k"], ["b"]),
            node("Gather", ["t", "b"], ["y"]),
        ],
        {"x": (INT64, ["n"])},
        {"k": np.array(97), "t": normal(97, 4)},
    )
    write(
        place,
        "silence",
        [node("Mul", ["x", "x"], ["p"]), node("Add", ["p", "e"], ["s"]), node("Log", ["s"], ["y"])],
        x,
        {"e": np.float32(1e-10)},
    )
    gain = np.ones(16, np.float32)
    gain[0] = 1e4
    weights = normal(16, 12)
    weights[0] *= 1e-4
    mask = np.zeros(12, bool)
    mask[9:] = True
    write(
        place,
        "masked",
        [
            node("Mul", ["x", "g"], ["m"]),
            node("MatMul", ["m", "w"], ["l"]),
            node("Where", ["k", "low", "l"], ["y"]),
        ],
        x,
        {"g": gain, "w": weights, "k": mask, "low": np.float32(-1e9)},
    )
    wide = normal(16, 1, scale=0.02)
    wide[0] = 40  # on an input that is always 0: the scale of the column is its
    write(
        place,
        "offset",
        [
            node("Mul", ["x", "z"], ["o"]),
            node("MatMul", ["o", "w"], ["l"]),
            node("Add", ["l", "b"], ["y"]),
        ],
        x,
        {
            "z": np.concatenate([np.zeros(1), np.ones(15)]).astype(np.float32),
            "w": wide,
            "b": np.full(1, 250, np.float32),
        },
    )
    write(place, "nan", [node("MatMul", ["x", "w"], ["y"])], x, {"w": normal(16, 4) * np.nan})
    write(place, "zeros", [node("MatMul", ["x", "w"], ["y"])], x, {"w": 0 * normal(16, 4)})
    write(
        place,
        "empty",
        [
            node("Relu", ["x"], ["y"]),
            node("Less", ["y", "k"], ["m"]),
            node("NonZero", ["m"], ["hits"]),
        ],
        x,
        {"k": np.float32(-1)},
        (("y", FLOAT, 2), ("hits", INT64, 2)),
    )
    write(
        place,
        "unread",
        [node("Mul", ["z", "o"], ["m"]), node("Add", ["x", "m"], ["y"])],
        {**x, "z": (FLOAT, ["n", 16])},
        {"o": np.float32(0)},
    )
    write(
        place,
        "filled",
        [
            node("Shape", ["x"], ["s"]),
            node(
                "ConstantOfShape",
                ["s"],
                ["c"],
                value=numpy_helper.from_array(np.full(1, 2, np.float32)),
            ),
            node("Add", ["x", "c"], ["y"]),
        ],
        {"x": (FLOAT, [1, 256, 256, 8])},
        {},
        (("y", FLOAT, 4),),
    )
    then = helper.make_graph(
        [node("Mul", ["x", "two"], ["a"])],
        "then",
        [],
        [helper.make_tensor_value_info("a", FLOAT, ["a0", "a1"])],
    )
    other = helper.make_graph(
        [node("Neg", ["x"], ["b"])],
        "other",
        [],
        [helper.make_tensor_value_info("b", FLOAT, ["b0", "b1"])],
    )
    write(
        place,
        "rate",
        [
            node("Equal", ["sr", "k"], ["q"]),
            node("If", ["q"], ["y"], then_branch=then, else_branch=other),
        ],
        {**x, "sr": (INT64, [])},
        {"k": np.array(16000), "two": np.float32(2)},
    )
    write(
        place,
        "sides",
        [
            node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
            node("Conv", ["t", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        {"x": (FLOAT, ["n", 3, "height", "width"])},
        {"w": normal(4, 3, 3, 3)},
        (("y", FLOAT, 4),),
    )
    write(
        place,
        "guess",
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "v"], ["y"])],
        x,
        {"w": normal(16, 64), "v": normal(64, 8)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def variants(folder: Path) -> dict[str, dict[str, Any]]:
    report = json.loads((folder / "out/results.json").read_text())
    return {variant["id"]: variant for variant in report["variants"]}


def session(folder: Path, variant: str) -> onnxruntime.InferenceSession:
    model, target, precision = variant.split("/")
    return onnxruntime.InferenceSession(
        str(folder / f"out/{model}/{target}-{precision}/model.onnx")
    )


def test_static_ranges_of_pictures_are_those_of_bytes(
    folder: Path, variants: dict[str, dict[str, Any]]
) -> None:
    """Ranges of {0, 1} would leave a classifier of bytes blind; whatever passes is right on
    pictures that it has not seen."""
    assert variants["pictures/onnx/int8-static"]["status"] == "passed"
    pictures = np.stack([plausible.draw_image(32, 32, 900 + i) for i in range(24)])
    before = onnxruntime.InferenceSession(str(folder / "pictures.onnx")).run(None, {"x": pictures})
    after = session(folder, "pictures/onnx/int8-static").run(None, {"x": pictures})
    wanted, got = before[0].astype(float), after[0].astype(float)
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.2 * wanted.std()


def test_ids_of_the_whole_table_are_read(variants: dict[str, dict[str, Any]]) -> None:
    """The rows of 0 and 1 are ordinary; the others, of which half are 3,000 times as large, are
    not, and four bits do not keep them."""
    found = variants["outlier/onnx/int4"]
    domain = found["verification"]["strength"]["domains"][0]
    assert "from 0 to 399" in domain["values"]
    assert not domain["guessed"]


def test_large_ids_are_not_narrowed_in_silence(variants: dict[str, dict[str, Any]]) -> None:
    """x mod 97 of an id of 64 bits; OpenVINO computes it in 32."""
    assert variants["buckets/onnx/fp32"]["status"] == "passed"
    assert variants["buckets/openvino/fp32"]["status"] != "passed"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_small_epsilon_stays(
    folder: Path, variants: dict[str, dict[str, Any]], precision: str
) -> None:
    assert variants[f"silence/onnx/{precision}"]["status"] == "passed"
    silence = np.zeros((2, 16), np.float32)
    answer = session(folder, f"silence/onnx/{precision}").run(None, {"x": silence})[0]
    np.testing.assert_allclose(answer, np.log(1e-10), rtol=2e-3)


def test_a_mask_does_not_blind_the_metrics(
    folder: Path, variants: dict[str, dict[str, Any]]
) -> None:
    sound = RNG.standard_normal((200, 16)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(folder / "masked.onnx")).run(None, {"x": sound})[0]
    found = variants["masked/onnx/int8"]
    assert found["verification"]["outputs"][0]["compared"] == pytest.approx(9 / 12)
    got = session(folder, "masked/onnx/int8").run(None, {"x": sound})[0]
    error = np.sqrt(np.mean((got[:, :9] - wanted[:, :9]) ** 2)) / wanted[:, :9].std()
    assert (found["status"] == "passed") == bool(error < 0.2)


def test_a_constant_in_the_place_of_a_regressor_fails(
    folder: Path, variants: dict[str, dict[str, Any]]
) -> None:
    assert variants["offset/onnx/fp32"]["status"] == "passed"
    found = variants["offset/onnx/int8"]
    features = RNG.standard_normal((500, 16)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(str(folder / "offset.onnx")).run(None, {"x": features})[0]
    got = session(folder, "offset/onnx/int8").run(None, {"x": features})[0]
    r_squared = 1 - np.mean((got - wanted) ** 2) / wanted.var()
    assert (found["status"] == "passed") == bool(r_squared > 1 - 0.2**2)
    assert found["verification"]["outputs"][0]["cosine"] > 0.9999


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("nan/onnx/fp32", "no output to compare"),
        ("zeros/onnx/fp32", "the same number everywhere"),
        ("empty/onnx/fp32", "hits"),
        ("unread/onnx/fp32", "reacts to the input 'z'"),
        ("guess/onnx/int8-static", "a guess"),
        ("guess/onnx/int2", "no tolerance of its own"),
    ],
)
def test_what_proves_nothing_is_unverified(
    variants: dict[str, dict[str, Any]], variant: str, words: str
) -> None:
    found = variants[variant]
    assert found["status"] == "unverified", (found["reasons"], found["error"])
    assert words in " ".join(found["reasons"])


def test_a_shape_and_a_number_stay_small(folder: Path, variants: dict[str, dict[str, Any]]) -> None:
    assert variants["filled/onnx/fp32"]["status"] == "passed"
    assert (folder / "out/filled/onnx-fp32/model.onnx").stat().st_size < 2000


def test_both_branches_of_a_decision_are_taken(variants: dict[str, dict[str, Any]]) -> None:
    found = variants["rate/onnx/fp32"]
    assert found["status"] == "passed"
    assert found["verification"]["strength"]["moved"]["sr"] > 0


def test_height_and_width_are_told_apart(folder: Path, variants: dict[str, dict[str, Any]]) -> None:
    """A graph that turns pictures answers [n, 4, width, height]."""
    assert variants["sides/onnx/fp32"]["status"] == "passed"
    tall = np.zeros((1, 3, 20, 12), np.float32)
    answer = session(folder, "sides/onnx/fp32").run(None, {"x": tall})[0]
    assert answer.shape == (1, 4, 12, 20)


def test_a_decision_by_size_bounds_what_is_delivered(
    folder: Path, variants: dict[str, dict[str, Any]]
) -> None:
    """The source reads its last 32 words; the graph of a short text would read more than the table
    of places has, and so it says how far it goes."""
    warning = "right for time ≤ 32 only, since the code decides by the size at windowed_net.py:13"
    for target in ("onnx/fp32", "onnx/int8", "openvino/fp32", "wasm/fp32"):
        variant = variants[f"windowed/{target}"]
        assert variant["status"] == "passed", variant["reasons"]
        assert variant["warnings"][0] == warning
        assert variant["info"]["bounds"] == {"time": {"min": 1, "max": 32, "multiple": 1}}
    ids = np.arange(64).reshape(2, 32) % 65
    own = session(folder, "windowed/onnx/fp32")
    assert own.get_modelmeta().custom_metadata_map["mconv.bounds"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        net = importlib.import_module("windowed_net").windowed()
    with torch.inference_mode():
        wanted = net(torch.from_numpy(ids)).numpy()
    np.testing.assert_allclose(own.run(None, {"ids": ids})[0], wanted, atol=1e-5)
    package = (folder / "out/windowed/wasm-fp32/index.mjs").read_text()
    assert re.search(r'const BOUNDS = {\s*"time": {[^}]*"max": 32', package)


def test_a_folder_of_pictures_verifies_and_calibrates(
    folder: Path, variants: dict[str, dict[str, Any]]
) -> None:
    variant = variants["photographs/onnx/int8-static"]
    assert variant["status"] == "passed"
    assert variant["verification"]["strength"]["regimes"]["user"] == 6
    assert variant["verification"]["strength"]["calibrated"]
    assert any("one in four of the samples given" in note for note in variant["notes"])


def test_integers_round_as_the_source_rounds_them(tmp_path: Path) -> None:
    """−7 // 3 is −3 and −3 mod 5 is 2 (Python, TensorFlow); ONNX's Div cuts off. Whatever passes
    is right on them."""
    import tensorflow as tf

    class Rounding(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="n")])
        def __call__(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"quotient": n // 3, "rest": tf.math.floormod(n, 5)}

    module = Rounding()
    tf.saved_model.save(module, str(tmp_path / "rounding"), signatures=module.__call__)
    (tmp_path / "models.yml").write_text(
        "version: 1\nmodels:\n  - {name: rounding, source: rounding, targets: [onnx]}\n"
    )
    report = api.run(
        tmp_path / "models.yml", out=tmp_path / "out", store=str(tmp_path / "s"), measure=False
    )
    (variant,) = report.variants
    numbers = np.int32([-7, -3, -1, 0, 4, 7])
    model = str(tmp_path / "out/rounding/onnx-fp32/model.onnx")
    own = onnxruntime.InferenceSession(model)
    names = [output.name for output in own.get_outputs()]
    answers = dict(zip(names, own.run(None, {"n": numbers}), strict=True))
    right = (answers["quotient"] == numbers // 3).all() and (answers["rest"] == numbers % 5).all()
    assert variant.status == ("passed" if right else "failed"), variant.reasons
