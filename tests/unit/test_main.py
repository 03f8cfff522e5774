"""The one catch: what becomes of exceptions, as exit codes and words."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mconv import __main__ as main_module
from mconv.__main__ import main
from mconv.errors import ManifestError, MconvError, PublishError, StepError, UsageError
from mconv.values import Place


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> int:
    def raise_it(argv: object) -> int:
        raise problem

    monkeypatch.setattr(main_module, "main_inner", raise_it)
    return main([])


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (StepError("broken", hint="mend it"), 1),
        (UsageError("wrong"), 2),
        (PublishError("refused"), 3),
        (MconvError("odd"), 3),
    ],
)
def test_expected_errors_have_codes_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: MconvError,
    code: int,
) -> None:
    assert fail(monkeypatch, problem) == code
    assert capsys.readouterr().err == f"error: {problem}\n"


def test_every_problem_of_a_manifest_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [
        ManifestError(text, place=Place(file="m.yml", line=line))
        for line, text in ((1, "a"), (2, "b"))
    ]
    assert fail(monkeypatch, ManifestError("two", problems=problems)) == 2
    assert capsys.readouterr().err == "error: m.yml:1:1: a\nerror: m.yml:2:1: b\n"


def test_in_a_github_job_errors_are_annotations_and_obey_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    problem = StepError("x\n::set-output::y", place=Place(file="models.yml", line=3))
    assert fail(monkeypatch, problem) == 1
    printed = capsys.readouterr().err
    assert re.search(r"^::error .*file=models\.yml.*line=3", printed, re.M)
    assert "\n::set-output" not in printed


def test_a_bug_is_3_with_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(main_module.tempfile, "tempdir", str(tmp_path))
    assert fail(monkeypatch, ZeroDivisionError("by\nzero")) == 3
    printed = capsys.readouterr().err
    assert "a fault of mconv's own: ZeroDivisionError: by zero" in printed
    assert "Traceback" not in printed
    (log,) = tmp_path.glob("mconv-*.log")
    assert str(log) in printed
    assert "ZeroDivisionError" in log.read_text()


def test_an_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(monkeypatch, KeyboardInterrupt()) == 130
    assert "finished steps are kept" in capsys.readouterr().err
    handler = signal.getsignal(signal.SIGTERM)  # that main() has set
    assert callable(handler)
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGTERM, None)


def test_no_arguments_show_the_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: mconv")
    assert "convert" in shown.out
    assert shown.err == ""
    monkeypatch.setattr("sys.argv", ["mconv"])
    assert main() == 0
    assert capsys.readouterr().out == shown.out


def test_an_option_without_a_command_is_an_error_of_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--no-such-option"]) == 2
    assert "mconv --help" in capsys.readouterr().err
