"""`mconv find` and `mconv verify FILE`: a tree of models, what each needs, and a manifest that
loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mconv.__main__ import main
from mconv.discovery import find as discovery_find
from mconv.errors import ManifestError, UsageError
from mconv.manifest import reader
from tests.models import write_linear
from tests.unit.formats.files import MADE

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    for folder in ("a/onnx", "weights", ".hidden", "node_modules/x", "out/m/onnx-fp32", "bert"):
        (root / folder).mkdir(parents=True)
    write_linear(root / "a/onnx/model.onnx")
    write_linear(root / "a/model.onnx")
    write_linear(root / ".hidden/model.onnx")
    write_linear(root / "node_modules/x/model.onnx")
    write_linear(root / "out/m/onnx-fp32/model.onnx")
    (root / "out/m/onnx-fp32/mconv.json").write_text("{}")
    MADE["external.onnx"][1](root / "a/external.onnx")
    MADE["ir.xml"][1](root / "weights/ir.xml")
    MADE["folder"][1](root / "bert")
    torch.save(torch.nn.Linear(2, 2).state_dict(), root / "weights/net.pt")
    (root / "weights/picture.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(32))
    (root / "weights/lfs.bin").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    (root / "notes.bin").write_bytes(b"nothing of interest")
    (root / "read.me").write_text("text")
    return root


def test_what_is_found_and_what_is_not(tree: Path) -> None:
    found = {f.path: f for f in discovery_find.find(tree)}
    assert set(found) == {
        *("a/external.onnx", "a/model.onnx", "a/onnx/model.onnx", "bert"),
        *("weights/ir.xml", "weights/lfs.bin", "weights/net.pt", "weights/picture.onnx"),
    }
    assert found["a/external.onnx"].size_bytes == sum(
        p.stat().st_size
        for p in (tree / "a").glob("*")
        if p.suffix != "" and p.name != "model.onnx"
    )
    assert found["weights/ir.xml"].size_bytes == sum(
        p.stat().st_size for p in (tree / "weights").glob("ir.*")
    )
    assert (found["bert"].source, found["bert"].model_type, found["bert"].evidence) == (
        "huggingface",
        "bert",
        "config",
    )
    assert "factory" in found["weights/net.pt"].needs[0]
    assert found["weights/ir.xml"].needs == ("nothing here converts openvino",)
    assert found["weights/picture.onnx"].problems == ("it is named like onnx but is a PNG picture",)
    assert "git lfs pull" in found["weights/lfs.bin"].problems[0]
    assert not found["a/model.onnx"].needs


def test_the_manifest_loads_and_says_what_is_left_out(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find", str(tree), "--manifest"]) == 0
    text = capsys.readouterr().out
    (tree / "models.yml").write_text(text)
    loaded = reader.load(tree / "models.yml")
    assert [m.name for m in loaded.models] == ["external", "a", "onnx", "bert"]
    assert [v.precision for v in loaded.models[0].variants] == ["fp32", "int8"]
    assert '  #   source: {format: pytorch, path: "weights/net.pt"' in text
    assert "# left out: weights/picture.onnx: it is named like onnx but is a PNG picture" in text


def test_where_nothing_converts_as_it_is_the_manifest_says_what_to_fill_in(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find", str(tree / "weights"), "--manifest"]) == 0
    assert "# FILL IN: add `factory: module:function`" in capsys.readouterr().out
    with pytest.raises(UsageError, match="not a folder"):
        discovery_find.find(tree / "absent")


def test_json_and_table(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find", str(tree), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {f["path"]: f["format"] for f in found}["bert"] == "huggingface"
    assert main(["find", str(tree)]) == 0
    table = capsys.readouterr().out
    assert "8 models, 4 convert as they are" in table
    assert "wrong: it is named like onnx but is a PNG picture" in table


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weights/lfs.bin", "Git LFS pointer"),
        ("read.me", "it is text"),
        ("weights/ir.xml", "openvino by its content"),
    ],
)
def test_a_manifest_says_what_a_source_is_instead(name: str, said: str, tree: Path) -> None:
    (tree / "models.yml").write_text(
        f"version: 1\nmodels:\n  - name: m\n    source: {name}\n    targets: [onnx]\n"
    )
    with pytest.raises(ManifestError) as told:
        reader.load(tree / "models.yml")
    assert said in str(told.value)
    assert ":4:13: " in str(told.value)


def test_verify_of_files(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tree / "a/model.onnx")]) == 0
    assert capsys.readouterr().err.endswith("passed\n")
    assert main(["verify", str(tree / "weights/picture.onnx"), "--json"]) == 1
    out = json.loads(capsys.readouterr().out)
    assert (out["verdict"], out["problems"]) == (
        "failed",
        ["it is named like onnx but is a PNG picture"],
    )
    assert main(["verify", str(tree / "read.me")]) == 1
    assert "unverified" in capsys.readouterr().err
    assert main(["verify", str(tree / "absent")]) == 2


def test_a_checker_that_dies_is_a_failure(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A format of a third party whose reader aborts: the answer is `failed` with how it died."""
    from mconv import api, registry

    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        '"""Deadly."""\nimport os\nfrom mconv.values import Facts\nSUFFIXES = (".dead",)\nORDER = '
        "-99\n"
        "def sniff(path, head):\n    return head == b'dead'\n"
        "def inspect(path):\n    return Facts(kind='model')\ndef check(path):\n    os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    registry.register("formats", "deadly")
    try:
        (tree / "x.dead").write_bytes(b"dead")
        found = api.check(tree / "x.dead")
        assert found.verdict == "failed"
        assert "SIGABRT" in found.problems[0]
    finally:
        registry._REGISTERED.clear()
        registry.plugins.cache_clear()


def test_hidden_models_of_a_shared_name_do_not_shadow_each_other(tree: Path) -> None:
    shutil.copytree(tree / "bert", tree / "bert2")
    (tree / "bert2/onnx").mkdir()
    write_linear(tree / "bert2/onnx/model.onnx")
    paths = [f.path for f in discovery_find.find(tree)]
    assert "bert2" in paths
    assert "bert2/onnx/model.onnx" in paths
    assert "bert2/model.safetensors" not in paths
