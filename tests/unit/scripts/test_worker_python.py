"""The workers' code runs on every Python that a model's own environment may have."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from mconv.environments.models import WORKER
from scripts import worker_python
from tests.conftest import ROOT

# Each is right on this Python, and on the other it is not there.
STRANGERS = {
    "3.10": (
        "from typing import NotRequired",
        "import tomllib",
        "from datetime import UTC",
        "from enum import StrEnum",
        "group = ExceptionGroup('two', [ValueError()])",
        "import hashlib\n\ndigest = hashlib.file_digest",
        "from itertools import batched",
        "def first[T](values: list[T]) -> T:\n    return values[0]",
        "try:\n    pass\nexcept* ValueError:\n    pass",
    ),
    "3.14": ("import imp", "import pkgutil\n\nfind = pkgutil.find_loader", "import ast\n\nold = ast.Str"),
}  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in which a step imports one module at the top, one in a function, and one by
    dots."""
    files = {
        "__init__.py": "",
        "__main__.py": "from mconv import command\n",
        "command.py": "",
        "values.py": "",
        "late.py": "from mconv.room import inner\n",
        "room/__init__.py": "from . import beside\n",
        "room/beside.py": "",
        "room/inner.py": "import mconv.last\n",
        "last.py": "",
        "steps/__init__.py": "",
        "steps/run.py": "from mconv.values import X\n\ndef f():\n    from mconv import late\n",
        "sources/__init__.py": "",
        "sources/numpy.py": "import numpy\n",
    }
    for name, text in files.items():
        path = tmp_path / "mconv" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_what_a_step_imports_is_the_workers_code(checkout: Path) -> None:
    assert list(worker_python.find_modules(checkout)) == [
        "mconv",
        "mconv.last",
        "mconv.late",
        "mconv.room",
        "mconv.room.beside",
        "mconv.room.inner",
        "mconv.sources",
        "mconv.sources.numpy",
        "mconv.steps",
        "mconv.steps.run",
        "mconv.values",
    ]


def test_the_child_and_all_plug_ins_are_the_workers_code() -> None:
    modules = worker_python.find_modules()
    for name in (
        "environments.start",
        "environments.interpreter",
        "workers.child",
        "steps.elsewhere",
        "sources._huggingface.causal",
        "targets.parquet",
    ):
        assert f"mconv.{name}" in modules
    rows = {name.split(".")[1] for name in modules if "." in name}
    assert not rows & {"manifest", "planning", "engine", "store", "api", "commands", "github"}


def test_a_child_loads_nothing_that_is_not_among_them() -> None:
    code = (
        "import sys\nimport mconv.workers.child, mconv.steps.kinds as k\n"
        "for kind in k.KINDS.values():\n    k.load_function(kind.function)\n"
        "from mconv import registry\n"
        "for family in registry.FAMILIES:\n    registry.plugins(family)\n"
        "print(*(m for m in sys.modules if m.split('.')[0] == 'mconv'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(done.stdout.split()) <= worker_python.find_modules().keys()


def test_the_linter_takes_them_for_the_oldest_python() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["target-version"] == "py" + worker_python.VERSIONS[0].replace(".", "")
    newer = [
        pattern
        for whole in ruff["per-file-target-version"]
        for pattern in _expand(whole.replace("**", "*"))
    ]
    # of the environments, mconv's own Python makes most, and the child runs two
    own = ("mconv.environments", "mconv.environments.start", "mconv.environments.interpreter")
    for name, path in worker_python.find_modules().items():
        relative = path.relative_to(ROOT).as_posix()
        taken = any(fnmatch.fnmatch(relative, pattern) for pattern in newer)
        assert not taken or name in own, f"{name} is linted as a newer Python's"


def _expand(pattern: str) -> list[str]:
    """The patterns that one with ``{a,b}`` stands for."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    names, _, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in names.split(",")]


@pytest.mark.parametrize("version", worker_python.VERSIONS)
def test_what_a_python_has_not_is_seen(version: str, tmp_path: Path) -> None:
    paths = []
    for number, code in enumerate(STRANGERS[version]):
        path = tmp_path / f"stranger{number}.py"
        path.write_text(code + "\n")
        paths.append(path)
    # a file that cannot be read as this version ends mypy's run: each of those alone
    unseen = []
    together = worker_python.check_types(paths[:8], version)
    for path, code in zip(paths, STRANGERS[version], strict=True):
        problems = together if path.name in together else worker_python.check_types([path], version)
        if path.name not in problems:
            unseen.append(code)
    assert not unseen


def test_plain_code_passes(tmp_path: Path) -> None:
    plain = tmp_path / "plain.py"
    plain.write_text("from pathlib import Path\n\nHERE: Path | None = Path()\n")
    assert [worker_python.check_types([plain], v) for v in worker_python.VERSIONS] == ["", ""]


WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["workers"]


def test_the_workflow_has_the_oldest_and_the_newest_python() -> None:
    pythons = WORKFLOW["strategy"]["matrix"]["python"]
    assert (pythons[0], pythons[-1]) == worker_python.VERSIONS


def test_the_workflow_runs_tests_that_exist() -> None:
    words = WORKFLOW["steps"][-1]["run"].split()
    paths = [word for word in words if word.startswith("tests/")]
    assert len(paths) > 10
    for word in paths:
        path, _, name = word.partition("::")
        assert (ROOT / path).exists(), word
        assert f"def {name}" in (ROOT / path).read_text() if name else True, word


def test_the_workflow_installs_what_a_workers_environment_gets() -> None:
    """In the least releases, too, which nobody has on their machine."""
    assert "-r tests/workers.txt" in WORKFLOW["steps"][-2]["run"]
    assert "lowest-direct" in str(WORKFLOW["strategy"]["matrix"]["include"])
    lines = (ROOT / "tests/workers.txt").read_text().splitlines()
    listed = {Requirement(line).name for line in lines if not line.startswith("#")}
    needed = {Requirement(text).name for text in WORKER}
    assert needed <= listed
