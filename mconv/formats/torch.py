"""PyTorch: weights (zip or pickle), TorchScript archives and torch.export programs."""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from pathlib import Path

import msgspec

from mconv.errors import SourceError
from mconv.formats import _pickle, _zip
from mconv.values import Facts

SUFFIXES = (".pt", ".pth", ".pt2", ".bin", ".ckpt")
ORDER = 20
# torch.serialization.MAGIC_NUMBER, how files before 1.6 begin
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
PROGRAM = ("archive_format", "serialized_exported_program.json")
LARGEST = 256 * 2**20  # of a pickle without its tensors


def sniff(path: Path, head: bytes) -> bool:
    """By the names in the archive, cut off or not; or by the number that old files begin with."""
    if head.startswith(LEGACY):
        return True
    return any(
        re.search(r"(^|/)(data\.pkl|constants\.pkl|archive_format)$|/models/", n)
        for n in _zip.list_members(path, head)
    )


def detect_kind(names: list[str]) -> str:
    """``torchscript``, ``program`` or ``weights``."""
    inner = {n.partition("/")[2] for n in names} | set(names)
    if "constants.pkl" in inner:
        return "torchscript"
    return "program" if any(n in PROGRAM or n.startswith("models/") for n in inner) else "weights"


def inspect(path: Path) -> Facts:
    """Names and shapes of the weights; of code in a pickle the globals it would call.

    Raises SourceError for damage.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(len(LEGACY))
        if head != LEGACY:
            raise SourceError(
                f"{path.name} is cut off: the archive's directory, at its end, is missing",
                hint=_zip.AGAIN,
            )
        return _legacy(path)
    with _zip.open_archive(path) as archive:
        names = archive.namelist()
        form = detect_kind(names)
        inside = next((n for n in names if n.endswith("/data.pkl") or n == "data.pkl"), None)
        if form == "torchscript":
            code = [
                n.partition("/code/")[2].removesuffix(".py").replace("/", ".")
                for n in names
                if n.endswith(".py")
            ]
            return Facts(kind=form, names=tuple(code))
        if form == "program" or inside is None:
            return Facts(kind=form, names=tuple(_members(archive)))
        if archive.getinfo(inside).file_size > LARGEST:
            raise SourceError(f"{inside} in {path.name} is larger than {LARGEST >> 20} MiB")
        value, reader = _pickle.read_pickle(
            io.BytesIO(archive.read(inside)), f"{inside} in {path.name}"
        )
        sizes = {
            n.rpartition("/data/")[2]: archive.getinfo(n).file_size for n in names if "/data/" in n
        }
    found = _facts(form, value, reader.globals)
    short = [k for k, needed in reader.storages.items() if sizes.get(k, -1) < needed]
    said = tuple(
        f"storage {k} of {path.name} is missing or too short: {reader.storages[k]:,} bytes are "
        "needed"
        for k in short[:5]
    )
    return msgspec.structs.replace(found, problems=(*found.problems, *said))


def _members(archive: zipfile.ZipFile) -> list[str]:
    """Names of the weights that an exported program's own table gives."""
    for name in archive.namelist():
        if name.endswith(("model_weights_config.json", "weights_config.json")):
            return re.findall(r'"([\w.]+)":\s*\{', archive.read(name).decode("utf-8", "replace"))
    return []


def _legacy(path: Path) -> Facts:
    """Five pickles: magic, version, system, value, keys of the storages; then each storage: its
    length and its bytes."""
    with path.open("rb") as file:
        data = io.BytesIO(file.read(LARGEST))
    read = [_pickle.read_pickle(data, path.name) for _ in range(5)]
    value, reader = read[3]
    end = data.tell() + sum(8 + needed for needed in reader.storages.values())
    found = _facts("weights", value, reader.globals)
    size = path.stat().st_size
    said = (
        (f"{path.name} is cut off: its storages end at byte {end:,}, the file at {size:,}",)
        if size < end
        else ()
    )
    return msgspec.structs.replace(found, problems=(*found.problems, *said))


def _facts(form: str, value: object, found: list[str]) -> Facts:
    tensors = _pickle.find_shapes(value)
    code = _pickle.list_dangerous(found)
    said = (
        f"it holds more than tensors ({', '.join(code[:5])}): loading it would run code, which "
        "mconv does not do"
    )
    return Facts(
        kind=form,
        tensors=tensors,
        names=tuple(code),
        parameters=sum(math.prod(s) for s in tensors.values()) if tensors else None,
        problems=(said,) if code else (),
    )


def check(path: Path) -> list[str]:
    """Every member against its checksum, the pickle, and that each tensor's storage is there."""
    try:
        found = list(inspect(path).problems)
        if zipfile.is_zipfile(path):
            with _zip.open_archive(path) as archive:
                found += _zip.find_damaged(archive)
    except SourceError as problem:
        return [problem.message]
    return found
