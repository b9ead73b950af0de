"""What a simulation or a comparison is: algorithms x scenarios x seeds, from a YAML file or the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedclust.algorithms import get_algorithm
from fedclust.config import Engine, FederationConfig
from fedclust.data.build import build_federation
from fedclust.data.spec import FederationSpec
from graphclust.config_file import problems, read_model
from graphclust.data.reference import parse_ref
from graphclust.graph import InputError
from simulations.setups import Setup, load_setup

BOUNDS = ("local", "fedavg", "oracle")
"""What a clustered federation is held against: no federation, one model for all, and the true groups."""


class AlgorithmSetting(BaseModel):
    """An algorithm with settings: one row of a comparison; the content of ``configs/fed/<algorithm>/<name>.yaml``."""

    model_config = ConfigDict(extra="forbid")

    algorithm: str
    label: str | None = None
    source: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] = Field(default_factory=dict)
    """What this row changes of the plan: rounds, fraction, training, model."""
    options: dict[str, int | float | str] = Field(default_factory=dict)
    """What it changes of a named scenario: ``n_clients: 1`` is training in one place."""


class Plan(BaseModel):
    """A comparison. ``algorithms`` holds names, paths of setting files, or settings written out.

    A scenario is a name (``fedclust list scenarios``), a name with options (``digits-3shift:A=10,n_clients=12``), or
    a YAML file with a federation. What the plan leaves open is the scenario's.
    """

    model_config = ConfigDict(extra="forbid")

    title: str = "Comparison"
    scenarios: Annotated[list[str], Field(min_length=1)]
    algorithms: Annotated[list[AlgorithmSetting | str], Field(min_length=1)]
    seeds: Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] = 3
    bounds: bool = False
    """Add the algorithms of BOUNDS that are not there."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """For every algorithm that has them (``--set``)."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of FederationConfig for all runs: rounds, fraction, training, model, shots, ..."""
    engine: Engine = "auto"

    def runs(self) -> list[FederationConfig]:
        """Every run, validated; InputError for what is unknown, out of range, or there twice."""
        seeds = list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
        rows = self.rows()
        unused = set(self.settings)
        out: dict[str, FederationConfig] = {}
        for ref in self.scenarios:
            for seed in seeds:
                setup = load_setup(ref, seed)
                for row in rows:
                    unused -= {k for k in unused if _first(k) in get_algorithm(row.algorithm).model_fields}
                    own = with_options(ref, row.options)
                    run = self._run(own, setup if own == ref else load_setup(own, seed), row, seed)
                    twin = out.setdefault(run.run_id, run)
                    if twin is not run:
                        raise InputError(f"{twin.name!r} and {run.name!r} are the same run on {own}; remove one")
        if unused:
            known = [f"{name} has {', '.join(settings) or 'none'}" for name, settings in self._settings().items()]
            raise InputError(f"no algorithm here has the setting {sorted(unused)[0]!r}: {'; '.join(known)}")
        return list(out.values())

    def rows(self) -> list[AlgorithmSetting]:
        """The algorithms with their settings; the bounds last, where they are asked for."""
        rows = [load_setting(a) if isinstance(a, str) else a for a in self.algorithms]
        there = {row.algorithm for row in rows}
        return rows + [AlgorithmSetting(algorithm=name) for name in BOUNDS if self.bounds and name not in there]

    def _run(self, ref: str, setup: Setup, row: AlgorithmSetting, seed: int) -> FederationConfig:
        fields = get_algorithm(row.algorithm).model_fields
        # the scenario's number of groups is for algorithms that must be given one, not for those that find it
        declared = {k: v for k, v in setup.settings.items() if k in fields and fields[k].default is not None}
        given = {k: v for k, v in self.settings.items() if _first(k) in fields}
        settings = nested(nested(declared, given), row.settings)
        if "true_groups" in fields and "true_groups" not in settings:
            settings["true_groups"] = planted_groups(setup.federation)
        body = nested(nested(setup.config, self.config), row.config)
        own: dict[str, Any] = {
            "algorithm": row.algorithm, "label": row.label, "settings": settings, "scenario": ref, "seed": seed,
            "federation": setup.federation, "engine": self.engine,
        }
        title = f"the run {row.label or row.algorithm} on {ref}"
        if twice := sorted(own.keys() & body.keys()):
            raise InputError(f"{title}: {twice[0]} cannot be set here; it is what the scenario, with its options, or "
                             "the plan says (fedclust list scenarios names the options)")
        try:
            config = FederationConfig(**own, **body)
        except ValidationError as e:
            raise InputError(f"{title}: {problems(e, FederationConfig)}") from e
        config.check(setup.federation.n_clients)
        return config.resolved()

    def check_data(self) -> None:
        """Build the federation of every scenario; InputError for data that are missing or broken, before any run."""
        seed = 0 if isinstance(self.seeds, int) else self.seeds[0]
        for ref in self.scenarios:
            build_federation(load_setup(ref, seed).federation)

    def _settings(self) -> dict[str, list[str]]:
        """The names of the settings of every algorithm."""
        classes = {row.algorithm: get_algorithm(row.algorithm) for row in self.rows()}
        return {name: [field for field in cls.model_fields if field != "training"] for name, cls in classes.items()}

    def fingerprint(self) -> str:
        """Hash of the comparison's runs."""
        return hashlib.sha256("".join(r.run_id for r in self.runs()).encode()).hexdigest()[:8]


def planted_groups(spec: FederationSpec) -> list[int]:
    """The true group of every training client, in the order of their ids; InputError where the data plant none."""
    federation = build_federation(spec)
    truth = federation.truth.get("group")
    if truth is None:
        raise InputError("oracle needs a scenario with planted groups; this federation declares none")
    return [truth[i] for i in federation.training_ids]


def with_options(ref: str, options: dict[str, int | float | str]) -> str:
    """The reference of a named scenario with these options changed; InputError for a file or a folder, without any."""
    if not options:
        return ref
    if Path(ref).is_dir() or ref.endswith((".yaml", ".yml")):
        raise InputError(f"options = {options} for {ref}: only a named scenario has options; change the file instead")
    name, held = parse_ref(ref)
    return f"{name}:" + ",".join(f"{key}={value}" for key, value in {**held, **options}.items())


def nested(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; a key ``a.b`` reaches into ``a``, and dictionaries are merged."""
    out = dict(base)
    for key, value in changes.items():
        first, dot, rest = key.partition(".")
        held = out.get(first)
        if dot:
            out[first] = nested(held if isinstance(held, dict) else {}, {rest: value})
        else:
            out[key] = nested(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return out


def _first(key: str) -> str:
    """``a`` of a key ``a.b``."""
    return key.partition(".")[0]


def is_plan(ref: str) -> bool:
    """True for a YAML file that holds a plan, not the setting of one algorithm."""
    if not ref.endswith((".yaml", ".yml")) or not Path(ref).is_file():
        return False
    held = yaml.safe_load(Path(ref).read_text())
    return isinstance(held, dict) and "algorithms" in held


def load_setting(ref: str) -> AlgorithmSetting:
    """The setting of an algorithm's name, or of a YAML file; InputError naming what is wrong."""
    if not ref.endswith((".yaml", ".yml")):
        get_algorithm(ref)
        return AlgorithmSetting(algorithm=ref)
    return read_model(Path(ref), AlgorithmSetting)


def load_plan(path: Path) -> Plan:
    """Read a plan's YAML; setting and federation files in it are relative to its folder or to the current one."""
    plan = read_model(path, Plan)
    plan.algorithms = [_beside(path, a) if isinstance(a, str) else a for a in plan.algorithms]
    plan.scenarios = [_beside(path, s) for s in plan.scenarios]
    return plan


def _beside(path: Path, ref: str) -> str:
    near = path.parent / ref
    return str(near) if ref.endswith((".yaml", ".yml")) and near.exists() else ref

