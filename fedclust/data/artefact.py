"""A federation as a folder that can be looked into (declaration, table, one file for each client), and its picture."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from fedclust.data.client import ClientData, Federation, Kept, OnDemand
from fedclust.data.spec import FederationSpec
from fedclust.data.stored import SPLITS, client_bytes, read_client
from graphclust.atomic import write_atomic
from graphclust.config_file import read_model
from graphclust.graph import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPEC, _TABLE, _CLIENTS, _DIGEST = "spec.yaml", "clients.csv", "clients", "digest"
# Okabe and Ito's colours, told apart without red-green sight, and two of Tol's: ten classes; more are hatched.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999", "#332288",
            "#AA4499")
_CLIENTS_NAMED = 120


def table(federation: Federation) -> pd.DataFrame:
    """One row for each client, those that train first.

    Columns: ``client``, ``role`` ("train" or "unseen"), ``train``, ``test``, ``validation`` (samples), ``nodes`` and
    ``edges`` for clients on nodes, ``classes`` (samples of class 0, 1, ... in all splits, parted by spaces, so that the
    row fits a screen), ``true_<name>`` for all that is planted.
    """
    rows = []
    for role, clients in (("train", federation.clients), ("unseen", federation.unseen)):
        for c in clients:
            counts = class_counts(c, federation.n_classes)
            rows.append({
                "client": c.id, "role": role, **{s: len(getattr(c, s)) for s in SPLITS}, **_graph_size(c),
                "classes": " ".join(map(str, counts)),
                **{f"true_{name}": of[c.id] for name, of in federation.truth.items() if c.id in of},
            })
    return pd.DataFrame(rows)


def class_counts(client: ClientData, n_classes: int) -> np.ndarray:
    """Samples of each class (C,) in all splits of a client, as far as they have labels."""
    y = np.concatenate([getattr(client, s).y.numpy() for s in SPLITS])
    return np.bincount(y[y >= 0], minlength=n_classes)


def _graph_size(client: ClientData) -> dict[str, int]:
    if client.nodes is None:
        return {}
    n = len(client.nodes)
    if client.adjacency is None:
        return {"nodes": n}
    links = int((client.adjacency.to_dense() != 0).sum())
    return {"nodes": n, "edges": (links - n) // 2}  # the self-loops are no edges


def save(federation: Federation, spec: FederationSpec, folder: Path) -> None:
    """Write the federation to ``folder``: all of it appears at once, or nothing.

    Raises
    ------
    InputError
        A folder that exists and is no saved federation, which is not overwritten.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / _SPEC).is_file())):
        raise InputError(f"{folder} exists and holds something else; give a new folder, or one of a saved federation")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        for c in federation.everyone:
            write_atomic(new / _CLIENTS / f"{c.id}.npz", client_bytes(c))
        write_atomic(new / _TABLE, table(federation).to_csv(index=False))
        write_atomic(new / _SPEC, yaml.safe_dump(spec.model_dump(mode="json", exclude={"stored"}), sort_keys=False))
        write_atomic(new / _DIGEST, digest(new) + "\n")
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)


def digest(folder: Path) -> str:
    """Hash of what is saved of a federation's clients, the table and every client's file; InputError without any."""
    if not (folder / _SPEC).is_file() or not (folder / _TABLE).is_file():
        raise InputError(f"{folder} holds no saved federation; `fedclust partition SCENARIO --out FOLDER` writes one")
    found = hashlib.sha256()
    for file in (folder / _TABLE, *sorted((folder / _CLIENTS).glob("*.npz"))):
        content = file.read_bytes()
        found.update(f"{file.name} {len(content)} ".encode() + content)
    return found.hexdigest()[:16]


def load(folder: Path, expected: str | None = None) -> tuple[Federation, FederationSpec]:
    """What :func:`save` wrote: the stored samples, not built anew, each client's read when it is asked for.

    A file that was changed since then counts as it is now; who trains, and the true groups, are the table's. Where the
    file ``digest`` says that nothing was changed, the table is believed and no client is read before its time.

    Parameters
    ----------
    folder : of the federation
    expected : what its :func:`digest` must be; None: anything

    Raises
    ------
    InputError
        A folder without a saved federation, or with a missing or broken file, by its name; another digest.
    """
    folder = Path(folder)
    found = digest(folder)
    if expected not in (None, found):
        raise InputError(f"the federation in {folder} is not what this run was declared with: its files were changed "
                         "since; start a new run on it, or put the files back")
    spec = read_model(folder / _SPEC, FederationSpec)
    rows = _rows(folder / _TABLE)
    n_classes = len(rows["classes"].iloc[0].split())
    kept = Kept(lambda i: read_client(folder / _CLIENTS / f"{i}.npz"), n_classes)
    n_train = {i: int(n) for i, n in zip(rows["client"], rows["train"], strict=True)}
    if not (folder / _DIGEST).is_file() or (folder / _DIGEST).read_text().strip() != found:
        # each is read once now, so that a broken file is named before any work
        about = {i: (c.n_train, c.input_shape) for i in n_train for c in [kept(i)]}
        n_train = {i: n for i, (n, _) in about.items()}
        first = next(iter(about))
        if odd := [i for i, (_, shape) in about.items() if shape != about[first][1]]:
            raise InputError(f"{folder}: client {odd[0]!r} has samples of shape {about[odd[0]][1]} and {first!r} of "
                             f"{about[first][1]}; all clients' samples must have one shape")
    clients, unseen = (
        OnDemand({i: n_train[i] for i in rows["client"][rows["role"] == role]}, kept) for role in ("train", "unseen")
    )
    truth = {
        column.removeprefix("true_"): {i: int(v) for i, v in zip(rows["client"], rows[column], strict=True)}
        for column in rows.columns if column.startswith("true_")
    }
    return Federation(clients, unseen, n_classes, truth), spec


def _rows(file: Path) -> pd.DataFrame:
    """The table as it was written; InputError for what is none."""
    try:
        rows = pd.read_csv(file, dtype={"client": str, "classes": str})
        lacks = [name for name in ("client", "role", "classes", "train") if name not in rows or rows[name].isna().any()]
    except ValueError as e:  # pandas' parser errors are ValueErrors
        raise InputError(f"{file} is no table of a federation ({e}); save the federation again") from e
    if lacks or not len(rows):
        raise InputError(f"{file} is no table of a federation (it lacks {lacks[0] if lacks else 'rows'}); save the "
                         "federation again")
    return rows


def draw(federation: Federation) -> Figure:
    """The clients' class counts as stacked bars, ordered by true group, newcomers apart, planted variants below.

    A figure of matplotlib; nothing is shown or written.
    """
    from matplotlib.figure import Figure

    rows = table(federation)
    strips = [name for name in federation.truth if name != "group"]
    order = [c for c in ("role", "true_group", *(f"true_{s}" for s in strips), "client") if c in rows]
    rows = rows.sort_values(order, kind="stable", ignore_index=True)
    ratios = [6, *(0.45 for _ in strips)]
    size = float(np.clip(2.5 + 0.24 * len(rows), 6, 24)), 3.4 + 0.4 * len(strips)
    figure = Figure(figsize=size, layout="constrained")
    bars, *below = np.atleast_1d(figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios))
    _bars(bars, rows)
    for axes in (bars, *below):
        axes.tick_params(bottom=False)
    for axes, name in zip(below, strips, strict=True):
        _strip(axes, rows[f"true_{name}"].to_numpy(), name)
    last = below[-1] if below else bars
    named = range(0, len(rows), -(-len(rows) // _CLIENTS_NAMED))
    last.set_xticks(named, rows["client"].iloc[list(named)], rotation=90, fontsize=7)
    last.set_xlim(-0.6, len(rows) - 0.4)
    return figure


def _bars(axes: Axes, rows: pd.DataFrame) -> None:
    bottom = np.zeros(len(rows))
    per_class = np.array([row.split() for row in rows["classes"]], dtype=int).T
    for k, counts in enumerate(per_class):
        hatch = "" if k < len(_COLOURS) else "///"
        look: dict[str, Any] = {"color": _COLOURS[k % len(_COLOURS)], "hatch": hatch, "label": str(k)}
        if len(rows) > _CLIENTS_NAMED:  # too thin for gaps: one outline a class is many times faster
            axes.stairs(bottom + counts, np.arange(len(rows) + 1) - 0.5, baseline=bottom, fill=True, **look)
        else:
            axes.bar(range(len(rows)), counts, 0.86, bottom, **look)
        bottom = bottom + counts
    boundary = int((rows["role"] == "train").sum())
    groups = rows["true_group"].to_numpy() if "true_group" in rows else np.zeros(len(rows))
    for i in range(1, len(rows)):
        if i == boundary:
            axes.axvline(i - 0.5, color="black", linewidth=1.6)
        elif groups[i] != groups[i - 1]:
            axes.axvline(i - 0.5, color="black", linewidth=0.8, linestyle=":")
    if boundary < len(rows):
        axes.text(boundary - 0.3, 1.01, "newcomers", transform=axes.get_xaxis_transform(), fontsize=8)
    axes.set_ylabel("samples")
    parted = "; dotted lines part the true groups" if "true_group" in rows else ""
    axes.set_title(f"Labels as each client sees them{parted}", fontsize=9, loc="left", pad=14)
    axes.legend(title="class", fontsize=7, title_fontsize=7, ncols=1 + len(per_class) // 13, loc="upper left",
                bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _strip(axes: Axes, values: np.ndarray, name: str) -> None:
    """One cell a client with the number of its variant."""
    axes.imshow(values[None], aspect="auto", cmap="Greys", vmin=-0.5, vmax=3 * max(1, values.max()))
    if len(values) <= _CLIENTS_NAMED:
        for i, v in enumerate(values):
            axes.text(i, 0, str(v), ha="center", va="center", fontsize=7)
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
