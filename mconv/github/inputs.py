"""The action's inputs: read by their names in action.yml, and checked before anything runs.

What an input may hold is said by one table, and a value that is none of it is an error that names
the input. No value becomes an option of a command: one that begins with a dash is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mconv import plain_files
from mconv.errors import UsageError

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")
FAIL_ON = ("error", "failed", "regression", "never")
MOST_JOBS = 1024
MOST_SHARDS = 256  # jobs that a matrix of GitHub's may have
LONGEST = 255  # characters of a name that GitHub keeps
LONGEST_SHOWN = 100


class Input(NamedTuple):
    """What an input may hold.

    Attributes:
        allowed: It in words, which end the sentence "the input is ...".
        takes: Returns whether a value, or a word of one, is that.
        words: The value is words between white space, lines too.
        secret: The value stands in no message.
    """

    allowed: str
    takes: Callable[[str], bool]
    words: bool = False
    secret: bool = False


def is_switch(value: str) -> bool:
    """Return whether a value is a yes or a no."""
    return value.lower() in (*TRUE, *FALSE)


def is_number(value: str, most: int) -> bool:
    """Return whether a value is a whole number from 1 to ``most``."""
    return re.fullmatch(r"[0-9]{1,9}", value) is not None and 1 <= int(value) <= most


def is_shard(value: str) -> bool:
    """Return whether a value is I/N, the I-th of N parts."""
    index, slash, count = value.partition("/")
    return bool(slash) and is_number(count, MOST_SHARDS) and is_number(index, int(count))


def is_artifact_name(value: str) -> bool:
    """Return whether GitHub takes a value as the name of an artifact."""
    return len(value) <= LONGEST and not set(value) & set('":<>|*?\\/')


def is_tag(value: str) -> bool:
    """Return whether a value can be a tag's name, or is ``auto`` or a no.

    The rules are those of git-check-ref-format(1).
    """
    wrong = re.search(r"[\s~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|[./]$|^/|^@$", value)
    return wrong is None and value.lower() not in ("true", "yes", "on") and len(value) <= LONGEST


def is_login(value: str) -> bool:
    """Return whether a value can be the login of a user or of an app."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,100}(\[bot\])?", value) is not None


def is_key(value: str) -> bool:
    """Return whether a value can be a key: 32 bytes in base64."""
    return re.fullmatch(r"[A-Za-z0-9+/]{43}=", value) is not None


def is_anything(value: str) -> bool:
    """Return that a value is nothing that could be wrong by itself."""
    return bool(value)


SWITCH = Input("true or false", is_switch)
ANY_PATH = Input("a path", is_anything)
INPUTS: Mapping[str, Input] = {
    "manifest": ANY_PATH,
    "working-directory": ANY_PATH,
    "only": Input("globs of model names or model/target/precision", is_anything, words=True),
    "out": ANY_PATH,
    "store": Input("a folder or a URL", is_anything),
    "store-key": Input("a private key of `mconv store keys`", is_anything, secret=True),
    "store-public-key": Input("a public key of `mconv store keys`", is_key),
    "jobs": Input(
        f"a whole number from 1 to {MOST_JOBS}", lambda value: is_number(value, MOST_JOBS)
    ),
    "measure": SWITCH,
    "fail-on": Input("error, failed, regression or never", lambda value: value in FAIL_ON),
    "fail-on-unverified": Input("true, false or empty", is_switch),
    "baseline": Input("auto or a path", is_anything),
    "baseline-artifact": Input(
        f'a name of at most {LONGEST} characters without " : < > | * ? \\ /', is_artifact_name
    ),
    "shard": Input(f"I/N with I from 1 to N, and N at most {MOST_SHARDS}", is_shard),
    "plan": Input(
        f"a whole number from 1 to {MOST_SHARDS}", lambda value: is_number(value, MOST_SHARDS)
    ),
    "results": Input("paths or globs of results.json", is_anything, words=True),
    "comment": SWITCH,
    "comment-id": Input(
        f"a name of at most {LONGEST} characters", lambda value: len(value) <= LONGEST
    ),
    "comment-author": Input("the login of a user, or of an app with [bot] behind it", is_login),
    "checks": SWITCH,
    "release": Input("auto, false or the name of a tag", is_tag),
    "github-token": Input("a token", is_anything, secret=True),
}


def get_input(inputs: Mapping[str, str], name: str, default: str = "") -> str:
    """Return an input by its name in action.yml.

    The runner upper-cases names and keeps dashes.
    """
    return inputs.get(f"INPUT_{name.replace(' ', '_').upper()}", "").strip() or default


def is_set(inputs: Mapping[str, str], name: str, default: str) -> bool:
    """Return whether an input says yes."""
    return get_input(inputs, name, default).lower() in TRUE


def find_problems(inputs: Mapping[str, str]) -> list[UsageError]:
    """Return what is wrong with the values of the inputs; nothing is looked up on disk."""
    problems = []
    for name, rule in INPUTS.items():
        value = get_input(inputs, name)
        for word in value.split() if rule.words else [value] if value else []:
            if (problem := find_problem(name, word, rule)) is not None:
                problems.append(problem)
    return problems


def find_problem(name: str, value: str, rule: Input) -> UsageError | None:
    """Return what is wrong with a value, or with a word of one."""
    shown = "its value" if rule.secret else repr(value[:LONGEST_SHOWN])
    if not value.isprintable():
        return UsageError(f"{name} holds a line break or another control character: {shown}")
    if value.startswith("-"):
        return UsageError(
            f"{name} is {rule.allowed}, not {shown}",
            hint="no value begins with a dash, as an option does",
        )
    if not rule.takes(value):
        return UsageError(f"{name} is {rule.allowed}, not {shown}")
    return None


def enter_folder(inputs: Mapping[str, str], workspace: Path) -> None:
    """Make the working directory the folder that the input names.

    Raises UsageError where that is none, or lies outside of the workspace.
    """
    named = get_input(inputs, "working-directory", ".")
    folder = (workspace / named).resolve()
    if not folder.is_relative_to(workspace.resolve()):
        raise UsageError(f"working-directory is a folder in the workspace, not {named!r}")
    try:
        os.chdir(folder)
    except OSError as problem:
        raise UsageError(f"working-directory {named}: {problem.strerror}") from problem


def find_path_problems(
    inputs: Mapping[str, str], workspace: Path, temporary: str | None
) -> list[UsageError]:
    """Return what is wrong with the places of the manifest and of OUT, seen from the working
    directory.

    ``temporary`` is $RUNNER_TEMP, where OUT may lie as well as in the workspace.
    """
    problems = []
    manifest = get_input(inputs, "manifest", "models.yml")
    top = workspace.resolve()
    if not Path(manifest).resolve().is_relative_to(top):
        problems.append(
            UsageError(
                f"manifest is a file in the workspace, not {manifest!r}",
                hint="links lead out of it, too",
            )
        )
    if (problem := _find_out_problem(inputs, top, temporary)) is not None:
        problems.append(problem)
    return problems


def _find_out_problem(
    inputs: Mapping[str, str], workspace: Path, temporary: str | None
) -> UsageError | None:
    """Return why OUT cannot lie where it is to lie, or None."""
    named = get_input(inputs, "out", "mconv-out")
    out = Path(os.path.abspath(named))
    tops = [workspace, *([Path(temporary).resolve()] if temporary else [])]
    top = next((each for each in tops if out != each and out.is_relative_to(each)), None)
    hint = "name a folder for it alone, such as mconv-out"
    if top is None:
        return UsageError(f"out is a folder below the workspace, not {named!r}", hint=hint)
    if ".git" in (part.lower() for part in out.relative_to(top).parts):
        return UsageError(f"out lies in a repository's .git: {named!r}", hint=hint)
    if (link := plain_files.find_link(out, top)) is not None:
        return UsageError(
            f"out is {named!r}, but {link.relative_to(top)} is a link",
            hint="no link is followed there: name a folder",
        )
    manifest = Path(get_input(inputs, "manifest", "models.yml")).resolve()
    for what, path in (("working directory", Path.cwd()), ("manifest", manifest)):
        if path.is_relative_to(out):
            return UsageError(f"out is {named!r}, which holds the {what}", hint=hint)
    for name in ("results.json", "baseline.json"):  # written before anything runs
        if (out / name).is_dir():
            return UsageError(f"out is {named!r}, where {name} is a folder", hint=hint)
    return None
