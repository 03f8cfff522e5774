"""The action's entry point: INPUT_* → `mconv run`, then `mconv publish`; outputs for the workflow. Nothing else.

The token leaves the environment before anything of the repository runs: the process replaces itself by one that never had it
there (what a process was started with stays readable in /proc/PID/environ) and reads it once from a pipe. PR_SET_DUMPABLE
then keeps workers, which have a uid of their own in the image, out of its memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from mconv.__main__ import main as mconv
from mconv.github import workflow

PR_SET_DUMPABLE = 4
TOKEN_PIPE = "MCONV_SECRETS_FD"
SECRETS = ("INPUT_GITHUB-TOKEN", "GITHUB_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
TRUE = ("true", "1", "yes", "on")


def get(inputs: Mapping[str, str], name: str, default: str = "") -> str:
    """An input by its name in action.yml; the runner upper-cases names and keeps dashes."""
    return inputs.get(f"INPUT_{name.replace(' ', '_').upper()}", "").strip() or default


def flag(inputs: Mapping[str, str], name: str, default: str) -> bool:
    return get(inputs, name, default).lower() in TRUE


def run_argv(inputs: Mapping[str, str]) -> list[str]:
    """The command line of `mconv run` for these inputs."""
    argv = ["run", get(inputs, "manifest", "models.yml"), "--out", get(inputs, "out", "mconv-out")]
    for pattern in get(inputs, "only").split():
        argv += ["--only", pattern]
    for name in ("store", "jobs", "fail-on"):
        if value := get(inputs, name):
            argv += [f"--{name}", value]
    if not flag(inputs, "measure", "true"):
        argv.append("--no-measure")
    return argv


def publish_argv(inputs: Mapping[str, str]) -> list[str]:
    """The command line of `mconv publish` for these inputs."""
    argv = ["publish", str(Path(get(inputs, "out", "mconv-out")) / "results.json")]
    if flag(inputs, "comment", "true"):
        argv += ["--comment", "--comment-id", get(inputs, "comment-id", "default")]
    if flag(inputs, "checks", "false"):
        argv.append("--checks")
    return argv


def outputs(out: Path, code: int) -> dict[str, str]:
    """The action's outputs, from results.json where there is one."""
    values = {"results": "", "artifacts": str(out), "passed": "0", "failed": "0", "errors": "0", "conclusion": "failure"}
    with contextlib.suppress(OSError, ValueError, KeyError):
        summary = json.loads((out / "results.json").read_text(encoding="utf-8"))["summary"]
        values |= {
            "results": str(out / "results.json"),
            "passed": str(summary["passed"]),
            "failed": str(summary["failed"] + summary["unverified"]),
            "errors": str(summary["error"]),
        }
    values["conclusion"] = "success" if code == 0 else "failure"
    return values


def without_secrets() -> None:
    """Replace this process by itself, the secrets in a pipe instead of the environment."""
    secrets = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
    reader, writer = os.pipe()
    os.write(writer, json.dumps(secrets).encode())
    os.close(writer)
    os.set_inheritable(reader, True)
    clean = {name: value for name, value in os.environ.items() if name not in SECRETS}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**clean, TOKEN_PIPE: str(reader)})


def read_secrets(variables: MutableMapping[str, str]) -> dict[str, str]:
    """The secrets from the pipe, which is closed and forgotten."""
    with os.fdopen(int(variables.pop(TOKEN_PIPE)), "rb") as pipe:
        return dict(json.loads(pipe.read()))


def main(variables: MutableMapping[str, str]) -> int:
    """Run and publish; the exit code is that of the run: the models' verdict."""
    secrets = read_secrets(variables)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    inputs = {name: value for name, value in variables.items() if name.startswith("INPUT_")}
    os.chdir(get(inputs, "working-directory", "."))
    out = Path(get(inputs, "out", "mconv-out"))
    (out / "results.json").unlink(missing_ok=True)  # an older run's must not be published as this one's
    code = mconv(run_argv(inputs))
    if (out / "results.json").is_file():
        variables.update(secrets)
        mconv(publish_argv(inputs))
    workflow.set_outputs(workflow.Environment.read(variables), outputs(out, code))
    return code


if __name__ == "__main__":
    if TOKEN_PIPE not in os.environ:
        without_secrets()
    sys.exit(main(os.environ))
