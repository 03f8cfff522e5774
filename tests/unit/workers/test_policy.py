"""Which files, ports and calls a child is given, by what it is for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mconv.steps import requests
from mconv.values import OWN, Interpreter, SourceConfig
from mconv.workers import landlock, policy
from mconv.workers.policy import Access, Repository, confine, find_step_access
from tests.unit.workers.confined import needs_landlock, run_confined

NET = "import torch\nimport layers\ndef build():\n    return torch.nn.Linear(2, 2)\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a token in its own .git, and in that of a checkout deep within it."""
    root = tmp_path / "repository"
    for folder in (".git", "data/parts/.git", "code", ".mconv/store/v1"):
        (root / folder).mkdir(parents=True)
        (root / folder / "config").write_text("TOKEN")
    (root / "code/.git").write_text("gitdir: TOKEN")
    (root / "net.py").write_text(NET)
    (root / "layers.py").write_text("x = 1\n")
    (root / "data/parts/weights.bin").write_text("weights")
    (root / "w.pt").write_bytes(b"")
    return root


def rights(access: Access) -> object:
    return confine(access, OWN, None)


@needs_landlock
def test_no_git_folder_is_read_at_any_depth_and_all_else_is(repository: Path) -> None:
    found = Repository(str(repository), excluded=[str(repository / ".mconv/store")])
    rules = confine(
        Access(readable=tuple(found.readable), listable=tuple(found.listable)), OWN, None
    )
    for name in (".git/config", "data/parts/.git/config", "code/.git", ".mconv/store/v1/config"):
        assert run_confined(rules, (repository / name).read_text) == "PermissionError", name
    assert run_confined(rules, (repository / "layers.py").read_text) == repr("x = 1\n")
    assert run_confined(rules, (repository / "data/parts/weights.bin").read_text) == "'weights'"
    # modules are found by listing their folder, which holds a .git
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(repository)!r}); import layers",
    ]
    assert run_confined(rules, lambda: subprocess.run(command).returncode) == "0"


def test_a_repository_without_git_is_one_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    found = Repository(str(tmp_path))
    assert (found.readable, found.listable) == ([str(tmp_path)], [])
    assert Repository(str(tmp_path / ".git/config")).readable == []


def find(request: object, root: Path, **more: object) -> Access:
    given: dict[str, object] = {
        "folders": ["/inputs"],
        "plugins": [],
        "writable": ["/home", "/out"],
        "repository": None,
        "network": False,
        "ports": [],
        **more,
    }
    return find_step_access(request, **given)  # type: ignore[arg-type]


def test_the_model_s_code_reads_the_repository_and_a_graph_its_file(repository: Path) -> None:
    config = SourceConfig(
        format="pytorch",
        path=str(repository / "w.pt"),
        root=str(repository),
        options={"factory": "net:build"},
    )
    access = find(requests.ExportRequest(source=config), repository)
    assert str(repository / "net.py") in access.readable
    assert str(repository) in access.listable
    assert not [path for path in access.readable if ".git" in path]
    assert access.writable == ("/home", "/out")
    assert access.network == "none"
    (repository / "m.onnx").write_bytes(b"")
    graph = SourceConfig(format="onnx", path=str(repository / "m.onnx"), root=str(repository))
    access = find(requests.ExportRequest(source=graph), repository)
    assert "/inputs" in access.readable
    assert {p for p in access.readable if p.startswith(str(repository))} == {graph.path}


def test_what_runs_artifacts_reads_no_repository(repository: Path) -> None:
    """The source that runs code is timed by a companion, which reads it."""
    config = SourceConfig(
        format="pytorch",
        path=str(repository / "w.pt"),
        root=str(repository),
        options={"factory": "net:build"},
    )
    artifact = requests.InRuntime(runtime="browser", options={}, precision="fp32", threads=1)
    verify = find(requests.VerifyRequest(artifact=artifact), repository, ports=[4711])
    assert verify.readable == ("/inputs",)
    assert (verify.network, verify.ports) == ("loopback", (4711,))
    request = requests.MeasureRequest(artifact=artifact, source=config, beside=OWN)
    measure = find(request, repository, ports=[4711])
    assert measure.readable == ("/inputs",)
    beside = policy.find_companion_access(
        request, folders=["/in"], plugins=[], home="/home", repository=None, network=False
    )
    assert str(repository / "net.py") in beside.readable
    assert (beside.network, beside.ports) == ("none", ())
    write = requests.WriteRequest(target="onnx", precision="fp32", options={}, name="m")
    assert find(write, repository).readable == ("/inputs",)


def test_the_network_is_open_where_the_manifest_says_so(repository: Path) -> None:
    config = SourceConfig(format="onnx", path=str(repository / "w.pt"), root=str(repository))
    assert find(requests.ExportRequest(source=config), repository, network=True).network == "open"
    write = requests.WriteRequest(target="onnx", precision="fp32", options={}, name="m")
    assert find(write, repository, network=True).network == "none"


def test_an_environment_is_readable_with_the_python_that_it_is_of(tmp_path: Path) -> None:
    base, venv = tmp_path / "base", tmp_path / "venv"
    for top in (base, venv):
        (top / "bin").mkdir(parents=True)
    (base / "bin/python3").write_text("")
    (venv / "bin/python").symlink_to(base / "bin/python3")
    (venv / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\n")
    chosen = Interpreter(name="t", python=str(venv / "bin/python"), layers=("/layer",))
    folders = policy.list_package_folders(chosen)
    assert {str(base), str(venv), "/layer"} <= set(folders)
    assert sys.prefix not in folders
    assert "/" not in folders


def test_gpus_are_given_to_what_is_to_run_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "glob", lambda pattern: [pattern.replace("*", "0")])
    gpu = Interpreter(name="cuda", variables={"CUDA_VISIBLE_DEVICES": "0"})
    assert "/dev/nvidia0" in confine(policy.NOTHING, gpu, None).devices
    assert "/dev/nvidia0" not in confine(policy.NOTHING, OWN, None).devices


def test_local_indexes_are_read_by_an_installation() -> None:
    access = policy.find_installer_access(
        ["file:///opt/index/simple https://host/simple", "/wheels,/more"], ["/new"]
    )
    assert {"/opt/index/simple", "/wheels", "/more"} <= {
        p.replace("///", "/") for p in access.readable
    }
    assert access.writable == ("/new",)
    assert access.network == "open"


@pytest.mark.skipif(os.geteuid() != 0, reason="it is about one that stays root")
def test_root_s_passwords_are_not_readable_to_one_that_stays_root() -> None:
    rules = confine(policy.NOTHING, OWN, None)
    assert "/etc/passwd" in rules.readable
    assert "/etc/shadow" not in rules.readable
    assert "/etc" not in rules.readable


@pytest.mark.skipif(landlock.find_abi() < 4, reason="ports are held from ABI 4 on")
def test_an_open_network_ends_below_the_ports_of_this_machine_s_own_services() -> None:
    """The browser of a run listens on one that the system chose, and obeys whoever connects."""
    rules = confine(Access(network="open"), OWN, None)
    with socket.create_server(("127.0.0.1", 0)) as browser:
        port = browser.getsockname()[1]
        assert rules.highest < port

        def connect(number: int) -> object:
            return socket.create_connection(("127.0.0.1", number), 5)

        assert run_confined(rules, lambda: connect(port)) == "PermissionError"
        assert run_confined(rules, lambda: connect(1)) == "ConnectionRefusedError"


@needs_landlock
def test_a_checkout_that_packages_are_found_in_keeps_its_git(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m mconv` in a repository puts it on the path."""
    monkeypatch.syspath_prepend(str(repository))
    rules = confine(policy.NOTHING, OWN, None)
    assert run_confined(rules, (repository / "layers.py").read_text) == repr("x = 1\n")
    assert run_confined(rules, (repository / ".git/config").read_text) == "PermissionError"
