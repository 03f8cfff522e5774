"""onnxscript's rewrite rules, without their tolerance.

Its rules match a constant within 10⁻⁸ (``onnxscript/rewriter/_pattern_ir.py``, ``Constant``), so
that ``x + 0`` is also ``x + 1e-10``: the ε in ``log(x + ε)`` goes, and silence becomes −∞. The
optimizer that calls them has no option for it, and PyTorch's exporter calls the same rules."""

from __future__ import annotations

from functools import cache


@cache
def make_rules_exact() -> int:
    """Have onnxscript's default rules match the numbers they name and no others, in this process.
    Return how many constants that concerns.

    Raises ImportError where onnxscript no longer keeps its rules where they are known to be.
    """
    from onnxscript.rewriter import _DEFAULT_REWRITE_RULES, _pattern_ir

    count = 0
    for rule in _DEFAULT_REWRITE_RULES:
        for node in rule._target_pattern:
            for value in node.inputs:
                if isinstance(value, _pattern_ir.Constant):
                    value._rel_tol = value._abs_tol = 0.0
                    count += 1
    return count
