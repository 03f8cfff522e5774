"""Whether git tracks a folder: what a commit can bring must not pass for what mconv made itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mconv.errors import UsageError, one_line

SECONDS = 60
# The repository's own settings must not run anything (core.fsmonitor is a command), a repository
# inside of the tree's files is none (safe.bareRepository), and it may belong to another user, as a
# workspace in a container does.
SETTINGS = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "safe.bareRepository": "explicit",
    "safe.directory": "*",
}


def refuse_tracked(folder: Path, what: str = "store", option: str = "--store") -> None:
    """Raise UsageError where git tracks any file of the store in ``folder``, or cannot tell.

    A store's entries are believed when their digests agree, and whoever can commit a file can
    commit a digest with it. ``what`` the folder is and the ``option`` that names another are for
    people.
    """
    real = folder.resolve()
    for top in (real, *real.parents):
        if not _is_checkout(top):
            continue
        tracked = _list_tracked(top, real, what, option)
        if tracked:
            raise UsageError(
                "what a commit brings is no result of mconv's: "
                f"git tracks files of the {what} {folder}, such as {one_line(tracked, 200)}",
                hint=f"git rm -r --cached {folder}, add it to .gitignore, or name another {what} "
                f"with {option}",
            )


def _is_checkout(folder: Path) -> bool:
    """Return whether ``folder`` is the top of a work tree.

    That is the tree of a repository, or (a file) that of a submodule or another work tree.
    """
    git = folder / ".git"
    return git.is_file() or os.path.lexists(git / "HEAD")


def _list_tracked(top: Path, folder: Path, what: str, option: str) -> str:
    """Return the first file below ``folder`` that git tracks, or an empty text.

    ``top`` is the top of the repository. Raises UsageError where git cannot be asked.
    """
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    inside = folder.relative_to(top).as_posix()
    command = [
        "git",
        *settings,
        "-C",
        str(top),
        "ls-files",
        "-z",
        "--cached",
        "--",
        f":(top,literal){inside}",
    ]
    if inside == ".":
        command = command[:-2]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as problem:
        stderr = getattr(problem, "stderr", None)
        reason = one_line(stderr.decode("utf-8", "replace") if stderr else problem, 200)
        raise UsageError(
            f"git cannot say whether it tracks the {what} {folder}: {reason}",
            hint=f"install git, or name a {what} outside of the checkout with {option}",
        ) from problem
    return done.stdout.split(b"\0")[0].decode("utf-8", "replace")
