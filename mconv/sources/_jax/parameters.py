"""Trees of arrays: how files hold the parameters of a model, and how they get into a module."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mconv.errors import SourceError, one_line
from mconv.sources import _named
from mconv.sources._jax import CHATTER

if TYPE_CHECKING:
    import jax
    import numpy as np
    from flax import nnx

    Leaves = dict[str, jax.Array | np.ndarray]  # arrays of a tree by their paths

Tree = object  # a file's tree of arrays: nested dicts and lists
V = TypeVar("V")


def find_kind(path: Path) -> str | None:
    """Return what holds the parameters: ``npz``, ``safetensors``, ``msgpack``, ``orbax`` (a
    folder), or ``code`` (a .py file: none); None for anything else."""
    if path.is_dir():
        is_orbax = any((path / n).is_file() for n in ("_METADATA", "_CHECKPOINT_METADATA"))
        return "orbax" if is_orbax else None
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        return "npz"
    if not path.is_file():
        return None
    kinds = {".safetensors": "safetensors", ".msgpack": "msgpack", ".py": "code"}
    return kinds.get(path.suffix)


def read_parameters(path: Path, kind: str) -> Tree:
    """Return the tree of arrays in a file or folder; nothing of it is run.

    Raises SourceError for a damaged file, or one with pickles in it.
    """
    import numpy as np

    try:
        if kind == "npz":
            with np.load(path, allow_pickle=False) as data:
                return _nest({name: data[name] for name in data.files})
        if kind == "safetensors":
            from safetensors.numpy import load_file

            return _nest(load_file(str(path)))
        if kind == "msgpack":
            from flax.serialization import msgpack_restore

            return _restore_lists(msgpack_restore(path.read_bytes()))
        import orbax.checkpoint as ocp

        with _named.silence_exporters(*CHATTER):
            return _restore_lists(ocp.PyTreeCheckpointer().restore(str(path)))
    except Exception as problem:  # each reader raises errors of its own
        raise SourceError(
            f"{path.name} cannot be read as parameters: {one_line(problem, 400)}",
            hint="save plain arrays; mconv loads no pickles",
        ) from problem


def _nest(arrays: Mapping[str, np.ndarray]) -> Tree:
    """Return arrays named ``a/b/c`` (or ``a.b.c`` where no name has a slash) as nested dicts."""
    separator = "/" if any("/" in name for name in arrays) else "."
    tree: dict[str, object] = {}
    for name, array in arrays.items():
        *parents, last = name.split(separator)
        inner = tree
        for parent in parents:
            child = inner.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ValueError(f"{name} lies below another array")
            inner = child
        inner[last] = array
    return _restore_lists(tree)


def _restore_lists(tree: Tree) -> Tree:
    """Return the tree with mappings of the keys 0, 1, 2 … as lists: files have no other way to
    write one."""
    if isinstance(tree, list | tuple):
        return [_restore_lists(member) for member in tree]
    if not isinstance(tree, Mapping):
        return tree
    members = {str(key): _restore_lists(member) for key, member in tree.items()}
    indices = [str(index) for index in range(len(members))]
    if members and members.keys() == set(indices):
        return [members[index] for index in indices]
    return members


def _path_of(keys: Sequence[object]) -> str:
    """Return a leaf's path in a tree, joined by slashes."""
    return "/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in keys)


def _flatten_tree(tree: Tree) -> Leaves:
    """Return the arrays of a tree by their paths."""
    import jax

    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_path_of(keys): leaf for keys, leaf in leaves}


def put_parameters(module: nnx.Module, tree: Tree, name: str) -> None:
    """Put the tree of arrays of the file ``name`` into a module. Keys of random numbers stay as the
    factory made them, and so do counts that the file has not.

    Raises SourceError naming what is missing, left over or of another shape.
    """
    import jax
    import numpy as np
    from flax import nnx

    state = nnx.state(module)
    pure = nnx.to_pure_dict(state)
    stored = _flatten_tree(tree)
    wanted: Leaves = {}
    for path, leaf in _flatten_tree(pure).items():
        is_key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        is_counter = path.endswith(("rngs/count", "rngs/key", "count/value"))
        if not is_key and (path in stored or not is_counter):
            wanted[path] = leaf
    if differences := _compare_leaves(wanted, stored):
        raise SourceError(
            f"{name} does not fit the factory's module: it {'; '.join(differences[:5])}",
            hint="is it of another version?",
        )

    def fill(keys: Sequence[object], leaf: V) -> np.ndarray | V:
        path = _path_of(keys)
        return np.asarray(stored[path], wanted[path].dtype) if path in wanted else leaf

    nnx.replace_by_pure_dict(state, jax.tree_util.tree_map_with_path(fill, pure))
    nnx.update(module, state)


def _compare_leaves(wanted: Leaves, stored: Leaves) -> list[str]:
    """Return what a file lacks of a module's arrays, has besides, and has in another shape."""
    differences = [f"lacks {path}" for path in wanted if path not in stored]
    differences += [f"has {path} besides" for path in stored if path not in wanted]
    for path, leaf in wanted.items():
        if path in stored and stored[path].shape != leaf.shape:
            differences.append(f"has {path} as {stored[path].shape}, not {leaf.shape}")
    return differences
