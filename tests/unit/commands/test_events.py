"""One event, one wording, one exit code: whatever the command that meets it."""

from __future__ import annotations

import errno
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mconv import registry
from mconv.__main__ import main
from tests.models import write_linear

MANIFEST = """\
version: 1
models:
  - name: m
    source: {path: m.onnx, format: onnx}
    targets: [onnx]
"""

NO_FILE = "there is no file 'absent'"
NOT_A_FILE = "'folder' cannot be read: Is a directory"
NOT_YAML = "bad.yml:2:10: not valid YAML: while parsing a flow node"
NOT_RESULTS = "bad.json is not a results.json of this mconv"
NOT_MIXED = "is not a mixed.json: "
NO_VARIANT = "no variant matches --only nothing"
NO_TARGET = "'nothing' is not a known target"
NO_FORMAT = "'nothing' is not a known format"
NO_QUANTIZER = "invalid choice: 'nothing'"
NO_STORE = "cannot be used: [Errno 20] Not a directory"
NO_PROTOCOL = "the store 'nothing://bucket' has no protocol that is known"
UNWRITABLE = "cannot be written: text is not a folder"
NO_OPTION = "--option 'nothing' is not NAME=VALUE"

EVENTS = [
    # a file that is not there
    (NO_FILE, 2, "run absent"),
    (NO_FILE, 2, "plan absent"),
    (NO_FILE, 2, "convert absent --to onnx"),
    (NO_FILE, 2, "convert m.onnx --to onnx --samples absent"),
    (NO_FILE, 2, "quantize absent"),
    (NO_FILE, 2, "quantize absent --precision int8"),
    (NO_FILE, 2, "quantize m.onnx --config absent"),
    (NO_FILE, 2, "quantize m.onnx --precision int8-static --calibration absent"),
    (NO_FILE, 2, "verify absent"),
    (NO_FILE, 2, "advise absent"),
    (NO_FILE, 2, "report absent"),
    (NO_FILE, 2, "report absent results.json"),
    (NO_FILE, 2, "publish absent"),
    (NO_FILE, 2, "publish absent --dry-run"),
    (NO_FILE, 2, "run models.yml --baseline absent"),
    ("there is no file 'folder/mconv.json'", 2, "verify folder --samples m.npz"),
    # a folder where a file belongs
    (NOT_A_FILE, 2, "run folder"),
    (NOT_A_FILE, 2, "plan folder"),
    (NOT_A_FILE, 2, "report folder"),
    (NOT_A_FILE, 2, "publish folder"),
    (NOT_A_FILE, 2, "quantize m.onnx --config folder"),
    # a file of another content
    (NOT_YAML, 2, "run bad.yml"),
    (NOT_YAML, 2, "plan bad.yml"),
    (NOT_RESULTS, 2, "report bad.json"),
    (NOT_RESULTS, 2, "publish bad.json"),
    (NOT_RESULTS, 2, "run models.yml --baseline bad.json"),
    (NOT_MIXED, 2, "quantize m.onnx --config bad.json"),
    (NOT_MIXED, 2, "quantize m.onnx --config empty.json"),
    # names that nothing has
    (NO_VARIANT, 2, "run models.yml --only nothing"),
    (NO_VARIANT, 2, "plan models.yml --only nothing"),
    (NO_TARGET, 2, "convert m.onnx --to nothing"),
    (NO_TARGET, 2, "advise m.onnx --target nothing"),
    (NO_FORMAT, 2, "convert m.onnx --to onnx --from nothing"),
    (NO_FORMAT, 2, "advise m.onnx --from nothing"),
    (NO_QUANTIZER, 2, "quantize m.onnx --precision int8 --method nothing"),
    (NO_OPTION, 2, "convert m.onnx --to onnx --option nothing"),
    (NO_OPTION, 2, "advise m.onnx --option nothing"),
    (NO_OPTION, 2, "quantize m.onnx --precision int8 --option nothing"),
    # a store that cannot be one
    (NO_STORE, 3, "run models.yml --store text"),
    (NO_STORE, 3, "plan models.yml --store text"),
    (NO_STORE, 3, "convert m.onnx --to onnx --store text"),
    (NO_STORE, 3, "store list --store text"),
    (NO_STORE, 3, "store prune --store text"),
    (NO_STORE, 3, "store verify --store text"),
    (NO_PROTOCOL, 2, "run models.yml --store nothing://bucket"),
    (NO_PROTOCOL, 2, "plan models.yml --store nothing://bucket"),
    (NO_PROTOCOL, 2, "store list --store nothing://bucket"),
    # a place that cannot be written
    (UNWRITABLE, 2, "run models.yml --out text"),
    (UNWRITABLE, 2, "run models.yml --trace text/trace.json"),
    (UNWRITABLE, 2, "convert m.onnx --to onnx --out text/below"),
    (UNWRITABLE, 2, "quantize m.onnx --precision int8 --out text/m.onnx"),
    (UNWRITABLE, 2, "quantize m.onnx --precision int4 --emit-config text/mixed.json"),
    (UNWRITABLE, 2, "report results.json --out text/report.md"),
    # a file that is there and was not asked to be overwritten
    ("models.yml is there already", 2, "init"),
    ("text is not a folder", 2, "init text"),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its manifest, and files that are not what they should be."""
    folder = tmp_path_factory.mktemp("repository")
    write_linear(folder / "m.onnx")
    (folder / "models.yml").write_text(MANIFEST)
    (folder / "bad.yml").write_text("version: 1\nmodels: [")
    (folder / "bad.json").write_text("{")
    (folder / "empty.json").write_text("{}")
    (folder / "results.json").write_text(RESULTS)
    (folder / "m.npz").touch()
    (folder / "text").write_text("a file where a folder belongs")
    (folder / "folder").mkdir()
    return folder


RESULTS = """\
{"mconv": "0.1.0", "created": "", "manifest": "models.yml", "seconds": 1.0,
 "machine": {"system": "", "cpu": "", "cores": 1, "memory_bytes": 1, "python": ""},
 "summary": {}}
"""


@pytest.mark.parametrize(("words", "code", "line"), EVENTS, ids=[line for _, _, line in EVENTS])
def test_one_event_has_one_wording_and_one_exit_code(
    words: str,
    code: int,
    line: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    before = sorted(os.listdir(repository))
    assert main(line.split()) == code
    error = capsys.readouterr().err
    assert words in error
    assert "fault of mconv" not in error
    # nothing was begun that the error makes pointless
    assert set(os.listdir(repository)) - set(before) <= {".mconv"}


def test_a_disk_that_is_full_is_said_with_the_place(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.chdir(repository)
    monkeypatch.setattr("mconv.store.local.write_text", fail)
    assert main(["report", "results.json", "--out", "report.md"]) == 2
    assert "'report.md' cannot be written: No space left on device" in capsys.readouterr().err


def test_a_store_that_is_not_there_is_empty(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    for line, shown in (
        ("store list --store nowhere", ""),
        ("store prune --store nowhere", "0 of 0 entries removed"),
        ("store verify --store nowhere", "0 entries, 0 damaged"),
        ("plan models.yml --store nowhere --no-measure", "to run"),
    ):
        assert main(line.split()) == 0
        assert shown in capsys.readouterr().out


@pytest.fixture
def broken_plugin(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """A distribution whose target cannot be imported."""
    (tmp_path / "importing_nothing.py").write_text(
        '"""Needs what is not there."""\nimport no_such_module\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(repository)
    entry = importlib.metadata.EntryPoint("broken", "importing_nothing", "mconv.targets")
    real = importlib.metadata.entry_points

    def entry_points(**wanted: str) -> object:
        return [entry] if wanted == {"group": "mconv.targets"} else real(**wanted)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry.plugins.cache_clear()
    yield
    registry.plugins.cache_clear()


@pytest.mark.parametrize(
    "line",
    [
        "list",
        "schema models",
        "run models.yml",
        "plan models.yml",
        "convert m.onnx --to onnx",
        "advise m.onnx",
        "quantize m.onnx --precision int8",
    ],
)
@pytest.mark.usefixtures("broken_plugin")
def test_a_plug_in_that_cannot_be_imported_is_named(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 3
    error = capsys.readouterr().err
    assert "the plug-in importing_nothing cannot be imported: ModuleNotFoundError" in error
    assert "fault of mconv" not in error
