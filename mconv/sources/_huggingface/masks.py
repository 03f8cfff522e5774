"""Attention masks in a form that exporters can follow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

    # (batch, head, query, key) → whether the query may see the key
    Mask: TypeAlias = Callable[
        [torch.Tensor | None, torch.Tensor | None, torch.Tensor, torch.Tensor], torch.Tensor
    ]

MODULE = "transformers.masking_utils"
VMAP = "_vmap_for_bhqkv"  # how releases before 5 apply the function of a mask to all indices
INDEXING = "TransformGetItemToIndex"  # what they index tensors by under torch.vmap


@contextmanager
def broadcast_masks() -> Iterator[None]:
    """Have transformers apply the functions of masks by broadcasting while this lasts.

    Releases 4.53 to 4.57 apply them by ``torch.vmap``, which the TorchScript exporter cannot trace.
    The later ones broadcast the indices, as is done here; the earlier have no such functions.
    """
    try:
        masking = importlib.import_module(MODULE)
    except ImportError:
        yield
        return
    replacements = {VMAP: apply_by_broadcast, INDEXING: nullcontext}
    own = {name: getattr(masking, name) for name in replacements if hasattr(masking, name)}
    if VMAP not in own:
        yield
        return
    for name in own:
        setattr(masking, name, replacements[name])
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(masking, name, value)


def apply_by_broadcast(mask: Mask, bh_indices: bool = True) -> Mask:
    """Return ``mask`` as a function of all batches [B], heads [H], queries [Q] and keys [K], which
    answers bool [B, H, Q, K]; without ``bh_indices`` of queries and keys alone, bool [Q, K]."""

    def apply(
        batches: torch.Tensor | None,
        heads: torch.Tensor | None,
        queries: torch.Tensor,
        keys: torch.Tensor,
    ) -> torch.Tensor:
        if not bh_indices or batches is None or heads is None:
            allowed = mask(batches, heads, queries[:, None], keys[None, :])
            return allowed.expand(queries.shape[0], keys.shape[0])
        allowed = mask(
            batches[:, None, None, None],
            heads[None, :, None, None],
            queries[None, None, :, None],
            keys[None, None, None, :],
        )
        sizes = (batches.shape[0], heads.shape[0], queries.shape[0], keys.shape[0])
        return allowed.expand(sizes)

    return apply
