"""Broken manifests: each gives exit code 2, its line and column, and a sentence that helps; none a
traceback."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from mconv import registry
from mconv.__main__ import main
from mconv.discovery.find import find
from mconv.errors import ManifestError
from mconv.manifest import reader, schema
from mconv.values import SourceConfig, Tolerance
from tests.models import write_linear

GOOD = "version: 1\nmodels:\n  - name: a\n    source: model.onnx\n    targets: [onnx]\n"
BROKEN = {
    "unknown key": (GOOD.replace("targets", "tragets"), "5:5", "'targets'"),
    "wrong type": ("version: 1\nmodels: a\n", "2:9", "a list"),
    "duplicate name": (GOOD + GOOD.split("models:\n")[1], "6:5", "already used at models.yml:3:5"),
    "missing file": (GOOD.replace("model.onnx", "modle.onnx"), "4:13", "'model.onnx'"),
    "unknown target": (GOOD.replace("[onnx]", "[onxx]"), "5:15", "'onnx'"),
    "precision the target lacks": (
        GOOD.replace("[onnx]", "['onnx:int5']"),
        "5:15",
        "onnx offers: fp32",
    ),
    "bad shape": (GOOD + "    inputs: {x: {shape: [batch, -3]}}\n", "6:33", "positive size"),
    "state of two outputs": (GOOD + "    state: {a: h, b: h}\n", "6:22", "state of two outputs"),
    "state of no input": (
        GOOD + "    inputs: {hid: {shape: [1]}}\n    state: {a: hidd}\n",
        "7:16",
        "'hid'",
    ),
    "state that is no mapping": (GOOD + "    state: [h]\n", "6:12", "a mapping"),
    "YAML syntax": ("version: 1\nmodels: [\n", "3:1", "not valid YAML"),
    "empty file": ("", "1:1", "empty"),
    "path outside": (
        GOOD.replace("model.onnx", "../../etc/passwd"),
        "4:13",
        "leaves the repository",
    ),
    "wrong version": (GOOD.replace("version: 1", "version: 2"), "1:10", "must be 1"),
    "bad size": (GOOD + "    limits: {max_size: huge}\n", "6:24", "50MB"),
    "key given twice": (GOOD + "    targets: [openvino]\n", "6:5", "given twice"),
    "unknown option": (
        GOOD.replace("[onnx]", "[{openvino: {shceme: symmetric}}]"),
        "5:27",
        "'scheme'",
    ),
    "bad option value": (
        GOOD.replace("[onnx]", "[{openvino: {scheme: round}}]"),
        "5:35",
        "asymmetric",
    ),
    "labels without samples": (GOOD + "    evaluate: {labels: y}\n", "6:15", "samples"),
    "yes is not a name": (GOOD.replace("name: a", "name: yes"), "3:11", "quotes"),
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    write_linear(folder / "model.onnx")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("case", BROKEN)
def test_broken(repository: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, place, words = BROKEN[case]
    (repository / "models.yml").write_text(text)
    assert main(["run"]) == 2
    said = capsys.readouterr().err
    assert f"models.yml:{place}: " in said
    assert words in said
    assert "Traceback" not in said


def test_every_problem_is_reported_in_file_order(repository: Path) -> None:
    text = GOOD.replace("[onnx]", "[onxx, 'onnx:int9']") + "    samples: none.npz\n"
    (repository / "models.yml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        reader.load(Path("models.yml"))
    assert [str(p.place) for p in caught.value.problems] == [
        "models.yml:5:15",
        "models.yml:5:21",
        "models.yml:6:14",
    ]


def test_missing_manifest(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing.yml"]) == 2
    assert "nothing.yml:1:1: there is no file" in capsys.readouterr().err


def test_links_may_not_leave_the_repository(repository: Path) -> None:
    outside = write_linear(repository.parent / "outside.onnx")
    (repository / "link.onnx").symlink_to(outside)
    (repository / "models.yml").write_text(GOOD.replace("model.onnx", "link.onnx"))
    with pytest.raises(ManifestError, match="leaves the repository"):
        reader.load(Path("models.yml"))


def test_aliases_cannot_expand_without_end(repository: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    names = "abcdefgh"
    for before, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    text = "\n".join(lines) + "\n" + GOOD.replace("[onnx]", "[{openvino: {scheme: *h}}]")
    (repository / "models.yml").write_text(text)
    with pytest.raises(ManifestError, match="expands without end"):
        reader.load(Path("models.yml"))


def test_defaults_merge_keys_and_forms_of_targets(repository: Path) -> None:
    (repository / "models.yml").write_text(
        "version: 1\ndefaults:\n  tolerance: {cosine: 0.5, int8: {cosine: 0.25}}\n  limits: "
        "{max_size: 5MB, max_latency: 2s}\n"
        "models:\n  - name: a\n    source: {path: model.onnx}\n    resources: {timeout: 2m, "
        "memory: 1GiB}\n"
        "    targets:\n      - onnx\n      - onnx:int8\n      - openvino: {precision: [fp16, "
        "int8], scheme: symmetric}\n"
    )
    model = reader.load(Path("models.yml")).models[0]
    ids = [(v.target, v.precision) for v in model.variants]
    assert ids == [("onnx", "fp32"), ("onnx", "int8"), ("openvino", "fp16"), ("openvino", "int8")]
    assert [v.tolerance.cosine for v in model.variants] == [0.5, 0.25, 0.5, 0.25]
    assert model.variants[0].limits.max_size == 5_000_000
    assert model.variants[0].limits.max_latency_ms == 2000
    assert model.variants[2].options["scheme"] == "symmetric"
    assert (model.timeout_s, model.memory_bytes) == (120, 2**30)


def test_state_and_texts(repository: Path) -> None:
    inputs = (
        "    inputs: {x: {shape: [batch, 1], dtype: string}, h: {shape: [batch, 4]}}\n    "
        "state: {next: h}\n"
    )
    (repository / "models.yml").write_text(GOOD + inputs)
    model = reader.load(Path("models.yml")).models[0]
    assert model.state == {"next": "h"}
    assert [s.dtype for s in model.source.inputs] == ["object", "float32"]
    jsonschema.validate(yaml.safe_load(GOOD + inputs), schema.make_models_schema())


@pytest.mark.parametrize("example", ["digits", "minilm", "keras", "ready"])
def test_examples_are_valid_by_reader_and_schema(examples: Path, example: str) -> None:
    path = examples / example / "models.yml"
    assert reader.load(path).models
    jsonschema.validate(yaml.safe_load(path.read_text()), schema.make_models_schema())


def test_a_looser_cosine_loosens_what_follows_of_it() -> None:
    """Numbers of mean 0 with the cosine 0.9 differ by 0.45 of their spread."""
    merge = reader._merge_tolerances
    loose = merge("int8", {"*": {"cosine": 0.9}})
    assert (loose.cosine, loose.nrmse) == (0.9, pytest.approx(0.447, abs=1e-3))
    assert merge("int8", {"*": {"cosine": 0.99}}).nrmse == 0.2
    assert merge("int8", {"*": {"cosine": 0.9, "nrmse": 0.3}}).nrmse == 0.3
    exact = merge("fp32", {"fp32": {"cosine": 0.98}})
    assert (exact.nrmse, exact.nrmse_row) == (pytest.approx(0.2), None)
    assert exact.max_rel == 1e-3


OWN_SOURCE = '''"""Files that end in .own."""
OPTIONS = {
    "depth": {"type": "integer", "default": 3, "description": "how deep"},
    "note": {"type": "string", "description": "no default"},
}


def detect(path):
    return path.suffix == ".own"


def export(config, out):
    raise NotImplementedError


def load(config):
    raise NotImplementedError


def check(config):
    config.options["depth"]
'''
OWN_TARGET = '''"""Writes nothing."""
PRECISIONS = {"fp32": None, "bf16": None}


def write(model, out, *, precision, options, name, calibration):
    raise NotImplementedError
'''


@pytest.fixture
def own_plugins(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registered target with a precision that mconv itself has not, and a source with options."""
    (repository / "own_source.py").write_text(OWN_SOURCE)
    (repository / "own_target.py").write_text(OWN_TARGET)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    monkeypatch.syspath_prepend(str(repository))
    registry.plugins.cache_clear()
    registry.register("sources", "own_source")
    registry.register("targets", "own_target")
    yield
    registry.plugins.cache_clear()
    del sys.modules["own_source"], sys.modules["own_target"]


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("model.own", {"depth": 3}),
        ("{path: model.own}", {"depth": 3}),
        ("{path: model.own, depth: 5}", {"depth": 5}),
        ("{format: own_source, path: model.own, note: a}", {"depth": 3, "note": "a"}),
    ],
)
@pytest.mark.usefixtures("own_plugins")
def test_options_of_a_source_have_their_defaults(
    repository: Path, source: str, options: dict[str, object]
) -> None:
    (repository / "model.own").touch()
    (repository / "models.yml").write_text(GOOD.replace("model.onnx", source))
    assert reader.load(Path("models.yml")).models[0].source.options == options
    (found,) = (each for each in find(repository) if each.path == "model.own")
    assert (found.source, found.needs) == ("own_source", ())


@pytest.mark.usefixtures("own_plugins")
def test_a_precision_of_a_plug_in_alone_has_no_tolerance_but_the_manifest_s(
    repository: Path,
) -> None:
    text = GOOD.replace("[onnx]", "['own_target:bf16']")
    (repository / "models.yml").write_text(text)
    (variant,) = reader.load(Path("models.yml")).models[0].variants
    assert variant.tolerance == Tolerance()
    text += "    tolerance: {max_rel: 0.1, bf16: {cosine: 0.99}}\n"
    (repository / "models.yml").write_text(text)
    (variant,) = reader.load(Path("models.yml")).models[0].variants
    assert variant.tolerance == Tolerance(cosine=0.99, max_rel=0.1)
    jsonschema.validate(yaml.safe_load(text), schema.make_models_schema())


def test_a_precision_that_nothing_offers_has_no_tolerance(repository: Path) -> None:
    (repository / "models.yml").write_text(GOOD + "    tolerance: {fp17: {cosine: 0.99}}\n")
    with pytest.raises(ManifestError, match="fp17"):
        reader.load(Path("models.yml"))


NET = "def build():\n    return 1\n"
MODELS = "version: 1\ndefaults: {{targets: [onnx]}}\nmodels:\n  - name: a\n    source: {}\n"
INPUTS = "    inputs: {x: {shape: [batch, 2]}}\n"


def read_source(folder: Path, text: str, where: str = "models.yml") -> SourceConfig:
    """The source of the one model of a manifest, which the schema takes as well."""
    jsonschema.validate(yaml.safe_load(text), schema.make_models_schema())
    (folder / where).parent.mkdir(exist_ok=True)
    (folder / where).write_text(text)
    return reader.load(folder / where).models[0].source


@pytest.mark.parametrize("key", ["pythonpath: lib", "pythonpath: [lib, .]"])
@pytest.mark.parametrize("place", ["model", "defaults"])
def test_code_is_found_from_the_folders_that_are_named(
    repository: Path, key: str, place: str
) -> None:
    (repository / "lib").mkdir()
    (repository / "lib/net.py").write_text(NET)
    text = MODELS.format("{format: pytorch, factory: 'net:build'}") + INPUTS
    with pytest.raises(ManifestError, match=r"pythonpath: \[lib\]"):
        read_source(repository, text)
    if place == "model":
        text += f"    {key}\n"
    else:
        text = text.replace("{targets", f"{{{key}, targets")
    source = read_source(repository, text)
    assert source.pythonpath == (str(repository / "lib"),)
    assert (source.format, source.path) == ("pytorch", "")


def test_pyproject_says_where_code_is_found_and_what_is_named_goes_first(repository: Path) -> None:
    for folder in ("src", "lib", ".git", "deploy"):
        (repository / folder).mkdir()
    (repository / "src/net.py").write_text(NET)
    (repository / "pyproject.toml").write_text("[tool.pytest]\npythonpath = ['src']\n")
    text = MODELS.format("{format: pytorch, factory: 'net:build'}") + INPUTS
    assert read_source(repository, text).pythonpath == (str(repository / "src"),)
    above = text + "    pythonpath: ../lib\n"
    assert read_source(repository, above, "deploy/models.yml").pythonpath == tuple(
        str(repository / name) for name in ("lib", "src", "")
    )


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("nowhere", "no file 'nowhere'"),
        ("../outside", "leaves the repository"),
        ("model.onnx", "is a file"),
    ],
)
def test_folders_of_code_are_folders_of_the_repository(
    repository: Path, folder: str, words: str
) -> None:
    (repository.parent / "outside").mkdir()
    (repository / "models.yml").write_text(f"{GOOD}    pythonpath: [{folder}]\n")
    with pytest.raises(ManifestError, match=words):
        reader.load(Path("models.yml"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{factory: 'net:build'}", "without a `path` could be jax or pytorch or sklearn"),
        ("{format: onnx}", "lacks the key 'path'"),
        ("{format: pytorch}", "lacks the key 'path'"),
        ("{format: pytorch, translations: 'net:build'}", "lacks the key 'path'"),
        ("{}", "lacks the key 'path'"),
    ],
)
def test_a_source_without_a_path_needs_a_factory_and_a_format(
    repository: Path, source: str, words: str
) -> None:
    (repository / "net.py").write_text(NET)
    (repository / "models.yml").write_text(MODELS.format(source) + INPUTS)
    with pytest.raises(ManifestError, match=words):
        reader.load(Path("models.yml"))


@pytest.mark.usefixtures("own_plugins")
def test_the_format_is_known_where_one_source_alone_takes_the_option(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["own_source"], "INSTEAD_OF_PATH", ("note",), raising=False)
    registry.plugins.cache_clear()
    source = read_source(repository, MODELS.format("{note: made}"))
    assert (source.format, source.path) == ("own_source", "")


@pytest.mark.parametrize(("text", "value"), [("", False), ("network: true", True)])
def test_the_network_is_closed_unless_it_is_opened(tmp_path: Path, text: str, value: bool) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    path = tmp_path / "models.yml"
    path.write_text(
        "version: 1\nmodels:\n  - name: m\n    source: {path: m.onnx, format: onnx}\n"
        f"    targets: [onnx]\n    {text}\n"
    )
    assert reader.load(path).models[0].network is value


def test_a_network_that_is_neither_open_nor_closed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    path = tmp_path / "models.yml"
    path.write_text(
        "version: 1\nmodels:\n  - name: m\n    source: {path: m.onnx, format: onnx}\n"
        "    targets: [onnx]\n    network: sometimes\n"
    )
    with pytest.raises(ManifestError, match="true or false"):
        reader.load(path)
