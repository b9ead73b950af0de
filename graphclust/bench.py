"""What a benchmark is: data sets x methods x seeds, from a YAML file or the command line."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from graphclust.atomic import write_atomic
from graphclust.config_file import read_model
from graphclust.graph import InputError
from graphclust.methods import get_method
from graphclust.runs.record import Device, RunConfig


class DataSetting(BaseModel):
    """What a method's setting says of one data set."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any] = Field(default_factory=dict)
    published: dict[str, float] = Field(default_factory=dict)


class MethodSetting(BaseModel):
    """A method with parameters: one row of a benchmark. The content of ``configs/graph/<method>/<setting>.yaml``."""

    model_config = ConfigDict(extra="forbid")

    method: str
    label: str | None = None
    source: str | None = None
    n_clusters: Annotated[int, Field(ge=1)] | Literal["data", "auto"] | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, DataSetting] = Field(default_factory=dict)
    seeds: int | list[int] | None = None
    """Of this row of a benchmark; None: those of the benchmark."""

    def run(self, data: str, seed: int, **rest: Any) -> RunConfig:
        """The run of this setting on ``data``."""
        own = self.data.get(data, DataSetting())
        rest = {**rest, "params": {**self.params, **own.params, **rest.get("params", {})}}
        if self.n_clusters is not None:
            rest["n_clusters"] = self.n_clusters
        return RunConfig(method=self.method, data=data, seed=seed, label=self.label, published=own.published, **rest)


class BenchConfig(BaseModel):
    """A benchmark. ``methods`` holds names, paths of setting files, or settings written out."""

    model_config = ConfigDict(extra="forbid")

    title: str = "Benchmark"
    data: list[str] = Field(min_length=1)
    methods: list[MethodSetting | str] = Field(min_length=1)
    seeds: int | list[int] = 5
    n_clusters: Annotated[int, Field(ge=1)] | Literal["data", "auto"] | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    """Set for every method that has them (``--set``)."""
    device: Device = "cpu"
    threads: int = Field(1, ge=1)

    def runs(self) -> list[RunConfig]:
        """Every run, validated: InputError for an unknown method or parameter, or for two runs that are the same."""
        settings = [load_setting(m) if isinstance(m, str) else m for m in self.methods]
        out: dict[str, RunConfig] = {}
        unused = set(self.params)
        for data in self.data:
            for setting in settings:
                known = get_method(setting.method)().get_params()
                params = {k: v for k, v in self.params.items() if k in known}
                unused -= set(params)
                rest: dict[str, Any] = {"params": params, "device": self.device, "threads": self.threads}
                if "n_clusters" in known:
                    rest["n_clusters"] = self.n_clusters
                for seed in _seeds(self.seeds if setting.seeds is None else setting.seeds):
                    run = setting.run(data, seed, **rest).resolved()
                    twin = out.setdefault(run.run_id, run)
                    if twin is not run:
                        raise InputError(f"{twin.name!r} and {run.name!r} are the same run on {data}; remove one")
        if unused:
            wrong = sorted(unused)[0]
            takes = dict.fromkeys(p for run in out.values() for p in run.params)
            near = difflib.get_close_matches(wrong, takes, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"no method here has the parameter {wrong!r}; {hint}they have: {', '.join(takes)}")
        return list(out.values())

    def fingerprint(self) -> str:
        """Hash of the benchmark's runs."""
        return hashlib.sha256("".join(r.run_id for r in self.runs()).encode()).hexdigest()[:8]


def _seeds(given: int | list[int]) -> range | list[int]:
    seeds = range(given) if isinstance(given, int) else given
    if not seeds:
        raise InputError(f"seeds = {given}; at least one seed is needed")
    return seeds


def load_setting(ref: str) -> MethodSetting:
    """The setting of a method's name, or of a YAML file; InputError naming what is wrong."""
    if not ref.endswith((".yaml", ".yml")):
        get_method(ref)
        return MethodSetting(method=ref)
    return read_model(Path(ref), MethodSetting)


def load_bench(path: Path) -> BenchConfig:
    """Read a benchmark's YAML; setting files in it are relative to its folder or to the current one."""
    config = read_model(path, BenchConfig)
    config.methods = [_beside(path, m) if isinstance(m, str) else m for m in config.methods]
    return config


def _beside(path: Path, ref: str) -> str:
    near = path.parent / ref
    return str(near) if ref.endswith((".yaml", ".yml")) and near.exists() else ref


def check_data(config: BenchConfig) -> None:
    """Load every data set once, so that a wrong name, path or checksum is refused before any run starts."""
    from graphclust.data import load  # brings torch_geometric, which federations claim their folders without

    for ref in config.data:
        data = load(ref)
        n = data.n_nodes if "n_nodes" in data else data.num_nodes  # PyG's streams forget nodes without events
        if isinstance(config.n_clusters, int) and config.n_clusters > n:
            raise InputError(f"n_clusters = {config.n_clusters}; it must be <= n, and {ref} has {n} nodes")


@contextmanager
def claim(out: Path, config: BenchConfig, *, extend: bool) -> Iterator[None]:
    """Hold the benchmark folder ``out`` for ``config``.

    Raises
    ------
    InputError
        It holds another benchmark (unless ``extend``), or another process is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"the output folder {out} is a file; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "bench.yaml"
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    if file.exists() and file.read_text() != text and not extend:
        raise InputError(
            f"the output folder {out} holds another benchmark; give another --out, or --resume to keep its finished "
            "runs and go on with this config"
        )
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is at work in {out}; wait for it, or give another --out") from None
        write_atomic(file, text)
        yield
