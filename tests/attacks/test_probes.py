"""What the code of a repository tries to read, change and connect to, each try by itself.

All probes first run where nothing confines them, so that a probe which could never reach anything
is seen.
"""

from __future__ import annotations

import pytest

from tests.attacks import harness
from tests.attacks.harness import Hostile

MODULES = ["spying", "connecting", "writing", "reaching"]
# what an ordinary user's process reaches on any Linux where nothing confines it
BARE = {
    "spying": """environment_of_others memory_of_others maps_of_others descriptors_of_others
        folders_of_others files_by_the_root_of_others memory_by_call trace_of_others
        token_of_the_checkout files_of_the_runner secret_file secret_by_a_link
        secret_by_a_hard_link secret_by_its_path_alone secret_of_another_process
        names_beside_the_secret home_of_the_user temporary_files_of_others new_privileges""",
    "connecting": """tcp tcp_of_the_next_version a_port_of_its_own udp udp_that_is_connected netlink
        socket_in_a_folder datagram_to_a_folder datagram_of_a_pair pair_that_is_connected_again
        socket_without_a_folder socket_of_its_own programs_that_connect""",
    "writing": """code_of_another_model own_code manifest file_beside_the_manifest
        folder_beside_the_manifest file_renamed file_hard_linked file_truncated mode_of_a_file
        mode_by_a_descriptor time_of_a_file lease_on_a_file mconv_itself own_step shared_folders
        files_of_the_runner shared_memory shared_queue shared_semaphore memory_by_name""",
    "reaching": """signals signals_by_a_descriptor signals_to_a_thread
        signals_with_a_value limits priorities cores schedulers""",
}
# the version of Landlock that a probe's refusal takes; of all others it is the first
VERSIONS = {name: 6 for name in BARE["reaching"].split() if name.startswith("signals")}


@pytest.fixture(scope="module", params=harness.MODES)
def probed(request: pytest.FixtureRequest):
    """The error of each module's model, and which sockets were reached, in one run."""
    mode = request.param
    harness.require(mode)
    if not harness.find_abi():
        pytest.skip("this kernel has no Landlock")
    models = [Hostile(module, f"{module}:build") for module in MODULES]
    with harness.repository(models) as place, harness.listen(place) as reached:
        run = harness.run(place, mode)
        assert run.code == 1, run.printed
        yield mode, run, list(reached), (place / "honest.py").stat()


@pytest.mark.parametrize("module", MODULES)
def test_probes_reach_nothing(probed, module: str) -> None:
    mode, run, _, _ = probed
    variant = run.variants()[module]
    assert variant["status"] == "error"
    reached = harness.read_reached(variant)
    allowed = {name for name, version in VERSIONS.items() if version > harness.find_abi()}
    assert not set(reached) - (allowed if mode == "user" else set()), reached


def test_no_socket_was_reached_and_nobody_was_disturbed(probed) -> None:
    _, run, reached, _ = probed
    assert reached == []
    assert run.leaked() == []
    assert "CANARY" not in run.printed
    assert run.variants()["victim"]["status"] == "passed"


@pytest.mark.parametrize("module", MODULES)
def test_probes_reach_what_nothing_guards(module: str) -> None:
    harness.require("user")
    with harness.repository([]) as place, harness.listen(place) as heard:
        reached = harness.run_bare(place, module)
        assert not {name: words for name, words in reached.items() if "BROKEN" in words}
        assert set(BARE[module].split()) - set(reached) == set(), reached
        if module == "connecting":
            assert {*heard} == {"tcp", "udp", "stream", "datagram", "abstract"}
