"""A private run's release bundle: labels, public parameters and the ledger; nothing else that saw the edges.

No metric, no timing, no memory, no number of edges: each of them would be a second, unprotected answer.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from graphclust.atomic import write_atomic
from graphclust.coerce import as_graph
from graphclust.data import load
from graphclust.graph import InputError
from graphclust.methods import get_method
from graphclust.privacy.ledger import afford
from graphclust.runs.export import export_labels
from graphclust.runs.lifecycle import set_threads
from graphclust.runs.record import RunConfig


def release(config: RunConfig, out: Path | None, *, seed: int | None = None) -> dict[str, Any]:
    """Cluster privately and write the release bundle.

    Parameters
    ----------
    config : of a private method
    out : the bundle's folder, which must not hold anything; None: releases/<method>-<time>
    seed : of a dry run, whose guarantee is void; None: noise from the operating system's entropy

    Returns
    -------
    The document that ``--json`` prints.

    Raises
    ------
    InputError
        Bad parameters, a used-up budget, a folder with something in it: before the data is read. A graph that the
        method refuses: before its edges are used.
    """
    config = config.resolved()
    if not isinstance(config.n_clusters, int):
        raise InputError(f"{config.method} needs the number of clusters: give -k N; it is public, and looking at the "
                         "data for it would not be private")
    clusterer: Any = get_method(config.method)(
        **config.params, n_clusters=config.n_clusters, random_state=seed)
    clusterer.check_params()
    out = out or Path("releases") / f"{config.method}-{datetime.now(UTC):%Y%m%dT%H%M%S-%f}"
    if out.exists() and any(out.iterdir()):
        raise InputError(f"the release folder {out} is not empty; a release is never replaced: give another --out")
    budget = clusterer.budget
    if budget is not None and seed is None:
        afford(Path(budget), config.data, float(clusterer.epsilon), float(getattr(clusterer, "delta", None) or 0))
    set_threads(config.threads)
    data = load(config.data)
    clusterer.fit(data, graph_name=config.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        files = export_labels(made, as_graph(data), clusterer.labels_)
        bundle = {**clusterer.privacy_.model_dump(mode="json"),
                  "parameters": {"data": config.data, "n_clusters": config.n_clusters, **config.params}}
        write_atomic(made / "ledger.json", json.dumps(bundle, indent=1, default=str))
        made.chmod(0o755)
        if out.exists():
            out.rmdir()
        made.replace(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return {
        "method": config.name, "data": config.data, "n_clusters": clusterer.n_clusters_, "run_dir": str(out),
        "files": [str(out / f.name) for f in [*files, made / "ledger.json"]], "ledger": bundle,
    }
