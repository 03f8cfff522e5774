"""What an estimator was fitted on, column by column, as its scalers, encoders and trees remember
it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from sklearn.base import BaseEstimator
    from sklearn.tree._tree import Tree

# Attributes under which estimators keep rows of their data: centres of clusters, means of classes,
# the neighbours themselves.
ROW_ATTRIBUTES = ("cluster_centers_", "theta_", "means_", "support_vectors_", "_fit_X")


class Spread(NamedTuple):
    """Where the numbers of a column lie.

    Attributes:
        centre: Their middle.
        deviation: How far they are from it, about.
    """

    centre: float
    deviation: float


Column = int | str  # its position or name
Content = Spread | list[object]  # of a column: its numbers, or the categories or words in it


def walk_steps(estimator: BaseEstimator) -> Iterator[BaseEstimator]:
    """Yield the estimator, or the steps of a pipeline one by one; of a grid search those of its
    best."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "steps"):
        for _, step in estimator.steps:
            yield from walk_steps(step)
    elif estimator is not None and not isinstance(estimator, str):
        yield estimator


def list_branches(estimator: BaseEstimator) -> list[tuple[BaseEstimator, list[Column]]]:
    """Return the transformers of the ColumnTransformer that comes first, each with its columns;
    none where another step comes first. Columns that are a slice are left out."""
    first = next(walk_steps(estimator), None)
    branches = []
    for _, transformer, columns in getattr(first, "transformers_", ()):
        if not isinstance(columns, slice):
            listed = [columns] if isinstance(columns, int | str) else list(columns)
            branches.append((transformer, listed))
    return branches


def describe_columns(estimator: BaseEstimator) -> dict[Column, Content]:
    """Return what is known of the columns, by name or position, from what was fitted."""
    branches = list_branches(estimator)
    if not branches and (first := next(walk_steps(estimator), None)) is not None:
        branches = [(first, list(range(getattr(first, "n_features_in_", 0))))]
    contents: dict[Column, Content] = {}
    for transformer, columns in branches:
        for step in walk_steps(transformer):
            described = _describe_step(step, columns)
            if described is not None:
                contents |= described
                break
    return contents


def _describe_step(step: BaseEstimator, columns: list[Column]) -> dict[Column, Content] | None:
    """Return what a step knows of its columns; None where it keeps nothing of them, or has other
    columns, made by a step before it."""
    if hasattr(step, "vocabulary_"):
        return {columns[0] if columns else 0: sorted(step.vocabulary_)}
    if hasattr(step, "categories_"):
        return {
            column: list(categories)
            for column, categories in zip(columns, step.categories_, strict=False)
        }
    spreads = _find_spreads(step)
    if spreads is None or len(spreads) != len(columns):
        return None
    return {
        column: spread
        for column, spread in zip(columns, spreads, strict=True)
        if spread is not None
    }


def _find_spreads(step: BaseEstimator) -> Sequence[Spread | None] | None:
    """Return where the numbers of each column of a step lie, None for a column of which it does not
    tell; None where it tells of none."""
    import numpy as np

    means, scales = getattr(step, "mean_", None), getattr(step, "scale_", None)
    if means is not None and scales is not None:
        return _pair_up(means, scales)
    if hasattr(step, "data_min_"):
        middle = (step.data_max_ + step.data_min_) / 2
        return _pair_up(middle, (step.data_max_ - step.data_min_) / 4)
    if trees := _list_trees(step):
        return [_spread_of_cuts(trees, column) for column in range(step.n_features_in_)]
    rows = _find_rows(step)
    if rows is None:
        return None
    return _pair_up(rows.mean(0), np.where(rows.std(0) > 0, rows.std(0), 1.0))


def _pair_up(centres: np.ndarray, deviations: np.ndarray) -> list[Spread]:
    """Return the spreads of columns, from an array of each value."""
    return [
        Spread(centre, deviation)
        for centre, deviation in zip(centres.tolist(), deviations.tolist(), strict=True)
    ]


def _spread_of_cuts(trees: Sequence[Tree], column: int) -> Spread | None:
    """Return where decision trees cut a column, or None where none does."""
    import numpy as np

    cuts = np.concatenate([tree.threshold[tree.feature == column] for tree in trees])
    return Spread(float(cuts.mean()), float(cuts.std()) or 1.0) if cuts.size else None


def _find_rows(step: BaseEstimator) -> np.ndarray | None:
    """Return rows of the data's own space that an estimator keeps, float64 [rows, features]; None
    where it keeps none, or sparse ones."""
    import numpy as np

    for name in ROW_ATTRIBUTES:
        rows = getattr(step, name, None)
        if rows is not None and getattr(rows, "ndim", 0) == 2 and not hasattr(rows, "toarray"):
            return np.asarray(rows, np.float64)
    return None


def _list_trees(step: BaseEstimator) -> list[Tree]:
    """Return the decision trees of a forest, or of boosting, or the one of a tree."""
    import numpy as np

    members = getattr(step, "estimators_", None)
    if members is None:
        return [step.tree_] if hasattr(step, "tree_") else []
    flat = np.ravel(np.array(members, object))
    return [member.tree_ for member in flat if hasattr(member, "tree_")]
