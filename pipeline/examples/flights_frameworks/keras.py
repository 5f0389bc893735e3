"""The network in Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def model(cardinalities: tuple[int, ...], width: int, *, hidden: int = 64, dropout: float = 0.3) -> keras.Model:
    """Embeddings of names and bins, the other numbers, two hidden layers, one logit.

    Args:
        cardinalities: of the names, then of the bins.
        width: how many other numbers there are.
        hidden: units per layer.
        dropout: share of hidden units dropped in training.
    """
    import keras

    categories = keras.Input((len(cardinalities),), dtype="int64", name="categories")
    numbers = keras.Input((width,), name="numbers")
    sizes = [min(16, max(2, round(1.6 * n**0.4))) for n in cardinalities]
    named = [
        keras.layers.Embedding(n, size)(categories[:, i])
        for i, (n, size) in enumerate(zip(cardinalities, sizes, strict=True))
    ]
    row = keras.layers.Concatenate()([*named, numbers])
    state = row
    for _ in range(2):
        state = keras.layers.Dropout(dropout)(keras.layers.Dense(hidden, activation="silu")(state))
    logit = keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(-1.1))(state)
    return keras.Model([categories, numbers], logit)
