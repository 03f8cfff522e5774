"""Where the action keeps what later runs believe: the store and the environments.

What lies in the workspace may have come with the checkout of a pull request, and whoever can commit
an entry of the store can commit its digest. The folders lie in the runner's folder for temporary
files instead, into which `actions/cache` brings them before any code of the checkout runs; GitHub
keeps a pull request's cache from all others.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mconv.errors import UsageError

TEMPORARY = "RUNNER_TEMP"
STORE = "mconv-store"
ENVIRONMENTS = "mconv-environments"
FILE = "file://"
PRIVATE, PUBLIC = "MCONV_STORE_KEY", "MCONV_STORE_PUBLIC_KEY"


class Places(NamedTuple):
    """Where the action keeps what later runs believe.

    Attributes:
        temporary: The folder that the others lie in, unless they are named.
        store: The store: a folder, or a URL.
        front: The folder of the store on this machine.
        environments: The folder of environments.
        is_kept: Steps after the action find the folders.
    """

    temporary: Path
    store: str
    front: Path
    environments: Path
    is_kept: bool


def choose_places(
    named: str, variables: Mapping[str, str], workspace: Path, *, keyed: bool = False
) -> Places:
    """Return the places, for the store that the input names, if it does.

    ``keyed``: there are keys for a shared one.

    Raises UsageError where one lies in the workspace, and for a shared store without a key.
    """
    runner = variables.get(TEMPORARY, "")
    is_kept = bool(runner) and Path(runner).is_dir() and not is_within(runner, workspace)
    temporary = Path(runner) if is_kept else _make_temporary()
    default = temporary / STORE
    store = named or variables.get("MCONV_STORE", "") or str(default)
    environments = variables.get("MCONV_ENVIRONMENTS", "") or str(temporary / ENVIRONMENTS)
    for what, place, name in (
        ("store", store, STORE),
        ("MCONV_ENVIRONMENTS", environments, ENVIRONMENTS),
    ):
        folder = place.removeprefix(FILE)
        if "://" not in folder and is_within(folder, workspace):
            raise UsageError(
                f"{what} is {place!r}, which lies in the workspace: a pull request could bring it, "
                "and its digests with it",
                hint=f"leave it out, and keep ${{{{ runner.temp }}}}/{name} with actions/cache",
            )
    if "://" in store and not keyed:
        raise UsageError(
            f"the shared store {store!r} has no key: whoever may write there is believed",
            hint="give store-public-key, and store-key to runs of the default branch alone; `mconv "
            "store keys` makes them",
        )
    front = default if "://" in store else Path(store)
    return Places(temporary, store, front, Path(environments), is_kept)


def _make_temporary() -> Path:
    """Make a folder that nobody else can have put anything into, and that workers may enter."""
    folder = Path(tempfile.mkdtemp(prefix="mconv-"))
    folder.chmod(0o711)
    return folder


def is_within(path: str | Path, workspace: Path) -> bool:
    """Return whether a path lies in the workspace, as it is written or by where links lead."""
    written, real = os.path.abspath(path), os.path.realpath(path)
    tops = (os.path.abspath(workspace), os.path.realpath(workspace))
    return any(Path(each).is_relative_to(top) for each in (written, real) for top in tops)
