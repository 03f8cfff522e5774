"""Makes the environments that a run needs and that are not there.

Each is made in a process of its own, as the workers' user, without the token; what it printed is
kept beside it. It counts only once its record is written, which this process does after it has made
the files its own. Two runs that need the same one wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from mconv import plain_files
from mconv.environments import making, models, tools
from mconv.environments.folder import (
    Record,
    find_log,
    find_record,
    find_root,
    is_ready,
    read_record,
)
from mconv.environments.interpreter import list_packages
from mconv.environments.models import ModelRequest
from mconv.environments.settings import make_variables, read_pip_settings
from mconv.errors import (
    EnvironmentFailedError,
    MconvError,
    StepError,
    StoreError,
    UsageError,
    WorkerCrashError,
)
from mconv.manifest.config import Manifest
from mconv.planning.environments import list_requests
from mconv.store.local import write_text
from mconv.store.tracked import refuse_tracked
from mconv.values import ErrorInfo, Frozen, Interpreter, to_json
from mconv.workers import identities, isolated_call
from mconv.workers.policy import Access, Repository, find_installer_access
from mconv.workers.spawn import make_worker_folder

SECONDS = 3600.0  # for one environment
POLL_SECONDS = 0.5
NEVER = "never"  # of $MCONV_INSTALL
LONGEST_LOG = 10**6  # bytes that are kept
KIND = "environment"  # in place of a kind of step, in errors


class Installation(Frozen, frozen=True, kw_only=True):
    """An environment that is to be made.

    Attributes:
        interpreter: The environment.
        words: What it is made of, for people.
        megabytes: What it takes on the disk, about, where that is known.
        model: What it is made of, of a model's; None of a tool's.
    """

    interpreter: Interpreter
    words: str
    megabytes: int | None = None
    model: ModelRequest | None = None

    @property
    def name(self) -> str:
        """The environment's name."""
        return self.interpreter.name


@runtime_checkable
class InstallProgress(Protocol):
    """What is told of the environments that are made."""

    def installing(self, installation: Installation, done_bytes: int) -> None:
        """Hear that an environment is being made, and how many bytes of it are there."""

    def installed(
        self, installation: Installation, record: Record | None, error: MconvError | None
    ) -> None:
        """Hear that an environment is made, or why it cannot be."""


class SilentInstallProgress:
    """An InstallProgress that says nothing."""

    def installing(self, installation: Installation, done_bytes: int) -> None:
        """Do nothing."""
        return

    def installed(
        self, installation: Installation, record: Record | None, error: MconvError | None
    ) -> None:
        """Do nothing."""
        return


def find_record_of(interpreter: Interpreter) -> Record | None:
    """Return the record of an environment that is whole; None where there is nothing to make."""
    return read_record(Path(interpreter.folder)) if interpreter.folder else None


def allows_installing(install: bool | None) -> bool:
    """Return whether environments may be made: as ``install`` says, else ``$MCONV_INSTALL``."""
    if install is not None:
        return install
    return os.environ.get("MCONV_INSTALL", "").lower() != NEVER


class Installer:
    """Makes environments, and remembers which could not be made. It serves one run.

    Attributes:
        install: Whether any may be made.
        progress: What is told of them.
        command: The command that makes all that a run needs, for people.
        errors: Why environments could not be made, by folder.
    """

    def __init__(
        self,
        *,
        install: bool | None = None,
        progress: InstallProgress | None = None,
        command: str = "mconv setup",
    ) -> None:
        self.install = allows_installing(install)
        self.progress: InstallProgress = progress or SilentInstallProgress()
        self.command = command
        self.errors: dict[str, ErrorInfo] = {}

    def prepare_models(self, manifest: Manifest) -> None:
        """Make the environments that the manifest's models name.

        One that cannot be made is an error of its models' steps. Raises UsageError where it may not
        be made.
        """
        requests = list_requests(manifest)
        self.prepare([plan_model(each) for each in requests.values()])

    def prepare_tools(self, interpreters: Iterable[Interpreter]) -> None:
        """Make the environments of tools among ``interpreters``.

        One that cannot be made is an error of its steps. Raises UsageError where it may not be
        made.
        """
        chosen = {each.folder: each for each in interpreters if each.name in tools.TOOLS}
        self.prepare([plan_tool(each) for each in chosen.values() if each.folder])

    def prepare(self, installations: Iterable[Installation]) -> None:
        """Make those that are not whole."""
        with_folder = [each for each in installations if each.interpreter.folder]
        root = find_root()
        if any(Path(each.interpreter.folder).is_relative_to(root) for each in with_folder):
            refuse_tracked(root, "folder of environments", "MCONV_ENVIRONMENTS")
        missing = [each for each in with_folder if not is_ready(each.interpreter)]
        if not missing:
            return
        if not self.install:
            raise UsageError(describe_missing(missing), hint=f"run `{self.command}`")
        for installation in missing:
            try:
                find_uv(self.progress)
                make(installation, self.progress)
            except MconvError as problem:
                place = installation.model.spec.place if installation.model else None
                self.errors[installation.interpreter.folder] = ErrorInfo(
                    type=type(problem).__name__,
                    message=f"the environment {installation.name!r}: {problem.message}",
                    hint=problem.hint,
                    step=KIND,
                    place=place,
                    log=read_log(Path(installation.interpreter.folder)),
                )

    def find_error(self, interpreters: Iterable[Interpreter]) -> ErrorInfo | None:
        """Return why one of these environments cannot be used, or None."""
        for interpreter in interpreters:
            if not interpreter.folder or is_ready(interpreter):
                continue
            return self.errors.get(interpreter.folder) or ErrorInfo(
                type=EnvironmentFailedError.__name__,
                message=f"the environment {interpreter.name!r} is not made",
                hint=f"run `{self.command}`",
                step=KIND,
            )
        return None


def plan_model(request: ModelRequest) -> Installation:
    """Return what it takes to make the environment of a model."""
    return Installation(
        interpreter=models.find_model(request),
        words=models.describe(request.spec),
        model=request,
    )


def plan_tool(interpreter: Interpreter) -> Installation:
    """Return what it takes to make the environment of a tool."""
    tool = tools.TOOLS[interpreter.name]
    names = [text.partition("=")[0].rstrip("<>~!") for text in tool.requirements]
    return Installation(
        interpreter=interpreter,
        words=", ".join(names) + (" and a browser" if tool.node else ""),
        megabytes=tool.megabytes,
    )


def describe_missing(missing: Iterable[Installation]) -> str:
    """Return in words what would have to be made."""
    parts = []
    for each in missing:
        size = f", about {each.megabytes} MB" if each.megabytes else ""
        parts.append(f"{each.name} ({each.words}{size})")
    return f"environments are missing, and installing is switched off: {'; '.join(parts)}"


def make(installation: Installation, progress: InstallProgress) -> Record:
    """Make an environment, unless another run has made it meanwhile, and return its record.

    Raises MconvError where it cannot be made, with what was printed beside its folder; nothing of
    it is left then.
    """
    folder = Path(installation.interpreter.folder)
    begin = time.monotonic()
    try:
        with _lock(folder):
            record = read_record(folder)
            if record is None:
                record = _make_alone(installation, folder, progress, begin)
    except MconvError as problem:
        progress.installed(installation, None, problem)
        raise
    progress.installed(installation, record, None)
    return record


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of an environment. Raises StoreError where its folder cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_name(folder.name + ".lock").open("w")
    except OSError as problem:
        raise StoreError(
            f"the folder of environments {folder.parent} cannot be written: {problem}",
            hint="name another one in MCONV_ENVIRONMENTS",
        ) from problem
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_alone(
    installation: Installation, folder: Path, progress: InstallProgress, begin: float
) -> Record:
    """Make an environment that nobody else makes. Its folder is removed where that fails."""
    _discard(folder)
    uid = identities.take_user()
    make_worker_folder(folder, uid)
    watched = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(installation, folder, progress, watched), daemon=True
    )
    progress.installing(installation, 0)
    watcher.start()
    try:
        answer = _call(installation, folder, uid)
        watched.set()
        watcher.join()
        size = take_over(folder)
    except BaseException:
        watched.set()
        _keep_log(folder)
        _discard(folder)
        raise
    _keep_log(folder)
    python = installation.interpreter.python
    folders = [Path(layer) for layer in installation.interpreter.layers]
    folders += models.find_site_packages(python) if python else []
    record = Record(
        name=installation.name,
        python=answer.python,
        packages=list_packages(folders),
        bytes=size,
        seconds=round(time.monotonic() - begin, 2),
    )
    write_text(find_record(folder), to_json(record))
    return record


def find_uv(progress: InstallProgress) -> str:
    """Return uv's executable: that beside mconv, else on the path, else of an environment of its
    own, which is made. Raises MconvError where that cannot be.
    """
    if (executable := shutil.which("uv", path=os.path.dirname(sys.executable))) is not None:
        return executable
    if (executable := shutil.which("uv")) is not None:
        return executable
    interpreter = tools.find_tool(tools.UV)
    if not is_ready(interpreter):
        make(plan_tool(interpreter), progress)
    return str(Path(interpreter.folder, making.PACKAGES, "bin/uv"))


def _call(installation: Installation, folder: Path, uid: int | None) -> making.Made:
    """Have a process of the workers' user make the environment.

    Raises EnvironmentFailedError with its words.
    """
    settings = read_pip_settings()
    named = [str(folder)]
    if installation.name == tools.UV:
        arguments: dict[str, object] = {"folder": str(folder), "settings": settings}
        access = find_installer_access(settings.values(), named)
        return _call_function("make_uv", arguments, access, uid)
    variables = make_variables(settings)
    variables[making.EXECUTABLE] = find_uv(SilentInstallProgress())
    if uid is None:
        cache = variables.setdefault("UV_CACHE_DIR", str(find_uv_cache()))
        Path(cache).mkdir(parents=True, exist_ok=True)
        named.append(cache)
    else:
        variables.pop("UV_CACHE_DIR", None)
    access = find_installer_access([*settings.values(), *variables.values()], named)
    access = _add_sources(access, installation)
    shared = {"folder": str(folder), "variables": variables}
    if installation.model is None:
        return _call_function("make_tool", {**shared, "name": installation.name}, access, uid)
    request = msgspec.to_builtins(installation.model)
    return _call_function("make_model", {**shared, "request": request}, access, uid)


def _add_sources(access: Access, installation: Installation) -> Access:
    """Return ``access`` with what of the user's files an environment is made of."""
    if installation.model is None:
        return access
    spec = installation.model.spec
    repository = Repository(spec.root)
    named = [path for path in (spec.project, spec.path) if path is not None]
    return msgspec.structs.replace(
        access,
        readable=(*access.readable, *repository.readable, *spec.requirements, *named),
        listable=tuple(repository.listable),
    )


def _call_function(
    name: str, arguments: dict[str, object], access: Access, uid: int | None
) -> making.Made:
    """Call a function of :mod:`mconv.environments.making` as the workers' user.

    Raises EnvironmentFailedError with its words.
    """
    try:
        answer = isolated_call.call(
            f"{making.__name__}:{name}", arguments, timeout_s=SECONDS, access=access, uid=uid
        )
        return msgspec.convert(answer, making.Made)
    except WorkerCrashError as problem:
        raise EnvironmentFailedError(f"its installation ended: {problem.message}") from problem
    except msgspec.ValidationError as problem:
        raise EnvironmentFailedError(f"its installation gave no answer: {problem}") from problem
    except StepError as problem:
        raise EnvironmentFailedError(problem.message, hint=problem.hint) from problem


def find_uv_cache() -> Path:
    """Return the folder of uv's own cache, whose files environments share."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "uv")


def _watch(
    installation: Installation, folder: Path, progress: InstallProgress, end: threading.Event
) -> None:
    """Tell how large a folder is, until it is made."""
    while not end.wait(POLL_SECONDS):
        progress.installing(installation, measure_bytes(folder))


def measure_bytes(folder: Path) -> int:
    """Return the bytes that a folder takes on the disk, of a file with several names once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for top, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(top, name))
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * 512
    return total


def take_over(folder: Path) -> int:
    """Make an environment this process's own, so that no worker can change it; return its bytes.

    Links stay, and point where they did; of no file more than the mode changes. Only root can, and
    needs to, where workers have a user of their own.
    """
    if identities.lends_users():
        owner, group = os.geteuid(), os.getegid()
        for _, folders, files, within in os.fwalk(folder, follow_symlinks=False):
            os.fchown(within, owner, group)
            os.fchmod(within, 0o755)
            for name in (*folders, *files):
                status = os.stat(name, dir_fd=within, follow_symlinks=False)
                os.chown(name, owner, group, dir_fd=within, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
                    os.chmod(name, mode, dir_fd=within)
    return measure_bytes(folder)


def _keep_log(folder: Path) -> None:
    """Keep what was printed beside the folder, as far as it is a plain file."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder / making.LOG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                size = os.fstat(descriptor).st_size
                file.seek(max(0, size - LONGEST_LOG))
                find_log(folder).write_bytes(file.read(LONGEST_LOG))


def read_log(folder: Path) -> str:
    """Return the end of what was printed while an environment was made."""
    try:
        return find_log(folder).read_text(encoding="utf-8", errors="replace")[-6000:]
    except OSError:
        return ""


def _discard(folder: Path) -> None:
    """Remove an environment that is not whole."""
    find_record(folder).unlink(missing_ok=True)
    plain_files.remove_folder(folder)
