"""The environments of models: keys, what is in them, what was asked for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mconv.environments import folder, models
from mconv.values import EnvironmentSpec, Place, to_json


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path / "environments"))
    return tmp_path


def spec(root: Path, **fields: object) -> EnvironmentSpec:
    made = EnvironmentSpec(name="training", root=str(root), place=Place(file="models.yml"))
    return msgspec.structs.replace(made, **fields)


def find(asked: EnvironmentSpec, *requires: str) -> str:
    return models.find_model(models.make_request(asked, requires)).folder


def test_the_key_is_of_what_was_asked_for(root: Path) -> None:
    """Not of where, or of the comments' place in the manifest."""
    (root / "common.txt").write_text("einops\n")
    (root / "requirements.txt").write_text("-r common.txt\ntimm\n")
    asked = spec(root, requirements=(str(root / "requirements.txt"),))
    first = find(asked)
    assert find(msgspec.structs.replace(asked, place=Place(file="x", line=9))) == first
    assert find(msgspec.structs.replace(asked, python="3.12")) != first
    assert find(msgspec.structs.replace(asked, torch_backend="cu130")) != first
    assert find(asked, "onnxscript") != first
    (root / "common.txt").write_text("einops==0.8\n")
    assert find(asked) != first, "a file that the requirements name"


def test_files_that_name_each_other_end(root: Path) -> None:
    (root / "a.txt").write_text("-r b.txt\n")
    (root / "b.txt").write_text("--requirement=a.txt\n-c c.txt\n")
    files = models.list_files(spec(root, requirements=(str(root / "a.txt"),)))
    assert [path.name for path in files] == ["a.txt", "b.txt"]


def test_what_is_in_it_is_known_once_it_is_made(root: Path) -> None:
    request = models.make_request(spec(root, packages=("timm",)), ["torch>=2.6"])
    interpreter = models.find_model(request)
    assert interpreter.packages == {}
    assert interpreter.python == f"{interpreter.folder}/venv/bin/python"
    path = Path(interpreter.folder)
    path.mkdir(parents=True)
    record = folder.Record(name="training", python="3.12.1", packages={"timm": "1.0.31"})
    folder.find_record(path).write_text(to_json(record))
    found = models.find_model(request)
    assert found.packages == {"timm": "1.0.31", "python": "3.12.1"}
    assert found.folder == interpreter.folder


def make_venv(root: Path, *packages: str) -> Path:
    venv = root / ".venv"
    (venv / "bin").mkdir(parents=True)
    for package in packages:
        (venv / f"lib/python3.11/site-packages/{package}.dist-info").mkdir(parents=True)
    return venv


FULL = (
    "msgspec-0.21.0",
    "numpy-2.1.0",
    "onnx-1.21.0",
    "onnx_ir-0.2.1",
    "onnxruntime-1.23.0",
    "packaging-25.0",
    "typing_extensions-4.15",
)


def test_a_given_environment_that_has_all_is_used_as_it_is(root: Path) -> None:
    venv = make_venv(root, *FULL, "torch-2.8.0")
    interpreter = models.find_model(models.make_request(spec(root, path=str(venv)), ["torch>=2.6"]))
    assert (interpreter.folder, interpreter.layers) == ("", ())
    assert interpreter.python == str(venv / "bin/python")
    assert interpreter.packages["torch"] == "2.8.0"


@pytest.mark.parametrize("lacking", [0, 4], ids=["msgspec", "onnxruntime"])
def test_one_that_lacks_something_gets_a_layer(root: Path, lacking: int) -> None:
    venv = make_venv(root, *(each for i, each in enumerate(FULL) if i != lacking))
    interpreter = models.find_model(models.make_request(spec(root, path=str(venv)), []))
    assert interpreter.layers == (f"{interpreter.folder}/layer",)


def test_one_that_is_too_old_gets_a_layer(root: Path) -> None:
    venv = make_venv(root, *FULL, "torch-2.1.0")
    interpreter = models.find_model(models.make_request(spec(root, path=str(venv)), ["torch>=2.6"]))
    assert interpreter.folder


def test_packages_of_the_system_count_where_the_environment_takes_them(root: Path) -> None:
    venv = make_venv(root, "numpy-2.1.0")
    base = root / "usr"
    (base / "lib/python3/dist-packages/torch-2.8.0.dist-info").mkdir(parents=True)
    config = venv / "pyvenv.cfg"
    config.write_text(f"home = {base}/bin\ninclude-system-site-packages = false\n")
    assert len(models.find_site_packages(f"{venv}/bin/python")) == 1
    config.write_text(f"home = {base}/bin\ninclude-system-site-packages = true\n")
    folders = models.find_site_packages(f"{venv}/bin/python")
    assert folders[-1] == base / "lib/python3/dist-packages"


def test_what_was_asked_for_by_name(root: Path) -> None:
    (root / "r.txt").write_text("# comment\n-r other.txt\nTimm==1.0  # why\n./local\nEinops\n")
    asked = models.list_asked(
        spec(root, requirements=(str(root / "r.txt"),), packages=("scipy>1", "timm"))
    )
    assert asked == ["scipy", "timm", "einops"]
    (root / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["torch>=2"]\n')
    assert models.list_asked(spec(root, project=str(root))) == ["torch"]
