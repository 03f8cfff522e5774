"""A helper that workers share: started once, again when it has died, ended with its input."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mconv import registry
from mconv.errors import StepError
from mconv.workers import service
from mconv.workers.service import Service

CODE = """import json, os, sys
from pathlib import Path
print(json.dumps({{"endpoint": f"at {{os.getpid()}}"}}), flush=True)
sys.stdin.read()
Path(os.environ["HOME"], "mark").write_text("cleaned up")
"""


def load(directory: Path, **settings: Any) -> Any:
    raise NotImplementedError


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that makes a service of a module of this code."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made: list[Service] = []

    def make(code: str) -> Service:
        (tmp_path / "own_helper.py").write_text(code.format())
        (tmp_path / "folder").mkdir()
        runtime = registry.Runtime(
            name="own", summary="", module="own_helper", load=load, service="OWN_ENDPOINT"
        )
        made.append(Service(runtime, tmp_path / "folder"))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_workers_share_one_helper_until_it_dies(make: Any) -> None:
    helper = make(CODE)
    first = helper.make_variables()
    assert helper.process is not None
    assert first == {"OWN_ENDPOINT": f"at {helper.process.pid}"}
    assert helper.make_variables() == first
    helper.process.kill()
    assert helper.make_variables() != first
    assert helper.make_variables() == {"OWN_ENDPOINT": f"at {helper.process.pid}"}


def test_it_may_clean_up_and_its_folder_goes(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = make(CODE)
    helper.make_variables()
    remove = helper.helper.remove
    monkeypatch.setattr(helper.helper, "remove", lambda: None)
    helper.stop()
    assert (helper.helper.home / "mark").read_text() == "cleaned up"
    remove()
    assert not (tmp_path / "folder").exists()
    assert helper.process is None


def test_one_that_does_not_end_is_killed(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STOP_SECONDS", 0.2)
    helper = make(CODE.replace("sys.stdin.read()", "import time; time.sleep(600)"))
    helper.make_variables()
    begin = time.monotonic()
    helper.stop()
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise OSError('no libnss3')", "no libnss3"),
        ("", "it said nothing"),
        ("print('ready')", "did not start"),
        ("print('[' * 100000)", "did not start"),
        ("print('{{}}')", "did not start"),
    ],
)
def test_one_that_does_not_start_says_why(make: Any, code: str, words: str) -> None:
    helper = make(code)
    with pytest.raises(StepError, match="the helper of runtime own did not start") as caught:
        helper.make_variables()
    assert words in str(caught.value)
    assert helper.process is None


def test_one_that_never_says_where_it_is_is_given_up(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "START_SECONDS", 0.3)
    helper = make("import time; time.sleep(600)")
    with pytest.raises(StepError, match="did not start"):
        helper.make_variables()
