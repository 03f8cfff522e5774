"""CONTRIBUTING.md and docs/architecture.md tell of the tree as it is."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]
PAGES += [f"docs/adr/{p.name}" for p in (ROOT / "docs/adr").glob("*.md")]


def test_the_map_names_every_folder_and_module() -> None:
    folders = {p.name for p in (ROOT / "mconv").iterdir() if (p / "__init__.py").is_file()}
    assert set(re.findall(r"^\| `(\w+)` \|", CONTRIBUTING, re.M)) == folders
    modules = {p.stem for p in (ROOT / "mconv").glob("*.py") if not p.stem.startswith("__")}
    named = CONTRIBUTING.partition("A module directly in")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", named)) == modules


def test_the_files_it_decides_in_are_there() -> None:
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", ARCHITECTURE):
        assert (ROOT / "mconv" / path).is_file(), path


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("target", ["setup", "test", "test-full", "demo", "clean", "schemas"])
def test_the_commands_are_targets_of_make(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
