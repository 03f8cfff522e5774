"""Functions that a manifest names: whatever Python would import is found, run and listed for the
content key; what is not there is said before anything runs."""

from __future__ import annotations

import code
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import test as stdlib_test

from mconv.errors import SourceError, UsageError
from mconv.sources import _factory
from mconv.values import SourceConfig

BUILD = "def build():\n    return __name__, __file__\n"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """An empty repository; what is imported from it is forgotten afterwards."""
    (tmp_path / "repository/.git").mkdir(parents=True)
    before, path = dict(sys.modules), list(sys.path)
    yield tmp_path / "repository"
    sys.modules.clear()
    sys.modules.update(before)
    sys.path[:] = path


def write(repository: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def config(repository: Path, factory: str, *pythonpath: str, root: str = "") -> SourceConfig:
    return SourceConfig(
        format="own",
        path="",
        root=str(repository / root),
        options={"factory": factory},
        pythonpath=tuple(str(repository / folder) for folder in pythonpath),
    )


def run(at: SourceConfig) -> object:
    _factory.check_option(at, "factory")
    return _factory.import_function(at, "factory")()


def listed(at: SourceConfig, repository: Path) -> list[str]:
    files = _factory.list_files(at, "factory")
    return [path.relative_to(repository).as_posix() for path in files]


PACKAGE = {
    "src/pkg/__init__.py": "from .parts import width\n",
    "src/pkg/parts.py": "width = 3\n",
    "src/pkg/net.py": f"from . import width\nfrom pkg import parts\n{BUILD}",
}


@pytest.mark.parametrize(
    ("files", "factory", "pythonpath", "name", "file"),
    [
        ({"net.py": BUILD}, "net:build", (), "net", "net.py"),
        (PACKAGE, "pkg.net:build", ("src",), "pkg.net", "src/pkg/net.py"),
        (PACKAGE, "src/pkg/net.py:build", ("src",), "pkg.net", "src/pkg/net.py"),
        # the package that a file is in is imported from where it lies
        (PACKAGE, "src/pkg/net.py:build", (), "pkg.net", "src/pkg/net.py"),
        # folders without __init__.py
        ({"a/b/net.py": BUILD}, "a.b.net:build", (), "a.b.net", "a/b/net.py"),
        (
            {"src/a/net.py": f"from .c import x\n{BUILD}", "src/a/c.py": "x = 1"},
            *("a.net:build", ("src",), "a.net", "src/a/net.py"),
        ),
        (
            {"src/a/net.py": f"from .c import x\n{BUILD}", "src/a/c.py": "x = 1"},
            *("src/a/net.py:build", ("src",), "a.net", "src/a/net.py"),
        ),
        (
            {"src/a/net.py": f"from a.c import x\n{BUILD}", "src/a/c.py": "x = 1", "a/d.txt": ""},
            *("a.net:build", ("src",), "a.net", "src/a/net.py"),
        ),
        # a script's neighbours
        (
            {"tools/net.py": f"import helpers\n{BUILD}", "tools/helpers.py": ""},
            *("tools/net.py:build", (), "tools.net", "tools/net.py"),
        ),
        # names that Python, or mconv, has as well
        ({"test/net.py": BUILD}, "test.net:build", (), "test.net", "test/net.py"),
        ({"test/__init__.py": BUILD}, "test:build", (), "test", "test/__init__.py"),
        ({"code.py": BUILD}, "code:build", (), "code", "code.py"),
        ({"tests/net.py": BUILD}, "tests.net:build", (), "tests.net", "tests/net.py"),
        (
            {
                "utils.py": "x = 1",
                "data/__init__.py": "from utils import x",
                "model.py": f"import data\n{BUILD}",
            },
            *("model:build", (), "model", "model.py"),
        ),
        # names that no import statement has
        ({"my-net.py": BUILD}, "my-net.py:build", (), "mconv_factory_my-net", "my-net.py"),
        ({"io.py": BUILD}, "io.py:build", (), "mconv_factory_io", "io.py"),
        ({"mconv/net.py": BUILD}, "mconv/net.py:build", (), "mconv_factory_net", "mconv/net.py"),
        # what is called, and how
        (
            {"net.py": "def build(width=16, *, depth=2):\n    return __name__, __file__\n"},
            *("net:build", (), "net", "net.py"),
        ),
        (
            {"net.py": f"{BUILD}if __name__ == '__main__':\n    raise SystemExit('a script')\n"},
            *("net:build", (), "net", "net.py"),
        ),
        (
            {
                "net.py": "class Net:\n    @classmethod\n    def build(cls):\n"
                "        return __name__, __file__\n"
            },
            *("net:Net.build", (), "net", "net.py"),
        ),
        (
            {"pkg/__init__.py": "", "pkg/net.py": BUILD, "go.py": "from pkg.net import build"},
            *("go:build", (), "pkg.net", "pkg/net.py"),
        ),
    ],
)
def test_a_function_of_the_repository_is_run(
    repository: Path,
    files: dict[str, str],
    factory: str,
    pythonpath: tuple[str, ...],
    name: str,
    file: str,
) -> None:
    write(repository, files)
    at = config(repository, factory, *pythonpath)
    assert run(at) == (name, str(repository / file))
    assert run(at) == (name, str(repository / file))
    code_files = sorted(path for path in files if path.endswith(".py"))
    assert listed(at, repository) == code_files
    assert _factory.list_foreign(at, "factory") == []


def test_the_modules_of_others_come_back_after_the_repositorys_have_run(repository: Path) -> None:
    text = "import test.net\ndef build():\n    import code, test.net\n    return code, test.net"
    write(repository, {"code.py": "", "test/net.py": "", "net.py": text})
    modules = run(config(repository, "net:build"))
    assert isinstance(modules, tuple)
    files = [Path(module.__file__).relative_to(repository) for module in modules]
    assert files == [Path("code.py"), Path("test/net.py")]
    assert sys.modules["code"] is code
    assert sys.modules["test"] is stdlib_test
    assert not any("LocalModules" in repr(finder) for finder in sys.meta_path)


def test_what_python_and_mconv_are_made_of_stays_in_its_place(repository: Path) -> None:
    text = "import mconv.own, sys.more, os, time\n" + BUILD
    write(repository, {"mconv/own.py": "", "sys/more.py": "", "os.py": "", "time.py": ""})
    write(repository, {"net.py": text.replace("mconv.own, sys.more, ", "")})
    assert run(config(repository, "net:build")) == ("net", str(repository / "net.py"))
    write(repository, {"late.py": text})
    own = sys.modules["mconv"]
    with pytest.raises(SourceError, match=r"No module named 'mconv\.own'"):
        run(config(repository, "late:build"))
    assert sys.modules["mconv"] is own


def test_installed_modules_are_run_and_named(repository: Path) -> None:
    write(repository, {"json/data.txt": "", "os.txt": ""})
    assert run(config(repository, "collections:OrderedDict")) == {}
    assert run(config(repository, "json:JSONDecoder")) is not None
    assert run(config(repository, "msgspec.json:Encoder")) is not None
    assert _factory.list_foreign(config(repository, "msgspec.json:Encoder"), "factory") == [
        "msgspec"
    ]
    assert _factory.list_foreign(config(repository, "json:loads"), "factory", "other") == []
    assert listed(config(repository, "msgspec.json:Encoder"), repository) == []


WRONG = {
    "no function": ("net", "not of the form module:function"),
    "no module": (":build", "not of the form"),
    "a path without a suffix": ("src/net:build", "not of the form"),
    "no name": ("net:buil d", "not of the form"),
    "two colons": ("net:a:b", "not of the form"),
    "a module that is not there": (
        "pkg.nat:build",
        "has no module 'nat'. Perhaps you meant 'net'?",
    ),
    "a layout that is not named": ("inner.net:build", "pythonpath: [src]"),
    "a file that is not there": ("pkg/nett.py:build", "no file 'pkg/nett.py'. Perhaps you meant"),
    "a file outside": ("../net.py:build", "leaves the repository"),
    "a link outside": ("link.py:build", "leaves the repository"),
    "a function that is not there": (
        "pkg.net:biuld",
        "defines no 'biuld'. Perhaps you meant 'build'?",
    ),
    "one of a script": ("script:build", "only where it is run as a script"),
    "arguments": ("pkg.net:needs", "needs the arguments path; mconv gives it none"),
    "Python's own": ("io:build", "one of Python's own"),
    "mconv's own": ("mconv.net:build", "mconv itself"),
    "in a module": ("pkg.net.build:x", "is no package"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_surely_wrong_is_said_before_anything_runs(repository: Path, case: str) -> None:
    factory, words = WRONG[case]
    fails = "raise SystemExit('it was run')\n"
    write(
        repository,
        {
            "pkg/__init__.py": fails,
            "pkg/net.py": f"{fails}{BUILD}def needs(path): pass\n",
            "src/inner/__init__.py": fails,
            "src/inner/net.py": BUILD,
            "script.py": f"{fails}if __name__ == '__main__':\n    def build(): pass\n",
            "io.py": BUILD,
            "mconv/net.py": BUILD,
            "../net.py": BUILD,
        },
    )
    (repository / "link.py").symlink_to(repository.parent / "net.py")
    with pytest.raises(UsageError, match=re.escape(words)):
        _factory.check_option(config(repository, factory), "factory")


@pytest.mark.parametrize(
    "init", ["from x import *", "__path__ = extend_path(__path__, __name__)", "def ("]
)
def test_a_package_that_may_have_more_is_not_refused(repository: Path, init: str) -> None:
    write(repository, {"pkg/__init__.py": init})
    _factory.check_option(config(repository, "pkg.more:build"), "factory")


def test_a_path_may_be_given_to_a_function_that_takes_it(repository: Path) -> None:
    write(repository, {"net.py": "def build(path): pass\ndef two(path, other): pass\n"})
    _factory.check_option(config(repository, "net:build"), "factory", arguments=1)
    with pytest.raises(UsageError, match="needs the arguments path, other"):
        _factory.check_option(config(repository, "net:two"), "factory", arguments=1)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("lambda path: 1", True),
        ("lambda file, seed=0: 1", True),
        ("lambda path='x': 1", True),
        ("lambda seed=0: 1", False),
        ("lambda *args, **kwargs: 1", False),
        ("lambda *, path: 1", False),
        ("dict", False),
    ],
)
def test_only_what_takes_a_path_is_given_it(text: str, takes: bool) -> None:
    assert _factory.takes_path(eval(text)) is takes


RAISING = {
    "a package that is missing": ("import tim_mm_x", "No module named", "packages: [tim_mm_x]"),
    "a part of one": ("import tim_mm_x.layers", "No module named", "packages: [tim_mm_x]"),
    "a layout that is not named": ("import inner", "No module named", "pythonpath: [src]"),
    "a module of the repository": ("import pkg.nothing", "No module named", "check the name"),
    "a script": ("import argparse; raise SystemExit(2)", "ended Python", "__main__"),
    "a file": ("open('weights/x.json')", "FileNotFoundError", "Path(__file__)"),
    "a file that is named whole": ("open('/nowhere/x.json')", "FileNotFound", "on its own"),
    "anything": ("1 / 0", "ZeroDivisionError", "on its own"),
}


@pytest.mark.parametrize("when", ["imported", "called"])
@pytest.mark.parametrize("case", RAISING)
def test_what_code_raises_is_said_with_its_line_and_what_mends_it(
    repository: Path, case: str, when: str
) -> None:
    text, words, hint = RAISING[case]
    code_ = f"{text}\ndef build(): pass" if when == "imported" else f"def build():\n    {text}"
    write(repository, {"net.py": code_, "src/inner/__init__.py": "", "pkg/__init__.py": ""})
    with pytest.raises(SourceError, match=words) as caught:
        run(config(repository, "net:build"))
    assert hint in (caught.value.hint or "")
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == (
        "net.py",
        1 if when == "imported" else 2,
    )


def test_a_module_that_is_found_nowhere_is_said_with_every_place(repository: Path) -> None:
    at = config(repository, "tim_mm_x.models:build", "lib")
    _factory.check_option(at, "factory")
    assert _factory.list_foreign(at, "factory") == ["tim_mm_x"]
    with pytest.raises(SourceError, match="looked for in the manifest's folder, lib and") as caught:
        _factory.import_function(at, "factory")
    assert "site-packages" in caught.value.message
    assert "packages: [tim_mm_x]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("json:lods", "no function 'lods'. Perhaps you meant 'loads'?"),
        ("json:JSONDecoder.nothing", "no function 'JSONDecoder.nothing'"),
        ("json:__doc__", "is str, not a function"),
        ("json:loads", "cannot be called with none: missing a required argument: 's'"),
    ],
)
def test_installed_functions_that_are_not_there_are_said(
    repository: Path, factory: str, words: str
) -> None:
    with pytest.raises(SourceError, match=re.escape(words)):
        run(config(repository, factory))


def test_the_key_holds_all_code_that_is_imported(repository: Path) -> None:
    write(
        repository,
        {
            "deploy/go.py": "from pkg.net import build\n",
            "src/pkg/__init__.py": "",
            "src/pkg/net.py": f"def f():\n    from .late import x\n{BUILD}",
            "src/pkg/late.py": "import top_of_all",
            "src/pkg/unused.py": "",
            "top_of_all.py": "",
        },
    )
    at = config(repository, "go:build", "src", "", root="deploy")
    assert listed(at, repository) == [
        *("deploy/go.py", "src/pkg/__init__.py", "src/pkg/late.py", "src/pkg/net.py"),
        "top_of_all.py",
    ]


def test_the_key_holds_what_code_adds_to_its_path_itself(repository: Path) -> None:
    write(
        repository,
        {
            "go.py": "import sys\nfrom pathlib import Path\n"
            "sys.path.insert(0, str(Path(__file__).parent / 'third_party' / 'yolo'))\n"
            "sys.path.append('third_party/yolo')\nfrom yolo_net import build\n",
            "third_party/yolo/yolo_net.py": f"import yolo_parts\n{BUILD}",
            "third_party/yolo/yolo_parts.py": "",
            "src/pkg/__init__.py": "",
            "late.py": "import pkg\nfrom go import build",
        },
    )
    files = ["go.py", "third_party/yolo/yolo_net.py", "third_party/yolo/yolo_parts.py"]
    assert listed(config(repository, "go:build"), repository) == files
    # as an installed package it is found there as well
    files = ["go.py", "late.py", "src/pkg/__init__.py", *files[1:]]
    assert listed(config(repository, "late:build"), repository) == files
