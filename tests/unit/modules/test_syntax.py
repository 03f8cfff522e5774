"""What a module surely lacks is known from its syntax tree, and nothing is said where it may have
it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from mconv.modules import syntax

DEFINED = {
    "function": "def build(): pass",
    "coroutine": "async def build(): pass",
    "class": "class build: pass",
    "assignment": "build = other = 1",
    "unpacking": "a, (*build, b) = 1, (2, 3)",
    "annotated": "build: object = 1",
    "augmented": "build += 1",
    "walrus": "print(build := 1)",
    "walrus in a comprehension": "[build := x for x in ()]",
    "import": "import build",
    "import of a part": "import build.x",
    "import as": "import x as build",
    "from": "from x import y as build",
    "loop": "for build in (): pass",
    "with": "with x as build: pass",
    "match": "match x:\n    case {'a': [*build]}: pass",
    "match rest": "match x:\n    case {**build}: pass",
    "condition": "if x:\n    pass\nelse:\n    def build(): pass",
    "attempt": "try:\n    from a import build\nexcept ImportError:\n    from b import build",
    "global": "def f():\n    global build\n    build = 1",
    "not only a script": "if __name__ != '__main__':\n    def build(): pass",
    "else of a script": "if __name__ == '__main__':\n    pass\nelse:\n    def build(): pass",
}
UNKNOWN = {
    "everything of another": "from x import *",
    "made when asked for": "def __getattr__(name): return 1",
    "globals": "globals()['bu' + 'ild'] = 1",
    "exec": "exec(text)",
    "setattr": "setattr(module, name, 1)",
    "sys.modules": "import sys\nsys.modules[__name__].build = 1",
    "its dict": "module.__dict__.update(x)",
}
UNDEFINED = {
    "nothing": "",
    "in a function": "def f():\n    def build(): pass\n    build2 = 1",
    "in a class": "class A:\n    def build(self): pass",
    "in a lambda": "f = lambda build: (build2 := 1)",
    "used only": "print(build)\nbuild.x = 1\nbuild[0] = 1",
    "methods called modules": "def f(net): return list(net.modules())",
}


@pytest.mark.parametrize("case", DEFINED)
def test_whatever_binds_a_name_may_define_it(case: str) -> None:
    assert syntax.find_undefined(ast.parse(DEFINED[case]), "build") is None


@pytest.mark.parametrize("case", UNKNOWN)
def test_nothing_is_known_of_modules_that_define_what_they_do_not_show(case: str) -> None:
    assert syntax.find_undefined(ast.parse(UNKNOWN[case]), "build") is None
    assert syntax.list_bindings(ast.parse(UNKNOWN[case])) is None


@pytest.mark.parametrize("case", UNDEFINED)
def test_what_no_statement_binds_is_not_defined(case: str) -> None:
    assert syntax.find_undefined(ast.parse(UNDEFINED[case]), "build") == "defines no 'build'"


def test_a_function_of_a_script_is_not_there_when_it_is_imported() -> None:
    for test in ("__name__ == '__main__'", '"__main__" == __name__'):
        tree = ast.parse(f"if {test}:\n    def build(): pass")
        assert "only where it is run as a script" in (syntax.find_undefined(tree, "build") or "")


@pytest.mark.parametrize(
    ("text", "surely"),
    [
        ("class Net:\n    def other(self): pass", True),
        ("class Net:\n    make = classmethod(f)", False),
        ("class Net(Base):\n    pass", False),
        ("class Net(metaclass=M):\n    pass", False),
        ("@dataclass\nclass Net:\n    pass", False),
        ("class Net: pass\nNet = change(Net)", False),
        ("Net = make_class()", False),
    ],
)
def test_methods_are_missed_only_of_classes_that_show_all(text: str, surely: bool) -> None:
    assert (syntax.find_undefined(ast.parse(text), "Net.make") is not None) is surely


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("def build(): pass", []),
        ("def build(width=16, *, depth=2, **rest): pass", []),
        ("def build(path, width=16): pass", ["path"]),
        ("def build(a, /, b, *args, c, d=1): pass", ["a", "b", "c"]),
        ("@decorated\ndef build(path): pass", []),
        ("def build(path): pass\nbuild = partial(build, 1)", []),
        ("if x:\n    def build(path): pass", []),
        ("class build:\n    def __init__(self, width): pass", ["width"]),
        ("class build(nn.Module):\n    def __init__(self, width, depth=1): pass", ["width"]),
        ("class build(Base):\n    def __init__(self, width): pass", []),
        ("class build(nn.Module): pass", []),
        ("class build:\n    def __new__(cls): pass\n    def __init__(self, width): pass", []),
        ("class build:\n    if x:\n        def __init__(self, width): pass", []),
    ],
)
def test_arguments_without_a_default_are_required(text: str, required: list[str]) -> None:
    assert syntax.list_required(ast.parse(text), "build") == required


def test_imports_are_listed_with_their_full_names() -> None:
    tree = ast.parse(
        "import a.b, c as d\nfrom e import f\nfrom . import g\nfrom .h import i\n"
        "def late():\n    from ..j import k\n"
    )
    assert syntax.list_imports(tree, "pkg.sub") == [
        *("a.b", "c", "e", "e.f", "pkg.sub", "pkg.sub.g", "pkg.sub.h", "pkg.sub.h.i"),
        *("pkg.j", "pkg.j.k"),
    ]


def test_folders_that_a_module_adds_to_the_path_are_listed(tmp_path: Path) -> None:
    (tmp_path / "repository/src").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    file = tmp_path / "repository/net.py"
    (tmp_path / "repository/third/party").mkdir(parents=True)
    text = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, Path(x) / 'src')\n"
        "sys.path.append('../outside')\nsys.path += [Path(x).parent / 'third' / 'party']\n"
    )
    listed = syntax.list_added_folders(ast.parse(text), file, tmp_path / "repository")
    folders = ("", "src", "third", "third/party")
    assert listed == [tmp_path / "repository" / folder for folder in folders]
    tree = ast.parse("import os\nprint(os.path, 'src')")
    assert syntax.list_added_folders(tree, file, tmp_path / "repository") == []


def test_files_of_weights_that_a_module_names_are_listed(tmp_path: Path) -> None:
    named = ("a.pt", "net/w/b.npz", "net/c.json", "d/e/f.yaml", "g.bin")
    for name in (*named, "net/log.txt", "net/h.pt", "../outside.pt"):
        (tmp_path / "repository" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repository" / name).touch()
    text = (
        "load('a.pt')\nload(HERE / 'w' / 'b.npz')\nload(os.path.join(HERE, 'c.json'))\n"
        "load(ROOT.joinpath('d', 'e/f.yaml'))\nload(f'{HERE}/h.pt')\nload('../outside.pt')\n"
        "load('../../outside.pt')\nlog('log.txt')\nname = '../g.bin'\nload('x' * 3 + '\\0.pt')\n"
    )
    repository = tmp_path / "repository"
    listed = syntax.list_data_files(ast.parse(text), repository / "net/net.py", repository)
    assert sorted(listed) == sorted(repository / name for name in named)


def test_what_cannot_be_read_has_no_tree(tmp_path: Path) -> None:
    deep = b"-" * 10_000 + b"1"
    for name, content in {"a.py": b"def (", "b.py": b"\0", "c.so": b"x = 1", "d.py": deep}.items():
        (tmp_path / name).write_bytes(content)
        assert syntax.read_tree(tmp_path / name) is None
    assert syntax.read_tree(tmp_path / "absent.py") is None
