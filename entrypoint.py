"""The action's entry point: INPUT_* → `mconv run`, then `mconv publish`; outputs for the workflow.
Nothing else.

With the input ``results`` it only publishes that file and loads no model: the trusted half of
docs/github.md.

The token leaves the environment before anything of the repository runs: the process replaces itself
by one that never had it there (what a process was started with stays readable in /proc/PID/environ)
and reads it once from a pipe. PR_SET_DUMPABLE then keeps workers, which have a uid of their own in
the image, out of its memory."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import io
import json
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from mconv.__main__ import main as mconv
from mconv.api import read_results
from mconv.errors import MconvError
from mconv.github import workflow

PR_SET_DUMPABLE = 4
USAGE = 2
TOKEN_PIPE = "MCONV_SECRETS_FD"
TOKENS = ("INPUT_GITHUB-TOKEN", "GITHUB_TOKEN")  # given back to `mconv publish`
# the runner's cache, artifacts and OIDC, and gh's names: never needed
DROPPED = ("ACTIONS_", "GH_TOKEN", "GH_ENTERPRISE_TOKEN")
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


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
    for name in ("store", "jobs", "shard", "baseline", "fail-on"):
        if value := get(inputs, name):
            argv += [f"--{name}", value]
    if not flag(inputs, "measure", "true"):
        argv.append("--no-measure")
    return argv


def plan_argv(inputs: Mapping[str, str], shards: str) -> list[str]:
    """The command line of `mconv plan` for these inputs."""
    argv = ["plan", get(inputs, "manifest", "models.yml"), "--shards", shards, "--format", "github"]
    for pattern in get(inputs, "only").split():
        argv += ["--only", pattern]
    return argv


def given_results(inputs: Mapping[str, str]) -> list[str]:
    """The files that the input ``results`` names; its words may be globs."""
    return [
        path
        for word in get(inputs, "results").split()
        for path in sorted(glob.glob(word)) or [word]
    ]


def results_file(inputs: Mapping[str, str]) -> Path:
    """The results.json to publish: the one named, else the one that the run writes, or that several
    are merged into."""
    given = given_results(inputs)
    return (
        Path(given[0])
        if len(given) == 1
        else Path(get(inputs, "out", "mconv-out")) / "results.json"
    )


def publish_argv(inputs: Mapping[str, str]) -> list[str]:
    """The command line of `mconv publish` for these inputs."""
    argv = [
        "publish",
        str(results_file(inputs)),
        "--comment-id",
        get(inputs, "comment-id", "default"),
    ]
    argv += ["--comment-author", get(inputs, "comment-author", "github-actions[bot]")]
    if flag(inputs, "comment", "true"):
        argv.append("--comment")
    if flag(inputs, "checks", "false"):
        argv.append("--checks")
    if (release := get(inputs, "release", "auto")).lower() == "auto":
        argv.append("--release")
    elif release.lower() not in FALSE:
        argv += ["--release", release]
    return argv


def with_baseline(
    inputs: Mapping[str, str], variables: MutableMapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """The inputs, the baseline ``auto`` fetched: the token is in the environment for that time
    only, and no worker runs then."""
    if get(inputs, "baseline").lower() != "auto":
        return dict(inputs)
    target = Path(get(inputs, "out", "mconv-out")) / "baseline.json"
    variables.update(secrets)
    try:
        code = mconv(
            [
                "baseline",
                "--artifact",
                get(inputs, "baseline-artifact", "mconv-results"),
                "-o",
                str(target),
            ]
        )
    finally:
        for name in secrets:
            variables.pop(name, None)
    return {**inputs, "INPUT_BASELINE": str(target) if code == 0 else ""}


def give_back(folders: Sequence[Path], workspace: Path) -> None:
    """Files of the workspace belong to whom it belongs: the runner's user must be able to change
    and to delete them."""
    owner = workspace.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for folder in folders:
        top = Path(os.path.abspath(folder))
        if not top.is_relative_to(workspace) or Path(
            os.path.realpath(top)
        ) != workspace.resolve() / top.relative_to(workspace):
            continue  # outside of the workspace, perhaps behind a link in it
        if not top.is_dir():  # a run that was interrupted has made none
            continue
        for path in (top, *top.parents):
            if path == workspace:
                break
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        for _, below, files, descriptor in os.fwalk(top, follow_symlinks=False):
            for name in (*below, *files):
                with contextlib.suppress(OSError):
                    os.chown(
                        name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False
                    )


def relative(path: Path, workspace: Path) -> str:
    """``path`` from the workspace; a path outside of it stays as it is."""
    full = Path(os.path.abspath(path))
    return str(full.relative_to(workspace)) if full.is_relative_to(workspace) else str(path)


def outputs(
    results: Path, artifacts: Path, code: int, workspace: Path, matrix: str = ""
) -> dict[str, str]:
    """The action's outputs, counts from results.json where there is one; paths are relative to the
    workspace, where the following steps run."""
    counts = {"passed": 0, "failed": 0, "errors": 0}
    found, conclusion = "", "failure"
    with contextlib.suppress(MconvError):
        summary = read_results(results).summary
        counts = {
            "passed": summary.passed,
            "failed": summary.failed + summary.unverified,
            "errors": summary.error,
        }
        found = relative(results, workspace)
        conclusion = "failure" if code else summary.conclusion
    values = {"results": found, "artifacts": relative(artifacts, workspace)}
    return {
        **values,
        **{name: str(n) for name, n in counts.items()},
        "conclusion": conclusion,
        "matrix": matrix,
    }


def plan(inputs: Mapping[str, str], shards: str) -> tuple[int, str]:
    """(exit code, the matrix) of `mconv plan`."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = mconv(plan_argv(inputs, shards))
    return code, said.getvalue().strip()


def without_secrets() -> None:
    """Replace this process by itself, the secrets in a pipe instead of the environment."""
    secrets = {name: os.environ[name] for name in TOKENS if os.environ.get(name)}
    reader, writer = os.pipe()
    os.write(writer, json.dumps(secrets).encode())
    os.close(writer)
    os.set_inheritable(reader, True)
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in TOKENS and not name.startswith(DROPPED)
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], {**clean, TOKEN_PIPE: str(reader)})


def read_secrets(variables: MutableMapping[str, str]) -> dict[str, str]:
    """The secrets from the pipe, which is closed and forgotten."""
    with os.fdopen(int(variables.pop(TOKEN_PIPE)), "rb") as pipe:
        return dict(json.loads(pipe.read()))


def main(variables: MutableMapping[str, str]) -> int:
    """Run and publish; the exit code is that of the run: the models' verdict. Only publishing, 0:
    the run had its verdict."""
    secrets = read_secrets(variables)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    inputs = {name: value for name, value in variables.items() if name.startswith("INPUT_")}
    workspace = Path.cwd()
    folder = get(inputs, "working-directory", ".")
    try:
        os.chdir(folder)
    except OSError as problem:
        print(
            workflow.format_annotation(
                "error", f"working-directory {folder}: {problem.strerror}", title="mconv"
            ),
            flush=True,
        )
        return USAGE
    results = results_file(inputs)
    if shards := get(inputs, "plan"):
        code, matrix = plan(inputs, shards)
        said = outputs(Path(os.devnull), results.parent, code, workspace, matrix)
        said["conclusion"] = "failure" if code else "success"
        workflow.set_outputs(workflow.Environment.read(variables), said)
        return code
    if parts := given_results(inputs):
        variables.update(secrets)
        merged = (
            mconv(["report", *parts, "--format", "json", "-o", str(results)])
            if len(parts) > 1
            else 0
        )
        code = merged or mconv(publish_argv(inputs))
    else:
        results.unlink(missing_ok=True)  # an older run's must not be published as this one's
        code = mconv(run_argv(with_baseline(inputs, variables, secrets)))
        if results.is_file():
            variables.update(secrets)
            mconv(publish_argv(inputs))
    give_back((results.parent, Path(get(inputs, "store", ".mconv/store"))), workspace)
    workflow.set_outputs(
        workflow.Environment.read(variables), outputs(results, results.parent, code, workspace)
    )
    return code


if __name__ == "__main__":
    if TOKEN_PIPE not in os.environ:
        without_secrets()
    sys.exit(main(os.environ))
