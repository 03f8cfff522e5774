"""The browser that web variants are run in is nobody else's."""

from __future__ import annotations

import pytest

from mconv.runtimes._browser import service
from tests.attacks import harness
from tests.attacks.harness import Hostile

VICTIM = "  - {name: victim, source: linear.onnx, targets: [wasm]}\n"


@pytest.mark.full
@pytest.mark.parametrize("mode", harness.MODES)
def test_a_model_with_the_network_does_not_reach_the_browser_of_another(mode: str) -> None:
    """Its debugging port obeys whoever connects: whoever does so answers for the artifact."""
    harness.require(mode)
    if service.find_browser() is None:
        pytest.skip("there is no browser")
    models = [Hostile("evil", "browsing:build", "network: true, resources: {timeout: 60s}")]
    with harness.repository(models, VICTIM) as place:
        run = harness.run(place, mode, timeout=300)
        assert run.code == 1, run.printed
        assert run.variants()["victim"]["status"] == "passed", run.printed
        assert "reached nothing" in run.variants()["evil"]["error"]["message"]
