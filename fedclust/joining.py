"""The group of a new client from a file of its samples: what ``fedclust assign`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fedclust.data.client import ClientData, Split
from fedclust.data.folder import check_samples, read_samples
from fedclust.data.images import read_arrays
from fedclust.trained import TrainedFederation
from graphclust.atomic import write_atomic
from graphclust.graph import InputError


def assign_file(model_dir: Path, data: Path, *, shots: int | None = None, out: Path | None = None) -> dict[str, Any]:
    """Assign the client whose samples lie in ``data``, and predict all of them.

    Parameters
    ----------
    model_dir : the model folder of a finished run
    data : .npz with x and y, or .csv; an .npz without y holds samples without labels; the file's stem is the client's
        id
    shots : labelled samples to use, the first ones; None: all. The others are scored
    out : CSV for the predictions of every sample: class and its probability

    Returns
    -------
    client, algorithm, group (a number or "undetermined"), weights (K,) or None, labels_used, accuracy (on the samples
    that were not used, None without any), predictions (the file)

    Raises
    ------
    InputError
        A folder without a trained federation, a broken file, samples of another shape, labels outside 0..C-1.
    """
    trained = TrainedFederation.load(model_dir)
    arrays = read_arrays(data) if data.suffix == ".npz" and data.is_file() else {}
    labelled = "y" in arrays or "x" not in arrays
    shots = shots if labelled else 0
    x, y = read_samples(data) if labelled else check_samples(arrays["x"], _no_labels(arrays["x"]), data)
    client = _newcomer(data, x, y, trained, shots)
    found = trained.assign(client, shots=shots)
    written = None
    if out is not None and found.weights is not None:
        everything = Split(torch.cat([client.train.x, client.test.x]), torch.cat([client.train.y, client.test.y]))
        p = trained.predict(client, torch.tensor(found.weights), everything, shots=shots)
        known = {"label": everything.y} if labelled else {}
        table = pd.DataFrame({**known, "predicted": p.argmax(1), "probability": p.max(1).values})
        write_atomic(out, table.to_csv(index_label="sample"))
        written = str(out)
    return {
        "client": client.id, "algorithm": trained.algorithm_name,
        "group": "undetermined" if found.group is None else found.group, "weights": found.weights,
        "labels_used": found.labels_used, "accuracy": found.accuracy, "predictions": written,
    }


def _no_labels(x: np.ndarray) -> np.ndarray:
    """In their place, for samples that have none."""
    return np.zeros(x.shape[:1], np.int64)


def _newcomer(path: Path, x: np.ndarray, y: np.ndarray, trained: TrainedFederation, shots: int | None) -> ClientData:
    """The client of a file in the shape that the model takes; what is beyond ``shots`` is its test split."""
    x = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    wanted = trained.model.input_shape
    if int(np.prod(x.shape[1:])) != int(np.prod(wanted)):
        raise InputError(f"{path}: samples of shape {x.shape[1:]}, the model takes {wanted}; give data of that shape")
    if y.min() < 0 or y.max() >= trained.model.n_classes:
        raise InputError(
            f"{path}: labels must lie in 0..{trained.model.n_classes - 1}, found {y.min()}..{y.max()}; mend the labels"
        )
    samples = torch.from_numpy(x).reshape(len(x), *wanted)
    labels = torch.from_numpy(y)
    used = len(y) if shots is None else min(shots, len(y))
    # with no label to show the client still holds its samples; how many it may use, assign is told
    train = Split(samples[: used or len(y)], labels[: used or len(y)])
    test = Split(samples[used:], labels[used:]) if used else Split(samples[:0], labels[:0])
    return ClientData(path.stem, train, test, Split(samples[:0], labels[:0]))
