"""Where a fitted estimator comes from: a skops file, a pickle that the manifest trusts, or a
factory of the repository."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from mconv.errors import SourceError, one_line
from mconv.sources import _factory
from mconv.values import SourceConfig

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

PICKLES = (".pkl", ".pickle", ".joblib")
# scikit-learn's own holders of numbers; skops asks about them since native code trusts those, and a
# worker is a process apart.
OWN_TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.neural_network._stochastic_optimizers.",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn._loss.",
)


def find_kind(path: Path) -> str | None:
    """Return ``skops``, ``pickle`` or ``code`` (a .py file), by suffix and content; None for
    anything else."""
    if not path.is_file():
        return None
    if path.suffix == ".skops" and zipfile.is_zipfile(path):
        return "skops"
    if path.suffix in PICKLES and path.stat().st_size:
        return "pickle"
    return "code" if path.suffix == ".py" else None


def load_estimator(config: SourceConfig) -> BaseEstimator:
    """Return the fitted estimator.

    Raises SourceError for a damaged file, a skops file with types that are not trusted, and what is
    no fitted estimator.
    """
    path = Path(config.path)
    if config.options.get("factory"):
        build = _factory.import_function(config, "factory")
        estimator = build(str(path)) if config.path and _factory.takes_path(build) else build()
    elif find_kind(path) == "skops":
        estimator = _load_skops(path, trusted=bool(config.options.get("trust")))
    else:
        estimator = _load_pickle(path)
    if not hasattr(estimator, "predict") and not hasattr(estimator, "transform"):
        raise SourceError(
            f"{type(estimator).__name__} has neither predict() nor transform()",
            hint="give a fitted estimator or pipeline",
        )
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError as problem:
        raise SourceError(
            "the estimator is not fitted", hint="fit it before it is saved or returned"
        ) from problem
    return estimator


def _load_skops(path: Path, *, trusted: bool) -> object:
    """Return what a skops file holds. ``trusted``: whether its code may be run."""
    import skops.io

    try:
        listed = skops.io.get_untrusted_types(file=path)
        foreign = [name for name in listed if not name.startswith(OWN_TYPES)]
        if foreign and not trusted:
            raise SourceError(
                f"{path.name} holds types that are not scikit-learn's own: {', '.join(foreign)}",
                hint="`trust: true` loads them, which runs their code",
            )
        return skops.io.load(path, trusted=listed)
    except SourceError:
        raise
    except Exception as problem:  # skops raises many kinds
        raise SourceError(
            f"{path.name} cannot be read: {one_line(problem, 400)}", hint="save it again"
        ) from problem


def _load_pickle(path: Path) -> object:
    """Return what a pickle holds, which runs its code: the manifest trusts it."""
    import joblib

    try:
        return joblib.load(path)
    except Exception as problem:  # unpickling fails in many ways
        raise SourceError(
            f"{path.name} cannot be unpickled: {type(problem).__name__}: {one_line(problem, 400)}",
            hint="was it saved with another version of scikit-learn?",
        ) from problem
