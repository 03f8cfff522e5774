"""The worker of one step: it does what standard input asks for and answers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from mconv import registry
from mconv.answers import Answer
from mconv.workers.messages import Request
from mconv.workers.serve import die_with_parent, serve_request


def main(answer: int) -> NoReturn:
    """Do the step and write its answer to the descriptor ``answer``."""
    die_with_parent()
    from mconv.steps.run import run_step

    def work(request: Request) -> Answer:
        """Do the step."""
        registry.restore(request.plugins)
        folders = {role: Path(path) for role, path in request.folders.items()}
        return run_step(request.step, folders, Path(request.out))

    serve_request(answer, Request, work)


if __name__ == "__main__":
    main(int(sys.argv[1]))
