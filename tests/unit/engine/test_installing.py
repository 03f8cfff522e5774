"""Environments are made by the real uv, from packages that this test builds: without a network."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import msgspec
import pytest

from mconv.engine import installing
from mconv.engine.installing import (
    Installation,
    Installer,
    SilentInstallProgress,
    find_uv,
    make,
    plan_model,
)
from mconv.environments import making, tools
from mconv.environments.folder import Record, find_log, find_record, read_record
from mconv.environments.models import ModelRequest, find_model
from mconv.environments.tools import find_tool
from mconv.errors import EnvironmentFailedError, MconvError, UsageError
from mconv.values import EnvironmentSpec, Place, to_json


def write_wheel(
    folder: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any"
) -> Path:
    """A wheel with one module, which holds its version."""
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"__version__ = {version!r}\n")
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def write_sdist(folder: Path, name: str, backend: str) -> Path:
    """A source distribution with a build backend of its own."""
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        f'backend-path = ["."]\n[project]\nname = "{name}"\nversion = "1.0"\n',
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    path = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{file}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "needs", "1.0")
    write_wheel(folder, "needs", "2.0")
    write_wheel(folder, "alpha", "1.0", "needs<2")
    write_wheel(folder, "worker", "1.0", "needs>=2")
    write_wheel(folder, "lenient", "1.0", "needs")
    write_wheel(folder, "foreign", "1.0", tag="cp311-cp311-win_amd64")
    write_sdist(folder, "broken", 'raise RuntimeError("it needs a Fortran compiler")\n')
    write_sdist(folder, "endless", "import time\ntime.sleep(600)\n")
    return folder


@pytest.fixture(autouse=True)
def _offline(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    settings = {"no-index": "1", "find-links": str(wheels)}
    monkeypatch.setattr(installing, "read_pip_settings", lambda: settings)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path / "environments"))


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def installing(self, installation: Installation, done_bytes: int) -> None:
        self.told.append(installation.name)

    def installed(
        self, installation: Installation, record: Record | None, error: MconvError | None
    ) -> None:
        self.told.append(record or error)


def ask(root: Path, *worker: str, **fields: object) -> ModelRequest:
    spec = EnvironmentSpec(name="training", root=str(root), place=Place(file="models.yml", line=3))
    return ModelRequest(spec=msgspec.structs.replace(spec, **fields), worker=worker)


def make_one(request: ModelRequest) -> Record:
    return make(plan_model(request), Listener())


def run_python(request: ModelRequest, code: str) -> str:
    interpreter = find_model(request)
    command = [interpreter.python, "-c", code]
    env = {"PYTHONPATH": os.pathsep.join(interpreter.layers)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


def test_requirements_are_resolved_with_the_worker_s_as_one_set(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("needs  # any\n")
    request = ask(tmp_path, "worker", requirements=(str(tmp_path / "r.txt"),))
    listener = Listener()
    record = make(plan_model(request), listener)
    assert record.packages == {"needs": "2.0", "worker": "1.0"}
    assert record.python == ".".join(map(str, sys.version_info[:3]))
    assert record.bytes > 0
    assert listener.told[0] == "training"
    assert listener.told[-1] == record
    assert run_python(request, "import needs; print(needs.__version__)") == "2.0\n"
    assert "needs==2.0" in find_log(Path(find_model(request).folder)).read_text()
    assert make_one(request) == record, "it is made once"


@pytest.mark.parametrize(
    ("packages", "worker", "words"),
    [
        (
            ("alpha",),
            ("worker",),
            [
                "exclude each other",
                "the environment 'training' in models.yml asks for alpha",
                "mconv's worker asks for worker",
            ],
        ),
        (
            ("needs<2",),
            ("needs>=2",),
            ["exclude each other", "asks for needs<2; mconv's worker asks for needs>=2"],
        ),
        (("missing-thing",), (), ["a package is not found", "asks for missing-thing"]),
        (("foreign",), (), ["no file for this machine", "win_amd64"]),
        (("broken",), (), ["does not build", "it needs a Fortran compiler"]),
    ],
    ids=["conflict", "direct conflict", "unknown", "platform", "build"],
)
def test_what_cannot_be_made_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, packages: tuple[str, ...], worker: tuple[str, ...], words: list[str]
) -> None:
    request = ask(tmp_path, *worker, packages=packages)
    with pytest.raises(EnvironmentFailedError) as problem:
        make_one(request)
    for each in words:
        assert each in problem.value.message
    assert problem.value.hint
    assert "Traceback" not in problem.value.message or "broken" in packages
    folder = Path(find_model(request).folder)
    assert not folder.exists()
    assert not find_record(folder).exists()
    assert find_log(folder).is_file()


def test_without_a_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at this port."""
    settings = {"index-url": "http://127.0.0.1:9/simple"}
    monkeypatch.setattr(installing, "read_pip_settings", lambda: settings)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentFailedError, match="packages cannot be fetched") as problem:
        make_one(ask(tmp_path, packages=("needs",)))
    assert "network" in (problem.value.hint or "")


def write_project(folder: Path, wheels: Path, *dependencies: str) -> Path:
    folder.mkdir()
    listed = ", ".join(f'"{each}"' for each in dependencies)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.10"\n'
        f"dependencies = [{listed}]\n"
        f'[tool.uv]\nno-index = true\nfind-links = ["{wheels}"]\n'
    )
    command = [
        find_uv(SilentInstallProgress()),
        "lock",
        "--python",
        sys.executable,
        "--project",
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_lock_is_installed_as_it_is_and_the_worker_s_packages_beside_it(
    tmp_path: Path, wheels: Path
) -> None:
    project = write_project(tmp_path / "project", wheels, "needs<2")
    request = ask(project, "lenient", project=str(project))
    record = make_one(request)
    assert record.packages == {"needs": "1.0", "lenient": "1.0"}
    interpreter = find_model(request)
    assert not list(Path(interpreter.folder).glob("venv/lib/*/site-packages/lenient*"))
    assert [path.name for path in Path(interpreter.layers[0]).glob("*.py")] == ["lenient.py"]
    printed = run_python(request, "import needs, lenient; print(needs.__version__)")
    assert printed == "1.0\n"


def test_a_lock_that_the_worker_cannot_live_with_names_both_sides(
    tmp_path: Path, wheels: Path
) -> None:
    project = write_project(tmp_path / "project", wheels, "needs<2")
    with pytest.raises(EnvironmentFailedError, match="exclude each other") as problem:
        make_one(ask(project, "worker", project=str(project)))
    assert "mconv's worker asks for worker" in problem.value.message
    assert "what is installed there asks for needs==1.0" in problem.value.message


def test_a_lock_with_another_hash_is_refused(tmp_path: Path, wheels: Path) -> None:
    project = write_project(tmp_path / "project", wheels, "needs")
    lock = project / "uv.lock"
    exported = subprocess.run(
        [find_uv(SilentInstallProgress()), "export", "--frozen", "--project", str(project), "-q"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "sha256:" not in exported:  # uv notes no hashes of files in a folder: it is done by hand
        lock.unlink()
        (project / "pylock.toml").write_text(
            textwrap.dedent(
                f"""\
                lock-version = "1.0"
                created-by = "test"
                [[packages]]
                name = "needs"
                version = "2.0"
                [[packages.wheels]]
                path = "{wheels / "needs-2.0-py3-none-any.whl"}"
                hashes = {{sha256 = "{"0" * 64}"}}
                """
            )
        )
    with pytest.raises(EnvironmentFailedError, match="not the one that the lock names"):
        make_one(ask(project, project=str(project)))


def test_a_lock_for_another_platform_says_so(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "pylock.toml").write_text(
        textwrap.dedent(
            f"""\
            lock-version = "1.0"
            created-by = "test"
            [[packages]]
            name = "foreign"
            version = "1.0"
            [[packages.wheels]]
            path = "{wheels / "foreign-1.0-cp311-cp311-win_amd64.whl"}"
            hashes = {{sha256 = "{"0" * 64}"}}
            """
        )
    )
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "p"\nversion = "1"\n')
    with pytest.raises(EnvironmentFailedError, match="no file for this machine"):
        make_one(ask(tmp_path, project=str(tmp_path)))


def test_a_given_environment_is_left_as_it_is(tmp_path: Path, wheels: Path) -> None:
    venv = tmp_path / "venv"
    uv = find_uv(SilentInstallProgress())
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, venv], check=True)
    places = ["--no-index", "--find-links", wheels]
    install = [uv, "pip", "install", "-q", "--python", venv / "bin/python", *places, "needs<2"]
    subprocess.run(install, check=True)
    before = sorted(str(path) for path in venv.rglob("*"))
    request = ask(tmp_path, "lenient", path=str(venv))
    record = make_one(request)
    assert record.packages == {"needs": "1.0", "lenient": "1.0"}
    assert sorted(str(path) for path in venv.rglob("*")) == before
    interpreter = find_model(request)
    assert interpreter.python == str(venv / "bin/python")
    assert [path.name for path in Path(interpreter.layers[0]).glob("*.py")] == ["lenient.py"]
    with pytest.raises(EnvironmentFailedError, match="what is installed there asks for needs==1"):
        make_one(ask(tmp_path, "worker", path=str(venv)))


def test_a_killed_installation_is_not_used(tmp_path: Path) -> None:
    """The whole process group dies by SIGKILL in the middle of a build."""
    request = ask(tmp_path, packages=("endless",))
    code = (
        "import sys, msgspec\n"
        "from mconv.engine import installing\n"
        "from mconv.environments.models import ModelRequest\n"
        "installing.read_pip_settings = lambda: msgspec.json.decode(sys.argv[2])\n"
        "request = msgspec.json.decode(sys.argv[1], type=ModelRequest)\n"
        "installing.make(installing.plan_model(request), installing.SilentInstallProgress())\n"
    )
    arguments = [to_json(request), to_json(installing.read_pip_settings())]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], start_new_session=True)
    folder = Path(find_model(request).folder)
    end = time.monotonic() + 60
    log = folder / making.LOG
    while time.monotonic() < end and "pip install" not in (log.read_text() if log.exists() else ""):
        time.sleep(0.05)
    assert folder.is_dir()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_record(folder) is None
    assert Installer().find_error([find_model(request)]) is not None
    # the next one begins anew, though the folder is there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installing, "SECONDS", 1.0)
        with pytest.raises(EnvironmentFailedError, match="no answer in 1 s"):
            make_one(request)
    assert not folder.exists()


def test_two_that_need_the_same_wait_for_each_other(tmp_path: Path) -> None:
    request = ask(tmp_path, "lenient")
    records: list[Record] = []
    threads = [threading.Thread(target=lambda: records.append(make_one(request))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 3
    assert records[0] == records[1] == records[2]


def test_where_nothing_may_be_installed_the_command_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = plan_model(ask(tmp_path, packages=("needs",)))
    with pytest.raises(UsageError, match=r"training \(needs\)") as problem:
        Installer(install=False, command="mconv setup x.yml").prepare([installation])
    assert problem.value.hint == "run `mconv setup x.yml`"
    monkeypatch.setenv("MCONV_INSTALL", "never")
    with pytest.raises(UsageError):
        Installer().prepare([installation])
    make_one(installation.model)  # type: ignore[arg-type]
    Installer().prepare([installation])


def test_one_that_cannot_be_made_is_the_error_of_its_steps_alone(tmp_path: Path) -> None:
    bad = plan_model(ask(tmp_path, packages=("missing-thing",)))
    good = plan_model(ask(tmp_path, packages=("needs",)))
    installer = Installer()
    installer.prepare([bad, good])
    error = installer.find_error([bad.interpreter])
    assert error is not None
    assert error.type == "EnvironmentFailedError"
    assert error.message.startswith("the environment 'training': a package is not found")
    assert (error.step, error.place) == ("environment", Place(file="models.yml", line=3))
    assert "missing-thing" in error.log
    assert installer.find_error([good.interpreter, find_tool("")]) is None


def test_what_git_tracks_is_no_environment_of_mconv_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit could bring a Python of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MCONV_ENVIRONMENTS")
    installation = plan_model(ask(tmp_path, packages=("needs",)))
    folder = Path(installation.interpreter.folder)
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/python").write_text("#!/bin/sh\n")
    find_record(folder).write_text(
        to_json(Record(name="training", python="3.11.7", packages={"needs": "1.0"}))
    )
    for command in (["init", "-q"], ["add", "-f", ".mconv"]):
        subprocess.run(["git", *command], check=True)
    with pytest.raises(UsageError, match="git tracks files of the folder of environments"):
        Installer().prepare([installation])


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MCONV_ENVIRONMENTS", str(tmp_path / "file"))
    with pytest.raises(MconvError, match="cannot be written") as problem:
        make_one(ask(tmp_path, packages=("needs",)))
    assert "MCONV_ENVIRONMENTS" in (problem.value.hint or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_the_worker_s_user_made_becomes_root_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no worker can change the environment of another; links stay as they are."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/tool").write_text("x")
    (folder / "bin/tool").chmod(0o777)
    (folder / "data").write_text("x")
    (folder / "data").chmod(0o666)
    outside = tmp_path / "outside"
    outside.write_text("x")
    (folder / "link").symlink_to(outside)
    for path in (folder, *folder.rglob("*"), outside):
        os.chown(path, 10001, 10001, follow_symlinks=False)
    monkeypatch.setattr(installing.identities, "lends_users", lambda: True)
    assert installing.take_over(folder) > 0
    assert {os.lstat(path).st_uid for path in (folder, *folder.rglob("*"))} == {0}
    assert (folder / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (folder / "data").stat().st_mode & 0o777 == 0o644
    assert outside.stat().st_uid == 10001


def test_a_tool_takes_nothing_beside_its_lock(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its packages need and mconv has is held to the lock, though there is a newer one."""
    locks = tmp_path / "locks"
    locks.mkdir()
    lenient = hashlib.sha256((wheels / "lenient-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    (locks / "some.txt").write_text(f"lenient==1.0 --hash=sha256:{lenient}\nneeds==1.0\n")
    monkeypatch.setattr(tools, "LOCKS", locks)
    monkeypatch.setitem(tools.TOOLS, "some", tools.Tool(("lenient",), megabytes=1))
    for module in (tools, making):
        monkeypatch.setattr(
            module, "read_own_version", lambda name: "1.0" if name == "needs" else "absent"
        )
    folder = tmp_path / "a folder"  # uv takes a list of constraints apart at spaces
    folder.mkdir()
    variables = {
        "UV_FIND_LINKS": str(wheels),
        "UV_NO_INDEX": "1",
        making.EXECUTABLE: str(find_uv(SilentInstallProgress())),
    }
    made = making.make_tool("some", str(folder), variables)
    assert made.packages == {"lenient": "1.0"}
