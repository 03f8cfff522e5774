"""The action's entry point: INPUT_* → `mconv run`, then `mconv publish`; outputs for the workflow.
Nothing else.

With the input ``results`` it only publishes that file and loads no model: the trusted half of
docs/github.md.

The token leaves the environment before anything of the repository runs: the process replaces itself
by one that never had it there (what a process was started with stays readable in /proc/PID/environ)
and reads it once from a pipe. PR_SET_DUMPABLE then keeps workers, which have a uid of their own in
the image, out of its memory.
"""

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

from mconv import plain_files
from mconv.__main__ import main as mconv
from mconv.api import read_results
from mconv.errors import MconvError, StoreError, UsageError
from mconv.github import workflow
from mconv.github.inputs import (
    FALSE,
    enter_folder,
    find_path_problems,
    find_problems,
    get_input,
    is_set,
)
from mconv.github.places import PRIVATE, PUBLIC, TEMPORARY, Places, choose_places

PR_SET_DUMPABLE = 4
TOKEN_PIPE = "MCONV_SECRETS_FD"
LOCAL_STORE = "MCONV_LOCAL_STORE"  # names the folder in front of a shared store
TOKENS = ("INPUT_GITHUB-TOKEN", "GITHUB_TOKEN")  # given back to `mconv publish`
KEYS = ("INPUT_STORE-KEY", "MCONV_STORE_KEY")  # given back to `mconv run`, which forgets it at once
SECRETS = (*TOKENS, *KEYS)
# the runner's cache, artifacts and OIDC, and gh's names: never needed
DROPPED = ("ACTIONS_", "GH_TOKEN", "GH_ENTERPRISE_TOKEN")


def make_run_arguments(inputs: Mapping[str, str]) -> list[str]:
    """Return the command line of `mconv run` for these inputs.

    Each value is one word with its option, or stands behind ``--``: it cannot be an option itself.
    """
    argv = ["run", f"--out={get_input(inputs, 'out', 'mconv-out')}", *make_only_arguments(inputs)]
    for name in ("store", "jobs", "shard", "baseline", "fail-on"):
        if value := get_input(inputs, name):
            argv.append(f"--{name}={value}")
    if get_input(inputs, "fail-on-unverified"):
        strict = is_set(inputs, "fail-on-unverified", "true")
        argv.append(f"--fail-on-unverified={'true' if strict else 'false'}")
    if not is_set(inputs, "measure", "true"):
        argv.append("--no-measure")
    return [*argv, "--", get_input(inputs, "manifest", "models.yml")]


def make_only_arguments(inputs: Mapping[str, str]) -> list[str]:
    """Return an option for each word of the input ``only``."""
    return [f"--only={pattern}" for pattern in get_input(inputs, "only").split()]


def make_plan_arguments(inputs: Mapping[str, str], shards: str) -> list[str]:
    """Return the command line of `mconv plan` for these inputs."""
    argv = ["plan", f"--shards={shards}", "--format=github", *make_only_arguments(inputs)]
    return [*argv, "--", get_input(inputs, "manifest", "models.yml")]


def list_given_results(inputs: Mapping[str, str]) -> list[str]:
    """Return the files that the input ``results`` names; its words may be globs."""
    files: list[str] = []
    for word in get_input(inputs, "results").split():
        files += sorted(glob.glob(word)) or [word]
    return files


def choose_results_file(inputs: Mapping[str, str]) -> Path:
    """Return the results.json to publish.

    It is the one that is named, else the one that the run writes, or that several are merged into.
    """
    files = list_given_results(inputs)
    if len(files) == 1:
        return Path(files[0])
    return Path(get_input(inputs, "out", "mconv-out")) / "results.json"


def make_publish_arguments(inputs: Mapping[str, str]) -> list[str]:
    """Return the command line of `mconv publish` for these inputs."""
    argv = [
        "publish",
        f"--comment-id={get_input(inputs, 'comment-id', 'default')}",
        f"--comment-author={get_input(inputs, 'comment-author', 'github-actions[bot]')}",
    ]
    if is_set(inputs, "comment", "true"):
        argv.append("--comment")
    if is_set(inputs, "checks", "false"):
        argv.append("--checks")
    if (release := get_input(inputs, "release", "auto")).lower() == "auto":
        argv.append("--release")
    elif release.lower() not in FALSE:
        argv.append(f"--release={release}")
    return [*argv, "--", str(choose_results_file(inputs))]


def fetch_baseline(
    inputs: Mapping[str, str], variables: MutableMapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """Return the inputs, with a file in place of the baseline ``auto``, which is fetched.

    The token is in the environment for that time only, and no worker runs then.
    """
    if get_input(inputs, "baseline").lower() != "auto":
        return dict(inputs)
    target = Path(get_input(inputs, "out", "mconv-out")) / "baseline.json"
    variables.update(secrets)
    try:
        artifact = get_input(inputs, "baseline-artifact", "mconv-results")
        code = mconv(["baseline", f"--artifact={artifact}", f"--out={target}"])
    finally:
        for name in secrets:
            variables.pop(name, None)
    return {**inputs, "INPUT_BASELINE": str(target) if code == 0 else ""}


def give_back(folders: Sequence[Path], tops: Sequence[Path]) -> None:
    """Give folders below ``tops`` to whom those belong.

    The runner's user must be able to keep, to change and to delete them.
    """
    for folder in folders:
        path = Path(os.path.abspath(folder))
        top = next((each for each in tops if each in path.parents), None)  # no top itself
        if top is not None and os.geteuid() == 0 and top.stat().st_uid != 0:
            _give_folder(path, top)


def _give_folder(folder: Path, top: Path) -> None:
    """Give a folder, what lies in it and the folders above it to the owner of ``top``."""
    owner = top.stat()
    # no link on the way is followed, and a run that was interrupted has made nothing
    with contextlib.suppress(OSError, StoreError), contextlib.ExitStack() as stack:
        within = stack.enter_context(plain_files.open_folder(top))
        for part in folder.relative_to(top).parts:
            within = stack.enter_context(plain_files.open_folder(part, within))
            os.fchown(within, owner.st_uid, owner.st_gid)
        plain_files.give_away(within, owner.st_uid, owner.st_gid)


def choose_folders(
    inputs: dict[str, str],
    variables: MutableMapping[str, str],
    workspace: Path,
    *,
    signs: bool,
) -> Places:
    """Put the places of the store and of environments where mconv finds them, and return them.

    ``signs``: there is a key that signs what goes into a shared store. Raises UsageError where a
    place lies in the workspace, and for a shared store without keys.
    """
    if public := get_input(inputs, "store-public-key"):
        variables[PUBLIC] = public
    keyed = signs or bool(variables.get(PUBLIC))
    places = choose_places(get_input(inputs, "store"), variables, workspace, keyed=keyed)
    inputs["INPUT_STORE"] = places.store
    variables[LOCAL_STORE] = str(places.front)
    variables["MCONV_STORE"] = places.store  # `mconv plan` looks what is stored, too
    variables["MCONV_ENVIRONMENTS"] = str(places.environments)
    if not places.is_kept:
        print(
            f"the runner mounts no {TEMPORARY}: the store lies in {places.front} and is not kept; "
            "update the runner, or name a store by its URL",
            file=sys.stderr,
        )
    return places


def make_relative(path: Path, workspace: Path) -> str:
    """Return ``path`` from the workspace; a path outside of it stays as it is."""
    full = Path(os.path.abspath(path))
    return str(full.relative_to(workspace)) if full.is_relative_to(workspace) else str(path)


def make_outputs(
    results: Path, artifacts: Path, code: int, workspace: Path, matrix: str = ""
) -> dict[str, str]:
    """Return the action's outputs, with counts from results.json where there is one.

    Paths are relative to the workspace, where the following steps run.
    """
    counts = {"passed": 0, "failed": 0, "errors": 0}
    shown = ""
    conclusion = "failure"
    with contextlib.suppress(MconvError):
        summary = read_results(results).summary
        counts = {
            "passed": summary.passed,
            "failed": summary.failed + summary.unverified,
            "errors": summary.error,
        }
        shown = make_relative(results, workspace)
        conclusion = "failure" if code else summary.conclusion
    values = {"results": shown, "artifacts": make_relative(artifacts, workspace)}
    return {
        **values,
        **{name: str(n) for name, n in counts.items()},
        "conclusion": conclusion,
        "matrix": matrix,
    }


def check_inputs(
    inputs: Mapping[str, str], workspace: Path, temporary: str | None
) -> Sequence[UsageError]:
    """Enter the working directory, and return what is wrong with the inputs.

    ``temporary`` is the runner's folder for temporary files, where it has one.
    """
    if problems := find_problems(inputs):
        return problems
    try:
        enter_folder(inputs, workspace)
    except UsageError as problem:
        return [problem]
    return find_path_problems(inputs, workspace, temporary)


def report_problems(problems: Sequence[UsageError]) -> None:
    """Print what is wrong with the inputs, for the log and as annotations."""
    for problem in problems:
        print(workflow.neutralise(f"error: {problem}"), file=sys.stderr)
    print("\n".join(workflow.annotate_errors(problems)), flush=True)


def plan_shards(inputs: Mapping[str, str], shards: str) -> tuple[int, str]:
    """Run `mconv plan`, and return its exit code and the matrix that it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = mconv(make_plan_arguments(inputs, shards))
    return code, printed.getvalue().strip()


def restart_without_secrets() -> None:
    """Replace this process by itself, the secrets in a pipe instead of the environment."""
    secrets = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
    reader, writer = os.pipe()
    os.write(writer, json.dumps(secrets).encode())
    os.close(writer)
    os.set_inheritable(reader, True)
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in SECRETS and not name.startswith(DROPPED)
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], {**clean, TOKEN_PIPE: str(reader)})


def read_secrets(variables: MutableMapping[str, str]) -> dict[str, str]:
    """Return the secrets from the pipe, which is closed and forgotten."""
    with os.fdopen(int(variables.pop(TOKEN_PIPE)), "rb") as pipe:
        return dict(json.loads(pipe.read()))


def main(variables: MutableMapping[str, str]) -> int:
    """Run and publish, and return the exit code.

    It is that of the run, the verdict on the models; where only results are published, the run had
    its verdict, and it is 0. A release that lacks what it was to hold is a failure of its own.
    """
    given = read_secrets(variables)
    secrets = {name: value for name, value in given.items() if name in TOKENS}
    key = next((given[name] for name in KEYS if name in given), "")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    inputs = {name: value for name, value in variables.items() if name.startswith("INPUT_")}
    workspace = Path.cwd()
    if problems := check_inputs(inputs, workspace, variables.get("RUNNER_TEMP")):
        report_problems(problems)
        values = {"results": "", "conclusion": "failure"}
        workflow.set_outputs(workflow.Environment.read(variables), values)
        return UsageError.exit_code
    try:
        places = choose_folders(inputs, variables, workspace, signs=bool(key))
    except UsageError as problem:
        report_problems([problem])
        values = {"results": "", "conclusion": "failure"}
        workflow.set_outputs(workflow.Environment.read(variables), values)
        return UsageError.exit_code
    inputs["INPUT_OUT"] = os.path.normpath(get_input(inputs, "out", "mconv-out"))
    results = choose_results_file(inputs)
    if key:
        variables[PRIVATE] = key
    if shards := get_input(inputs, "plan"):
        code, matrix = plan_shards(inputs, shards)
        values = make_outputs(Path(os.devnull), results.parent, code, workspace, matrix)
        values["conclusion"] = "failure" if code else "success"
        workflow.set_outputs(workflow.Environment.read(variables), values)
        return code
    if parts := list_given_results(inputs):
        variables.update(secrets)
        merged = (
            mconv(["report", "--format=json", f"--out={results}", "--", *parts])
            if len(parts) > 1
            else 0
        )
        code = merged or mconv(make_publish_arguments(inputs))
    else:
        results.unlink(missing_ok=True)  # an older run's must not be published as this one's
        arguments = make_run_arguments(fetch_baseline(inputs, variables, secrets))
        code = mconv(arguments)
        variables.pop(PRIVATE, None)
        if results.is_file():
            variables.update(secrets)
            published = mconv(make_publish_arguments(inputs))
            code = code or published
    folders = (results.parent, places.front, places.environments)
    give_back(folders, (workspace, places.temporary))
    workflow.set_outputs(
        workflow.Environment.read(variables), make_outputs(results, results.parent, code, workspace)
    )
    return code


if __name__ == "__main__":
    if TOKEN_PIPE not in os.environ:
        restart_without_secrets()
    sys.exit(main(os.environ))
