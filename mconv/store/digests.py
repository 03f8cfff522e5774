"""SHA-256 of files, by all cores, and not a second time for a file that nobody has touched.

What is known of a file holds as long as its path, size, mtime, ctime, inode and device do.
``utime`` can set an mtime back, but not a ctime, so a changed file is seen whatever was done to
hide it. Times have a grain, though: a file that was changed less than two seconds before it was
read may be changed again within the same tick, so it is not remembered (Git's rule for "racily
clean" entries). In CI nothing is remembered from one run to the next: caches and checkouts there
set times as they like, and all files are read.
"""

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
PARALLEL_BYTES = 4 * 2**20  # for which threads are started
REMEMBERED = 100_000  # files

Identity = tuple[int, int, int, int, int]


class KnownFile(msgspec.Struct, frozen=True, array_like=True):
    """A file as it was when it was read.

    Attributes:
        identity: Size, mtime, ctime, inode and device, the times in nanoseconds.
        digest: The SHA-256 of its content, in hex.
    """

    identity: Identity
    digest: str


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ci() -> bool:
    """Return whether this is a CI job, by the variables that all of them set."""
    return (
        os.environ.get("CI", "").lower() not in ("", "0", "false") or "GITHUB_ACTIONS" in os.environ
    )


class Digests:
    """Digests of files, remembered between calls and runs; safe for several threads.

    Attributes:
        file: Where digests are kept from one run to the next, if anywhere.
        known: What is remembered, by absolute path.
        used: The part of it that this run has asked for.
        changed: There is something that ``file`` does not hold yet.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = None if is_ci() else file
        self.known: dict[str, KnownFile] = {}
        self.used: dict[str, KnownFile] = {}
        self.changed = False
        self.lock = threading.Lock()
        if self.file is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self.known = msgspec.json.decode(self.file.read_bytes(), type=dict[str, KnownFile])

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file's content, in hex.

        Raises OSError where it cannot be read.
        """
        name = os.path.abspath(path)
        before = _identity(os.stat(name))
        known = self.known.get(name)
        if known is not None and known.identity == before:
            self.used[name] = known
            return known.digest
        begin = time.time_ns()
        digest = hash_file(path)
        after = os.stat(name)
        touched = max(after.st_mtime_ns, after.st_ctime_ns)
        if _identity(after) == before and touched < begin - GRAIN_NS:
            with self.lock:
                self.known[name] = self.used[name] = KnownFile(before, digest)
                self.changed = True
        return digest

    def many(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return the digests of several files.

        As many threads as there are cores read them where that is worth it. Raises OSError where a
        file cannot be read.
        """
        paths = list(dict.fromkeys(paths))
        fresh = sum(os.stat(p).st_size for p in paths if os.path.abspath(p) not in self.known)
        if fresh < PARALLEL_BYTES or hardware.count_cores() == 1:
            return {path: self.sha256(path) for path in paths}
        with ThreadPoolExecutor(hardware.count_cores()) as pool:
            return dict(zip(paths, pool.map(self.sha256, paths), strict=True))

    def save(self) -> None:
        """Keep what was learnt. A disk that takes no more only costs the next run its time."""
        if self.file is None or not self.changed:
            return
        rest = [(name, known) for name, known in self.known.items() if name not in self.used]
        remembered = dict([*rest, *self.used.items()][-REMEMBERED:])
        with contextlib.suppress(OSError):
            handle, staged = tempfile.mkstemp(prefix=f"tmp-{os.getpid()}-", dir=self.file.parent)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(msgspec.json.encode(remembered))
                os.replace(staged, self.file)
            except BaseException:
                os.unlink(staged)
                raise
        self.changed = False


def _identity(stat: os.stat_result) -> Identity:
    """Return what must stay the same for a file's digest to hold."""
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
