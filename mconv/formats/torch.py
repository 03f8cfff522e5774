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
    """Tell by the names in the archive, cut off or not, or by how old files begin."""
    if head.startswith(LEGACY):
        return True
    return any(
        re.search(r"(^|/)(data\.pkl|constants\.pkl|archive_format)$|/models/", n)
        for n in _zip.list_members(path, head)
    )


def detect_kind(names: list[str]) -> str:
    """Return ``torchscript``, ``program`` or ``weights``, by the names in an archive."""
    inner = {n.partition("/")[2] for n in names} | set(names)
    if "constants.pkl" in inner:
        return "torchscript"
    return "program" if any(n in PROGRAM or n.startswith("models/") for n in inner) else "weights"


def inspect(path: Path) -> Facts:
    """Return names and shapes of the weights; of code in a pickle the globals it would call.

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
        return _inspect_legacy(path)
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
            return Facts(kind=form, names=tuple(_list_program_weights(archive)))
        if archive.getinfo(inside).file_size > LARGEST:
            raise SourceError(f"{inside} in {path.name} is larger than {LARGEST >> 20} MiB")
        value, reader = _pickle.read_pickle(
            io.BytesIO(archive.read(inside)), f"{inside} in {path.name}"
        )
        sizes = {
            n.rpartition("/data/")[2]: archive.getinfo(n).file_size for n in names if "/data/" in n
        }
    facts = _describe_weights(form, value, reader.globals)
    short = [key for key, needed in reader.storages.items() if sizes.get(key, -1) < needed]
    problems = [
        f"storage {key} of {path.name} is missing or too short: {reader.storages[key]:,} bytes are "
        "needed"
        for key in short[:5]
    ]
    return msgspec.structs.replace(facts, problems=(*facts.problems, *problems))


def _list_program_weights(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the weights that an exported program's own table gives."""
    for name in archive.namelist():
        if name.endswith(("model_weights_config.json", "weights_config.json")):
            return re.findall(r'"([\w.]+)":\s*\{', archive.read(name).decode("utf-8", "replace"))
    return []


def _inspect_legacy(path: Path) -> Facts:
    """Return what a file from before PyTorch 1.6 says of itself.

    It is five pickles: magic, version, system, value, keys of the storages; then of each storage
    its length and its bytes. Raises SourceError for damage.
    """
    with path.open("rb") as file:
        data = io.BytesIO(file.read(LARGEST))
    read = [_pickle.read_pickle(data, path.name) for _ in range(5)]
    value, reader = read[3]
    end = data.tell() + sum(8 + needed for needed in reader.storages.values())
    facts = _describe_weights("weights", value, reader.globals)
    size = path.stat().st_size
    if size >= end:
        return facts
    cut_off = f"{path.name} is cut off: its storages end at byte {end:,}, the file at {size:,}"
    return msgspec.structs.replace(facts, problems=(*facts.problems, cut_off))


def _describe_weights(form: str, value: object, names: list[str]) -> Facts:
    """Return what a pickle holds: ``value``, and the globals ``names`` that it would call."""
    tensors = _pickle.find_shapes(value)
    code = _pickle.list_dangerous(names)
    runs_code = (
        f"it holds more than tensors ({', '.join(code[:5])}): loading it would run code, which "
        "mconv does not do"
    )
    return Facts(
        kind=form,
        tensors=tensors,
        names=tuple(code),
        parameters=sum(math.prod(s) for s in tensors.values()) if tensors else None,
        problems=(runs_code,) if code else (),
    )


def check(path: Path) -> list[str]:
    """Check every member against its checksum, the pickle, and that each storage is there."""
    try:
        problems = list(inspect(path).problems)
        if zipfile.is_zipfile(path):
            with _zip.open_archive(path) as archive:
                problems += _zip.find_damaged(archive)
    except SourceError as problem:
        return [problem.message]
    return problems
