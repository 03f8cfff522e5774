"""Keys and values of earlier tokens, in the forms that releases of transformers keep them in.

From 4.54 on a cache is a list of layers; before, it is two lists of tensors; and models that were
not asked with a cache then answer with a tuple for each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    import transformers

SIDES = ("self_attention_cache", "cross_attention_cache")


class Layer(NamedTuple):
    """What a cache keeps of one layer.

    Attributes:
        keys: Its keys, float [batch, heads, length, width]; None where it keeps something else.
        values: Its values, of the same shape.
        kind: What keeps them, for people.
    """

    keys: torch.Tensor | None
    values: torch.Tensor | None
    kind: str


def list_layers(cache: transformers.Cache) -> Iterator[Layer]:
    """Yield the layers of a cache in order."""
    if isinstance(cache, tuple):
        for keys, values, *_ in cache:
            yield Layer(keys, values, "tuple")
    elif hasattr(cache, "layers"):
        for layer in cache.layers:
            values = getattr(layer, "values", None)
            yield Layer(getattr(layer, "keys", None), values, type(layer).__name__)
    else:
        every: list[Sequence[torch.Tensor | None]] = [
            getattr(cache, name, ()) for name in ("key_cache", "value_cache")
        ]
        for keys, values in zip(*every, strict=True):
            yield Layer(keys, values, type(cache).__name__)


def split_sides(cache: transformers.Cache) -> list[transformers.Cache]:
    """Return what the decoder of an encoder-decoder keeps of itself, and of the encoder."""
    if isinstance(cache, tuple):
        return [tuple(layer[:2] for layer in cache), tuple(layer[2:4] for layer in cache)]
    return [getattr(cache, name) for name in SIDES]


def make_cache(tensors: Sequence[torch.Tensor]) -> transformers.Cache:
    """Return a cache of (key, value, key, value …). The layers are filled directly, since update()
    would join them to empty ones."""
    from transformers import cache_utils

    cache = cache_utils.DynamicCache()
    keys, values = tensors[::2], tensors[1::2]
    if not hasattr(cache, "layers"):
        cache.key_cache, cache.value_cache = list(keys), list(values)
        cache._seen_tokens = keys[0].shape[2]
        return cache
    cache.layers.clear()  # releases 4.54 and 4.55 begin with an empty one
    for key, value in zip(keys, values, strict=True):
        layer = cache_utils.DynamicLayer()
        layer.dtype = key.dtype
        layer.device = key.device
        layer.keys = key
        layer.values = value
        layer.is_initialized = True
        cache.layers.append(layer)
    return cache
