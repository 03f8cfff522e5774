"""docs/plugins.md: every function with its signature, and one worked example a family, which is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mconv import contracts, registry
from mconv.contracts import FUNCTIONS, Plugin, find_signature_problem, read_signature
from mconv.errors import MconvError
from tests.conftest import ROOT

PAGE = (ROOT / "docs/plugins.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\w+/\w+\.py)\n(.*?)```", PAGE, re.S))
ALL = [(family, name) for family in registry.FAMILIES for name in registry.plugins(family)]


@pytest.mark.parametrize("kind", FUNCTIONS, ids=lambda kind: kind.__name__)
def test_every_function_is_shown_with_its_signature(kind: type[Plugin]) -> None:
    page = " ".join(PAGE.replace("\\|", "|").split())
    for name, protocol in FUNCTIONS[kind].items():
        assert f"`{name}{read_signature(protocol)}`".replace("'", "") in page


def test_there_is_an_example_of_each_family() -> None:
    assert {name.split("/")[0] for name in EXAMPLES} == set(registry.FAMILIES)


@pytest.mark.parametrize(("family", "name"), ALL)
def test_every_plug_in_can_be_called_as_its_family_is(family: registry.Family, name: str) -> None:
    contracts.check_signatures(registry.plugins(family)[name])


def write_lacking(model: Path, out: Path, *, precision: str) -> None:
    """A write() as one would guess it."""


def write_any(*arguments: object, **options: object) -> None:
    """A write() that takes anything."""


def test_a_function_of_another_signature_is_refused_with_both(tmp_path: Path) -> None:
    assert find_signature_problem(write_any, contracts.WriteArtifact) is None
    problem = find_signature_problem(write_lacking, contracts.WriteArtifact)
    assert problem is not None
    assert "options" in problem
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "guessed.py").write_text(
        '"""A guess."""\nPRECISIONS = {"fp32": None}\ndef write(model, out, *, precision): ...\n'
    )
    sys.path.insert(0, str(folder))
    try:
        with pytest.raises(
            MconvError, match=r"guessed.write\(\) does not fit.*is called as write\("
        ):
            registry.register("targets", "guessed")
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples as modules, and a program that registers them all."""
    folder = tmp_path_factory.mktemp("documented")
    for name, text in EXAMPLES.items():
        family, file = name.split("/")
        path = folder / f"own_{family}" / file
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    lines = [
        f"api.register({f!r}, 'own_{f}.{n[:-3]}')" for f, n in (e.split("/") for e in EXAMPLES)
    ]
    (folder / "own.py").write_text("from mconv import api\n" + "\n".join(lines) + "\n")
    (folder / "m.table").write_text("1,2,3\n4,5,6.5\n")
    return folder


def call(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import own\nfrom mconv import api\n{code}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_convert_a_model_and_prove_it(extended: Path) -> None:
    """A source that only the examples know becomes a target that only they know, optimized and
    quantized by theirs, and the numbers are those of NumPy."""
    code = """
targets = ["labelled", {"labelled": {"as": "sized", "dims": "batch by two"}},
           {"onnx": {"precision": "int8", "method": "coarse", "steps": 64}}]
report = api.convert("m.table", targets, measure=False)
import json
print(json.dumps([[v.id, v.status, [s.name for s in v.steps], v.verification and v.verification.outputs[0].cosine] for v in report.variants]))
"""
    results = {v[0]: v for v in json.loads(call(extended, code).splitlines()[-1])}
    assert {status for _, status, _, _ in results.values()} == {"passed"}, results
    assert results["m/labelled/fp32"][2][:3] == ["table", "table", "onnxscript"]
    assert results["m/onnx/int8"][2][3] == "coarse"
    assert results["m/labelled/fp32"][3] > 0.9999999
    label = json.loads((extended / "out/m/sized-fp32/label.json").read_text())
    assert label == {"name": "m", "precision": "fp32", "dims": "batch by two"}


def test_the_manifest_of_the_page_passes(extended: Path) -> None:
    (manifest,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    (extended / "models.yml").write_text(manifest)
    code = """
report = api.run("models.yml", out=None, measure=False)
print([[v.id, v.status] for v in report.variants])
"""
    shown = call(extended, code).splitlines()[-1]
    assert shown == "[['layer/labelled/fp32', 'passed'], ['layer/onnx/int8', 'passed']]"


def test_the_entry_points_of_the_page_name_families_and_modules() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    groups = tomllib.loads(text)["project"]["entry-points"]
    for group, entries in groups.items():
        family = group.removeprefix("mconv.")
        for name, module in entries.items():
            assert f"{family}/{name}.py" in EXAMPLES
            assert module == f"my_formats.{name}"


def test_the_examples_optimize_run_and_recognise(extended: Path) -> None:
    code = """
import json
from pathlib import Path
from mconv import registry
Path("t").mkdir(exist_ok=True)
quiet = registry.optimizers()["quiet"].optimize(Path("out/m/labelled-fp32/model.onnx"), Path("t/model.onnx"), level="basic")
session = registry.runtimes()["reference"].load(Path("t"), options={}, threads=1, precision="fp32")
import numpy as np
answer = session.run({"x": np.array([[1, 10]], np.float32)})["y"].tolist()
print(json.dumps([quiet, answer, session.placement().nodes, [f.format for f in api.find(".") if f.path == "m.table"], api.check("m.table").verdict]))
"""
    quiet, answer, nodes, formats, verdict = json.loads(call(extended, code).splitlines()[-1])
    assert quiet == {"removed": 0}
    assert answer == [[41.0, 52.0, 68.0]]  # by hand: 1·1 + 10·4 …
    assert (nodes, formats, verdict) == (1, ["table"], "passed")


def test_the_examples_keep_the_contract_as_another_distribution(extended: Path) -> None:
    """The driver runs them as it runs mconv's own, found by their entry points."""
    # its runtime runs plain ONNX alone
    target = EXAMPLES["targets/labelled.py"].replace(
        'RUNTIMES = ("onnxruntime",)', "RUNTIMES = ['reference']"
    )
    (extended / "own_targets/referenced.py").write_text(
        target.replace(', "int8": "int8_dynamic"', "")
    )
    groups: dict[str, list[str]] = {"targets": ["referenced = own_targets.referenced"]}
    for name in EXAMPLES:
        family, file = name.removesuffix(".py").split("/")
        groups.setdefault(family, []).append(f"{file} = own_{family}.{file}")
    metadata = extended / "documented-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: documented\nVersion: 1.0\n")
    lines = [f"[mconv.{family}]\n" + "\n".join(entries) for family, entries in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    names = [file.removesuffix(".py") for _, file in (name.split("/") for name in EXAMPLES)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/contract/test_plugins.py", "-q"),
            *("-p", "no:cacheprovider", "-k", " or ".join([*names, "referenced"])),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{extended}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
