"""A thin client of GitHub's REST API: pages, rate limits, and what a failed write may have done.

Rules from GitHub's "Best practices for using the REST API": one second between writes;
``retry-after`` first, then ``x-ratelimit-reset``; a 403 can be a secondary limit. A write that adds
something and ended in a 5xx is not repeated here: the caller looks whether it took effect first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from mconv.errors import PublishError

ATTEMPTS = 5
WRITE_PAUSE = 1.0
MAX_WAIT = 300.0  # of one answer; asked for more than that, give up rather than come back too early
TIMEOUT = 30.0
UPLOAD_TIMEOUT = 900.0  # of each read and write; the file is as large as 2 GiB


class ReadOnlyTokenError(PublishError):
    """The token may not write: the run of a fork's pull request, or missing ``permissions:``."""


class NotFoundError(PublishError):
    """There is nothing at this path, or the token does not see it."""


class UncertainWriteError(PublishError):
    """A write ended in a server error or a broken connection.

    It may or may not have taken effect.
    """


class Api:
    """One repository's API at ``api_url`` (GHES: ``https://HOST/api/v3``).

    Attributes:
        repository: ``OWNER/NAME``.
        sleep: Waits for so many seconds; tests give another.
        now: Returns the time in seconds; tests give another.
        last_write: When the last write ended.
        client: The connection.
    """

    def __init__(
        self,
        api_url: str,
        token: str,
        repository: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.repository = repository
        self.sleep = sleep
        self.now = now
        self.last_write = 0.0
        headers = {
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
            "user-agent": "mconv",
        }
        if token:
            headers["authorization"] = f"Bearer {token}"
        self.client = httpx.Client(base_url=api_url.rstrip("/"), headers=headers, timeout=TIMEOUT)

    def get(self, path: str, **parameters: str | int) -> Any:
        """Return the JSON of one answer. Raises NotFoundError and PublishError."""
        return self._request("GET", path, params=parameters).json()

    def pages(self, path: str, **parameters: str | int) -> Iterator[Any]:
        """Yield every item of a list, following ``Link: rel="next"``.

        Raises NotFoundError and PublishError.
        """
        response = self._request("GET", path, params={"per_page": 100, **parameters})
        while True:
            yield from response.json()
            following = response.links.get("next", {}).get("url")
            if not following:
                return
            host = httpx.URL(following).copy_with(path="/", query=None)
            if host != self.client.base_url.copy_with(path="/"):
                # never take the token elsewhere
                raise PublishError(f"GitHub's next page is on another host: {following}")
            response = self._request("GET", following)

    def write(
        self, method: str, path: str, body: Mapping[str, object], *, again: bool = False
    ) -> Any:
        """POST or PATCH, and return the JSON of the answer.

        ``again`` means that doing it twice is as good as once, so that it may be repeated after a
        5xx. Raises ReadOnlyTokenError, UncertainWriteError (a 5xx or a broken connection, and not
        ``again``) and PublishError.
        """
        self._pause()
        try:
            return self._request(method, path, again=again, json=body).json()
        finally:
            self.last_write = self.now()

    def delete(self, path: str) -> None:
        """DELETE; what is gone already counts as deleted. Raises PublishError."""
        self._pause()
        try:
            self._request("DELETE", path)
        except NotFoundError:
            pass
        finally:
            self.last_write = self.now()

    def upload(self, url: str, path: Path, name: str) -> Any:
        """POST a file to an upload URL that the API itself gave, on another host; return the JSON
        of the answer.

        ``name`` is what it is to be called there. Raises UncertainWriteError and PublishError, as
        :meth:`write` does.
        """
        if self.client.base_url.scheme == "https" and httpx.URL(url).scheme != "https":
            # never send the token in the clear
            raise PublishError(f"GitHub's upload URL is not encrypted: {url}")
        self._pause()
        try:
            with path.open("rb") as file:
                headers = {
                    "content-type": "application/octet-stream",
                    "content-length": str(path.stat().st_size),
                }
                return self._request(
                    "POST",
                    url,
                    again=False,
                    content=file,
                    params={"name": name},
                    headers=headers,
                    timeout=UPLOAD_TIMEOUT,
                ).json()
        finally:
            self.last_write = self.now()

    def download(self, path: str, limit: int) -> bytes:
        """Return the content behind ``path``, which redirects to another host.

        httpx sends no token there. Raises PublishError for more than ``limit`` bytes.
        """
        request = self.client.build_request("GET", path)
        try:
            response = self.client.send(request, follow_redirects=True, stream=True)
        except httpx.HTTPError as error:
            raise PublishError(f"GET {path}: {type(error).__name__}: {error}") from error
        parts, size = [], 0
        try:
            if not response.is_success:
                raise PublishError(f"GitHub answered GET {path} with {response.status_code}")
            for part in response.iter_bytes():
                size += len(part)
                if size > limit:
                    raise PublishError(f"GET {path} has more than {limit:,} bytes")
                parts.append(part)
        except httpx.HTTPError as error:
            raise PublishError(f"GET {path}: {type(error).__name__}: {error}") from error
        finally:
            response.close()
        return b"".join(parts)

    def _pause(self) -> None:
        """Wait until a second has passed since the last write."""
        pause = self.last_write + WRITE_PAUSE - self.now()
        if pause > 0:
            self.sleep(pause)

    def _request(
        self, method: str, path: str, *, again: bool = True, **options: Any
    ) -> httpx.Response:
        """Send a request and return its answer, after as many tries as the rules allow."""
        problem = "no answer"
        for attempt in range(ATTEMPTS):
            try:
                response = self.client.request(method, path, **options)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                if not again:
                    raise UncertainWriteError(f"{method} {path}: {problem}") from error
                self.sleep(2.0**attempt)
                continue
            if response.is_success:
                return response
            message = _message(response)
            problem = f"{response.status_code} {message}"
            if response.status_code in (401, 403, 404) and "Resource not accessible by" in message:
                raise ReadOnlyTokenError(
                    "the token may not write to this repository",
                    hint="runs of forks get a read-only token; see docs/github.md for the "
                    "two-workflow setup",
                )
            wait = None
            if response.status_code in (403, 429):
                wait = self._wait(response, attempt)
            if wait is not None:
                if wait > MAX_WAIT:
                    raise PublishError(
                        f"GitHub asks to wait {wait:.0f} s before {method} {path}",
                        hint="run the job again later",
                    )
                self.sleep(wait)
                continue
            if response.status_code == 404:
                raise NotFoundError(
                    f"GitHub answered {method} {path} with {problem}",
                    hint="check the name and the token's permissions",
                )
            if response.status_code >= 500:
                if not again:
                    raise UncertainWriteError(f"{method} {path}: {problem}")
                self.sleep(2.0**attempt)
                continue
            break
        raise PublishError(
            f"GitHub answered {method} {path} with {problem}",
            hint="check the token's permissions and the repository",
        )

    def _wait(self, response: httpx.Response, attempt: int) -> float | None:
        """Return the seconds to wait where the answer is a rate limit; None for a plain refusal."""
        if (after := response.headers.get("retry-after", "")).isdigit():
            return float(after)
        if response.headers.get("x-ratelimit-remaining") == "0":
            reset = response.headers.get("x-ratelimit-reset", "")
            return max(float(reset) - self.now(), 1.0) if reset.isdigit() else MAX_WAIT
        if response.status_code == 429 or "secondary rate limit" in _message(response):
            # "wait for at least one minute", then longer each time
            return min(60.0 * 2**attempt, MAX_WAIT)
        return None


def _message(response: httpx.Response) -> str:
    """Return what GitHub says in an answer, 300 characters at most."""
    try:
        answer = response.json()
    except ValueError:
        return response.text[:300]
    return str(answer.get("message", ""))[:300] if isinstance(answer, dict) else ""
