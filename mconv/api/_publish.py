"""A finished results.json on GitHub: comment, check run, release, annotations and job summary."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mconv.api._results import read_results
from mconv.errors import MconvError, PublishError, UsageError
from mconv.github import artifacts, event, publish, release, workflow
from mconv.github.api import Api, ReadOnlyTokenError
from mconv.github.release import Uploaded
from mconv.github.workflow import Environment
from mconv.reports import markdown
from mconv.results.delivery import explain_unwritable
from mconv.store.local import write_text
from mconv.values import Frozen, Report

EVENT_TAG = ""  # no tag named: that of the release event, and nothing to do where there is none


class Publication(Frozen, frozen=True, kw_only=True):
    """What is to be published.

    Attributes:
        comment: Create or update the comment on the pull request.
        comment_id: Tells several mconv jobs on one pull request apart.
        comment_author: The login of who comments with the token.
        checks: Create a check run.
        release: The tag of the release that assets go to; an empty one is that of the release
            event, None is none.
    """

    comment: bool = False
    comment_id: str = "default"
    comment_author: str = "github-actions[bot]"
    checks: bool = False
    release: str | None = None


def render_comment(results: Path, variables: Mapping[str, str]) -> str:
    """Return the text of the comment that :func:`publish_results` would make."""
    environment = Environment.read(variables)
    return markdown.render(read_results(results), report_url=environment.run_url)


def publish_results(
    results: Path, wanted: Publication, variables: Mapping[str, str]
) -> tuple[str, ...]:
    """Publish what is wanted; annotations and job summary always.

    ``variables`` are those of the GitHub job. Returns a sentence for each thing that could not be
    published, which never changes the verdict on the models. Raises UsageError where results.json
    cannot be read, or this is no GitHub job; PublishError, after all else, where a release lacks
    what it was to hold.
    """
    report = read_results(results)
    environment = Environment.read(variables)
    body = markdown.render(report, report_url=environment.run_url)
    if environment.other_run is None:  # the lines of a manifest are those of the run that converted
        for command in workflow.annotate(report, prefix=environment.prefix):
            print(command, flush=True)
    publisher = _Publisher(report, environment, wanted, body, results.parent)
    notes = publisher.send()
    summary = markdown.render_summary(report) + "".join(f"\n\n> {note}" for note in notes)
    if not workflow.add_summary(environment, summary):
        workflow.add_summary(environment, body)
    if publisher.failure is not None:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        raise publisher.failure
    return notes


def fetch_baseline(
    out: Path, variables: Mapping[str, str], *, artifact: str, branch: str | None = None
) -> bool:
    """Write the base branch's results.json of the newest artifact to ``out``; False where there is
    none, which a note on stderr explains.

    ``branch`` is by default the pull request's base, else the default branch. Raises UsageError
    outside of a GitHub job, for results that cannot be read, and where ``out`` cannot be written.
    """
    environment = Environment.read(variables)
    branch = branch or environment.base_branch
    if not environment.repository or not branch:
        raise UsageError(
            "GITHUB_REPOSITORY or the branch is not known",
            hint="elsewhere name a file: --baseline FILE",
        )
    with explain_unwritable(out):
        out.unlink(missing_ok=True)
    github = Api(environment.api_url, environment.token, environment.repository)
    try:
        content = artifacts.fetch_newest(github, artifact, branch)
    except PublishError as problem:
        print(f"note: no baseline: {problem.message}; it needs `actions: read`", file=sys.stderr)
        return False
    if content is None:
        print(f"note: no baseline: no artifact {artifact!r} of a run on {branch}", file=sys.stderr)
        return False
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / "results.json"
        fetched.write_bytes(content)
        read_results(fetched)  # by its schema and size: nothing else is kept
    with explain_unwritable(out):
        write_text(out, content.decode("utf-8"))
    print(f"baseline: {artifact} of {branch}", file=sys.stderr)
    return True


class _Publisher:
    """Sends one report, as far as the token allows.

    Attributes:
        report: The report.
        environment: The GitHub job.
        wanted: What is to be published.
        body: The report as Markdown.
        folder: The folder that its artifacts lie in.
        notes: A sentence for each thing that could not be published.
        failure: Why the release is not complete, where it should be.
        tag: The release that assets go to, if there is one.
        api: GitHub's API.
    """

    def __init__(
        self,
        report: Report,
        environment: Environment,
        wanted: Publication,
        body: str,
        folder: Path,
    ) -> None:
        self.report = report
        self.environment = environment
        self.wanted = wanted
        self.body = body
        self.folder = folder
        self.notes: list[str] = []
        self.failure: PublishError | None = None
        self.tag = environment.release_tag if wanted.release == EVENT_TAG else wanted.release
        self.api = Api(environment.api_url, environment.token, environment.repository)

    def send(self) -> tuple[str, ...]:
        """Make the comment, the check run and the assets; return why one of them was not made."""
        environment = self.environment
        # a release has no pull request
        comment = self.wanted.comment and not (self.tag and environment.pull_request is None)
        if not (comment or self.wanted.checks or self.tag):
            return ()
        if not environment.repository:
            raise UsageError(
                "GITHUB_REPOSITORY is not set",
                hint="publishing works inside a GitHub workflow; --dry-run works anywhere",
            )
        if not environment.token:
            if self.wanted.release:
                self.failure = PublishError(
                    f"nothing was uploaded to the release {self.tag}: there is no token",
                    hint="pass `github-token`",
                )
            return ("there is no token, so no comment was made: pass `github-token`",)
        if comment:
            self._attempt("comment", "no comment was made", self._comment)
        if self.wanted.checks:
            self._attempt("check run", "no check run was made", self._create_check)
        if self.tag:
            self._attempt("assets", "not all assets were uploaded", self._upload)
            if self.failure is not None:
                self.failure = PublishError(
                    f"the release {self.tag} is not complete: {self.failure.message}",
                    hint=self.failure.hint,
                )
        return tuple(self.notes)

    def _attempt(self, what: str, failure: str, task: Callable[[], str]) -> None:
        """Do ``task`` and print how it went; note ``failure`` where it fails."""
        try:
            print(f"{what} {task()}", file=sys.stderr)
        except MconvError as problem:
            hint = f" ({problem.hint})" if problem.hint else ""
            self.notes.append(
                f"{failure}: {problem.message}{hint}; the results are in this summary"
            )

    def _comment(self) -> str:
        """Create or update the comment, and return what was done."""
        done = publish.publish_comment(
            self.api,
            self._find_pull_request(),
            self.body,
            key=self.wanted.comment_id,
            author=self.wanted.comment_author,
            stamp=self.environment.stamp,
        )
        return " ".join(done)

    def _create_check(self) -> str:
        """Create the check run, and return what was done."""
        environment = self.environment
        if environment.other_run is not None:
            self._find_pull_request()  # no check on a commit that the event alone vouches for
        key = self.wanted.comment_id
        url = publish.publish_check_run(
            self.api,
            self.report,
            environment.head_sha,
            self.body,
            name="mconv" if key == "default" else f"mconv ({key})",
            run_id=f"{environment.run_id}/{key}" if environment.run_id else "",
            prefix=environment.prefix,
        )
        return f"created {url}"

    def _upload(self) -> str:
        """Upload the assets, and return how many.

        A token that may not write is no failure where only the event asks for a release.
        """
        try:
            uploaded = upload_assets(self.api, str(self.tag), self.report, self.folder)
        except PublishError as problem:
            asked = self.wanted.release != EVENT_TAG
            if asked or not isinstance(problem, ReadOnlyTokenError):
                self.failure = problem
            raise
        self.notes += [f"not uploaded: {text}" for text in uploaded.refused]
        counts = {
            "created": uploaded.created,
            "replaced": uploaded.replaced,
            "unchanged": uploaded.unchanged,
        }
        counted = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
        return f"{counted} {uploaded.url}"

    def _find_pull_request(self) -> int:
        """Return the number of the pull request.

        Raises PublishError where there is none to write to.
        """
        number = self.environment.pull_request
        if self.environment.other_run is not None:
            number = event.find_pull_request(self.api, self.environment.other_run)
            if number is None:
                raise PublishError("no open pull request is at the commit that was converted")
        if number is None:
            raise PublishError("this run belongs to no pull request")
        return number


def upload_assets(api: Api, tag: str, report: Report, folder: Path) -> Uploaded:
    """Bundle what passed in ``folder`` and bring it to the release of ``tag``.

    Raises PublishError.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return release.upload_assets(api, tag, release.bundle_assets(report, folder, Path(scratch)))
