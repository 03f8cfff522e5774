"""What the release workflow asks of the repository, and changes in it.

    python scripts/release.py version                  # the version to release, if it may be
    python scripts/release.py action NAME@sha256:…     # action.yml runs this image from now on

The default branch's action.yml builds the Dockerfile; the commit of a release names the image that
was built and pushed, by its digest."""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
# https://github.com/opencontainers/distribution-spec: a name is lower case
IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}")
BUILT = re.compile(r"^(  image: )Dockerfile$", re.MULTILINE)


class ReleaseError(Exception):
    """What keeps a release from being made."""


def read_version(root: Path = ROOT) -> str:
    """Return the version of pyproject.toml, where it is the newest of CHANGELOG.md as well and
    nothing is left under "Unreleased". Raises ReleaseError."""
    version = str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"pyproject.toml: the version {version!r} is not of the form X.Y.Z")
    heads = re.findall(r"^## (.*)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    if not heads or heads[0].split()[:1] != [version]:
        first = heads[0] if heads else "nothing"
        raise ReleaseError(
            f"CHANGELOG.md begins with {first!r}, pyproject.toml says {version}: rename "
            '"Unreleased" to the version and its date'
        )
    return version


def name_image(text: str, image: str) -> str:
    """Return the text of an action.yml that runs ``image``, which is named by its digest, in place
    of one that builds the Dockerfile. Raises ReleaseError."""
    if not IMAGE.fullmatch(image):
        raise ReleaseError(f"{image!r} is not the name of an image with its digest")
    changed, count = BUILT.subn(lambda match: f"{match[1]}docker://{image}", text)
    if count != 1:
        raise ReleaseError(f"action.yml has {count} lines `image: Dockerfile`, not one")
    return changed


def main() -> int:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version")
    commands.add_parser("action").add_argument("image")
    arguments = parser.parse_args()
    try:
        if arguments.command == "version":
            print(read_version())
        else:
            path = ROOT / "action.yml"
            path.write_text(name_image(path.read_text(), arguments.image))
    except ReleaseError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
