"""The newest results of a branch, from the artifacts of its workflow runs."""

from __future__ import annotations

import io
import zipfile

from mconv.errors import PublishError
from mconv.github.api import Api

FILE = "results.json"
# bytes of the artifact as stored; what it holds is checked against its own limit when it is read
MAX_ARCHIVE = 64 * 10**6
MAX_FILE = 256 * 10**6


def fetch_newest(api: Api, name: str, branch: str) -> bytes | None:
    """Return results.json of the newest artifact ``name`` of ``branch``, or None.

    Only artifacts count that a run of this repository left: a fork may have a branch of the same
    name. Raises PublishError for one that cannot be read.
    """
    answer = api.get(f"/repos/{api.repository}/actions/artifacts", name=name, per_page=100)
    own = []
    for artifact in answer["artifacts"]:
        if not artifact["expired"] and _of_branch(artifact, branch):
            own.append(artifact)
    if not own:
        return None
    latest = max(own, key=lambda artifact: str(artifact["created_at"]))
    content = api.download(
        f"/repos/{api.repository}/actions/artifacts/{latest['id']}/zip", MAX_ARCHIVE
    )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [
                member
                for member in archive.infolist()
                if member.filename.rpartition("/")[2] == FILE and not member.is_dir()
            ]
            if not members:
                raise PublishError(
                    f"the artifact {name!r} of {branch} holds no {FILE}",
                    hint="upload mconv's output `results` in it",
                )
            size = members[0].file_size
            if size > MAX_FILE:
                raise PublishError(f"{FILE} of the artifact {name!r} has {size:,} bytes")
            return archive.read(members[0])
    except (zipfile.BadZipFile, EOFError, OSError) as problem:
        raise PublishError(
            f"the artifact {name!r} of {branch} is not a readable zip: {problem}"
        ) from problem


def _of_branch(artifact: dict[str, object], branch: str) -> bool:
    """Return whether the artifact is of a run of this repository on ``branch``."""
    run = artifact.get("workflow_run")
    return (
        isinstance(run, dict)
        and run.get("head_branch") == branch
        and run.get("repository_id") is not None
        and run.get("repository_id") == run.get("head_repository_id")
    )
