"""The child of `pipeline.isolation`: loads one MLflow pyfunc model and answers until its input ends.

Run by path, in Python's isolated mode; imports nothing of Gatehouse. Each message is its length (8 bytes, big-endian)
and so many bytes: in, numpy's archive with `categories` and `numbers`; out, an array of float64.
"""

from __future__ import annotations

import io
import os
import struct
import sys

_LENGTH = struct.Struct(">Q")


def main(model_folder: str) -> None:
    """Load, say so with an empty message, then answer."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the model prints must not pass for an answer
    import mlflow.pyfunc
    import numpy as np
    import pandas as pd

    model = mlflow.pyfunc.load_model(model_folder)
    _write(answers, b"")
    while head := sys.stdin.buffer.read(_LENGTH.size):
        data = np.load(io.BytesIO(sys.stdin.buffer.read(_LENGTH.unpack(head)[0])), allow_pickle=False)
        columns = {f"{kind}_{i}": data[name][:, i] for kind, name in _KINDS for i in range(data[name].shape[1])}
        found = np.asarray(model.predict(pd.DataFrame(columns)), np.float64)
        buffer = io.BytesIO()
        np.save(buffer, found, allow_pickle=False)
        _write(answers, buffer.getvalue())


_KINDS = (("category", "categories"), ("number", "numbers"))


def _write(pipe: io.BufferedWriter, data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


if __name__ == "__main__":
    main(sys.argv[1])
