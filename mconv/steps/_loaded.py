"""Sources and artifacts opened to be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mconv import registry
from mconv.steps import reload
from mconv.steps._files import Folders
from mconv.values import SourceConfig


def open_model(config: SourceConfig, params: Mapping[str, Any]) -> registry.Model:
    """The source in its framework; the part that ``params`` names where the variant is of
    weights."""
    return (
        reload.opened(config, params["part"])
        if "part" in params
        else registry.sources()[config.format].load(config)
    )


def load_session(plugin: str, params: dict[str, Any], folders: Folders) -> registry.Session:
    if "target" in params:  # weights, which the source runs
        return reload.load(
            folders["artifact"], msgspec.convert(params["source"], SourceConfig), params
        )
    return registry.runtimes()[plugin].load(
        folders["artifact"],
        options=params["options"],
        threads=params["threads"],
        precision=params["precision"],
    )
