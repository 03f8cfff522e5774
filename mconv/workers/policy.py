"""Which files, ports and system calls a child process has, by what it is for.

A child reads the system, its Python and its packages; a step reads its inputs besides, and the
repository where it runs the model's code, but no ``.git``, in which a checkout may leave a token.
It writes its home and its own output folder alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from glob import glob
from pathlib import Path

import msgspec

from mconv import registry
from mconv.environments.interpreter import GPUS, START
from mconv.errors import MconvError
from mconv.steps.releases import find_source
from mconv.steps.requests import (
    AnyRequest,
    CalibrateRequest,
    MeasureRequest,
    ReferenceRequest,
    VerifyRequest,
)
from mconv.values import Interpreter, SourceConfig
from mconv.workers import identities, landlock, seccomp
from mconv.workers.confine import Confinement

# what programs of any kind read; of these, what is secret belongs to root alone
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/proc"),
    *(
        "/sys",
        "/nix/store",
        "/gnu/store",
        "/snap",
        "/run/systemd/resolve",
        "/run/nvidia-persistenced",
    ),
    *("/run/opengl-driver", "/var/cache/fontconfig"),
)
SETTINGS = "/etc"
LOCAL_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
GPU_DEVICES = ("/dev/nvidia*", "/dev/dri", "/dev/kfd")
SHARED_MEMORY = "/dev/shm"
GIT = ".git"
MOST_FOLDERS = 100_000  # of a repository that are looked through
PATHS = ("LD_LIBRARY_PATH", "MCONV_NODE_MODULES", "MCONV_BROWSER", "SSL_CERT_FILE", "PYTHONPATH")
ABSOLUTE = re.compile(r"(?:file:)?(?<![\w.])(/[^\s,'\"=:]+)")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is given beside the system, its Python and its packages.

    Attributes:
        readable: Files and folders that it reads.
        listable: Folders whose names it reads.
        writable: Files and folders that it changes.
        network: ``none``, ``loopback``, ``open``, or ``any`` kind of socket.
        ports: TCP ports of this machine that it connects to, on loopback.
        modes: It may change the modes of files, as installing does.
        shared_memory: It may use the system's shared memory, as a browser does.
    """

    readable: tuple[str, ...] = ()
    listable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    network: str = "none"
    ports: tuple[int, ...] = ()
    modes: bool = False
    shared_memory: bool = False


NOTHING = Access()


def confine(
    access: Access, interpreter: Interpreter, uid: int | None, others: Iterable[Interpreter] = ()
) -> Confinement:
    """Return what a child of ``interpreter`` may do; ``others`` are environments that it starts.

    ``uid`` is its user, None this process's own. What the system cannot enforce is left out
    (:mod:`mconv.workers.isolation`).
    """
    environments = (interpreter, *others)
    devices = list(DEVICES)
    if any(each.variables.get(GPUS) for each in environments):
        devices += [path for pattern in GPU_DEVICES for path in glob(pattern)]
    packages, listable = _spare_git(
        path for each in environments for path in list_package_folders(each)
    )
    # root alone reads its passwords: one that stays root must not
    settings = _list_public(SETTINGS) if uid is None and os.geteuid() == 0 else [SETTINGS]
    writable = [*access.writable, *[SHARED_MEMORY] * access.shared_memory]
    return Confinement(
        uid=uid,
        files=landlock.find_abi() > 0,
        readable=tuple(dict.fromkeys((*SYSTEM, *settings, *packages, *access.readable))),
        listable=(*access.listable, *listable, SETTINGS),
        writable=writable,
        devices=devices,
        holds_ports=access.network != "any",
        ports=access.ports,
        highest=_find_highest_port() if access.network == "open" else 0,
        calls=_compile_calls(access.network, uid is None and not access.modes),
    )


def _spare_git(folders: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return folders of packages, in place of checkouts what lies in them without their ``.git``,
    and which of them are listed only.

    `python -m mconv` looks for packages in the working directory, as ``PYTHONPATH`` may have it.
    """
    readable: list[str] = []
    listable: list[str] = []
    for folder in dict.fromkeys(folders):
        if os.path.lexists(os.path.join(folder, GIT)):
            checkout = _split_checkout(folder)
            readable += checkout.readable
            listable += checkout.listable
        else:
            readable.append(folder)
    return readable, listable


@cache
def _split_checkout(folder: str) -> Repository:
    """Return what of a checkout is read."""
    return Repository(folder)


def confine_server(uid: int | None) -> Confinement:
    """Return what a fork server may do, which runs no code of the repository.

    Where children have users of their own it may give them, and take no others.
    """
    limits = identities.find_range()
    rules = seccomp.make_base_rules()
    if limits is not None:
        rules |= seccomp.make_identity_rules(*limits)
    return Confinement(uid=uid, serves=limits is not None, calls=_compile(rules))


@cache
def _find_highest_port() -> int:
    """Return the highest port below those that the system gives to whoever asks for any, as the
    browser of a run does: what serves a network listens below."""
    try:
        return int(Path(LOCAL_PORTS).read_text().split()[0]) - 1
    except (OSError, ValueError, IndexError):
        return 32767


@cache
def _list_public(folder: str) -> list[str]:
    """Return the files below a folder that everybody may read."""
    public = []
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _is_public(os.path.join(top, name), stat.S_IXOTH)]
        paths = [os.path.join(top, name) for name in files]
        public += [path for path in paths if _is_public(path, stat.S_IROTH)]
    return public


def _is_public(path: str, right: int) -> bool:
    """Return whether everybody has a right on a file, or on what a link leads to."""
    try:
        return bool(os.stat(path).st_mode & right)
    except OSError:
        return False


@cache
def _compile_calls(network: str, shares_user: bool) -> bytes:
    """Return the filter of system calls of a child."""
    rules = seccomp.make_base_rules()
    if network != "any":  # a browser's memory is not that of a step
        rules |= seccomp.make_network_rules(network) | seccomp.make_memory_rules()
    if shares_user:
        rules |= seccomp.make_shared_user_rules()
    return _compile(rules)


def _compile(rules: dict[str, seccomp.Rule]) -> bytes:
    """Return the program of rules; none where the system cannot filter calls."""
    return seccomp.compile_rules(rules) if seccomp.is_supported() else b""


def list_package_folders(interpreter: Interpreter) -> list[str]:
    """Return the folders that a Python and its packages lie in."""
    folders = [str(Path(START).parents[1]), *interpreter.layers]
    if interpreter.python:
        folders += _list_python_folders(interpreter.python)
        # what the paths of an environment's packages link to lies beside them
        folders += [interpreter.folder] if interpreter.folder else []
    else:
        folders += [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
        folders += _list_python_folders(sys.executable)
        folders += [entry for entry in sys.path if entry and os.path.isdir(entry)]
    folders += [
        path
        for name in PATHS
        for text in (interpreter.variables.get(name, ""), os.environ.get(name, ""))
        for path in text.split(os.pathsep)
        if os.path.isabs(path)
    ]
    folders += list_plugin_folders(registry.list_registered())
    folders += _list_node_folders()
    return [path for path in dict.fromkeys(folders) if path not in ("", "/")]


def _list_node_folders() -> list[str]:
    """Return the folders that npm's packages are found in, the browser among them."""
    here = Path.cwd()
    tops = (Path(START).parents[2], here, *here.parents)
    folders = [str(top / "node_modules") for top in tops if (top / "node_modules").is_dir()]
    if browser := os.environ.get("MCONV_BROWSER"):
        folders.append(os.path.dirname(os.path.realpath(browser)))
    return folders


@cache
def _list_python_folders(python: str) -> list[str]:
    """Return the folders of a Python's installation, and of that which its environment is of."""
    folders = []
    path = Path(python)
    for _ in range(8):  # an environment of an environment, links between them
        top = path.parents[1]
        folders.append(str(top))
        config = top / "pyvenv.cfg"
        if path.is_symlink():
            path = Path(os.path.normpath(path.parent / os.readlink(path)))
            continue
        if not config.is_file():
            break
        match = re.search(r"(?m)^home\s*=\s*(.+?)\s*$", config.read_text(errors="replace"))
        if match is None:
            break
        path = Path(match[1], path.name)
    folders.append(str(Path(os.path.realpath(python)).parents[1]))
    return [folder for folder in folders if folder != "/"]


def list_plugin_folders(registered: Iterable[str]) -> list[str]:
    """Return the folders of plug-ins that were registered (:func:`registry.list_registered`)."""
    return [entry.split(":", 2)[2] for entry in registered]


class Repository:
    """What of a repository its code may read: all but every ``.git``, and what is excluded.

    Attributes:
        readable: Files and folders that are read, with all below them.
        listable: Folders whose names alone are read, since something below is not to be.
    """

    def __init__(self, *paths: str, excluded: Collection[str] = ()) -> None:
        """``paths`` are its folder, or files and folders of it; ``excluded`` are paths within that
        may not be read: the store."""
        self.readable: list[str] = []
        self.listable: list[str] = []
        self._left = MOST_FOLDERS
        self._excluded = {os.path.realpath(path) for path in excluded}
        for path in map(os.path.realpath, paths):
            if GIT in Path(path).parts:
                continue
            hidden = set(self._find_hidden(path))
            self._split(path, hidden, {str(up) for each in hidden for up in Path(each).parents})

    def _find_hidden(self, folder: str) -> Iterator[str]:
        """Yield the paths below ``folder`` that are not to be read."""
        waiting = [folder]
        while waiting and self._left > 0:
            self._left -= 1
            try:
                entries = list(os.scandir(waiting.pop()))
            except OSError:
                continue
            for entry in entries:
                if entry.name == GIT or entry.path in self._excluded:
                    yield entry.path
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)

    def _split(self, folder: str, hidden: Collection[str], above: Collection[str]) -> None:
        """Add ``folder`` as a whole where nothing below is hidden, else what lies in it."""
        if folder in hidden:
            return
        if folder not in above:
            self.readable.append(folder)
            return
        self.listable.append(folder)
        for entry in os.scandir(folder):
            if entry.path not in above:
                if entry.path not in hidden and not entry.is_symlink():
                    self.readable.append(entry.path)
            elif not entry.is_symlink():
                self._split(entry.path, hidden, above)


def find_step_access(
    request: AnyRequest,
    *,
    folders: Iterable[str],
    plugins: Iterable[str],
    writable: Sequence[str],
    repository: Repository | None,
    network: bool,
    ports: Sequence[int],
) -> Access:
    """Return what the worker of a step is given.

    ``folders`` are those of its inputs, ``plugins`` what is registered. ``ports`` are those of
    the services that it uses, and ``network`` says that the manifest opens the network to the
    model's code.
    """
    readable = [*folders, *list_plugin_folders(plugins)]
    source = find_source(request)
    if source is None and isinstance(request, VerifyRequest):
        source = request.source  # it writes text by its own loop
    if source is None and isinstance(request, MeasureRequest) and request.beside is None:
        source = request.source
    reach = "loopback" if ports else "none"
    access = Access(
        readable=tuple(readable),
        writable=tuple(writable),
        network=reach,
        ports=tuple(ports),
    )
    return access if source is None else _add_source(access, request, source, repository, network)


def find_companion_access(
    request: MeasureRequest,
    *,
    folders: Iterable[str],
    plugins: Iterable[str],
    home: str,
    repository: Repository | None,
    network: bool,
) -> Access:
    """Return what is given to the process that times a source beside the worker of a step."""
    access = Access(readable=(*folders, *list_plugin_folders(plugins)), writable=(home,))
    return _add_source(access, request, request.source, repository, network)


def _add_source(
    access: Access,
    request: AnyRequest,
    source: SourceConfig,
    repository: Repository | None,
    network: bool,
) -> Access:
    """Return ``access`` with what a source is made of: the repository, where its code runs."""
    named = find_named_files(request, source)
    readable = [*access.readable, *named.readable]
    listable = [*access.listable, *named.listable]
    if runs_code(source):
        if repository is None:
            repository = Repository(source.root)
        readable += repository.readable
        listable += repository.listable
    given = msgspec.structs.replace(access, readable=tuple(readable), listable=tuple(listable))
    return msgspec.structs.replace(given, network="open", ports=()) if network else given


def runs_code(source: SourceConfig) -> bool:
    """Return whether loading a source runs code of the repository."""
    plugin = registry.sources().get(source.format)
    return plugin is None or plugin.imports_code(source.options) or bool(plugin.imports(source))


def find_named_files(request: AnyRequest, source: SourceConfig) -> Repository:
    """Return what a step reads because the manifest names it: the model's files, samples, folders
    of modules. The manifest's reader has resolved the links in their paths."""
    named = [*source.samples, *source.pythonpath]
    if source.path:
        named.append(source.path)
        # one that is not there, or cannot be read, is the step's to tell of
        with contextlib.suppress(KeyError, OSError, MconvError):
            named += [str(path) for path in registry.sources()[source.format].files(source)]
    if isinstance(request, ReferenceRequest | CalibrateRequest):
        named += request.samples
    if isinstance(request, CalibrateRequest) and request.data is not None:
        named.append(request.data)
    return Repository(*dict.fromkeys(named))


def find_reader_access(path: Path) -> Access:
    """Return what the check of a file or folder is given: it, and the files beside a file."""
    return Access(readable=(str(path if path.is_dir() else path.parent),))


def find_installer_access(variables: Iterable[str], writable: Sequence[str]) -> Access:
    """Return what the making of an environment is given: the network, and what its settings name.

    ``variables`` are the values of uv's settings, in which local indexes and wheels may stand.
    """
    readable = [path for text in variables for path in ABSOLUTE.findall(text)]
    return Access(readable=tuple(readable), writable=tuple(writable), network="open", modes=True)
