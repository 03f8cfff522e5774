"""The weights file: bit-exact whatever is in it, one tensor at a time, read by pyarrow too, and its
faults named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mconv import parquet, weights
from mconv.targets import parquet as target
from mconv.weights import About, Tensor
from tests.conftest import ROOT

PLAIN = [d for d, kind in parquet.ARROW.items() if kind == d] + [
    "float16",
    "complex64",
    "complex128",
]
EXOTIC = [d for d in parquet.ARROW if d not in PLAIN]


def put(
    folder: Path,
    arrays: Mapping[str, Any],
    aliases: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """The file that the target writes for these arrays."""
    source, out = folder / "source", folder / "out"
    for each in (source, out):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir(parents=True)
    about = About(format="pytorch", architecture="Net", config={"layers": 2}, parameters=7)
    weights.save(source, about, ((n, Tensor.of(a)) for n, a in arrays.items()), aliases or {})
    precision = options.pop("precision", "fp32")
    target.write(source, out, precision=precision, options=options, name="m", calibration=None)
    return out / parquet.FILE


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


arrays = st.sampled_from(PLAIN).flatmap(
    lambda d: hnp.arrays(
        np.dtype(d), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)
    )
)


@settings(max_examples=30, deadline=None)
@given(st.lists(arrays, min_size=1, max_size=4), st.sampled_from(["zstd", "lz4", "snappy", "none"]))
def test_any_arrays_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, given_: list[np.ndarray], codec: str
) -> None:
    held = {f"t{i}": a for i, a in enumerate(given_)}
    path = put(tmp_path_factory.mktemp("h"), held, compression=codec)
    with parquet.load(path) as found:
        assert list(found) == list(held)
        assert all(same(found[name], array) for name, array in held.items())
    assert parquet.check(path) == []


def test_types_that_numpy_lacks_and_every_bit_pattern(tmp_path: Path) -> None:
    held = {}
    for name in EXOTIC:
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        if dtype.itemsize == 1:
            held[name] = np.arange(2 if name == "bool" else 8, dtype=np.uint8).view(dtype)
        else:
            # every bfloat16, NaNs and subnormals included
            held[name] = np.arange(65536, dtype=np.uint16).view(dtype)
    held["float16"] = np.arange(65536, dtype=np.uint16).view(np.float16)
    path = put(tmp_path, held, chunk_mib=1)
    with parquet.load(path) as found:
        assert all(same(found[name], array) for name, array in held.items())
        assert found.metadata["encodings"]["bfloat16"] in (
            "plain",
            "byte_stream_split",
            "dictionary",
        )


def test_strides_scalars_empties_byte_order_and_shared_weights(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    held = {
        "turned": base.T,
        "stepped": base[::2, ::-1],
        "scalar": np.float32(-0.0),
        "empty": np.zeros((3, 0, 2), np.int8),
    }
    held["foreign"] = base.astype(">f4")
    path = put(tmp_path, held, {"tied": "turned"})
    found = parquet.load(path)
    assert all(
        same(found[n], np.asarray(a, np.asarray(a).dtype.newbyteorder("=")))
        for n, a in held.items()
    )
    assert same(found["tied"], base.T)
    assert found.tensors["tied"].alias_of == "turned"
    tensors = found.torch()
    assert tensors["tied"].data_ptr() == tensors["turned"].data_ptr()
    together = found.numpy()
    assert together["tied"] is together["turned"]
    assert parquet.load(path, framework="torch")["scalar"].shape == ()
    rows = pq.read_table(path).to_pylist()
    assert [r["alias_of"] for r in rows if r["name"] == "tied"] == ["turned"]
    # the shared one is stored once
    assert sum(len(r["float32"] or ()) for r in rows) == 24 + 12 + 1 + 24


def test_chunks_rows_and_what_pyarrow_alone_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = {
        "small": rng.standard_normal(10).astype(np.float32),
        "large": rng.standard_normal((700, 1000)).astype(np.float32),
    }
    held["after"] = rng.integers(-5, 5, 100)
    path = put(tmp_path, held, chunk_mib=1)
    table = pq.read_table(path)
    rows = [r for r in table.to_pylist() if r["name"] == "large"]
    assert [r["offset"] for r in rows] == [0, 2**18, 2 * 2**18]
    joined = np.concatenate([np.asarray(r["float32"], np.float32) for r in rows])
    assert joined.tobytes() == held["large"].tobytes()
    assert all(r["shape"] == [700, 1000] and r["int64"] is None for r in rows)
    assert pq.ParquetFile(path).num_row_groups > 2
    whole = put(tmp_path, held, chunk_mib=0)
    assert (
        sum(r["name"] == "large" for r in pq.read_table(whole, columns=["name"]).to_pylist()) == 1
    )
    assert same(parquet.load(whole)["large"], held["large"])
    by_name = pq.read_table(path, filters=[("name", "=", "after")], columns=["int64"])
    assert by_name.to_pylist() == [{"int64": held["after"].tolist()}]


def test_metadata_tells_of_the_model(tmp_path: Path) -> None:
    path = put(tmp_path, {"w": np.ones((2, 3), np.float32)}, map={"w": "layer.w"})
    raw = pq.read_metadata(path).metadata
    assert json.loads(raw[b"mconv.config"]) == {"layers": 2}
    assert (raw[b"mconv.source_format"], raw[b"mconv.architecture"], raw[b"mconv.parameters"]) == (
        b"pytorch",
        b"Net",
        b"7",
    )
    listed = json.loads(raw[b"mconv.tensors"])
    assert [(t["name"], t["source"], t["dtype"], t["shape"]) for t in listed] == [
        ("layer.w", "w", "float32", [2, 3])
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"level": 22}, {"compression": "lz4"}, {"compression": "snappy"}, {"compression": "none"}],
)
def test_codecs_and_equal_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    held = {"w": np.random.default_rng(1).standard_normal(5000).astype(np.float32)}
    first = put(tmp_path / "a", held, **options).read_bytes()
    path = put(tmp_path / "b", held, **options)
    assert path.read_bytes() == first
    names = {"zstd": "ZSTD", "lz4": "LZ4", "snappy": "SNAPPY", "none": "UNCOMPRESSED"}
    columns = [pq.read_metadata(path).row_group(0).column(i) for i in range(6)]
    assert {c.compression for c in columns} == {names[options.get("compression", "zstd")]}
    assert same(parquet.load(path)["w"], held["w"])


def test_only_the_tensor_asked_for_is_read(tmp_path: Path) -> None:
    """In a process of its own: a tensor of a 200 MB file costs its own size and a row group or
    two."""
    piece = np.random.default_rng(0).integers(0, 2**31, 2**20).astype(np.int32)
    path = put(tmp_path, {f"t{i}": piece + i for i in range(50)}, compression="none")
    assert path.stat().st_size > 200e6
    code = (
        "import sys; from mconv import parquet\n"
        "def kib(what): return next(int(l.split()[1]) for l in open('/proc/self/status') if "
        "l.startswith(what))\n"
        "import numpy, pyarrow.parquet\n"
        "before = kib('RssAnon')\n"
        "w = parquet.load(sys.argv[1]); a = w['t37']\n"
        "print(int(a[0]), kib('RssAnon') - before, kib('VmHWM'))\n"
        "print(*[m for m in ('torch', 'ml_dtypes', 'msgspec', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    first, names = done.stdout.splitlines()
    value, grown, _ = map(int, first.split())
    assert value == int(piece[0]) + 37
    assert grown < 60_000  # KiB
    assert names == ""


def test_the_reader_is_one_file_that_works_without_mconv(tmp_path: Path) -> None:
    path = put(tmp_path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    shutil.copyfile(parquet.__file__, tmp_path / "reader.py")
    code = (
        "import sys, reader; w = reader.load(sys.argv[1])['w']; print(w.sum(), "
        "any(m.startswith('mconv') for m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {code}", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["15.0", "False"], done.stderr


def test_torch_gets_every_dtype_it_has(tmp_path: Path) -> None:
    held = {
        d: torch.arange(4).to(getattr(torch, d))
        for d in ("float32", "bfloat16", "float16", "int8", "bool", "float8_e4m3fn")
    }
    source, out = tmp_path / "s", tmp_path / "o"
    source.mkdir()
    out.mkdir()
    from mconv.sources._weights import tensor_of

    weights.save(
        source,
        About(format="pytorch", architecture="N"),
        ((n, tensor_of(t)) for n, t in held.items()),
        {},
    )
    target.write(source, out, precision="fp32", options={}, name="m", calibration=None)
    found = parquet.load(out, framework="torch")
    for name, tensor in held.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))


def test_wrong_names_and_files_are_said_plainly(tmp_path: Path) -> None:
    path = put(tmp_path, {"layer.weight": np.ones(3, np.float32)})
    with pytest.raises(KeyError, match=r"perhaps you meant 'layer\.weight'"):
        parquet.load(path)["layer.weigth"]
    (tmp_path / "no.parquet").write_bytes(b"PAR1 but not really")
    assert "not a complete Parquet file" in parquet.check(tmp_path / "no.parquet")[0]
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="metadata does not say"):
        parquet.load(tmp_path / "other.parquet")
    with pytest.raises(FileNotFoundError):
        parquet.load(tmp_path / "missing.parquet")


def test_a_flipped_byte_is_found_where_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = put(
        tmp_path,
        {f"t{i}": rng.standard_normal(2**19).astype(np.float32) for i in range(4)},
        chunk_mib=2,
    )
    chunk = pq.read_metadata(path).row_group(2).column(5)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    assert [p for p in parquet.check(path) if p.startswith("row group 2 cannot be read")]
    found = parquet.load(path)
    assert found["t1"].shape == (2**19,)
    with pytest.raises(ValueError, match="row group 2"):
        found["t2"]
    path.write_bytes(bytes(data[:-100]))
    assert "not a complete Parquet file" in parquet.check(path)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update(shape=[5]), "another tensor than the list"),
        (lambda t: t.update(name="else"), "not in the list of tensors"),
        (lambda t: t.update(alias_of="nothing"), "alias of 'nothing'"),
        (lambda t: t.update(dtype="text"), "list of tensors is damaged"),
        (lambda t: t.update(row_group=1), "out of its place"),
    ],
)
def test_rows_and_list_must_agree(tmp_path: Path, change: Any, said: str) -> None:
    path = put(tmp_path, {"w": np.ones(4, np.float32), "v": np.ones(2, np.float32)})
    table = pq.read_table(path)
    metadata = {k: v for k, v in pq.read_metadata(path).metadata.items() if k.startswith(b"mconv.")}
    listed = json.loads(metadata[b"mconv.tensors"])
    change(listed[0])
    metadata[b"mconv.tensors"] = json.dumps(listed).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert any(said in problem for problem in parquet.check(path)), parquet.check(path)


def test_the_documented_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "encoder.layer.0.output.dense.bias"
    held = {name: np.arange(6, dtype=np.float32).reshape(2, 3)}
    source, out = tmp_path / "source", tmp_path / "out/minilm/parquet-fp32"
    source.mkdir()
    out.mkdir(parents=True)
    about = About(
        format="huggingface", architecture="BertModel", config={"hidden_size": 384}, parameters=6
    )
    weights.save(source, about, ((n, Tensor.of(a)) for n, a in held.items()), {})
    target.write(source, out, precision="fp32", options={}, name="m", calibration=None)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/parquet.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(block, scope)
    assert capsys.readouterr().out.split()[:3] == ["BertModel", "6", "384"]
    for found in (
        scope["bias"],
        scope["state"][name].numpy(),
        scope["one"].numpy(),
        scope["values"],
    ):
        assert same(found, held[name])
