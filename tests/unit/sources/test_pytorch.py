"""PyTorch files of every kind, exported and compared with torch itself."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.sources import _mapped, _torch, pytorch
from mconv.values import SourceConfig, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore")

CODE = """
import dataclasses

import torch

from layers.block import Block


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block(6, 5)

    def forward(self, x, scale):
        y = self.block(x) * scale
        return {"scores": y.softmax(-1), "best": y.max(-1).values}


def build():
    return Net()


@dataclasses.dataclass
class Out:
    first: torch.Tensor
    nothing: torch.Tensor | None
    pair: tuple[torch.Tensor, torch.Tensor]


class Nested(torch.nn.Module):
    def forward(self, x):
        return Out(x + 1, None, (x * 2, x.sum(-1)))


def nested():
    return Nested()
"""
BLOCK = "import torch\n\n\nclass Block(torch.nn.Linear):\n    pass\n"
INPUTS = (
    TensorSpec(name="x", dtype="float32", shape=("batch", 6)),
    TensorSpec(name="scale", dtype="float32", shape=(1,)),
)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [m for m in sys.modules if m == "net" or m.startswith("layers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "net.py").write_text(CODE)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/__init__.py").write_text("")
    (tmp_path / "layers/block.py").write_text(BLOCK)
    (tmp_path / "unrelated.py").write_text("raise SystemExit")
    return tmp_path


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "block.weight": torch.randn(5, 6, generator=generator),
        "block.bias": torch.randn(5, generator=generator),
    }


def config(
    path: Path,
    root: Path,
    factory: str | None = "net:build",
    inputs: tuple[TensorSpec, ...] = INPUTS,
) -> SourceConfig:
    return SourceConfig(
        format="pytorch",
        path=str(path),
        root=str(root),
        options={"factory": factory} if factory else {},
        inputs=inputs,
    )


def proved(found: SourceConfig, out: Path) -> None:
    """Export, and compare with the module at sizes that were not used in the export."""
    out.mkdir()
    info = pytorch.export(found, out)
    model = pytorch.load(found)
    assert info.model.inputs == model.inputs
    assert [o.name for o in info.model.outputs] == [o.name for o in model.outputs]
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    for rows in (1, 7):
        feed = {
            s.name: np.random.default_rng(rows)
            .standard_normal([rows if d == "batch" else d for d in s.shape])
            .astype(np.float32)
            for s in model.inputs
        }
        wanted = model.run(feed)
        for name, got in zip(wanted, session.run(list(wanted), feed), strict=True):
            np.testing.assert_allclose(got, wanted[name], rtol=1e-5, atol=1e-6)


def test_state_dict_and_safetensors_with_a_factory(repository: Path) -> None:
    torch.save({"state_dict": weights(), "epoch": 3}, repository / "w.pt")
    save_file(weights(), repository / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        assert pytorch.detect(repository / name)
        found = config(repository / name, repository)
        pytorch.check(found)
        proved(found, repository / f"out-{name}")
        model = pytorch.load(found)
        assert model.parameters == 35
        assert [o.name for o in model.outputs] == ["scores", "best"]
        x = torch.ones(2, 6)
        direct = (torch.nn.functional.linear(x, *weights().values()) * 2).softmax(-1)
        got = model.run({"x": x.numpy(), "scale": np.array([2], np.float32)})["scores"]
        np.testing.assert_allclose(got, direct.numpy(), rtol=1e-5)


def test_key_files_are_the_factory_and_its_local_imports_only(repository: Path) -> None:
    torch.save(weights(), repository / "w.pt")
    found = {
        p.relative_to(repository).as_posix()
        for p in pytorch.files(config(repository / "w.pt", repository))
    }
    assert found == {"w.pt", "net.py", "layers/__init__.py", "layers/block.py"}


def test_torchscript_and_exported_program(repository: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh()).eval()
    one = (TensorSpec(name="x", dtype="float32", shape=("batch", 6)),)
    torch.jit.trace(module, torch.zeros(2, 6)).save(str(repository / "script.pt"))
    assert pytorch.kind(repository / "script.pt") == "torchscript"
    proved(config(repository / "script.pt", repository, None, one), repository / "a")

    program = torch.export.export(
        module, (torch.zeros(2, 6),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    torch.export.save(program, repository / "program.pt2")
    assert pytorch.kind(repository / "program.pt2") == "program"
    proved(config(repository / "program.pt2", repository, None, ()), repository / "b")


class Pair(torch.nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left - 2 * right, right.sum(-1)


def test_several_inputs_of_scripts_and_programs(repository: Path) -> None:
    left, right = (
        TensorSpec(name=n, dtype="float32", shape=("batch", 3)) for n in ("left", "right")
    )
    torch.jit.script(Pair()).save(str(repository / "script.pt"))
    n = torch.export.Dim("n")
    arrays = (torch.zeros(2, 3), torch.ones(2, 3))
    torch.export.save(
        torch.export.export(Pair(), arrays, dynamic_shapes=({0: n}, {0: n})),
        repository / "args.pt2",
    )
    keywords = torch.export.export(
        Pair(), arrays[:1], {"right": arrays[1]}, dynamic_shapes={"left": {0: n}, "right": {0: n}}
    )
    torch.export.save(keywords, repository / "keywords.pt2")
    for name, inputs in (
        ("script.pt", (right, left)),
        ("script.pt", (left, right)),
        ("args.pt2", ()),
        ("keywords.pt2", ()),
    ):
        found = config(repository / name, repository, None, inputs)
        proved(found, repository / f"out-{name}-{len(list(repository.iterdir()))}")
        model = pytorch.load(found)
        assert [s.name for s in model.inputs] == ["left", "right"]
        got = model.run(
            {"left": np.ones((2, 3), np.float32), "right": np.full((2, 3), 5, np.float32)}
        )
        np.testing.assert_array_equal(got["output_0"], np.full((2, 3), -9))  # not swapped
        np.testing.assert_array_equal(got["output_1"], [15, 15])


CUSTOM = """
import torch
from onnxscript import opset20 as op


@torch.library.custom_op("mconvtest::twist", mutates_args=())
def twist(x: torch.Tensor, k: float) -> torch.Tensor:
    return torch.sin(x) * k


@twist.register_fake
def _(x, k):
    return torch.empty_like(x)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 5)

    def forward(self, x):
        return torch.ops.mconvtest.twist(self.linear(x), 2.0)


def build():
    return Net()


def translations():
    def twisted(x, k: float):
        return op.Mul(op.Sin(x), k)

    return {"mconvtest::twist": twisted}


def unknown():
    return {"mconvtest::nothing": twist}
"""


def test_custom_operators(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "custom", raising=False)
    (repository / "custom.py").write_text(CUSTOM)
    torch.save(
        {"linear.weight": torch.ones(5, 6), "linear.bias": torch.zeros(5)}, repository / "w.pt"
    )
    one = (TensorSpec(name="x", dtype="float32", shape=("batch", 6)),)
    plain = config(repository / "w.pt", repository, "custom:build", one)
    (repository / "refused").mkdir()
    with pytest.raises(
        UnsupportedError, match="operator mconvtest::twist has no translation"
    ) as caught:
        pytorch.export(plain, repository / "refused")
    assert "translations: module:function" in str(caught.value.hint)
    translated = msgspec.structs.replace(
        plain, options={**plain.options, "translations": "custom:translations"}
    )
    pytorch.check(translated)
    proved(translated, repository / "out")
    model = pytorch.load(translated)
    x = np.full((1, 6), 0.1, np.float32)
    np.testing.assert_allclose(
        model.run({"x": x})["output"], np.full((1, 5), 2 * np.sin(0.6)), rtol=1e-5
    )
    assert (repository / "custom.py") in pytorch.files(translated)
    wrong = msgspec.structs.replace(
        plain, options={**plain.options, "translations": "custom:unknown"}
    )
    with pytest.raises(SourceError, match="no operator 'mconvtest::nothing'"):
        pytorch.load(wrong)


def test_nested_outputs_get_names(repository: Path) -> None:
    torch.save({}, repository / "none.pt")
    one = (TensorSpec(name="x", dtype="float32", shape=("batch", 6)),)
    found = config(repository / "none.pt", repository, "net:nested", one)
    assert [o.name for o in pytorch.load(found).outputs] == ["first", "pair_0", "pair_1"]
    proved(found, repository / "out")


def test_export_is_the_same_in_another_process(repository: Path) -> None:
    torch.save(weights(), repository / "w.pt")
    code = (
        "import sys\nfrom pathlib import Path\nfrom mconv.sources import pytorch\n"
        "from mconv.values import SourceConfig, from_json\n"
        "pytorch.export(from_json(sys.argv[1], SourceConfig), Path(sys.argv[2]))"
    )
    from mconv.values import to_json

    files = []
    for name in ("a", "b"):
        (repository / name).mkdir()
        argv = [
            sys.executable,
            "-c",
            code,
            to_json(config(repository / "w.pt", repository)),
            str(repository / name),
        ]
        subprocess.run(argv, check=True, timeout=120, capture_output=True, cwd=repository / name)
        files.append((repository / name / "model.onnx").read_bytes())
    assert files[0] == files[1]
    assert str(repository).encode() not in files[0]


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path("exploded").touch, ())


def test_a_pickle_with_code_is_refused_and_not_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    torch.save({"w": Bomb()}, repository / "bomb.pt")
    (repository / "old.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pt", "old.pth"):
        with pytest.raises(SourceError, match=r"run code|cannot be read"):
            pytorch.load(config(repository / name, repository))
    assert not (repository / "exploded").exists()


@pytest.mark.parametrize(
    ("factory", "inputs", "words"),
    [
        (None, INPUTS, "only weights"),
        ("net", INPUTS, "module:function"),
        ("layers.nowhere:f", INPUTS, "no module 'nowhere'"),
        ("net:biuld", INPUTS, "defines no 'biuld'"),
        ("net:build", (), "inputs"),
    ],
)
def test_check_says_what_is_missing(
    repository: Path, factory: str | None, inputs: tuple[TensorSpec, ...], words: str
) -> None:
    torch.save(weights(), repository / "w.pt")
    with pytest.raises(UsageError, match=words):
        pytorch.check(config(repository / "w.pt", repository, factory, inputs))


MADE = """
def made():
    net = build()
    net.load_state_dict({"block.weight": torch.full((5, 6), 0.5), "block.bias": torch.zeros(5)})
    return net
"""


@pytest.mark.parametrize("path", ["", "net.py"])
def test_a_factory_that_makes_the_weights_needs_no_file(repository: Path, path: str) -> None:
    (repository / "net.py").write_text(CODE + MADE)
    found = config(repository, repository, "net:made")
    found = msgspec.structs.replace(found, path=str(repository / path) if path else "")
    pytorch.check(found)
    assert pytorch.imports(found) == []
    assert set(pytorch.files(found)) == {
        *(repository / name for name in ("net.py", "layers/__init__.py", "layers/block.py"))
    }
    model = pytorch.load(found)
    feed = {"x": np.ones((1, 6), np.float32), "scale": np.ones(1, np.float32)}
    answer = model.run(feed)
    np.testing.assert_allclose(answer["scores"], np.full((1, 5), 0.2), rtol=1e-6)
    assert answer["best"] == 3.0  # six ones times a half
    names = {name for name, _ in pytorch.weights(found, None).tensors()}
    assert names == {"block.weight", "block.bias"}


def test_a_module_of_a_package_needs_no_code_of_the_repository(repository: Path) -> None:
    found = msgspec.structs.replace(
        config(repository, repository, "torch.nn:Identity", INPUTS[:1]), path=""
    )
    pytorch.check(found)
    assert pytorch.imports(found) == ["torch"]
    assert pytorch.files(found) == []
    x = np.ones((2, 6), np.float32)
    (answer,) = pytorch.load(found).run({"x": x}).values()
    np.testing.assert_array_equal(answer, x)
    with pytest.raises(UsageError, match="only weights"):
        pytorch.check(msgspec.structs.replace(found, options={}))


def test_damaged_and_foreign_files(repository: Path) -> None:
    torch.save(weights(), repository / "w.pt")
    save_file(weights(), repository / "w.safetensors")
    cut = repository / "cut.safetensors"
    cut.write_bytes((repository / "w.safetensors").read_bytes()[:-8])
    with pytest.raises(SourceError, match="not a complete safetensors"):
        pytorch.load(config(cut, repository))
    torch.save({"other": torch.zeros(1)}, repository / "other.pt")
    with pytest.raises(SourceError, match="does not fit"):
        pytorch.load(config(repository / "other.pt", repository))
    (repository / "picture.pt").write_bytes(b"\x89PNG")
    assert not pytorch.detect(repository / "picture.pt")


@pytest.mark.parametrize("exporter", ["_dynamo", "_torchscript"])
def test_weights_and_nodes_are_named_after_their_modules(exporter: str, tmp_path: Path) -> None:
    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(6, 8), torch.nn.Linear(8, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(self.encoder(x))

    module = Twice().eval()
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 3, 6)),)
    model = _torch.TorchModel(module, inputs, sampler=None)
    target = tmp_path / "model.onnx"
    getattr(_torch, exporter)(model, target, {"batch"})
    _torch._clean(target, model.inputs)
    _torch._prove(model, _mapped.MappedWeights(module, tmp_path), target, {"batch"}, ())
    proto = onnx.load(target)
    weights = {
        t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if len(t.dims) == 2
    }
    assert set(weights) >= {"encoder.first.weight", "encoder.second.weight"}
    assert np.array_equal(
        weights["encoder.first.weight"].T, module.encoder.first.weight.detach().numpy()
    )
    products = [n.name for n in proto.graph.node if n.op_type == "MatMul"]
    assert products[:2] == ["encoder.first/MatMul", "encoder.second/MatMul"]
    assert len(set(products)) == 4


def test_an_average_over_more_than_the_picture_is_one_over_all_of_it(tmp_path: Path) -> None:
    """As EfficientNet pools; OpenVINO refuses such a window."""
    pads = torch.nn.ZeroPad2d((0, 1, 0, 1))  # a trace computes them in the graph
    pool = torch.nn.Sequential(
        pads, torch.nn.Conv2d(3, 4, 3), torch.nn.AvgPool2d(64, ceil_mode=True), torch.nn.Flatten()
    )
    model = _torch.TorchModel(
        pool, (TensorSpec(name="image", dtype="float32", shape=("batch", 3, 8, 8)),), by_name=False
    )
    _torch.export(model, tmp_path)
    assert {n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node} >= {
        "Conv",
        "GlobalAveragePool",
    }
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for feed in model.samples(2, 7, {}) or []:
        (name,) = model.run(feed)
        np.testing.assert_allclose(
            session.run(None, dict(feed))[0], model.run(feed)[name], rtol=1e-5, atol=1e-6
        )


class Spectrum(torch.nn.Module):
    """A spectrogram front end, which takes no sound shorter than its window."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(sound, 64, 16, window=self.window, return_complex=True)
        return spectrum.abs().mean(-1)


class Strided(torch.nn.Module):
    """Convolutions over sound that take at least 400 values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv1d(1, 4, 10, 5)
        self.second = torch.nn.Conv1d(4, 4, 64, 4)

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return self.second(torch.nn.functional.gelu(self.first(sound[:, None]))).mean(-1)


class Buckets(torch.nn.Module):
    """Buckets of a width that the caller gives, which is never 0."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(32, 4)

    def forward(self, position: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
        return self.table((position // width) % 32)


SOUND = {"sound": np.random.default_rng(1).standard_normal((3, 800)).astype(np.float32)}
PLACES = {"position": np.arange(40) * 97, "width": np.arange(40) % 49 + 1}


@pytest.mark.parametrize(
    ("module", "feed"), [(Spectrum(), SOUND), (Strided(), SOUND), (Buckets(), PLACES)]
)
def test_a_module_is_tried_and_traced_with_the_users_samples(
    module: torch.nn.Module, feed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """What is drawn by type alone, they refuse: too short a sound, a width of 0."""
    shapes = {"sound": ("batch", "time"), "position": ("batch",), "width": ("batch",)}
    inputs = tuple(
        TensorSpec(name=name, dtype=str(array.dtype), shape=shapes[name])
        for name, array in feed.items()
    )
    with pytest.raises(SourceError, match=r"forward\(\) raised"):
        _torch.TorchModel(module.eval(), inputs)
    _torch.export(_torch.TorchModel(module, inputs, given=[feed]), tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    with torch.inference_mode():
        wanted = module(*(torch.from_numpy(array) for array in feed.values())).numpy()
    np.testing.assert_allclose(session.run(None, feed)[0], wanted, atol=1e-4)
