"""Weights in Apache Parquet, by name, with the files that go beside them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mconv import parquet
from mconv.errors import StepError, UnsupportedError
from mconv.targets._parquet import names
from mconv.targets._parquet import write as writing
from mconv.values import ModelInfo
from mconv.weights import Folder, Tensor

ACCEPTS = ("weights",)
PRECISIONS = {"fp32": None, "fp16": None}
TOOLS = ("pyarrow",)
CODECS = {"zstd": (1, 22), "lz4": None, "snappy": None, "none": None}  # levels of each
LEVEL = 1  # of zstd; on split floats a higher one is slower and no smaller
DTYPES = {"original": "fp32", "float16": "fp16"}
OPTIONS = {
    "dtype": {
        "enum": list(DTYPES),
        "description": "of floats: as the source has them (precision fp32) or float16 (precision "
        "fp16); says the same as precision",
    },
    "compression": {"enum": list(CODECS), "default": "zstd", "description": "codec of the pages"},
    "level": {
        "type": "integer",
        "minimum": 1,
        "maximum": 22,
        "description": f"of zstd (default: {LEVEL})",
    },
    "chunk_mib": {
        "type": "integer",
        "minimum": 0,
        "maximum": 1024,
        "default": 4,
        "description": "MiB of a tensor in one row, and about that of a row group; 0: every "
        "tensor in one row",
    },
    "part": {
        "type": "string",
        "description": "only this part of the model: vision, text, audio, encoder, decoder, or a "
        "module's path",
    },
    "map": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "renames tensors: a prefix, or a regular expression that begins with ^, to "
        "its replacement",
    },
}


def implied_precision(options: Mapping[str, Any]) -> str | None:
    """What ``dtype`` says where no precision is written."""
    return DTYPES.get(str(options.get("dtype")))


def part(options: Mapping[str, Any]) -> str | None:
    """The part of a model of several that is delivered; None is the whole."""
    return options.get("part")


def check(*, precision: str, options: Mapping[str, Any], method: str | None) -> None:
    """Raises UnsupportedError where precision and dtype, or codec and level, contradict each other,
    or a rule cannot be read."""
    dtype = options.get("dtype")
    if dtype is not None and DTYPES[dtype] != precision:
        raise UnsupportedError(
            f"dtype {dtype} is precision {DTYPES[dtype]}, not {precision}",
            hint="leave one of the two out; they say the same",
        )
    codec = options.get("compression", "zstd")
    if "level" in options and CODECS[codec] is None:
        raise UnsupportedError(
            f"compression {codec} has no levels", hint="leave `level` out, or use zstd"
        )
    names.check(options.get("map") or {})


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: Mapping[str, Any],
    name: str,
    calibration: Any,
) -> ModelInfo:
    """``weights.parquet`` from a folder of weights (:mod:`mconv.weights`), and the files beside it.

    Raises UnsupportedError for a dtype the format does not know, or rules of ``map`` that fit no
    name or make two names one."""
    folder = Folder(model)
    index = folder.index
    renamed = names.rename([*folder, *index.aliases], options.get("map") or {})
    tensors: dict[str, Tensor] = {}
    notes = []
    for old in folder:
        made = writing.half(folder[old]) if precision == "fp16" else folder[old]
        if precision == "fp16" and made.dtype in (*writing.FLOATS, "bfloat16"):
            notes.append(
                f"{renamed[old]} stays {made.dtype}: float16 cannot hold its largest value"
            )
        tensors[renamed[old]] = made
    codec = options.get("compression", "zstd")
    writing.write(
        out / parquet.FILE,
        tensors,
        about=index.about,
        aliases={renamed[a]: renamed[b] for a, b in index.aliases.items()},
        sources={new: old for old, new in renamed.items()},
        compression=codec,
        level=options.get("level", LEVEL) if CODECS[codec] else None,
        chunk=options.get("chunk_mib", 4) * writing.MIB,
        notes=notes,
    )
    for path in folder.beside():
        shutil.copyfile(path, out / path.name)
    return ModelInfo(parameters=index.about.parameters)


class Stored(Mapping[str, Tensor]):
    """The tensors of a written file under the source's names, one read at a time; aliases give what
    they stand for."""

    def __init__(self, weights: parquet.Weights) -> None:
        self.weights = weights
        self.names = {info.source: info.name for info in weights.tensors.values()}

    def __getitem__(self, name: str) -> Tensor:
        try:
            info = self.weights.stored(self.names[name])
            return Tensor(info.dtype, info.shape, self.weights.raw(info.name))
        except ValueError as problem:
            raise StepError(f"the weights file cannot be read: {problem}") from problem

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def read(directory: Path, *, options: Mapping[str, Any]) -> tuple[Stored, dict[str, Any]]:
    """What was written, as its reader gives it, and what to say of it in the report. Raises
    StepError for a damaged file."""
    try:
        weights = parquet.load(directory)
    except (OSError, ValueError) as problem:
        raise StepError(str(problem)) from problem
    listed = weights.tensors.values()
    details = {
        "file_tensors": sum(i.alias_of is None for i in listed),
        "aliases": sum(i.alias_of is not None for i in listed),
        "dtypes": {d: sum(i.dtype == d for i in listed) for d in sorted({i.dtype for i in listed})},
        "encodings": weights.metadata["encodings"],
        "remarks": weights.metadata["notes"],
    }
    return Stored(weights), details
