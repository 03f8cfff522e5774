"""Modules are found where Python would find them, and what is not there is said with where it was
looked for."""

from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

import pytest

from mconv.modules import search


def write(root: Path, *paths: str, text: str = "") -> None:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


LAID = (
    "a/net.py",
    "a/pkg/__init__.py",
    "a/pkg/sub.py",
    "a/part/one.py",
    "a/both/here.py",
    "b/net.py",
    "b/part/two.py",
    "b/both/__init__.py",
    "b/both/there.py",
    "b/fast.cpython-311-x86_64-linux-gnu.so",
    "b/stale/__pycache__/old.cpython-311.pyc",
)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("net", "a/net.py"),
        ("pkg", "a/pkg/__init__.py"),
        ("pkg.sub", "a/pkg/sub.py"),
        ("pkg.nothing", None),
        ("net.inner", None),
        ("part.one", "a/part/one.py"),  # a namespace package of two portions
        ("part.two", "b/part/two.py"),
        ("both.there", "b/both/there.py"),  # a package goes before a bare folder
        ("both.here", None),
        ("fast", "b/fast.cpython-311-x86_64-linux-gnu.so"),
        ("stale.old", None),
        ("no-name", None),
        ("", None),
        ("pkg..sub", None),
    ],
)
def test_a_module_is_found_as_python_finds_it(tmp_path: Path, name: str, file: str | None) -> None:
    write(tmp_path, *LAID)
    folders = [tmp_path / "a", tmp_path / "b"]
    found = search.find_module(name, folders)
    assert (found and found.file) == (file and tmp_path / file)
    if name.count(".") == 0 and name.isidentifier() and sys.version_info[:2] == (3, 11):
        spec = importlib.machinery.PathFinder.find_spec(name, list(map(str, folders)))
        assert spec is not None
        assert spec.origin == (file and str(tmp_path / file))


def test_a_bare_folder_is_a_package_without_a_file(tmp_path: Path) -> None:
    write(tmp_path, *LAID)
    found = search.find_module("part", [tmp_path / "a", tmp_path / "b"])
    assert found == search.Module(None, (tmp_path / "a/part", tmp_path / "b/part"))


def test_packages_that_are_installed_editable_are_found(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    write(tmp_path, "one/alpha.py", "two/src/beta/__init__.py", "three/gamma.py")
    write(site, "installed.py", "broken.pth", "gone.pth")
    (site / "a.pth").write_text(f"# a comment\nimport os\n{tmp_path / 'one'}\n../nowhere\n")
    (site / "b.pth").write_bytes(b"\xff\xfe\n../three\n")
    (site / "__editable___beta_1_0_finder.py").write_text(
        f"from x import y\nMAPPING: dict[str, str] = {{'beta': '{tmp_path}/two/src/beta'}}\n"
    )
    folders = search.list_package_folders([site, tmp_path / "absent"])
    for name in ("installed", "alpha", "beta", "gamma"):
        assert search.find_module(name, folders) is not None, name
    assert search.find_module("nowhere", folders) is None


def test_names_are_those_that_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, *LAID, "b/no-name.py", "b/read.me", "b/typed.pyi", "b/bare.so")
    assert search.list_names([tmp_path / "b", tmp_path / "nowhere"]) == {
        *("net", "part", "both", "fast", "stale", "bare")
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write(tmp_path, ".git/HEAD", "src/mynet/__init__.py", "src/mynet/model.py", "deploy/models.yml")
    write(tmp_path, "packages/extra/thing.py", ".venv/pyvenv.cfg", ".venv/hidden.py", "env/own.py")
    write(tmp_path, "env/pyvenv.cfg")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "root", "words", "remedy"),
    [
        ("mynet.model", ".", "in the manifest's folder.", "pythonpath: [src]"),
        ("mynet.model", "deploy", "in the manifest's folder.", "pythonpath: [../src]"),
        ("src.mynet.model", "deploy", "in the manifest's folder.", "pythonpath: [..]"),
        ("thing", ".", "no module 'thing'", "pythonpath: [packages/extra]"),
        ("mynt", ".", "no module 'mynt'", "packages: [mynt]"),
        ("cv2", ".", "no module 'cv2'", "packages: [opencv-python-headless]"),
        ("distutils.util", ".", "no module 'distutils.util'", 'python: "3.11"'),
        ("hidden", ".", "no module 'hidden'", "packages: [hidden]"),
        ("own", ".", "no module 'own'", "packages: [own]"),
        ("src.mynet.modl", ".", "has no module 'modl'. Perhaps you meant 'model'?", "check"),
        ("src.mynt", ".", "has no module 'mynt'. Perhaps you meant 'mynet'?", "packages"),
    ],
)
def test_what_is_missing_is_said_with_what_mends_it(
    repository: Path, name: str, root: str, words: str, remedy: str
) -> None:
    root_folder = (repository / root).resolve()
    if name == "src.mynet.modl":
        write(repository, "src/__init__.py")
    missing = search.describe_missing(name, root_folder, ())
    assert words in missing.message
    assert remedy in missing.hint
    page = "manifest" if "pythonpath" in remedy else "environments"
    assert f"docs/{page}.md" in missing.hint or remedy == "check"


def test_every_place_is_named_and_the_nearest_name_is_suggested(repository: Path) -> None:
    site = repository / "outside/site-packages"
    write(site, "timm/__init__.py")
    missing = search.describe_missing("tim", repository, [repository / "src"], [site])
    assert missing.message == (
        "there is no module 'tim'; it was looked for in the manifest's folder, src and the "
        f"packages in {site}. Perhaps you meant 'timm'?"
    )


def test_what_lies_in_a_module_that_is_no_package_is_said(repository: Path) -> None:
    missing = search.describe_missing("mynet.model.inner", repository, [repository / "src"])
    assert "'mynet.model' is no package" in missing.message
    assert "check the name" in missing.hint


def test_the_repository_is_the_folder_above_that_git_knows(repository: Path) -> None:
    assert search.find_repository(repository / "deploy") == repository
    assert search.find_layout("mynet", repository / "deploy") == repository / "src"
    assert search.find_layout("nothing", repository / "deploy") is None
    (repository / ".git/HEAD").unlink()
    (repository / ".git").rmdir()
    assert search.find_repository(repository / "deploy") == repository / "deploy"
    assert search.find_layout("mynet", repository / "deploy") is None
