"""ONNX files, read and written with external data streamed (onnx itself is imported inside
functions).

Every file is written in one deterministic form: ``model.onnx`` alone up to 1.5 GB (up to 0.5 GB
what is made of a larger model), else with all tensors of 1 KiB and more in one external file
``model.onnx.data`` beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from mconv.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    import onnx

    # (tensor, its bytes as stored) → its bytes
    Change: TypeAlias = Callable[[onnx.TensorProto, np.ndarray], np.ndarray]

MODEL_FILE = "model.onnx"
DATA_SUFFIX = ".data"
MAX_OPSET = 26  # the newest default-domain opset that onnxruntime 1.31 loads
INLINE_LIMIT = 1_500_000_000  # protobuf refuses 2 GiB; stay clear of it
# of what comes with external data: to write, read and parse it in one piece takes its size three
# times
KEPT_OUTSIDE = 500_000_000
SMALLEST_EXTERNAL = 1024  # bytes
LARGEST_ELEMENT = 16  # bytes: complex128
# of external data, so that a page of the file is a page in memory (onnx.proto,
# TensorProto.external_data)
ALIGNMENT = 4096


def load(path: Path, *, data: bool = True) -> onnx.ModelProto:
    """Read an ONNX file; external data must lie inside the model's folder (links resolved). Raises
    SourceError."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as problem:  # protobuf's DecodeError has no stable import path
        raise SourceError(
            f"{path.name} is not a readable ONNX file: {problem}",
            hint="check that the file is complete",
        ) from problem
    if not model.graph.node and not model.graph.output:
        raise SourceError(
            f"{path.name} is not an ONNX model: it has no graph",
            hint="check that the file is complete",
        )
    check_external_data(model, path)
    if data:
        onnx.load_external_data_for_model(model, str(path.parent))
    return model


def check_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is absolute, missing, truncated or outside the model's folder,
    links included."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    folder = path.parent.resolve()
    for tensor in _get_all_tensors(model):
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        target = (folder / info.location).resolve()
        if os.path.isabs(info.location) or not target.is_relative_to(folder):
            raise SourceError(
                f"{path.name}: tensor {tensor.name!r} reads external data outside the model's "
                f"folder: {info.location!r}",
                hint="keep external data files beside the model",
            )
        needed = (info.offset or 0) + (info.length or 0)
        if not target.is_file() or target.stat().st_size < needed:
            raise SourceError(
                f"{path.name}: external data {info.location!r} of tensor {tensor.name!r} is "
                "missing or too short",
                hint="commit the file beside the model; with Git LFS, fetch it (actions/checkout "
                "with lfs: true)",
            )


def save(
    model: onnx.ModelProto, path: Path, source: Path | None = None, *, change: Change | None = None
) -> None:
    """Write ``model`` at ``path`` deterministically, with external data beside it where it would
    pass 1.5 GB, or 0.5 GB of what was loaded without them.

    ``model`` may have been loaded without its external data: they lie in the folder ``source``
    (default: that of ``path``), and are copied one tensor at a time, through ``change`` where it is
    given; what is in the data file of ``path`` itself stays there. A model in memory that becomes
    external gives each tensor's bytes away as they are written."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    folder = path.parent if source is None else source
    own = path.with_name(path.name + DATA_SUFFIX)
    outside = [t for t in _get_all_tensors(model) if uses_external_data(t)]
    here = folder.resolve() == path.parent.resolve()
    staying = {id(t) for t in outside if here and ExternalDataInfo(t).location == own.name}
    if (
        not outside
        and sum(math.prod(t.dims) for t in _get_all_tensors(model)) * LARGEST_ELEMENT < INLINE_LIMIT
    ):
        # to ask for its size first takes as long again
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    size = model.ByteSize() + sum(ExternalDataInfo(t).length or 0 for t in outside)
    if staying or size > (KEPT_OUTSIDE if outside else INLINE_LIMIT):
        with own.open("ab" if staying else "wb") as file:
            for tensor in _get_all_tensors(model):
                if id(tensor) not in staying and (
                    uses_external_data(tensor) or tensor.ByteSize() >= SMALLEST_EXTERNAL
                ):
                    _outline(tensor, folder, file, own.name, change)
    else:
        for tensor in outside:
            data = stored(tensor, folder)
            tensor.raw_data = (change(tensor, data) if change else data).tobytes()
            tensor.data_location = tensor.DEFAULT
            del tensor.external_data[:]
    path.write_bytes(model.SerializeToString(deterministic=True))


def stored(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    """The bytes of a tensor's external data in ``folder``: uint8, mapped from the file,
    read-only."""
    import numpy as np
    from onnx.external_data_helper import ExternalDataInfo

    about = ExternalDataInfo(tensor)
    file = folder / about.location
    length = file.stat().st_size - (about.offset or 0) if about.length is None else about.length
    if not length:
        return np.zeros(0, np.uint8)
    return np.memmap(file, np.uint8, "r", about.offset or 0, (length,))


def _outline(
    tensor: onnx.TensorProto, folder: Path, file: BinaryIO, name: str, change: Change | None
) -> None:
    """Move a tensor's bytes to the end of ``file``. Strings have no such form and stay."""
    import numpy as np
    from onnx import numpy_helper
    from onnx.external_data_helper import uses_external_data

    if tensor.data_type == tensor.STRING:
        return
    if uses_external_data(tensor):
        data = stored(tensor, folder)
        data = change(tensor, data) if change else data
    else:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        data = np.frombuffer(tensor.raw_data, np.uint8)
    file.write(bytes(-file.tell() % ALIGNMENT))
    del tensor.external_data[:]
    for key, value in (("location", name), ("offset", file.tell()), ("length", data.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    file.write(data.data)
    tensor.data_location = tensor.EXTERNAL
    tensor.ClearField("raw_data")
