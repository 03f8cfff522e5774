"""Runs mconv on a hostile repository as a runner does: as PID 1 of a namespace of its own, secrets
in its environment.

``root``: with Docker's default capabilities, workers as another user. ``user``: as an ordinary
user, who is the workers' user too."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from tests.conftest import ROOT
from tests.models import write_linear

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
exec setpriv {privileges} -- "$@"
"""


class Run(NamedTuple):
    """One run: exit code, what it printed, and its OUT."""

    code: int
    printed: str
    out: Path

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
    """Make the repository in ``place`` one whose second model has the parent open ``target``.

    ``notes/started`` is there afterwards where it tried.
    """
    notes = place / "notes"
    notes.mkdir()
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
    notes.chmod(0o777)


def run(place: Path, mode: str, *, timeout: float = 120) -> Run:
    """``mconv run`` in ``place``. Raises subprocess.TimeoutExpired where it hangs."""
    out = place / "out"
    scratch = place.parent / "interpreter"
    scratch.mkdir(exist_ok=True)
    home = place.parent / "home"
    home.mkdir(exist_ok=True)
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GITHUB_ACTIONS": "true",
        **SECRETS,
    }
    command = [
        sys.executable,
        "-m",
        "mconv",
        "run",
        "--no-measure",
        "--out",
        str(out),
        "--store",
        str(place / "store"),
    ]
    if os.geteuid() == 0:
        privileges = f"--bounding-set -all,+{CAPABILITIES.replace(',', ',+')} --inh-caps -all"
        if mode == "user":
            privileges = f"--reuid {USER_UID} --regid {USER_UID} --clear-groups"
            for path in (place, home, *place.rglob("*")):
                os.chown(path, USER_UID, USER_UID, follow_symlinks=False)
        else:
            given["MCONV_WORKER_UIDS"] = WORKER_UIDS
        words = {"python": sys.executable, "scratch": str(scratch)}
        script = PRELUDE.format(
            privileges=privileges, **{name: shlex.quote(word) for name, word in words.items()}
        )
        namespace = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
        command = [*namespace, "bash", "-c", script, "bash", *command]
    done = subprocess.run(command, cwd=place, env=given, capture_output=True, timeout=timeout)
    return Run(done.returncode, (done.stdout + done.stderr).decode(errors="replace"), out)
