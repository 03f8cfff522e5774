"""Digests of files and code."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from mconv.planning import keys
from mconv.store.digests import Digests


def test_files_count_by_name_and_content_whatever_their_order(tmp_path: Path) -> None:
    for name, text in {"a": "1", "b": "2"}.items():
        (tmp_path / name).write_text(text)
    a, b = tmp_path / "a", tmp_path / "b"
    digest = keys.digest_files([a, b], tmp_path, Digests())
    assert digest == keys.digest_files([b, a, b], tmp_path, Digests())
    lines = [f"{n}\0{hashlib.sha256(t).hexdigest()}\n" for n, t in (("a", b"1"), ("b", b"2"))]
    assert digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    b.rename(tmp_path / "c")
    assert digest != keys.digest_files([a, tmp_path / "c"], tmp_path, Digests())


def test_a_file_is_named_by_its_way_from_the_root_and_one_outside_by_its_bare_name(
    tmp_path: Path,
) -> None:
    root = tmp_path / "repository"
    for folder in (root / "x", root / "y", tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "w").write_text("1")
    content = hashlib.sha256(b"1").hexdigest()
    for path, name in (("x/w", "x/w"), ("y/w", "y/w"), ("../outside/w", "w")):
        digest = keys.digest_files([root / path], root, Digests())
        assert digest == hashlib.sha256(f"{name}\0{content}\n".encode()).hexdigest()
    (tmp_path / ".git").mkdir()  # outside of the manifest's folder, yet of the repository
    digest = keys.digest_files([root / "../outside/w"], root, Digests())
    assert digest == hashlib.sha256(f"../outside/w\0{content}\n".encode()).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules of another distribution: a plug-in, its helper package, and what both import."""
    folder = tmp_path / "code"
    (folder / "plug/_helper").mkdir(parents=True)
    (folder / "plug/__init__.py").write_text("")
    (folder / "plug/main.py").write_text("def work():\n    from mconv import errors\n")
    monkeypatch.syspath_prepend(str(folder))
    for cached in (keys.digest_code, keys._read_source, keys._find_module_file):
        cached.cache_clear()
    return folder


def clear() -> None:
    for cached in (keys.digest_code, keys._read_source, keys._find_module_file):
        cached.cache_clear()


def test_code_counts_with_all_of_mconv_that_it_imports(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys.digest_code("plug.main")
    clear()
    assert keys.digest_code("plug.main") == before
    real = keys.hash_file
    monkeypatch.setattr(keys, "hash_file", lambda p: "x" if p.name == "errors.py" else real(p))
    clear()
    assert keys.digest_code("plug.main") != before
    monkeypatch.setattr(keys, "hash_file", lambda p: "x" if p.name == "hardware.py" else real(p))
    clear()
    assert keys.digest_code("plug.main") == before  # which errors.py does not import
    clear()


IMPORTS = {
    "from plug import helper": True,
    "from plug.helper import add": True,
    "import plug.helper": True,
    "from . import helper": True,
    "from .helper import add": True,
    "from .deep import through": True,  # which imports it from two levels up
    "from .deep.level import through": True,
    "from . import other": False,
    "import helper": False,
}


@pytest.mark.parametrize(("statement", "counts"), IMPORTS.items())
def test_code_counts_with_what_it_imports_of_its_own_distribution(
    package: Path, statement: str, counts: bool
) -> None:
    (package / "plug/deep").mkdir()
    (package / "plug/deep/__init__.py").write_text("from .level import through\n")
    (package / "plug/deep/level.py").write_text("from ..helper import add as through\n")
    (package / "plug/helper.py").write_text("add = sum\n")
    (package / "plug/other.py").write_text("raise SystemExit('imported')\n")
    (package / "plug/main.py").write_text(f"def work():\n    {statement}\n")
    before = keys.digest_code("plug.main")
    (package / "plug/helper.py").write_text("add = max\n")
    clear()
    assert (keys.digest_code("plug.main") != before) is counts
    assert not [name for name in sys.modules if name.partition(".")[0] == "plug"]
    clear()


def test_a_helper_package_counts_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebNN package copies runtime.mjs, which no import names."""
    clear()
    before = keys.digest_code("mconv.targets.webnn")
    real = keys.hash_file
    monkeypatch.setattr(keys, "hash_file", lambda p: "x" if p.name == "runtime.mjs" else real(p))
    clear()
    assert keys.digest_code("mconv.targets.webnn") != before
    clear()


def test_an_unknown_module_has_a_digest_too() -> None:
    assert keys.digest_code("no.such.module") != keys.digest_code("no.other.module")
