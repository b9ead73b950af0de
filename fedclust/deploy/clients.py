"""The client of a SuperNode that holds its own data, as its node config names them: ``client`` and ``data``.

``client`` is the name that the federation knows it by; ``data`` is one of

- the absolute path of a folder: its npz files (arrays ``x`` and ``y``) and csv files (a header; the label in the column
  ``label``, else in the last one) together are the client's samples; or one npz file of a client that is split already,
  as ``fedclust partition`` writes them;
- ``module:function``: called with the client's name, returns a mapping with ``x`` (n, ...) and ``y`` (n,), and if it
  likes ``split`` (n,) of the words "train", "test" and "validation";
- ``scenario:NAME:CLIENT``: for a trial, this client of the simulated federation in the run's config.

Without a split of its own a client's samples are split by the shares ``test`` and ``validation`` of the config's
partition, by its name, ``federation.seed`` and the number of its samples alone: `fedclust simulate` of a folder with a
file of that name for each client splits them in the same way.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

from fedclust.config import FederationConfig
from fedclust.data.client import ClientData, Split, check_client
from fedclust.data.concept import ConceptShift
from fedclust.data.cutting import split_client
from fedclust.data.feature import FeatureShift
from fedclust.data.folder import Files, as_float, check_samples, client_files, read_samples
from fedclust.data.stored import SPLITS, client_bytes, is_split, read_client
from fedclust.participant import Participant, simulated_federation
from fedclust.run_config import config_text, jobs
from graphclust.atomic import write_atomic
from graphclust.graph import InputError

_SCENARIO = "scenario:"


def deployed(run_config: Mapping[str, Any], node_config: Mapping[str, Any], job: int) -> Participant:
    """The client of this SuperNode in federation ``job`` of the run.

    What it remembers from round to round lies in ``$FLWR_HOME/fedclust/<client>`` (see :mod:`fedclust.deploy.memory`).

    Raises
    ------
    InputError
        A node config without a name; data that are missing, broken, or not what the run's config says.
    """
    client, data = (str(node_config.get(name, "")) for name in ("client", "data"))
    if not client:
        raise InputError("the node config has no `client`; give the SuperNode the name that its client has")
    return _deployed(config_text(run_config), job, client, data, home(client))


def home(client: str) -> Path:
    """Where a deployed client keeps its files: ``$FLWR_HOME/fedclust/<client>``."""
    return Path(os.environ.get("FLWR_HOME", "~/.flwr")).expanduser() / "fedclust" / quote(client, safe="")


def own_client(client: str, data: str, config: FederationConfig) -> ClientData:
    """The client with what ``data`` (a folder, or ``module:function``) holds.

    Raises
    ------
    InputError
        A config that is not for clients with data of their own; data that are missing or broken; labels beyond C.
    """
    rule, declared = config.federation.partition, config.federation
    if not isinstance(rule, Files):
        raise InputError(f"federation.partition is {rule.kind!r}, and client {client!r} has data of its own; declare "
                         "partition: {kind: files, n_classes: C}, or serve it scenario:NAME:CLIENT")
    if rule.n_classes is None:
        raise InputError("federation.partition.n_classes is not given: a client sees its own labels only, so the "
                         "config must say how many classes there are; give n_classes")
    if declared.concept != ConceptShift() or declared.feature != FeatureShift():
        raise InputError("federation.concept or federation.feature is given, and clients have data of their own, which "
                         "nothing is planted in; leave them out")
    read = _of_folder if Path(data).is_absolute() else _of_function
    mine = read(client, data, rule, declared.seed)
    check_client(mine, rule.n_classes)
    return mine


@lru_cache(maxsize=8)
def _deployed(text: str, job: int, client: str, data: str, place: Path) -> Participant:
    config = jobs(text)[job]
    torch.set_num_threads(config.threads)
    if data.startswith(_SCENARIO):
        return _on_trial(config, client, data, place)
    classes = getattr(config.federation.partition, "n_classes", None)
    return Participant(config, own_client(client, data, config), classes or 0, home=place)


def _on_trial(config: FederationConfig, client: str, data: str, place: Path) -> Participant:
    """A simulated client under the SuperNode's own name; what it holds is kept, for building all others takes long."""
    name, _, wanted = data.removeprefix(_SCENARIO).rpartition(":")
    if _base(name) != _base(config.scenario):
        raise InputError(f"data = {data!r}: the run is on the scenario {config.scenario!r}; serve it a client of that")
    spec = config.federation.model_dump_json()
    kept = place / "trial" / hashlib.sha256(f"{spec}/{wanted}".encode()).hexdigest()[:16] / f"{client}.npz"
    about = kept.with_suffix(".json")
    if not about.exists():
        federation = simulated_federation(config)
        if wanted not in federation.ids:
            raise InputError(f"data = {data!r}: {config.scenario} has no client {wanted!r}, but for example "
                             f"{federation.ids[0]!r}")
        write_atomic(kept, client_bytes(federation.everyone[federation.ids.index(wanted)]))
        role = "train" if wanted in federation.training_ids else "unseen"
        write_atomic(about, json.dumps({"role": role, "n_classes": federation.n_classes}))
    held = json.loads(about.read_text())
    return Participant(config, read_client(kept), held["n_classes"], held["role"], home=place)


def _base(scenario: str) -> str:
    """A scenario's name without its options."""
    return re.split("[:,]", scenario)[0]


def _of_folder(client: str, folder: str, rule: Files, seed: int) -> ClientData:
    files = client_files(folder)
    if len(files) == 1 and is_split(files[0]):
        held = read_client(files[0])
        return ClientData(client, held.train, held.test, held.validation, held.nodes, held.adjacency)
    each = [read_samples(file) for file in files]
    shapes = [x.shape[1:] for x, _ in each]
    odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        raise InputError(f"{files[odd]}: samples of shape {shapes[odd]}, {files[0].name} has {shapes[0]}; all files of "
                         "a client must agree")
    x, y = np.concatenate([as_float(x) for x, _ in each]), np.concatenate([y for _, y in each])
    return split_client(client, x, torch.from_numpy(y), rule, seed)


def _of_function(client: str, data: str, rule: Files, seed: int) -> ClientData:
    held = _call(client, data)
    missing = {"x", "y"} - set(held)
    if missing:
        raise InputError(f"data = {data!r}: what it returns for {client!r} has no {sorted(missing)[0]!r}; return a "
                         "mapping with x and y")
    x, y = check_samples(np.asarray(held["x"]), np.asarray(held["y"]), data)
    x, labels = as_float(x), torch.from_numpy(y)
    if "split" not in held:
        return split_client(client, x, labels, rule, seed)
    split = np.asarray(held["split"])
    if split.shape != y.shape or not set(split.tolist()) <= set(SPLITS):
        raise InputError(f"data = {data!r}: split has shape {split.shape} and the words "
                         f"{', '.join(map(repr, sorted(set(split.ravel().tolist()))[:4]))}; give one of "
                         f"{', '.join(SPLITS)} for each of {len(y)} samples")
    train, test, validation = (Split(torch.from_numpy(x[split == s]), labels[split == s]) for s in SPLITS)
    return ClientData(client, train, test, validation)


def _call(client: str, data: str) -> Mapping[str, Any]:
    module, colon, name = data.partition(":")
    if not colon:
        raise InputError(f"data = {data!r} of client {client!r}; give the absolute path of a folder, module:function, "
                         "or scenario:NAME:CLIENT")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as e:
        raise InputError(f"data = {data!r} of client {client!r}: {e}; install the module where fedclust is, or put it "
                         "on PYTHONPATH") from e
    try:
        held = function(client)
    except Exception as e:  # whatever its author's code raises is told with the client's name
        raise InputError(f"data = {data!r} of client {client!r} raised {type(e).__name__}: {e}; mend it") from e
    if not isinstance(held, Mapping):
        raise InputError(f"data = {data!r} returns {type(held).__name__} for {client!r}; return a mapping with x and y")
    return held
