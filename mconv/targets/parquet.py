"""Weights in Apache Parquet, by name, with the files that go beside them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from mconv import parquet
from mconv.errors import StepError, UnsupportedError
from mconv.targets._parquet import renaming, writer
from mconv.values import ModelInfo
from mconv.weights import Folder, Tensor

ACCEPTS = ("weights",)
PRECISIONS = {"fp32": None, "fp16": None}
ENVIRONMENT = "parquet"
TOOLS = ("pyarrow",)
CODECS = ("zstd", "lz4", "snappy", "none")
WITH_LEVELS = ("zstd",)
CODEC = "zstd"
LEVEL = 1  # of zstd; on split floats a higher one is slower and no smaller
CHUNK_MIB = 4
# the option dtype → the precision that says the same
DTYPES = {"original": "fp32", "float16": "fp16"}
OPTIONS: dict[str, dict[str, object]] = {
    "dtype": {
        "enum": list(DTYPES),
        "description": "of floats: as the source has them (precision fp32) or float16 (precision "
        "fp16); says the same as precision",
    },
    "compression": {"enum": list(CODECS), "default": CODEC, "description": "codec of the pages"},
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
        "default": CHUNK_MIB,
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


class ParquetOptions(TypedDict, total=False):
    """The options of the target; ``OPTIONS`` says what each does."""

    dtype: str
    compression: str
    level: int
    chunk_mib: int
    part: str
    map: dict[str, str]


class FileDetails(TypedDict):
    """What a written file says of itself.

    Attributes:
        file_tensors: How many tensors it holds that are no alias.
        aliases: How many further names they have.
        dtypes: How many tensors and aliases are of each data type.
        encodings: The encoding of each data type.
        remarks: Those of the source and of the writer.
    """

    file_tensors: int
    aliases: int
    dtypes: dict[str, int]
    encodings: dict[str, str]
    remarks: list[str]


def implied_precision(options: ParquetOptions) -> str | None:
    """Return the precision that ``dtype`` says where none is written."""
    return DTYPES.get(str(options.get("dtype")))


def part(options: ParquetOptions) -> str | None:
    """Return the part of a model of several that is delivered; None is the whole."""
    return options.get("part")


def check(*, precision: str, options: ParquetOptions, method: str | None) -> None:
    """Raise UnsupportedError where precision and dtype, or codec and level, contradict each other,
    or a rule of ``map`` cannot be read."""
    dtype = options.get("dtype")
    if dtype is not None and DTYPES[dtype] != precision:
        raise UnsupportedError(
            f"dtype {dtype} is precision {DTYPES[dtype]}, not {precision}",
            hint="leave one of the two out; they say the same",
        )
    codec = options.get("compression", CODEC)
    if "level" in options and codec not in WITH_LEVELS:
        raise UnsupportedError(
            f"compression {codec} has no levels", hint="leave `level` out, or use zstd"
        )
    renaming.check_rules(options.get("map") or {})


def write(
    model: Path,
    out: Path,
    *,
    precision: str,
    options: ParquetOptions,
    name: str,
    calibration: None,
) -> ModelInfo:
    """Write ``weights.parquet`` from a folder of weights (:mod:`mconv.weights`), and the files
    beside it.

    Raises UnsupportedError for a dtype the format does not know, or rules of ``map`` that fit no
    name or make two names one.
    """
    folder = Folder(model)
    index = folder.index
    renamed = renaming.rename_tensors([*folder, *index.aliases], options.get("map") or {})
    tensors: dict[str, Tensor] = {}
    notes = []
    for old in folder:
        tensor = folder[old]
        if precision == "fp16":
            tensor = writer.narrow_tensor(tensor)
            if tensor.dtype in (*writer.FLOATS, "bfloat16"):
                notes.append(
                    f"{renamed[old]} stays {tensor.dtype}: float16 cannot hold its largest value"
                )
        tensors[renamed[old]] = tensor
    codec = options.get("compression", CODEC)
    writer.write_file(
        out / parquet.FILE,
        tensors,
        about=index.about,
        aliases={renamed[alias]: renamed[target] for alias, target in index.aliases.items()},
        sources={new: old for old, new in renamed.items()},
        compression=codec,
        level=options.get("level", LEVEL) if codec in WITH_LEVELS else None,
        chunk=options.get("chunk_mib", CHUNK_MIB) * writer.MIB,
        notes=notes,
    )
    for path in folder.list_files_beside():
        shutil.copyfile(path, out / path.name)
    return ModelInfo(parameters=index.about.parameters)


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a written file under the source's names, one read at a time.

    An alias gives the tensor that it stands for. Reading raises StepError for a damaged file.
    """

    def __init__(self, weights: parquet.Weights) -> None:
        self.weights = weights
        self.names = {info.source: info.name for info in weights.tensors.values()}

    def __getitem__(self, name: str) -> Tensor:
        try:
            info = self.weights.find_stored(self.names[name])
            return Tensor(info.dtype, info.shape, self.weights.read_raw(info.name))
        except ValueError as problem:
            raise StepError(f"the weights file cannot be read: {problem}") from problem

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def read(directory: Path, *, options: ParquetOptions) -> tuple[StoredTensors, FileDetails]:
    """Return what was written, as its reader gives it, and what to say of it in the report.

    Raises StepError for a damaged file.
    """
    try:
        weights = parquet.load(directory)
    except (OSError, ValueError) as problem:
        raise StepError(str(problem)) from problem
    infos = weights.tensors.values()
    aliases = [info for info in infos if info.alias_of is not None]
    details: FileDetails = {
        "file_tensors": len(infos) - len(aliases),
        "aliases": len(aliases),
        "dtypes": dict(sorted(Counter(info.dtype for info in infos).items())),
        "encodings": weights.metadata["encodings"],
        "remarks": weights.metadata["notes"],
    }
    return StoredTensors(weights), details
