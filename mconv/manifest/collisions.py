"""Variants whose names would be one: their ids, their folders, their files in a release."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mconv import plain_files
from mconv.errors import ManifestError
from mconv.manifest.config import ModelConfig
from mconv.manifest.names import name_directory, name_variant
from mconv.values import Place, name_asset


def find_collisions(models: Iterable[ModelConfig]) -> Iterator[ManifestError]:
    """Yield a problem for each variant that shares a folder, or a file of a release, with one
    before it; both places are named.

    Case is ignored, as file systems and people do.
    """
    folders: dict[str, tuple[str, Place]] = {}
    assets: dict[str, tuple[str, Place]] = {}
    for model in models:
        for variant in model.variants:
            own = (name_variant(model.name, variant.label, variant.precision), variant.place)
            folder = name_directory(model.name, variant.label, variant.precision)
            asset = name_asset(folder)
            present = folders.setdefault(plain_files.fold_name(folder), own)
            what = f"the folder {folder}"
            if present is own:
                present = assets.setdefault(plain_files.fold_name(asset), own)
                what = f"the file {asset} of a release"
            if present is not own:
                yield ManifestError(
                    f"{own[0]} and {present[0]} at {present[1]} would both be {what}",
                    hint="rename a model, or give a variant another name with `as:`",
                    place=variant.place,
                )
