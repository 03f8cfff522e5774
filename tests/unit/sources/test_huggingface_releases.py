"""What differs between releases of transformers, by stand-ins of the older ones beside the one that
is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import cache_utils, masking_utils

from mconv.errors import SourceError, UnsupportedError
from mconv.proof.media import Media
from mconv.sources._huggingface import caches, checkpoint, images, masks, towers
from mconv.sources._huggingface.flat_modules import flatten_cache
from mconv.values import TensorSpec

PADDING = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]]).bool()


def see_earlier(batch: Any, head: Any, query: Any, key: Any) -> Any:
    """Tokens see those before them that are no padding, four at most, as 4.57 writes it."""
    return (key <= query) & (key > query - 4) & PADDING[batch, key]


def see_by_head(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return (key <= query) & (key > query - head - 1)


@pytest.mark.parametrize("mask", [see_earlier, see_by_head])
@pytest.mark.parametrize("past", [0, 2])
def test_a_broadcast_mask_is_that_of_each_place(mask: Callable[..., Any], past: int) -> None:
    queries, keys = torch.arange(past, 6), torch.arange(6)
    batches, heads = torch.arange(3), torch.arange(2)
    got = masks.apply_by_broadcast(mask)(batches, heads, queries, keys)
    assert got.dtype == torch.bool
    assert got.shape == (3, 2, 6 - past, 6)
    for b in range(3):
        for h in range(2):
            for place, query in enumerate(queries.tolist()):
                for key in range(6):
                    one = mask(*(torch.tensor(index) for index in (b, h, query, key)))
                    assert bool(got[b, h, place, key]) == bool(one)


def test_a_mask_of_queries_and_keys_has_their_sizes() -> None:
    def see_all(batch: Any, head: Any, query: Any, key: Any) -> Any:
        assert batch is None
        return query.new_ones((), dtype=torch.bool)

    apply = masks.apply_by_broadcast(see_all, bh_indices=False)
    assert apply(None, None, torch.arange(3), torch.arange(5)).tolist() == [[True] * 5] * 3


def test_masks_are_traced_without_a_loop_over_places() -> None:
    """The TorchScript exporter follows the broadcast form at other sizes than the traced one."""
    apply = masks.apply_by_broadcast(lambda b, h, q, k: k <= q)

    def make(ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        return apply(torch.arange(ids.shape[0]), torch.arange(1), places, places)

    traced = torch.jit.trace(make, torch.zeros(2, 4))
    assert torch.equal(traced(torch.zeros(3, 7)), make(torch.zeros(3, 7)))


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """transformers.masking_utils as 4.57 has it, by the names."""
    module = ModuleType(masks.MODULE)
    module._vmap_for_bhqkv = object()  # type: ignore[attr-defined]
    module.TransformGetItemToIndex = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, masks.MODULE, module)
    monkeypatch.setattr(transformers, "masking_utils", module)
    return module


def test_masks_are_broadcast_while_it_lasts_and_no_longer(older: ModuleType) -> None:
    before = dict(vars(older))
    with masks.broadcast_masks():
        assert older._vmap_for_bhqkv is masks.apply_by_broadcast
        context: Callable[[], AbstractContextManager[None]] = older.TransformGetItemToIndex
        assert context is nullcontext
    assert dict(vars(older)) == before
    with pytest.raises(KeyError), masks.broadcast_masks():
        raise KeyError
    assert dict(vars(older)) == before


def test_newer_releases_are_left_alone() -> None:
    before = dict(vars(masking_utils))
    with masks.broadcast_masks():
        assert dict(vars(masking_utils)) == before


def test_releases_without_such_masks_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, masks.MODULE, None)  # importing it fails
    with masks.broadcast_masks():
        pass


class ListCache:
    """A cache as releases before 4.54 have it."""

    def __init__(self) -> None:
        self.key_cache: list[torch.Tensor] = []
        self.value_cache: list[torch.Tensor] = []
        self._seen_tokens = 0


TENSORS = [torch.full((2, 1, 3, 4), float(index)) for index in range(4)]


@pytest.mark.parametrize("form", ["layers", "lists", "tuples"])
def test_every_form_of_a_cache_is_read(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "lists":
        monkeypatch.setattr(cache_utils, "DynamicCache", ListCache)
    cache: Any = tuple(zip(TENSORS[::2], TENSORS[1::2], strict=True))
    if form != "tuples":
        cache = caches.make_cache(TENSORS)
        assert isinstance(cache, ListCache) == (form == "lists")
    flat = flatten_cache(cache)
    names = ["present.0.key", "present.0.value", "present.1.key", "present.1.value"]
    assert list(flat) == names
    assert [float(tensor[0, 0, 0, 0]) for tensor in flat.values()] == [0, 1, 2, 3]


def test_a_cache_of_lists_knows_how_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_utils, "DynamicCache", ListCache)
    cache = caches.make_cache(TENSORS)
    assert cache._seen_tokens == 3


def test_a_cache_that_begins_with_a_layer_holds_none_but_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As DynamicCache of 4.54 and 4.55 does."""

    class Begun(cache_utils.DynamicCache):
        def __init__(self) -> None:
            super().__init__()
            self.layers.append(cache_utils.DynamicLayer())

    monkeypatch.setattr(cache_utils, "DynamicCache", Begun)
    cache = caches.make_cache(TENSORS)
    assert len(cache.layers) == 2
    assert cache.get_seq_length() == 3


def test_the_sides_of_an_encoder_decoder_are_told_apart() -> None:
    layers = tuple((index, index + 1, index + 2, index + 3) for index in (0, 10))
    own, cross = caches.split_sides(layers)
    assert own == ((0, 1), (10, 11))
    assert cross == ((2, 3), (12, 13))
    both = SimpleNamespace(self_attention_cache="own", cross_attention_cache="cross")
    assert caches.split_sides(both) == ["own", "cross"]


def test_a_layer_without_keys_is_refused_by_its_kind() -> None:
    class StateLayer:
        pass

    cache = SimpleNamespace(layers=[StateLayer()])
    with pytest.raises(UnsupportedError, match="layer 0 keeps a StateLayer, not keys and values"):
        flatten_cache(cache)


def test_the_type_of_weights_goes_by_the_word_of_the_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert checkpoint.name_dtype_option() == "dtype"
    # by name: another test may have had the module imported anew
    monkeypatch.setattr("transformers.PretrainedConfig", SimpleNamespace)
    assert checkpoint.name_dtype_option() == "torch_dtype"


def test_a_tower_that_takes_no_return_dict_is_asked_without() -> None:
    """As CLIP's towers in 4.57 are."""

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(return_dict=False)

        def forward(self, pixel_values: torch.Tensor) -> Any:
            assert self.config.return_dict
            pooled = pixel_values.mean((2, 3))
            return SimpleNamespace(pooler_output=pooled, last_hidden_state=pooled[:, None])

    spec = TensorSpec(name="pixel_values", dtype="float32", shape=("batch", 3, 4, 4))
    feed = {"pixel_values": np.ones((2, 3, 4, 4), np.float32)}
    inputs: Any = SimpleNamespace(
        list_specs=lambda: (spec,), make_feeds=lambda specs, count, *_: [feed] * count
    )
    model: Any = SimpleNamespace(vision_model=Tower(), visual_projection=torch.nn.Linear(3, 2))
    tower = towers.load_tower(model, "vision", inputs)
    assert tower.run(feed)["image_embeds"].shape == (2, 2)


PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


class Processor:
    """A processor that takes the pictures in the ways that it names."""

    def __init__(self, **ways: tuple[int, int] | Exception) -> None:
        self.ways = ways

    def __call__(
        self, pictures: Any, *, return_tensors: str, do_resize: bool = True, **_: Any
    ) -> dict[str, torch.Tensor]:
        if return_tensors != "pt":
            raise ValueError("Only returning PyTorch tensors is currently supported.")
        answer = self.ways["resized" if do_resize else "kept"]
        if isinstance(answer, Exception):
            raise answer
        return {"pixel_values": torch.full((len(pictures), 3, *answer), float(do_resize))}


@pytest.mark.parametrize(
    ("processor", "resized"),
    [
        (Processor(resized=(16, 24)), True),
        (Processor(resized=ValueError("no 'shortest_edge'"), kept=(16, 24)), False),
        (Processor(resized=(18, 27), kept=(16, 24)), False),  # as PoolFormer's enlarges
        (Processor(resized=(8, 8), kept=ValueError("no")), True),
    ],
)
def test_drawn_pictures_are_processed_in_their_size(processor: Any, resized: bool) -> None:
    pixels = images.ImageInput(SimpleNamespace(), processor)._scale([PICTURE, PICTURE], 3)
    assert pixels.dtype == np.float32
    assert pixels.shape[:2] == (2, 3)
    assert bool(pixels[0, 0, 0, 0]) == resized


def test_a_processor_that_takes_no_picture_is_named_with_its_first_reason() -> None:
    processor: Any = Processor(resized=KeyError("shortest_edge"), kept=ValueError("no"))
    with pytest.raises(SourceError, match=r"Processor refuses pictures of 16 x 24: KeyError: 'sho"):
        images.ImageInput(SimpleNamespace(), processor)._scale([PICTURE], 3)


def test_a_picture_of_a_users_is_processed_as_the_folder_says() -> None:
    processor: Any = Processor(resized=(8, 8))
    taken = images.ImageInput(SimpleNamespace(), processor)
    spec = TensorSpec(name="pixel_values", dtype="float32", shape=("batch", 3, 8, 8))
    media = Media("picture", "p.png", PICTURE)
    assert taken.process(media, {"pixel_values": spec})["pixel_values"].shape == (1, 3, 8, 8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ConvNextImageProcessor", "ViTImageProcessor"])
def test_pictures_of_real_processors_have_the_size_of_the_model(name: str) -> None:
    processor = getattr(transformers, name)()
    pixels = images.ImageInput(SimpleNamespace(), processor)._scale([PICTURE], 3)
    mean, std = (np.array(getattr(processor, f"image_{word}")) for word in ("mean", "std"))
    wanted = ((PICTURE / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels[0], wanted, atol=1e-5)
