"""From a declaration to tensors: clients that hold parts of a data set, of a folder, or of a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedclust.data.client import UNKNOWN, ClientData, Federation, Split
from fedclust.data.deal import Deal
from fedclust.data.feature import corrupt
from fedclust.data.folder import Files, as_float, client_files, read_samples
from fedclust.data.graphs import LabelledGraph, Nodes, cut_nodes
from fedclust.data.partition import Cut, Cutter, Quantity, cut
from fedclust.data.planted import Planted, empty
from fedclust.data.settings import stream
from fedclust.data.sources import Samples, load_samples
from fedclust.data.stored import is_split, read_client
from graphclust.graph import InputError

if TYPE_CHECKING:
    from fedclust.data.spec import FederationSpec


def build_cut(spec: FederationSpec) -> Federation:
    """The federation of a spec whose partition gives every sample to exactly one client."""
    rule: Cutter = spec.partition  # type: ignore[assignment]
    samples = load_samples(spec.source)
    if spec.max_samples is not None:
        samples = samples.subset(spec.max_samples, spec.seed)
    ids, held = _ids(spec)
    others: dict[str, tuple[int, Deal]] = {"domain": (samples.n_domains, spec.domain)}
    if isinstance(rule, Quantity) and rule.ratios is not None:
        others["size"] = (len(rule.ratios), rule.deal)
    planted = Planted(spec, ids, samples.n_classes, others)
    planted.add_in_turn(held)
    parts = _parts(rule, samples, ids + held, planted, spec.seed)
    made = {i: _client(i, samples.take(parts[i]), samples.y[parts[i]], rule, planted, spec.seed) for i in ids + held}
    return _federation(planted, made, held, samples.n_classes)


def _parts(rule: Cutter, samples: Samples, ids: list[str], planted: Planted, seed: int) -> dict[str, np.ndarray]:
    """The samples of each client; every domain is cut among its own clients."""
    parts: dict[str, np.ndarray] = {}
    for d in range(samples.n_domains):
        mine = [i for i in ids if planted.of["domain"][i] == d]
        members = np.flatnonzero(samples.domain == d)
        if not mine:
            raise InputError(
                f"domain {d} of the {samples.n_domains} got no client; raise n_clients or change domain.shares"
            )
        sizes = [planted.of["size"][i] for i in mine] if "size" in planted.of else None
        pieces = cut(rule, samples.y[members], len(mine), stream(seed, "partition", d), sizes)
        parts |= {i: members[piece] for i, piece in zip(mine, pieces, strict=True)}
    return parts


def build_files(spec: FederationSpec) -> Federation:
    """The federation of a folder with one file for each client."""
    rule = spec.partition
    assert isinstance(rule, Files)
    files = client_files(spec.source)
    n_held = getattr(spec.unseen, "clients", 0)
    if len(files) != spec.n_clients + n_held:
        raise InputError(
            f"n_clients = {spec.n_clients} and {n_held} newcomers; the folder {spec.source} has {len(files)} files; "
            "leave n_clients out, or make them agree"
        )
    names = [p.stem for p in files]
    ready = {p.stem: read_client(p) for p in files if is_split(p)}
    raw = {p.stem: read_samples(p) for p in files if p.stem not in ready}
    largest = max([int(y.max()) for _, y in raw.values()]
                  + [int(s.y.max()) for c in ready.values() for s in (c.train, c.test, c.validation) if len(s)])
    n_classes = rule.n_classes or largest + 1
    if largest >= n_classes:
        guilty = [i for i, (_, y) in raw.items() if y.max() >= n_classes] or sorted(ready)
        raise InputError(
            f"client {guilty[0]!r} has the label {largest} and partition.n_classes = {n_classes}; labels must lie in "
            f"0..{n_classes - 1}; raise n_classes or mend the file"
        )
    planted = Planted(spec, names[: spec.n_clients], n_classes)
    planted.add_in_turn(names[spec.n_clients :])
    made = {i: _client(i, as_float(x), y, rule, planted, spec.seed) for i, (x, y) in raw.items()}
    made |= {i: _shifted(client, planted, spec.seed) for i, client in ready.items()}
    shapes = {i: tuple((c.train.x if c.nodes is None else c.nodes).shape[1:]) for i, c in made.items()}
    odd = [i for i in names if shapes[i] != shapes[names[0]]]
    if odd:
        raise InputError(f"client {odd[0]!r} has samples of shape {shapes[odd[0]]} and {names[0]!r} of "
                         f"{shapes[names[0]]}; all clients' samples must have one shape")
    return _federation(planted, made, names[spec.n_clients :], n_classes)


def build_nodes(spec: FederationSpec) -> Federation:
    """The federation of a graph whose nodes are cut among the clients."""
    rule = spec.partition
    assert isinstance(rule, Nodes)
    if spec.max_samples is not None:
        raise InputError(f"max_samples = {spec.max_samples} with partition 'nodes'; a graph is cut whole, leave it out")
    whole = LabelledGraph(spec.source)
    ids, held = _ids(spec)
    planted = Planted(spec, ids, whole.n_classes)
    planted.add_in_turn(held)
    made = {}
    for i, nodes in zip(ids + held, cut_nodes(rule, whole.graph, len(ids + held), spec.seed), strict=True):
        labelled = np.flatnonzero(whole.y[nodes] >= 0)
        features = corrupt(whole.features(nodes), planted.corruption(i), stream(spec.seed, i, "features"))
        if rule.clustering is not None:
            unlabelled = Split(torch.arange(len(nodes)), torch.full((len(nodes),), UNKNOWN))
            shown = Split(torch.from_numpy(labelled), torch.from_numpy(whole.y[nodes][labelled]))
            made[i] = ClientData(i, unlabelled, shown, empty(shown), *whole.prepared(features, nodes, rule.clustering))
            continue
        train, test, validation = (
            Split(torch.from_numpy(labelled[at]), planted.labels(i, whole.y[nodes][labelled[at]]))
            for at in _split(i, len(labelled), rule, spec.seed)
        )
        made[i] = ClientData(i, train, test, validation, torch.from_numpy(features), whole.adjacency(nodes))
    return _federation(planted, made, held, whole.n_classes)


def _ids(spec: FederationSpec) -> tuple[list[str], list[str]]:
    """Ids of the training clients and of those held back."""
    held = getattr(spec.unseen, "clients", 0)
    return [f"client-{i:04d}" for i in range(spec.n_clients)], [f"unseen-{j:04d}" for j in range(held)]


def _federation(planted: Planted, made: dict[str, ClientData], held: list[str], n_classes: int) -> Federation:
    """Newcomers do not train: what would be their validation samples is support too."""
    newcomers = [
        replace(c, train=Split(torch.cat((c.train.x, c.validation.x)), torch.cat((c.train.y, c.validation.y))),
                validation=empty(c.validation))
        for c in (made[i] for i in held)
    ]
    return planted.federation([c for i, c in made.items() if i not in held], newcomers, n_classes)


def _client(client: str, x: np.ndarray, y: np.ndarray, rule: Cut, planted: Planted, seed: int) -> ClientData:
    x = corrupt(x, planted.corruption(client), stream(seed, client, "features"))
    return split_client(client, x, planted.labels(client, y), rule, seed)


def split_client(client: str, x: np.ndarray, y: torch.Tensor, rule: Cut, seed: int) -> ClientData:
    """The client of its own samples ``x`` (n, ...) float32 and labels ``y`` (n,) int64.

    Which of them it trains, is tested and validates with depends on ``seed``, its name and n alone: a folder that is
    simulated and the same files on machines of their own give the same clients.
    """
    train, test, validation = (Split(torch.from_numpy(x[at]), y[at]) for at in _split(client, len(y), rule, seed))
    return ClientData(client, train, test, validation)


def _shifted(client: ClientData, planted: Planted, seed: int) -> ClientData:
    """A client that came with its splits, under its shifts."""
    rng = stream(seed, client.id, "features")

    def shifted(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(corrupt(x.numpy(), planted.corruption(client.id), rng)) if len(x) else x

    train, test, validation = (
        Split(shifted(s.x) if client.nodes is None else s.x, planted.labels(client.id, s.y.numpy()))
        for s in (client.train, client.test, client.validation)
    )
    nodes = None if client.nodes is None else shifted(client.nodes)
    return replace(client, train=train, test=test, validation=validation, nodes=nodes)


def _split(client: str, n: int, rule: Cut, seed: int) -> list[np.ndarray]:
    """Positions of a client's training, test and validation samples, at random; at least one of the first two."""
    if n < 2:
        raise InputError(
            f"client {client!r} has {n} labelled samples; it needs 2 at least, one to train and one to test with; take "
            "fewer clients, a larger concentration, or leave the client out"
        )
    order = stream(seed, client, "split").permutation(n)
    n_test = min(max(round(rule.test * n), 1), n - 1)
    n_validation = min(round(rule.validation * n), n - n_test - 1)
    return np.split(order, [n - n_test - n_validation, n - n_validation])
