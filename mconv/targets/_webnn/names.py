"""Names the files of a native WebNN package."""

from __future__ import annotations

from pathlib import Path

# opens a context, builds a graph and runs it; copied beside graph.mjs
RUNTIME = Path(__file__).parent / "runtime.mjs"


def graph_file(index: int) -> str:
    """Return the name of the module of the graph ``index``, counted from 0."""
    return f"graph-{index + 1}.mjs" if index else "graph.mjs"
