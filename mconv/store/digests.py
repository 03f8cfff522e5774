"""SHA-256 of files, by all cores, and not a second time for a file that nobody has touched.

What is known of a file holds as long as its path, size, mtime, ctime, inode and device do.
``utime`` can set an mtime back, but not a ctime, so a changed file is seen whatever was done to
hide it. Times have a grain, though: a file that was changed less than two seconds before it was
read may be changed again within the same tick, so it is not remembered (Git's rule for "racily
clean" entries). In CI nothing is remembered from one run to the next: caches and checkouts there
set times as they like, and all files are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mconv import hardware

FILE = "digests.json"
GRAIN_NS = 2_000_000_000  # of FAT's mtimes, the coarsest that are met
WORTH = 4 * 2**20  # bytes for which threads are started
KEPT = 100_000  # files remembered

Identity = tuple[int, int, int, int, int]


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What a file was when it was read, and its digest."""

    identity: Identity
    digest: str


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ci() -> bool:
    """Whether this is a CI job, by the variables that all of them set."""
    return (
        os.environ.get("CI", "").lower() not in ("", "0", "false") or "GITHUB_ACTIONS" in os.environ
    )


class Digests:
    """Digests of files; safe for several threads. ``file``: where they are kept from one run to the
    next, if anywhere."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = None if is_ci() else file
        self.known: dict[str, Known] = {}
        self.used: dict[str, Known] = {}
        self.changed = False
        self.lock = threading.Lock()
        if self.file is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self.known = msgspec.json.decode(self.file.read_bytes(), type=dict[str, Known])

    def sha256(self, path: Path) -> str:
        """The digest of a file's content, in hex. Raises OSError where it cannot be read."""
        name = os.path.abspath(path)
        before = _identity(os.stat(name))
        known = self.known.get(name)
        if known is not None and known.identity == before:
            self.used[name] = known
            return known.digest
        asked = time.time_ns()
        digest = hash_file(path)
        after = os.stat(name)
        if (
            _identity(after) == before
            and max(after.st_mtime_ns, after.st_ctime_ns) < asked - GRAIN_NS
        ):
            with self.lock:
                self.known[name] = self.used[name] = Known(before, digest)
                self.changed = True
        return digest

    def many(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The digests of several files, read by as many threads as there are cores where that is
        worth it."""
        paths = list(dict.fromkeys(paths))
        fresh = sum(os.stat(p).st_size for p in paths if os.path.abspath(p) not in self.known)
        if fresh < WORTH or hardware.cores() == 1:
            return {path: self.sha256(path) for path in paths}
        with ThreadPoolExecutor(hardware.cores()) as pool:
            return dict(zip(paths, pool.map(self.sha256, paths), strict=True))

    def save(self) -> None:
        """Keep what was learnt. A disk that takes no more only costs the next run its time."""
        if self.file is None or not self.changed:
            return
        rest = [(name, known) for name, known in self.known.items() if name not in self.used]
        kept = dict([*rest, *self.used.items()][-KEPT:])
        with contextlib.suppress(OSError):
            handle, staged = tempfile.mkstemp(prefix=f"tmp-{os.getpid()}-", dir=self.file.parent)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(msgspec.json.encode(kept))
                os.replace(staged, self.file)
            except BaseException:
                os.unlink(staged)
                raise
        self.changed = False


def _identity(found: os.stat_result) -> Identity:
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
