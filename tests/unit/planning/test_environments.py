"""What the environments of a manifest are made of."""

from __future__ import annotations

from pathlib import Path

from mconv import registry
from mconv.environments.models import WORKER
from mconv.manifest import reader
from mconv.planning.environments import list_requests

MANIFEST = """\
version: 1
environments:
  shared: {packages: [numpy]}
  unused: {packages: [scipy]}
defaults: {targets: [onnx], environment: shared}
models:
  - {name: a, source: {format: onnx, path: m.onnx}}
  - {name: b, source: {format: sklearn, path: net.py, factory: "net:build"}}
  - {name: c, source: {format: onnx, path: m.onnx}}
"""


def test_an_environment_holds_what_the_sources_of_all_its_models_need(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    (tmp_path / "net.py").write_text("def build():\n    return None\n")
    (tmp_path / "models.yml").write_text(MANIFEST)
    requests = list_requests(reader.load(tmp_path / "models.yml"))
    assert requests.keys() == {"shared"}
    needed = registry.sources()["sklearn"].requires
    assert needed
    assert set(requests["shared"].worker) == {*WORKER, *needed}
