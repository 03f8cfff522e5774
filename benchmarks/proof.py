"""A mutation score of the proof: faults are put into artifacts that mconv made, and its own
verification is asked about each.

    make setup
    .venv/bin/python benchmarks/proof.py [--models NAME …] [--faults KIND …] [--at-least PERCENT]

Some fifty small models out of packages, after papers and of other people's architectures are
converted as `mconv run --no-measure` does. Faults of some twenty-five kinds are put into the graphs
that are delivered (`--list` shows both). One counts where a dense search over the model's true
domain, which is written by hand, finds at least one row in a hundred off by ten times the default
tolerance; one that changes nothing is none. Printed are the table of kinds × models, the share that
the proof does not pass, the survivors with the inputs that show them, artifacts that are wrong
without any fault put in, and false alarms: unharmed artifacts that are failed.

All is seeded and offline. Exit code 1 with `--at-least` where the score is lower, or an unharmed
artifact fails."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _proof import models, score
from _proof.faults import FAULTS

from mconv import hardware


@contextlib.contextmanager
def open_folder(kept: Path | None) -> Iterator[Path]:
    """Yield the folder for models and store: ``kept``, or one that is removed afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="mconv-proof-") as folder:
        yield Path(folder)


def main() -> int:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [subject.name for subject in models.SUBJECTS]
    kinds = [fault.name for fault in FAULTS]
    parser.add_argument("--models", nargs="+", choices=names, default=[], metavar="NAME")
    parser.add_argument("--faults", nargs="+", choices=kinds, default=[], metavar="KIND")
    parser.add_argument("--at-least", type=float, metavar="PERCENT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--jobs", type=int, default=hardware.count_cores(), help="processes (default: a core each)"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep models and store here")
    parser.add_argument("--list", action="store_true", help="list models and kinds of faults")
    args = parser.parse_args()
    if args.list:
        for subject in models.SUBJECTS:
            print(f"{subject.name:<18}{subject.origin:<14}{subject.source}")
        for fault in FAULTS:
            print(f"{fault.name:<18}{fault.says}")
        return 0
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    begin = time.monotonic()
    subjects = tuple(s for s in models.SUBJECTS if not args.models or s.name in args.models)
    with open_folder(args.work) as folder:
        with score.hide_output(folder / "log.txt"):
            models.write_all(folder, subjects)
            score.convert(folder, args.jobs)
        print(f"{len(subjects)} models converted in {time.monotonic() - begin:.0f} s", flush=True)
        parts = score.score(folder, [s.name for s in subjects], args.faults, args.jobs)
    print(score.render(parts))
    figures = score.summarize(parts)
    print(
        f"\n{figures.caught} of {figures.counted} faults caught: {figures.percent:.1f} %; "
        f"{figures.alarms} false alarms, {figures.unverified} unharmed unverified, "
        f"{figures.wrong_passed} wrong as converted and passed; "
        f"{time.monotonic() - begin:.0f} s"
    )
    if args.json:
        args.json.write_text(json.dumps(score.to_json(parts), indent=1) + "\n")
    low = args.at_least is not None and figures.percent < args.at_least
    return int(low or (args.at_least is not None and figures.alarms > 0))


if __name__ == "__main__":
    sys.exit(main())
