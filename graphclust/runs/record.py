"""What one run is asked to do (RunConfig) and what came of it (RunRecord)."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from graphclust.data.reference import parse_ref
from graphclust.graph import InputError
from graphclust.methods import get_method
from graphclust.runs.base import Record, finite

Device = Literal["auto", "cpu", "cuda"]

# those that can change a result
PACKAGES = ("graphclust", "torch", "torch-geometric", "numpy", "scipy", "scikit-learn", "igraph", "leidenalg")

NOT_PRIVATE = ("NOT PRIVATE: a lab report. Its metrics, timings and numbers of edges were taken on the raw graph and "
               "its noise follows from the seed; to publish a clustering use graphclust run")


class RunConfig(BaseModel):
    """One method on one data set with one seed: everything that decides the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    data: str
    seed: int = Field(0, ge=0)
    n_clusters: Annotated[int, Field(ge=1)] | Literal["data", "auto"] | None = None
    """None: found by the method, or as declared by the data if it cannot; "data": as declared by the data; "auto": for
    a method that needs k but has a rule of its own for it."""
    params: dict[str, Any] = Field(default_factory=dict)
    device: Device = "cpu"
    threads: int = Field(1, ge=1)
    label: str | None = None
    """The row's name in tables; does not decide the result."""
    published: dict[str, float] = Field(default_factory=dict)
    """Published metrics of this method on this data set, as fractions; does not decide the result."""

    def resolved(self) -> RunConfig:
        """The same config with every parameter of the method spelled out; InputError for unknown ones."""
        cls = get_method(self.method)
        known = [p for p in inspect.signature(cls).parameters if p not in ("n_clusters", "random_state")]
        for key in self.params:
            if key not in known:
                if key in ("n_clusters", "random_state"):
                    raise InputError(f"parameter {key!r} of {self.method} is not set here; use -k or --seed")
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise InputError(f"unknown parameter {key!r} of {self.method}; {hint}it has: {', '.join(known)}")
        defaults = {k: v for k, v in cls().get_params(deep=False).items() if k in known}
        params = {**defaults, **self.params}
        if "device" in known:
            params["device"] = self.params.get("device", self.device)
        return self.model_copy(update={"params": params})

    @property
    def name(self) -> str:
        """The row's name in tables."""
        return self.label or self.method

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.name} on {self.data}, seed {self.seed}"

    def fingerprint(self) -> str:
        """Hash of what decides the result: the config, and the content of the data when it is a file."""
        body = self.resolved().model_dump(mode="json", exclude={"label", "published"})
        path = Path(parse_ref(self.data)[0])
        if path.is_file():
            with path.open("rb") as f:
                body["data_sha256"] = hashlib.file_digest(f, "sha256").hexdigest()
        text = json.dumps(body, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def run_id(self) -> str:
        """Folder name of the run: readable parts and the fingerprint."""
        words = (self.method, Path(self.data).stem if "/" in self.data else self.data, f"s{self.seed}")
        plain = "-".join("".join(c if c.isalnum() else "_" for c in w)[:40] for w in words)
        return f"{plain}-{self.fingerprint()}"


class RunRecord(Record):
    """What came of a run of one method on one graph."""

    config: RunConfig
    n_nodes: int | None = None
    n_edges: int | None = None
    """Of a stream: the pairs of nodes that have an event."""
    n_events: int | None = None
    """None of a graph without times."""
    n_clusters: int | None = None
    k_source: Literal["given", "data", "method"] | None = None
    """Where k came from: the user, the data set's description, or the method itself."""
    oracle: dict[str, float] = Field(default_factory=dict)
    """Best epoch chosen with the labels, after the fact: for comparison with papers only, never the result."""
    chosen: dict[str, Any] = Field(default_factory=dict)
    privacy: dict[str, Any] | None = None
    """The ledger of a private method: void here, since the seed decides the noise and the metrics see the edges."""

    def facts(self) -> dict[str, Any]:
        """Columns of the index."""
        c = self.config
        return {"method": c.method, "data": c.data, "n_clusters": self.n_clusters,
                "fit_seconds": self.timings.get("fit")}

    def values(self) -> dict[str, float]:
        """The metrics, and those of the oracle under their own names."""
        return {**self.metrics, **self.oracle}

    def row(self, run_dir: Path | None = None) -> dict[str, Any]:
        """The flat row that ``--json`` prints and tables are made of."""
        c = self.config
        row: dict[str, Any] = {
            "method": c.name, "data": c.data, "seed": c.seed, "status": self.status, "n_clusters": self.n_clusters,
            "k_source": self.k_source, "metrics": finite(self.metrics), "timings": finite(self.timings),
            "peak_memory_mb": self.peak_memory_mb, "chosen": self.chosen,
        }
        if self.oracle:
            row["oracle"] = self.oracle
        if self.privacy:
            row["not_private"] = NOT_PRIVATE
        if c.published:
            row["published"] = c.published
        if self.error:
            row["error"] = self.error["message"]
        if run_dir is not None:
            row["run_dir"] = str(run_dir)
        return row

