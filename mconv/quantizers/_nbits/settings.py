"""The options of the method, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from mconv.quantizers._nbits.layers import Layer

BLOCKS = {8: 128}  # of a width, for every kind of layer
BLOCK = {"product": 16, "table": 32, "folded": 32}  # of other widths
SMALLEST_BLOCK = 16


class NbitsOptions(TypedDict, total=False):
    """The options of ``nbits``; its ``OPTIONS`` says what each does."""

    block_size: int
    scheme: str
    rounding: str
    scaling: str
    embeddings: bool
    accuracy_level: int
    average_bits: float
    layers: dict[str, int]


@dataclass(frozen=True)
class Settings:
    """Options with their defaults.

    Attributes:
        block_size: how many weights share a scale; None where it follows from the layer.
        symmetric: whether blocks have no zero point.
        rounding: ``gptq``, ``hqq`` or ``nearest``.
        scaling: ``none`` or ``awq``.
        embeddings: whether embedding tables are quantized too.
        accuracy_level: that of MatMulNBits.
        average_bits: the bits of a weight, over all layers, of mixed precision.
        layers: the bits of layers by globs of their names.
    """

    block_size: int | None = None
    symmetric: bool = False
    rounding: str = "gptq"
    scaling: str = "none"
    embeddings: bool = True
    accuracy_level: int = 0
    average_bits: float = 4.5
    layers: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, options: NbitsOptions) -> Settings:
        """Return the settings that options mean."""
        return cls(
            block_size=options.get("block_size"),
            symmetric=options.get("scheme") == "symmetric",
            rounding=str(options.get("rounding", "gptq")),
            scaling=str(options.get("scaling", "none")),
            embeddings=bool(options.get("embeddings", True)),
            accuracy_level=int(options.get("accuracy_level", 0)),
            average_bits=float(options.get("average_bits", 4.5)),
            layers=dict(options.get("layers") or {}),
        )

    def block_of(self, layer: Layer, bits: int) -> int:
        """Return the block size of a layer: as asked for, halved down to 16 until it divides a
        table's row."""
        size = int(self.block_size or BLOCKS.get(bits, BLOCK[layer.kind]))
        while layer.kind == "table" and size > SMALLEST_BLOCK and layer.columns % size:
            size //= 2
        return size
