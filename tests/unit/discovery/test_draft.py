"""A models.yml to start from: filled in as far as can be known, and read by the manifest's reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mconv.discovery import find as discovery_find
from mconv.discovery.draft import FILL, Draft, draft_manifest, validate_manifest
from mconv.errors import ManifestError
from mconv.manifest import reader
from mconv.values import Found
from tests.models import write_linear
from tests.unit.formats.files import MADE

pytestmark = pytest.mark.filterwarnings("ignore")

NET = """
from torch import nn


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return self.body(image)


def build():
    return TinyNet()
"""


def draft(folder: Path) -> Draft:
    return draft_manifest(folder, discovery_find.find(folder))


def comments(drafted: Draft) -> str:
    """The comments as one line."""
    lines = [line.strip() for line in drafted.text.splitlines()]
    return " ".join(line[2:] for line in lines if line.startswith("# "))


def problems(drafted: Draft, folder: Path) -> list[tuple[int, str]]:
    """The lines and messages of what the reader says of a draft."""
    (folder / "models.yml").write_text(drafted.text)
    with pytest.raises(ManifestError) as told:
        reader.load(folder / "models.yml")
    return [(each.place.line if each.place else 0, each.message) for each in told.value.problems]


def save_tiny(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"body.weight": torch.zeros(4, 3, 3, 3), "body.bias": torch.zeros(4)}, path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    save_tiny(tmp_path / "weights/tiny.pt")
    return tmp_path


def test_what_converts_is_listed_with_sensible_targets(tmp_path: Path) -> None:
    write_linear(tmp_path / "linear.onnx")
    (tmp_path / "bert").mkdir()
    MADE["folder"][1](tmp_path / "bert")
    drafted = draft(tmp_path)
    assert (drafted.ready, drafted.to_fill, drafted.left_out) == (2, 0, 0)
    (tmp_path / "models.yml").write_text(drafted.text)
    loaded = reader.load(tmp_path / "models.yml")
    assert {m.name: m.source.format for m in loaded.models} == {
        "bert": "huggingface",
        "linear": "onnx",
    }
    assert [f"{v.target}:{v.precision}" for v in loaded.models[0].variants] == [
        "onnx:fp32",
        "onnx:int8",
    ]
    assert "bert (by its config)" in drafted.text


def test_a_factory_is_found_and_the_inputs_are_left_to_fill_in(tiny: Path) -> None:
    drafted = draft(tiny)
    assert (drafted.ready, drafted.to_fill) == (0, 1)
    assert 'factory: "net:build"' in drafted.text
    assert f"{FILL}: {{image: {{shape: [batch, 3, height, width]}}}}" in drafted.text
    assert "body.weight [4, 3, 3, 3]" in comments(drafted)
    lines = drafted.text.splitlines()
    told = problems(drafted, tiny)
    assert [lines[line - 1].split(":")[0].strip(" -") for line, _ in told] == ["source", "inputs"]
    assert "inputs" in told[0][1]
    # what the line asks for is what may stand there
    (inputs,) = [line for line in lines if FILL in line]
    filled = inputs.replace(f"  # {FILL}:", "").replace("height, width", "32, 32")
    validate_manifest(drafted.text.replace(inputs, filled), tiny)


def test_samples_make_the_inputs_known(tiny: Path) -> None:
    images = np.zeros((5, 3, 16, 16), np.float32)
    np.savez(tiny / "samples.npz", image=images, label=np.zeros(5, np.int64))
    drafted = draft(tiny)
    assert (drafted.ready, drafted.to_fill) == (1, 0)
    validate_manifest(drafted.text, tiny)
    (model,) = yaml.safe_load(drafted.text)["models"]
    assert model["inputs"] == {"image": {"shape": ["batch", 3, 16, 16]}}
    assert model["samples"] == "samples.npz"
    assert "`evaluate: {labels: label, max_drop: 0.01}`" in drafted.text


def test_what_is_to_be_filled_in_is_a_comment_beside_what_is_ready(tiny: Path) -> None:
    write_linear(tiny / "linear.onnx")
    drafted = draft(tiny)
    assert (drafted.ready, drafted.to_fill) == (1, 1)
    validate_manifest(drafted.text, tiny)
    assert [m["name"] for m in yaml.safe_load(drafted.text)["models"]] == ["linear"]
    # taking the comments' signs away and correcting the shape is all
    lines = drafted.text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  # - name: tiny"))
    entry = [f"  {line[4:]}" for line in lines[start:]]
    text = "\n".join([*lines[:start], *entry]).replace("height, width", "8, 8")
    validate_manifest(text, tiny)
    assert len(yaml.safe_load(text)["models"]) == 2


def test_weights_without_code_have_a_place_for_the_factory(tmp_path: Path) -> None:
    save_tiny(tmp_path / "tiny.pt")
    drafted = draft(tmp_path)
    lines = drafted.text.splitlines()
    told = problems(drafted, tmp_path)
    named = {lines[line - 1] for line, _ in told}
    assert any("source:" in line and f"{FILL}: add `factory:" in line for line in named)
    assert any("the code that builds the module" in message for _, message in told)
    assert any("inputs:" in line and FILL in line for line in named)
    assert "no function without arguments was found" in comments(drafted)


def test_code_that_needs_arguments_is_named_with_them(tmp_path: Path) -> None:
    text = NET.replace("def __init__(self):", "def __init__(self, width, depth=2):")
    (tmp_path / "net.py").write_text(text.partition("def build")[0])
    save_tiny(tmp_path / "tiny.pt")
    said = comments(draft(tmp_path))
    assert "net:TinyNet (net.py:5) has the names of these weights, but needs width:" in said


def test_code_that_fits_other_weights_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    torch.save({"encoder.weight": torch.zeros(2, 2)}, tmp_path / "tiny.pt")
    assert "net:build" not in draft(tmp_path).text


def test_torchscript_needs_inputs_alone(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    drafted = draft(tmp_path)
    assert "factory" not in drafted.text
    assert [message for _, message in problems(drafted, tmp_path)] == [
        "the model's inputs are not known",
        "inputs must be a mapping, not nothing",
    ]


@pytest.mark.parametrize(
    ("files", "environment"),
    [
        ({"requirements.txt": "timm\n"}, {"requirements": ["requirements.txt"]}),
        ({"pyproject.toml": "[project]\n", "uv.lock": "version = 1\n"}, {"project": "."}),
    ],
)
def test_packages_of_the_repository_are_named_where_its_code_needs_them(
    files: dict[str, str], environment: dict[str, object], tiny: Path
) -> None:
    for name, text in files.items():
        (tiny / name).write_text(text)
    assert "environment" not in draft(tiny).text  # torch alone is what mconv brings
    (tiny / "net.py").write_text(f"import timm, numpy\n{NET}")
    np.savez(tiny / "samples.npz", image=np.zeros((5, 3, 16, 16), np.float32))
    drafted = draft(tiny)
    assert drafted.ready == 1
    raw = yaml.safe_load(drafted.text)
    assert raw["environments"] == {"repository": environment}
    assert raw["models"][0]["environment"] == "repository"


def test_packages_that_no_file_lists_are_named(tiny: Path) -> None:
    (tiny / "net.py").write_text(f"import timm, einops\n{NET}")
    drafted = draft(tiny)
    assert "its code imports einops, timm" in comments(drafted)
    assert "environments:\n" not in drafted.text


def test_a_src_layout_is_imported_from_its_folder(tmp_path: Path) -> None:
    package = tmp_path / "src/mynet"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "net.py").write_text(NET)
    (package / "entry.py").write_text(
        "from mynet.net import TinyNet\ndef other(): return TinyNet()\n"
    )
    save_tiny(tmp_path / "weights/tiny.pt")
    np.savez(tmp_path / "samples.npz", image=np.zeros((5, 3, 16, 16), np.float32))
    drafted = draft(tmp_path)
    assert drafted.ready == 1
    (model,) = yaml.safe_load(drafted.text)["models"]
    assert model["pythonpath"] == ["src"]
    assert model["source"]["factory"] == "mynet.net:build"


def test_an_empty_repository_gets_a_template(tmp_path: Path) -> None:
    drafted = draft(tmp_path)
    assert (drafted.ready, drafted.to_fill, drafted.left_out) == (0, 0, 0)
    ((line, message),) = problems(drafted, tmp_path)
    assert drafted.text.splitlines()[line - 1] == "models:"
    assert "at least one model" in message
    # with the signs of comments taken away it is a manifest, but for the files
    start = drafted.text.index("models:")
    text = drafted.text[start:].replace("\n#", "\n")
    assert [m["name"] for m in yaml.safe_load(text)["models"]] == ["first", "second"]


def test_a_repository_with_code_alone_is_told_of_its_functions(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert "net:build (net.py:14)" in comments(draft(tmp_path))


def test_what_cannot_be_converted_is_a_comment_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "picture.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(32))
    drafted = draft(tmp_path)
    assert drafted.left_out == 1
    assert "# left out: picture.onnx: it is named like onnx but is a PNG picture" in drafted.text


@pytest.mark.parametrize(
    "name",
    [
        "a: b.onnx",
        "# hash.onnx",
        "quote'\".onnx",
        "new\nline.onnx",
        "ümlaut [x].onnx",
        "{brace}.onnx",
        "bell\x07\x7f\x85.onnx",
        "line\u2028apart.onnx",
        "\U0001f600.onnx",
    ],
)
def test_strange_names_are_quoted(name: str, tmp_path: Path) -> None:
    write_linear(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").rename(tmp_path / name)
    drafted = draft(tmp_path)
    validate_manifest(drafted.text, tmp_path)
    assert yaml.safe_load(drafted.text)["models"][0]["source"]["path"] == name


def test_a_name_that_yaml_cannot_hold_is_left_out(tmp_path: Path) -> None:
    write_linear(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").rename(tmp_path / "x\udc80.onnx")
    drafted = draft(tmp_path)
    assert drafted.left_out == 1
    drafted.text.encode()


def test_names_of_a_file_cannot_leave_their_comment(tiny: Path) -> None:
    torch.save({"body.w\n  - name: evil": torch.zeros(4, 3, 3, 3)}, tiny / "weights/tiny.pt")
    raw = yaml.safe_load(draft(tiny).text)
    assert [m["name"] for m in raw["models"]] == ["tiny"]


def test_names_are_unique_whatever_the_case(tmp_path: Path) -> None:
    for folder in ("x", "y", "Z"):
        (tmp_path / folder).mkdir()
        write_linear(tmp_path / folder / ("net.onnx" if folder != "Z" else "NET.onnx"))
    names = [m["name"] for m in yaml.safe_load(draft(tmp_path).text)["models"]]
    assert names == ["NET", "net-2", "net-3"]


@pytest.mark.parametrize(
    ("more", "targets"),
    [
        ({"source": "sklearn", "format": "pickle"}, "[onnx]"),
        (
            {"source": "onnx", "format": "none", "parameters": 2_000_000_000},
            "[onnx:fp16, onnx:int4]",
        ),
    ],
)
def test_targets_are_those_that_suit_the_model(
    more: dict[str, object], targets: str, tmp_path: Path
) -> None:
    model = Found(path="m", **more)  # type: ignore[arg-type]
    assert f"targets: {targets}" in draft_manifest(tmp_path, (model,)).text


def test_a_model_with_another_need_is_an_entry_that_says_it(tmp_path: Path) -> None:
    need = "it is a pickle: say `trust: true` if you made it"
    model = Found(path="m.pkl", format="pickle", source="sklearn", needs=(need,))
    assert f"{FILL}: {need}" in draft_manifest(tmp_path, (model,)).text
