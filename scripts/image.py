"""Build the action's image and run it as GitHub's runner does, without a registry or a daemon.

    sudo scripts/image.py build sudo scripts/image.py run --workspace DIR --event event.json --input
    manifest=models.yml --env GITHUB_REPOSITORY=me/it

As root on Debian, with its packages buildah, podman, runc and mmdebstrap. The base images are stood
in for by a minimal Debian with this machine's Python and Node, its certificates and its pip and npm
settings; everything after that is the Dockerfile as it is. Images and settings lie in $MCONV_IMAGES
(default /var/tmp/mconv-images); `remove` takes them away."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "node", "npm")
IMAGE = "localhost/mconv"
BASE = "localhost/mconv-base"
PACKAGES = "python3.11,python3.11-venv,ca-certificates,passwd,libstdc++6,libatomic1"
SUITE = "bookworm"
ROOM = 16 * 10**9  # bytes: the image is 5 GB, and its stages are there twice while it is built
COPIED = (
    "Dockerfile",
    "requirements.lock",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "mconv",
    "entrypoint.py",
)
DOCKER = Path("/var/run/docker.sock")
OWN = ("HOME", "PATH")  # variables that podman itself reads


def folder() -> Path:
    return Path(os.environ.get("MCONV_IMAGES") or "/var/tmp/mconv-images")


def missing() -> str | None:
    """Why this machine cannot build or run the image, or None."""
    if os.geteuid() != 0:
        return "building and running the image here needs root"
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"not installed: {', '.join(absent)}"
    near = next(p for p in (folder(), *folder().parents) if p.is_dir())
    if (free := shutil.disk_usage(near).free) < ROOM:
        return f"{near} has {free / 1e9:.0f} GB free, the image and its build need {ROOM / 1e9:.0f}"
    return None


def unable() -> str | None:
    """The same after trying: the reason why not even the stand-in for the base image can be made
    and run."""
    if (reason := missing()) is not None:
        return reason
    try:
        if not present(BASE):
            stand_in()
        call(
            "podman",
            "run",
            "--rm",
            "--network=host",
            BASE,
            "python",
            "-c",
            "",
            stdout=subprocess.DEVNULL,
        )
    except subprocess.CalledProcessError as problem:
        return f"{problem.cmd[0]} ended with {problem.returncode}"
    return None


def environment() -> dict[str, str]:
    """Settings of the container tools: everything in :func:`folder`, no daemon, runc (crun fails on
    hybrid cgroups)."""
    home = folder()
    home.mkdir(parents=True, exist_ok=True)
    storage = home / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/storage"\nrunroot = "{home}/run"\n'
    )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = f'default_ulimits = ["nofile={files}:{files}", "nproc=32768:32768"]'
    engine = '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    containers = home / "containers.conf"
    containers.write_text(f"[containers]\n{limits}\n{engine}")
    return {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_CONF": str(containers),
        "TMPDIR": str(home),
    }


def call(*argv: str | Path, **options: object) -> None:
    subprocess.run([str(a) for a in argv], check=True, env=environment(), **options)  # type: ignore[call-overload]


def present(image: str) -> bool:
    return subprocess.run(["podman", "image", "exists", image], env=environment()).returncode == 0


def stand_in() -> None:
    """A minimal Debian as the base of all stages."""
    npm = (
        Path(
            subprocess.run(
                ["npm", "root", "-g"], check=True, capture_output=True, text=True
            ).stdout.strip()
        )
        / "npm"
    )
    node = Path(str(shutil.which("node"))).resolve()
    hooks = [
        'chroot "$1" ln -s python3.11 /usr/bin/python',
        f'install -m 755 {node} "$1/usr/bin/node"',
        f'mkdir -p "$1/usr/lib/node_modules" && cp -rL {npm} "$1/usr/lib/node_modules/"',
        'ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/usr/bin/npm"',
        'cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"',
    ]
    for settings in (
        "/etc/pip.conf",
        "/etc/npmrc",
        "/usr/etc/npmrc",
        "/root/.config/pip/pip.conf",
        "/root/.npmrc",
    ):
        if Path(settings).is_file():
            hooks.append(f'install -D -m 644 {settings} "$1{settings}"')
    archive = folder() / "base.tar"
    sources = [
        str(p)
        for p in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
        if p.is_file()
    ]
    argv = [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={PACKAGES}",
        *(f"--customize-hook={hook}" for hook in hooks),
    ]
    call(*argv, SUITE, archive, *sources[:1])
    changes = ["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    for name in ("PIP_CERT", "NODE_EXTRA_CA_CERTS"):
        if certificates := os.environ.get(name):
            changes.append(f"ENV {name}={certificates}")
    call(
        "podman",
        "import",
        "--quiet",
        *(f"--change={each}" for each in changes),
        archive,
        f"{BASE}:latest",
    )
    archive.unlink()


def local_packages() -> list[str]:
    """Folders that pip's settings name, to be seen in the build."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    words = {
        word.strip("'\"").removeprefix("file://")
        for line in said.splitlines()
        for word in line.partition("=")[2].split()
    }
    tops = {
        "/".join(word.split("/")[:3])
        for word in words
        if word.startswith("/") and Path(word).is_dir()
    }
    return sorted(tops)


def tracked() -> list[Path]:
    """The repository's files, relative: what a runner has, nothing lying about beside it."""
    said = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [Path(name) for name in said.split("\0") if name and (ROOT / name).is_file()]


def digest() -> str:
    """SHA-256 over what the Dockerfile copies."""
    found = hashlib.sha256()
    for path in tracked():
        if path.parts[0] in COPIED:
            found.update(
                f"{path}\0{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}\n".encode()
            )
    return found.hexdigest()


def build() -> None:
    """The image of the Dockerfile, from the stand-in; nothing where it was built from the same
    files before."""
    if not present(BASE):
        stand_in()
    label = f"mconv.context={digest()}"
    if present(IMAGE):
        said = subprocess.run(
            ["podman", "image", "inspect", IMAGE], env=environment(), capture_output=True, text=True
        ).stdout
        if label.partition("=")[2] in said:
            return
        call("podman", "rmi", "--force", IMAGE, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory(dir=folder()) as scratch:
        context = Path(scratch)
        for path in tracked():
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, context / path)
        volumes = [f"--volume={path}:{path}:ro" for path in local_packages()]
        arguments = [
            f"--build-arg=BASE={BASE}",
            f"--build-arg=NODE={BASE}",
        ]
        call(
            "buildah",
            "bud",
            "--isolation=chroot",
            "--pull=never",
            "--layers=false",
            f"--label={label}",
            *volumes,
            *arguments,
            "-t",
            IMAGE,
            context,
        )


def remove() -> None:
    """Everything that was made here: images, settings, the folder."""
    subprocess.run(["podman", "rmi", "--all", "--force"], env=environment(), capture_output=True)
    shutil.rmtree(folder(), ignore_errors=True)


def run_arguments(
    workspace: Path, temporary: Path, variables: Mapping[str, str], docker: Path | None
) -> list[str]:
    """The arguments of the runner's `docker run` for a container action (its
    ContainerActionHandler), with the host's network in place of a bridge."""
    mounts = {
        "/github/workspace": workspace,
        "/github/home": temporary / "home",
        "/github/workflow": temporary / "workflow",
        "/github/file_commands": temporary / "file_commands",
        "/github/runner_temp": temporary / "runner_temp",
    }
    for path in mounts.values():
        path.mkdir(parents=True, exist_ok=True)
    volumes = [f"--volume={path}:{where}" for where, path in mounts.items()]
    if docker is not None:
        volumes.append(f"--volume={docker}:{DOCKER}")
    passed = [
        f"--env={name}={value}" if name in OWN else f"--env={name}"
        for name, value in variables.items()
    ]
    return [
        "podman",
        "run",
        "--rm",
        "--network=host",
        "--workdir=/github/workspace",
        *passed,
        *volumes,
        IMAGE,
    ]


def settings(temporary: Path, inputs: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """The environment a runner gives: inputs (dashes stay), file commands, the event."""
    commands = temporary / "file_commands"
    commands.mkdir(parents=True, exist_ok=True)
    named = {}
    for name in ("OUTPUT", "STEP_SUMMARY", "ENV", "STATE"):
        (commands / name.lower()).touch()
        named[f"GITHUB_{name}"] = f"/github/file_commands/{name.lower()}"
    return {
        **{f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in inputs.items()},
        **named,
        "HOME": "/github/home",
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": "/github/workspace",
        "GITHUB_EVENT_PATH": "/github/workflow/event.json",
        "RUNNER_TEMP": "/github/runner_temp",
        "RUNNER_OS": "Linux",
        **more,
    }


def run(
    workspace: Path,
    temporary: Path,
    event: Mapping[str, object],
    inputs: Mapping[str, str],
    more: Mapping[str, str],
    *,
    socket: Path | None = None,
) -> subprocess.Popen[str]:
    """Start the action in its container; its output is the process's stdout. ``socket`` is what it
    sees as Docker's."""
    (temporary / "workflow").mkdir(parents=True, exist_ok=True)
    (temporary / "workflow/event.json").write_text(json.dumps(event))
    variables = settings(temporary, inputs, more)
    return subprocess.Popen(
        run_arguments(workspace, temporary, variables, socket),
        env={
            **environment(),
            **{name: value for name, value in variables.items() if name not in OWN},
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pairs(words: Sequence[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["build", "run", "remove"])
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--event", type=Path)
    parser.add_argument("--input", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    args = parser.parse_args()
    if (reason := missing()) is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    if args.what == "build":
        build()
        return 0
    if args.what == "remove":
        remove()
        return 0
    event = json.loads(args.event.read_text()) if args.event else {}
    with tempfile.TemporaryDirectory() as scratch:
        there = DOCKER if DOCKER.exists() else None
        process = run(
            args.workspace.resolve(),
            Path(scratch),
            event,
            pairs(args.input),
            pairs(args.env),
            socket=there,
        )
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
        print((Path(scratch) / "file_commands/step_summary").read_text())
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
