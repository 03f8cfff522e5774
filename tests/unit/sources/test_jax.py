"""Functions and Flax modules with parameters from every kind of file, exported and compared with
JAX itself."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from mconv.errors import SourceError, UnsupportedError, UsageError
from mconv.sources import jax as source
from mconv.values import SourceConfig, TensorSpec

pytestmark = pytest.mark.filterwarnings("ignore")

CODE = """
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from layers.plain import predict


class Net(nn.Module):
    @nn.compact
    def __call__(self, image):
        x = nn.avg_pool(nn.relu(nn.Conv(4, (3, 3))(image)), (2, 2), (2, 2))
        x = nn.LayerNorm()(nn.Dense(8)(x.reshape((x.shape[0], -1))))
        return {"scores": nn.softmax(nn.Dense(3)(x)), "best": x.max(-1)}


def linen():
    return Net()


class Block(nnx.Module):
    def __init__(self, rngs):
        self.first, self.norm, self.last = nnx.Linear(6, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def module():
    return Block(nnx.Rngs(0))


def function():
    return predict


def closed():
    weight = jnp.arange(24.0).reshape(6, 4) / 10
    return lambda x: (x @ weight, jnp.cumsum(x, 1))


def pair():
    return predict, [{"w": jnp.ones((6, 4)), "b": jnp.arange(4.0)}]


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(50, 16)(ids) + nn.Embed(64, 16)(jnp.arange(ids.shape[1]))[None]
        mask = nn.make_attention_mask(ids > 0, ids > 0)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x), mask=mask)
        return nn.Dense(3)(x)


def encoder():
    return Encoder(), Encoder().init(jax.random.key(0), jnp.zeros((1, 9), jnp.int32))


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.RNN(nn.LSTMCell(5))(x)


def recurrent():
    return Recurrent(), Recurrent().init(jax.random.key(0), jnp.zeros((1, 4, 6)))


def solver():
    return lambda x: jnp.linalg.eigh(x + x.swapaxes(-1, -2))[0]


def idle():
    return lambda x, y: x * 2
"""
PLAIN = """
def predict(params, x):
    for layer in params:
        x = x @ layer["w"] + layer["b"]
    return x
"""
X = TensorSpec(name="x", dtype="float32", shape=("batch", 6))
IMAGE = TensorSpec(name="image", dtype="float32", shape=("batch", 8, 8, 1))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [m for m in sys.modules if m == "jaxnet" or m.startswith("layers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "jaxnet.py").write_text(CODE)
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers/__init__.py").write_text("")
    (tmp_path / "layers/plain.py").write_text(PLAIN)
    return tmp_path


def config(path: Path, factory: str, *inputs: TensorSpec) -> SourceConfig:
    root = path.parent
    return SourceConfig(
        format="jax",
        path=str(path),
        root=str(root),
        options={"factory": f"jaxnet:{factory}"},
        inputs=inputs,
    )


def proved(found: SourceConfig, name: str, sizes: tuple[int, ...] = (1, 5)) -> source.JaxModel:
    """Export, and compare with the model at sizes that were not used in the export."""
    source.check(found)
    out = Path(found.root) / name
    out.mkdir()
    info = source.export(found, out)
    model = source.load(found)
    assert info.model.inputs == model.inputs
    assert info.model.outputs == model.outputs
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    rng = np.random.default_rng(0)
    for size in sizes:
        feed = {}
        for spec in model.inputs:
            shape = [d if isinstance(d, int) else size + i for i, d in enumerate(spec.shape)]
            feed[spec.name] = (
                rng.standard_normal(shape).astype(np.float32)
                if spec.dtype == "float32"
                else rng.integers(0, 50, shape).astype("int32")
            )
        wanted = model.run(feed)
        for output, got in zip(wanted, session.run(list(wanted), feed), strict=True):
            np.testing.assert_allclose(got, wanted[output], rtol=1e-4, atol=1e-5)
    return model


def linen_variables() -> dict[str, object]:
    import jax
    import jax.numpy as jnp
    from jaxnet import Net

    return Net().init(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))


def test_linen_with_parameters_of_every_format(repository: Path) -> None:
    import jax
    import orbax.checkpoint as ocp
    from flax.serialization import msgpack_serialize, to_state_dict
    from flax.traverse_util import flatten_dict
    from jaxnet import Net
    from safetensors.numpy import save_file

    variables = linen_variables()
    plain = jax.tree.map(np.asarray, variables)
    np.savez(repository / "w.npz", **flatten_dict(plain, sep="/"))
    save_file(flatten_dict(plain["params"], sep="."), repository / "w.safetensors")
    (repository / "w.msgpack").write_bytes(msgpack_serialize(to_state_dict(plain)))
    ocp.PyTreeCheckpointer().save(repository / "orbax", plain)
    image = np.random.default_rng(3).standard_normal((2, 8, 8, 1)).astype(np.float32)
    wanted = Net().apply(variables, image)
    for name in ("w.npz", "w.safetensors", "w.msgpack", "orbax"):
        model = source.load(config(repository / name, "linen", IMAGE))
        assert [o.name for o in model.outputs] == ["scores", "best"]
        assert model.parameters == sum(v.size for v in jax.tree.leaves(plain))
        np.testing.assert_allclose(
            model.run({"image": image})["scores"], wanted["scores"], rtol=1e-6
        )
    assert source.detect(repository / "orbax")
    assert source.detect(repository / "w.msgpack")
    # PyTorch's, unless the manifest says otherwise
    assert not source.detect(repository / "w.safetensors")
    proved(config(repository / "w.npz", "linen", IMAGE), "out")
    graph = onnx.load(repository / "out/model.onnx").graph
    # one for each Dense layer, though two outputs depend on the first
    assert [node.op_type for node in graph.node].count("Gemm") == 2


def test_nnx_takes_its_state_from_a_file(repository: Path) -> None:
    import jax
    from flax import nnx
    from flax.traverse_util import flatten_dict
    from jaxnet import Block

    trained = Block(nnx.Rngs(7))
    trained.eval()
    state = nnx.to_pure_dict(nnx.state(trained, nnx.Any(nnx.Param, nnx.BatchStat)))
    np.savez(repository / "w.npz", **flatten_dict(jax.tree.map(np.asarray, state), sep="/"))
    found = config(repository / "w.npz", "module", X)
    model = proved(found, "out")
    x = np.ones((2, 6), np.float32)
    np.testing.assert_allclose(model.run({"x": x})["output"], trained(x), rtol=1e-6)
    del state["last"]
    np.savez(repository / "part.npz", **flatten_dict(jax.tree.map(np.asarray, state), sep="/"))
    with pytest.raises(SourceError, match="lacks last/bias"):
        source.load(config(repository / "part.npz", "module", X))


def test_functions(repository: Path) -> None:
    rng = np.random.default_rng(1)
    layers = {
        f"{i}/{k}": rng.standard_normal(s).astype(np.float32)
        for i in range(2)
        for k, s in (("w", (6, 6)), ("b", (6,)))
    }
    np.savez(repository / "layers.npz", **layers)
    model = proved(config(repository / "layers.npz", "function", X), "a")
    x = np.ones((1, 6), np.float32)
    by_hand = (x @ layers["0/w"] + layers["0/b"]) @ layers["1/w"] + layers["1/b"]
    np.testing.assert_allclose(model.run({"x": x})["output"], by_hand, rtol=1e-5)
    model = proved(config(repository / "jaxnet.py", "closed", X), "b")
    assert [(o.name, o.shape) for o in model.outputs] == [
        ("output_0", ("batch", 4)),
        ("output_1", ("batch", 6)),
    ]
    assert proved(config(repository / "jaxnet.py", "pair", X), "c").parameters == 28


def test_a_factory_that_has_the_parameters_needs_no_file(repository: Path) -> None:
    found = msgspec.structs.replace(config(repository / "jaxnet.py", "pair", X), path="")
    assert proved(found, "a").parameters == 28
    assert source.imports(found) == []
    assert set(source.files(found)) == {
        *(repository / name for name in ("jaxnet.py", "layers/__init__.py", "layers/plain.py"))
    }
    with pytest.raises(UsageError, match="the code that computes it"):
        source.check(msgspec.structs.replace(found, options={}))


def test_attention_and_recurrence_at_free_sizes(repository: Path) -> None:
    ids = TensorSpec(name="ids", dtype="int32", shape=("batch", "length"))
    model = proved(config(repository / "jaxnet.py", "encoder", ids), "a", (3, 11))
    drawn = {int(i) for f in model.draw_feeds(9, 1, {}) for i in f["ids"].ravel()}
    assert drawn <= set(range(50))  # inside the table of 50 rows
    assert len(drawn) > 30  # and all over it
    proved(
        config(
            repository / "jaxnet.py",
            "recurrent",
            TensorSpec(name="x", dtype="float32", shape=("batch", 4, 6)),
        ),
        "b",
    )


def test_what_cannot_be_is_named(repository: Path) -> None:
    square = TensorSpec(name="x", dtype="float32", shape=("batch", 3, 3))
    with pytest.raises(UnsupportedError, match="eigh"):
        source.export(config(repository / "jaxnet.py", "solver", square), repository)
    y = TensorSpec(name="y", dtype="float32", shape=(1,))
    with pytest.raises(UnsupportedError, match="does not use its input y"):
        source.export(config(repository / "jaxnet.py", "idle", X, y), repository)
    with pytest.raises(UsageError, match="inputs"):
        source.check(config(repository / "jaxnet.py", "closed"))
    with pytest.raises(UsageError, match="32 bits"):
        source.check(
            config(
                repository / "jaxnet.py",
                "closed",
                TensorSpec(name="x", dtype="float64", shape=(6,)),
            )
        )
    with pytest.raises(SourceError, match="no parameters of its own"):
        source.load(config(repository / "jaxnet.py", "linen", IMAGE))
    wrong = TensorSpec(name="x", dtype="float32", shape=("batch", 7))
    with pytest.raises(SourceError, match="raised TypeError"):
        source.load(config(repository / "jaxnet.py", "closed", wrong))


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path("exploded").touch, ())


def test_no_pickle_is_run(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    np.savez(repository / "bomb.npz", w=np.array([Bomb()], dtype=object))
    (repository / "bomb.msgpack").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.npz", "bomb.msgpack"):
        with pytest.raises(SourceError, match="cannot be read"):
            source.load(config(repository / name, "function", X))
    assert not (repository / "exploded").exists()


def test_key_files_are_the_parameters_and_the_factory(repository: Path) -> None:
    np.savez(repository / "w.npz", a=np.zeros(1))
    found = {p.name for p in source.files(config(repository / "w.npz", "linen", IMAGE))}
    assert found == {"w.npz", "jaxnet.py", "__init__.py", "plain.py"}
