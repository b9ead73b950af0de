"""Files of labelled samples: one for a whole data set, or a folder with one for each client."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import PositiveInt

from fedclust.data.client import Split
from fedclust.data.images import read_arrays
from fedclust.data.partition import Cut
from graphclust.graph import InputError

SUFFIXES = (".npz", ".csv")


class Files(Cut):
    """The clients are the files of the folder that ``source`` names; a file's stem is the client's id.

    Parameters
    ----------
    n_classes : C; None: the largest label of all files, and one
    """

    kind: Literal["files"] = "files"
    n_classes: PositiveInt | None = None


def client_files(folder: str | Path) -> list[Path]:
    """The npz and csv files of a folder by client id; InputError for no folder, no file, two files of one client."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"source = {str(folder)!r} is no folder; give one with a .npz or .csv file for each client")
    files = sorted((p for p in folder.iterdir() if p.suffix in SUFFIXES), key=lambda p: p.stem)
    if not files:
        raise InputError(f"the folder {folder} holds no .npz or .csv file; put one for each client into it")
    for one, other in pairwise(files):
        if one.stem == other.stem:
            raise InputError(f"two files for the client {one.stem!r}: {one.name} and {other.name}; remove one")
    return files


def read_samples(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Labelled samples of a file.

    Parameters
    ----------
    path : .npz with ``x`` (n, ...) and ``y`` (n,); or .csv with a header, the label in the column ``label``, else in
        the last one, all other columns features

    Returns
    -------
    x : (n, channels, height, width) for images ((n, height, width) gets its channel), else (n, d); float32, or uint8
        where the file has it, which is taken for pixels 0..255
    y : (n,) int64

    Raises
    ------
    InputError
        A broken or incomplete file, by its name: no samples, text, NaN, labels that are no whole numbers >= 0.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"the file {path} does not exist; give a .npz or .csv file")
    return check_samples(*(_read_csv(path) if path.suffix == ".csv" else _read_npz(path)), path)


def check_samples(x: np.ndarray, y: np.ndarray, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Samples ``x`` and labels ``y`` as :func:`read_samples` gives them; ``path``: what an InputError is about."""
    if x.ndim == 0 or y.ndim != 1 or len(x) != len(y):
        raise InputError(f"{path}: x has shape {x.shape} and y {y.shape}; y must hold one label a sample")
    if not len(y):
        raise InputError(f"{path}: client {Path(path).stem!r} has no samples; leave the file out, or fill it")
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
        raise InputError(f"{path}: x has dtype {x.dtype} and y {y.dtype}; both must be numbers")
    if x.dtype != np.uint8:
        x = x.astype(np.float32)
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise InputError(f"{path}: NaN or infinite values; remove those samples or fill them in")
    if (y < 0).any() or (y != np.round(y)).any():
        bad = y[(y < 0) | (y != np.round(y))][0]
        raise InputError(f"{path}: the label {bad:g}; labels must be whole numbers 0..C-1")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim not in (2, 4):
        raise InputError(
            f"{path}: x has shape {x.shape}; give (n, d), (n, height, width) or (n, channels, height, width)"
        )
    return x, y.astype(np.int64)


def read_client_file(path: str | Path) -> Split:
    """The labelled samples of one client's file, see :func:`read_samples`; pixels are divided by 255."""
    x, y = read_samples(path)
    return Split(torch.from_numpy(as_float(x)), torch.from_numpy(y))


def as_float(x: np.ndarray) -> np.ndarray:
    """float32; bytes become [0, 1]."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32, copy=False)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_arrays(path)
    missing = {"x", "y"} - set(arrays)
    if missing:
        raise InputError(
            f"{path} has no array {sorted(missing)[0]!r} (it has: {', '.join(arrays) or 'nothing'}); give x and y"
        )
    return arrays["x"], arrays["y"]


def _read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import pandas as pd  # half a second, which a client pays for every message that it gets

    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as e:  # pandas' parser errors are ValueErrors
        raise InputError(f"{path} is no csv file ({e})") from e
    text = [str(c) for c in table.columns if table[c].dtype.kind not in "fiub"]
    if text and len(table):
        raise InputError(f"{path}: the column {text[0]!r} is no number; encode it, or remove it")
    if table.shape[1] < 2:
        raise InputError(f"{path} has {table.shape[1]} columns; give features and a label, separated by commas")
    label = "label" if "label" in table.columns else table.columns[-1]
    return table.drop(columns=label).to_numpy(dtype=np.float32), table[label].to_numpy()
