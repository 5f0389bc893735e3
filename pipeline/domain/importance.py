"""What a model relies on: the AUC that is lost when one column's values are shuffled among the rows. Pure.

Breiman, Random Forests (2001), https://doi.org/10.1023/A:1010933404324, section 10; here of any model, on rows that it
never saw. Columns that say the same share what is lost: shuffle one, and the other still says it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.comparison import evaluate

ROWS = 5_000


def importance(
    y: NDArray[np.float64],
    columns: Mapping[str, NDArray[Any]],
    predict: Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float64]],
    *,
    leave: Collection[str],
    seed: int,
) -> list[tuple[str, float]]:
    """AUC lost by column, most first; columns that change no prediction are left out.

    Args:
        y: labels, float64 [n], of both classes.
        columns: the rows, n values each; of more than 5,000 a sample is taken.
        predict: probabilities, float64 [n].
        leave: columns not to look at.
        seed: of sample and shuffles.
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(y))[:ROWS])
    if len(np.unique(y[chosen])) < 2:
        return []
    rows, truth = {name: values[chosen] for name, values in columns.items()}, y[chosen]
    # Of these rows alone: in a batch of another size a graph may round otherwise, and nothing would be "unread".
    plain = predict(rows)
    whole = evaluate(truth, plain).auc
    found = []
    for name in sorted(set(rows) - set(leave)):
        shuffled = predict({**rows, name: random.permutation(rows[name])})
        if not np.array_equal(shuffled, plain):
            found.append((name, whole - evaluate(truth, shuffled).auc))
    return sorted(found, key=lambda one: (-one[1], one[0]))
