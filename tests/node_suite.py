"""ONNX's own suite of nodes, as the installed onnx has it."""

from __future__ import annotations

import random
import warnings
from functools import cache

import onnx
from onnx.backend.test.case import node


@cache
def cases() -> list[tuple[str, onnx.ModelProto]]:
    """Name and model of every case, in an order of its own, so that parts of the list are alike."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the numpy that computes their answers
        collected = [(case.name, case.model) for case in node.collect_testcases(None)]
    random.Random(0).shuffle(collected)
    return collected
