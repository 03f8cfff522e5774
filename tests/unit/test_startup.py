"""Starting mconv loads no framework, and imports run one way."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = {
    "torch",
    "tensorflow",
    "keras",
    "openvino",
    "nncf",
    "onnxruntime",
    "onnx",
    "pyarrow",
    "transformers",
    "onnxscript",
    "playwright",
    "numpy",
    "jax",
    "flax",
    "sklearn",
    "skl2onnx",
}
FAMILIES = ("sources", "optimizers", "quantizers", "targets", "runtimes", "formats")
LEAVES = {f"mconv.{name}" for name in ("values", "errors", "graph", "samples", "compare", "weights", "parquet")}


def loaded(*argv: str) -> set[str]:
    """Top-level modules that a run of the command line loads."""
    code = (
        "import sys\nfrom mconv.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *{m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60)
    return set(done.stderr.split("LOADED")[1].split())


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["list", "--json"], ["schema"], ["find", "examples"]])
def test_no_framework_is_loaded(argv: list[str]) -> None:
    assert not loaded(*argv) & HEAVY


def imports(path: str) -> set[str]:
    """mconv modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("mconv.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mconv":
            if node.module == "mconv":
                found |= {f"mconv.{a.name}" for a in node.names if a.name != "__version__"}
            else:
                found.add(node.module or "")
    return found


def files(pattern: str) -> list[str]:
    return sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob(pattern))


@pytest.mark.parametrize("path", [f for family in FAMILIES for f in files(f"mconv/{family}/**/*.py")])
def test_plugins_import_only_leaves_and_helpers_of_their_family(path: str) -> None:
    family = path.split("/")[1]
    assert {i for i in imports(path) if i not in LEAVES and not i.startswith(f"mconv.{family}")} == set()


@pytest.mark.parametrize("path", files("mconv/reports/*.py") + files("mconv/github/*.py"))
def test_reports_and_github_see_only_values(path: str) -> None:
    family = "mconv." + path.split("/")[1]
    leaves = ("mconv.values", "mconv.errors", "mconv.plain_files")
    assert {i for i in imports(path) if i not in leaves and not i.startswith(family)} == set()


ORDER = (
    ("values",),
    ("errors",),
    ("hardware",),
    ("digests", "plain_files", "channels", "tracked", "answers"),
    ("graph", "compare", "samples", "parts", "weights", "parquet", "yamlread", "store", "architecture"),
    ("registry", "state"),
    ("reload", "recognise", "generation"),
    ("manifest", "worker", "steps"),
    ("plan", "schema", "service", "forkserver", "remote", "isolate", "discover", "devices", "onefile"),
    ("runner", "upkeep"),
    ("execute", "cluster", "progress"),
    ("results", "trace", "baseline", "advisor", "shards"),
    ("engine", "artifact"),
    ("api",),
    ("__main__",),
)


def test_core_modules_import_downwards() -> None:
    level = {f"mconv.{name}": i for i, names in enumerate(ORDER) for name in names}
    for path in files("mconv/*.py"):
        name = "mconv." + path.split("/")[1].removesuffix(".py")
        if name == "mconv.__init__":
            continue
        assert name in level, f"say in ORDER where {name} stands"
        for imported in imports(path):
            if imported in level:
                same = level[imported] == level[name] and name != imported
                assert level[imported] < level[name] or same, f"{name} imports {imported}"
            elif imported.split(".")[1] in FAMILIES:
                pytest.fail(f"{name} names the plug-in {imported}")
