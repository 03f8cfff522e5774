"""Runs mconv on a hostile repository as a runner does: as PID 1 of a namespace of its own, secrets
in its environment.

``root``: with Docker's default capabilities, workers as another user. ``user``: as an ordinary
user, who is the workers' user too."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mconv.workers import landlock
from tests.conftest import ROOT
from tests.models import write_linear

HOSTILE = Path(__file__).with_name("hostile")
MODES = ["root", "user"]
WORKER_UIDS = "20000-59999"
USER_UID = 10002
SECRETS = {
    "INPUT_GITHUB-TOKEN": "ghs_CANARY_TOKEN",
    "AWS_SECRET_ACCESS_KEY": "CANARY_AWS",
    "OTHER_SECRET": "CANARY_OTHER",
}
CAPABILITIES = "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap"
MANIFEST = """version: 1
models:
  - name: evil
    source: {path: w.pt, factory: net:build}
    inputs: {x: {shape: [batch, 4]}}
    targets: [onnx]
    resources: {timeout: 20s}
  - name: victim
    source: linear.onnx
    targets: [onnx]
"""
VICTIM = "  - {name: victim, source: linear.onnx, targets: [onnx]}\n"
# The interpreter may lie below root's home, which the workers' user cannot enter: it is shown in a
# home of the namespace's own.
PRELUDE = """set -e
mount --make-rprivate /
top=$(dirname "$(dirname "$(readlink -f {python})")")
home=$(getent passwd 0 | cut -d: -f6)
case $top in "$home"/*)
  mount --bind "$top" {scratch}
  mount -t tmpfs -o mode=755 tmpfs "$home"
  mkdir -p "$top"
  mount --bind {scratch} "$top";;
esac
if [ {disk} -gt 0 ]; then
  mkdir -p {store}
  mount -t tmpfs -o mode=777,size={disk}m tmpfs {store}
fi
exec setpriv {privileges} -- "$@"
"""


# What takes the place of mconv where nothing confines the hostile code: a process with secrets in its
# environment, another one beside.
BARE = """
import os, subprocess, sys
beside = subprocess.Popen(["sleep", "60"])
clean = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONDONTWRITEBYTECODE": "1"}
done = subprocess.run([sys.executable, sys.argv[1]], env=clean, stdout=subprocess.PIPE)
beside.kill()
sys.stdout.buffer.write(done.stdout)
"""


class Hostile(NamedTuple):
    """A model of a hostile repository.

    ``factory`` is ``module:function`` of a file in tests/attacks/hostile; ``more`` are its other keys
    in the manifest, as YAML in one line.
    """

    name: str
    factory: str
    more: str = ""


def read_reached(variant: Mapping[str, Any]) -> dict[str, str]:
    """What the probes reached, by the error of their model (tests/attacks/hostile/probing.py)."""
    message = variant["error"]["message"]
    match = re.search(r"tried \d+, reached (\{.*\})", message, re.S)
    assert match is not None, message
    return json.loads(match[1])


class Run(NamedTuple):
    """One run: exit code, what it printed, its OUT, and results.json, which is empty where there is
    none."""

    code: int
    printed: str
    out: Path
    report: dict[str, Any]

    def variants(self) -> dict[str, dict[str, Any]]:
        """What the report says of each model's variant."""
        return {variant["model"]: variant for variant in self.report["variants"]}

    def isolation(self) -> str:
        """What mconv says it enforced."""
        return self.report["isolation"]

    def commands(self) -> list[str]:
        """The lines of the log that a runner takes for commands."""
        return [
            line
            for line in self.printed.splitlines()
            if line.lstrip().startswith("::") or "##[" in line
        ]

    def leaked(self) -> list[str]:
        """The secrets that are in the log or in a file of OUT."""
        texts = [
            self.printed,
            *(
                p.read_text(errors="replace")
                for p in self.out.rglob("*")
                if p.is_file() and not p.is_symlink()
            ),
        ]
        return [name for name, value in SECRETS.items() if any(value in text for text in texts)]


def unable(mode: str) -> str | None:
    """Why attacks cannot be run in this mode here, or None."""
    if os.geteuid() != 0:
        return None if mode == "user" else "it takes root to run workers as another user"
    if not all(shutil.which(tool) for tool in ("unshare", "setpriv", "mount")):
        return "unshare, setpriv and mount are needed"
    tried = subprocess.run(
        ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "true"], capture_output=True
    )
    return None if tried.returncode == 0 else "namespaces cannot be made here"


@contextmanager
def workspace(attack: str) -> Iterator[Path]:
    """A hostile repository in a folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="mconv-attack-"))
    try:
        folder.chmod(0o755)
        place = folder / "workspace"
        place.mkdir()
        shutil.copyfile(Path(__file__).with_name("net.py"), place / "net.py")
        torch.save(torch.nn.Sequential(torch.nn.Linear(4, 3)).state_dict(), place / "w.pt")
        write_linear(place / "linear.onnx")
        (place / "models.yml").write_text(MANIFEST)
        (place / "attack.txt").write_text(attack)
        yield place
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_thief(place: Path, target: str) -> None:
    """Make the repository in ``place`` one whose second model has the parent open ``target``."""
    shutil.copyfile(Path(__file__).with_name("net.py"), place / "net.py")
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 3)).state_dict(), place / "w.pt")
    model = (
        "  - {{name: {0}, source: {{path: w.pt, factory: 'net:{0}'}}, inputs: {{x: {{shape: "
        "[batch, 4]}}}}, targets: [onnx]}}\n"
    )
    (place / "models.yml").write_text(
        "version: 1\nmodels:\n" + model.format("sleeper") + model.format("thief")
    )
    (place / "attack.txt").write_text(f"thief {target}")


def require(mode: str) -> None:
    """Skip the test where attacks cannot be run in this mode here."""
    if (reason := unable(mode)) is not None:
        pytest.skip(reason)


def write_repository(place: Path, models: Sequence[Hostile], victims: str = VICTIM) -> None:
    """Write hostile models' code and weights and the manifest into the new folder ``place``."""
    shutil.copytree(HOSTILE, place, ignore=shutil.ignore_patterns("__pycache__"))
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 3)).state_dict(), place / "w.pt")
    for name in ("linear.onnx", "leased"):
        write_linear(place / name)
    for name in ("honest.py", "removable"):
        (place / name).write_text("")
    lines = [
        f"  - {{name: {model.name}, source: {{path: w.pt, factory: '{model.factory}'}}, inputs: "
        f"{{x: {{shape: [batch, 4]}}}}, targets: [onnx]{model.more and ', ' + model.more}}}\n"
        for model in models
    ]
    text = "".join(["version: 1\nmodels:\n", *lines, victims])
    (place / "models.yml").write_text(text)


@contextmanager
def repository(models: Sequence[Hostile], victims: str = VICTIM) -> Iterator[Path]:
    """A hostile repository of ``models`` beside those of the manifest's lines ``victims``, and all
    that its code tries to reach."""
    folder = Path(tempfile.mkdtemp(prefix="mconv-attack-"))
    try:
        folder.chmod(0o755)
        place = folder / "workspace"
        write_repository(place, models, victims)
        for git in (place / ".git", place / "sub" / ".git"):
            git.mkdir(parents=True)
            (git / "config").write_text("extraheader = AUTHORIZATION: basic CANARY_CHECKOUT\n")
        secrets, runner, home = (folder / name for name in ("secrets", "runner", "home"))
        for path in (secrets, runner, home):
            path.mkdir()
        secrets.chmod(0o1777)  # as /tmp
        (secrets / "secret").write_text("CANARY_FILE")
        (secrets / "secret").chmod(0o600)
        (home / ".netrc").write_text("machine example.com password CANARY_HOME")
        for name in ("event.json", "output", "env", "path"):
            (runner / name).write_text("CANARY_RUNNER")
        (place / "linked").symlink_to(secrets / "secret")
        (place / "unspoken").symlink_to(secrets)
        (place / "checkout").symlink_to(".git")
        shutil.copytree(
            ROOT / "mconv", folder / "code/mconv", ignore=shutil.ignore_patterns("__pycache__")
        )
        (place / "targets.json").write_text(json.dumps(list_targets(place)))
        yield place
    finally:
        # folders may lie deeper in one another than Python removes them
        subprocess.run(["rm", "-rf", folder], check=False)


def list_targets(place: Path) -> dict[str, object]:
    """What hostile code tries to reach from the repository ``place``, by name."""
    folder = place.parent
    return {
        "secret": str(folder / "secrets/secret"),
        "runner": [str(path) for path in (folder / "runner").iterdir()],
        "home": str(folder / "home"),
        "store": str(place / "store"),
        "out": str(place / "out"),
        "code": [str(folder / "code/mconv" / name) for name in ("api/__init__.py", "compare.py")],
    }


class Listeners:
    """Sockets of all kinds of which each has its place in targets.json; ``reached`` are those that
    anything came to."""

    def __init__(self, place: Path) -> None:
        self.reached: list[str] = []
        self.connections: list[socket.socket] = []
        self.sockets = {
            "tcp": socket.socket(),
            "udp": socket.socket(type=socket.SOCK_DGRAM),
            "stream": socket.socket(socket.AF_UNIX),
            "datagram": socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
            "abstract": socket.socket(socket.AF_UNIX),
        }
        targets = json.loads((place / "targets.json").read_text())
        for name, each in self.sockets.items():
            if each.family == socket.AF_INET:
                each.bind(("127.0.0.1", 0))
                targets[name] = each.getsockname()[1]
            elif name == "abstract":
                targets[name] = place.parent.name
                each.bind("\0" + targets[name])
            else:
                targets[name] = str(place.parent / f"{name}.sock")
                each.bind(targets[name])
                os.chmod(targets[name], 0o666)
            if each.type == socket.SOCK_STREAM:
                each.listen()
            threading.Thread(target=self._hear, args=(name, each), daemon=True).start()
        (place / "targets.json").write_text(json.dumps(targets))

    def _hear(self, name: str, each: socket.socket) -> None:
        """Wait for anything."""
        while True:
            try:
                if each.type == socket.SOCK_STREAM:
                    self.connections.append(each.accept()[0])
                else:
                    each.recv(100)
            except OSError:
                return
            self.reached.append(name)

    def close(self) -> None:
        """Stop listening."""
        for each in self.sockets.values():
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept(2)
            each.close()
        for each in self.connections:
            each.close()


@contextmanager
def listen(place: Path) -> Iterator[list[str]]:
    """Listen on sockets of all kinds for what comes out of ``place``; the list holds which of them
    were reached."""
    listeners = Listeners(place)
    try:
        yield listeners.reached
    finally:
        listeners.close()


class Watch:
    """Looks for processes with a word on their command line that begins with ``marker``; ``lives``
    says of each such word for how long it was seen, in seconds."""

    def __init__(self, marker: str) -> None:
        self.marker = marker
        self.lives: dict[str, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        """Look until the end."""
        first: dict[str, float] = {}
        while not self._end.wait(0.1):
            now = time.monotonic()
            for word in set(self._list_words()):
                self.lives[word] = now - first.setdefault(word, now)

    def _list_words(self) -> Iterator[str]:
        """The words with the marker."""
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_text(errors="replace").split("\0")
                yield from (word for word in words if word.startswith(self.marker))


def find_abi() -> int:
    """The version of Landlock that holds the workers here."""
    return landlock.find_abi()


def run_bare(place: Path, module: str) -> dict[str, str]:
    """What the probes of a module reach as an ordinary user whom nothing confines."""
    command = [sys.executable, "-c", BARE, str(place / f"{module}.py")]
    done = _run_in_namespace(place, "user", command, {}, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(place: Path, mode: str, *arguments: str, timeout: float = 120, disk: int = 0) -> Run:
    """``mconv run`` in ``place``. Raises subprocess.TimeoutExpired where it hangs.

    ``disk``: the store is on a disk of so many MB, as root.
    """
    out = place / "out"
    code = place.parent / "code"
    given = {
        "PYTHONPATH": str(code if code.exists() else ROOT),
        "GITHUB_ACTIONS": "true",
    }
    store = ["--store", str(place / "store")]
    command = [
        sys.executable,
        "-P",
        "-m",
        "mconv",
        "run",
        "--no-measure",
        "--out",
        str(out),
        *store,
    ]
    done = _run_in_namespace(place, mode, [*command, *arguments], given, timeout=timeout, disk=disk)
    printed = (done.stdout + done.stderr).decode(errors="replace")
    results = out / "results.json"
    report = json.loads(results.read_text()) if results.is_file() else {}
    return Run(done.returncode, printed, out, report)


def _run_in_namespace(
    place: Path,
    mode: str,
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    timeout: float,
    disk: int = 0,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as PID 1 of a namespace, with the secrets."""
    scratch = place.parent / "interpreter"
    scratch.mkdir(exist_ok=True)
    home = place.parent / "home"
    home.mkdir(exist_ok=True)
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        **variables,
        **SECRETS,
    }
    if os.geteuid() == 0:
        privileges = f"--bounding-set -all,+{CAPABILITIES.replace(',', ',+')} --inh-caps -all"
        if mode == "user":
            privileges = f"--reuid {USER_UID} --regid {USER_UID} --clear-groups"
            for path in (place.parent, *place.parent.rglob("*")):
                os.chown(path, USER_UID, USER_UID, follow_symlinks=False)
        else:
            given["MCONV_WORKER_UIDS"] = WORKER_UIDS
        words = {"python": sys.executable, "scratch": str(scratch), "store": str(place / "store")}
        script = PRELUDE.format(
            privileges=privileges,
            disk=disk,
            **{name: shlex.quote(word) for name, word in words.items()},
        )
        namespace = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
        command = [*namespace, "bash", "-c", script, "bash", *command]
    return subprocess.run(command, cwd=place, env=given, capture_output=True, timeout=timeout)
