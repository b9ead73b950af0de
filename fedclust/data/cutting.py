"""From a declaration to tensors: clients that hold parts of a data set, of a folder, or of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from fedclust.data.client import UNKNOWN, ClientData, Federation, Split, check_client
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

Sizes = tuple[int, int, int]
"""Samples of a client to train, test and validate with."""


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
    planted.check_features(samples.x.shape[1:])
    parts = _parts(rule, samples, ids + held, planted, spec.seed)

    def make(i: str) -> ClientData:
        return _client(i, samples.take(parts[i]), samples.y[parts[i]], rule, planted, spec.seed)

    sizes = {i: _sizes(i, len(part), rule) for i, part in parts.items()}
    return _federation(planted, make, sizes, held, samples.n_classes)


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
    paths = {p.stem: p for p in files}
    names = [*paths]
    # read now so that a broken file is refused before any work, and again when the client is asked for
    about = {i: _look(i, path, rule) for i, path in paths.items()}
    guilty, largest = max(((i, a.largest) for i, a in about.items()), key=lambda pair: pair[1])
    n_samples = sum(sum(a.sizes) for a in about.values())
    if rule.n_classes is None and largest >= n_samples:
        raise InputError(f"client {guilty!r} has the label {largest}, and all clients together {n_samples} samples; "
                         "number the classes 0..C-1, or give partition.n_classes if there are so many")
    n_classes = rule.n_classes or largest + 1
    if largest >= n_classes:
        raise InputError(
            f"client {guilty!r} has the label {largest} and partition.n_classes = {n_classes}; labels must lie in "
            f"0..{n_classes - 1}; raise n_classes or mend the file"
        )
    odd = [i for i in names if about[i].shape != about[names[0]].shape]
    if odd:
        raise InputError(f"client {odd[0]!r} has samples of shape {about[odd[0]].shape} and {names[0]!r} of "
                         f"{about[names[0]].shape}; all clients' samples must have one shape")
    planted = Planted(spec, names[: spec.n_clients], n_classes)
    planted.add_in_turn(names[spec.n_clients :])
    planted.check_features(about[names[0]].shape)

    def make(i: str) -> ClientData:
        if about[i].split:
            return _shifted(read_client(paths[i]), planted, spec.seed)
        x, y = read_samples(paths[i])
        return _client(i, as_float(x), y, rule, planted, spec.seed)

    return _federation(planted, make, {i: a.sizes for i, a in about.items()}, names[spec.n_clients :], n_classes)


class _About(NamedTuple):
    """What is remembered of a client's file: sizes of the splits, the largest label, shape, is it split already."""

    sizes: Sizes
    largest: int
    shape: tuple[int, ...]
    split: bool


def _look(client: str, path: Path, rule: Cut) -> _About:
    """Read a file to the end; InputError for whatever is wrong with it by itself."""
    if not is_split(path):
        x, y = read_samples(path)
        return _About(_sizes(client, len(y), rule), int(y.max()), x.shape[1:], False)
    held = read_client(path)
    splits = (held.train, held.test, held.validation)
    largest = max((int(s.y.max()) for s in splits if len(s)), default=0)
    check_client(held, largest + 1)
    shape = tuple((held.train.x if held.nodes is None else held.nodes).shape[1:])
    return _About((len(held.train), len(held.test), len(held.validation)), largest, shape, True)


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
    planted.check_features(whole.shape)
    parts = dict(zip(ids + held, cut_nodes(rule, whole.graph, len(ids + held), spec.seed), strict=True))
    labelled = {i: np.flatnonzero(whole.y[nodes] >= 0) for i, nodes in parts.items()}
    if rule.clustering is not None:
        sizes = {i: (len(nodes), len(labelled[i]), 0) for i, nodes in parts.items()}
    else:
        sizes = {i: _sizes(i, len(at), rule) for i, at in labelled.items()}

    def make(i: str) -> ClientData:
        nodes, known = parts[i], labelled[i]
        features = corrupt(whole.features(nodes), planted.corruption(i), stream(spec.seed, i, "features"))
        if rule.clustering is not None:
            unlabelled = Split(torch.arange(len(nodes)), torch.full((len(nodes),), UNKNOWN))
            shown = Split(torch.from_numpy(known), torch.from_numpy(whole.y[nodes][known]))
            return ClientData(i, unlabelled, shown, empty(shown), *whole.prepared(features, nodes, rule.clustering))
        train, test, validation = (
            Split(torch.from_numpy(known[at]), planted.labels(i, whole.y[nodes][known[at]]))
            for at in _split(i, len(known), rule, spec.seed)
        )
        return ClientData(i, train, test, validation, torch.from_numpy(features), whole.adjacency(nodes))

    return _federation(planted, make, sizes, held, whole.n_classes)


def _ids(spec: FederationSpec) -> tuple[list[str], list[str]]:
    """Ids of the training clients and of those held back."""
    held = getattr(spec.unseen, "clients", 0)
    return [f"client-{i:04d}" for i in range(spec.n_clients)], [f"unseen-{j:04d}" for j in range(held)]


def _federation(
    planted: Planted, make: Callable[[str], ClientData], sizes: dict[str, Sizes], held: list[str], n_classes: int
) -> Federation:
    """Newcomers do not train: what would be their validation samples is support too."""
    newcomers = {*held}

    def made(i: str) -> ClientData:
        c = make(i)
        if i not in newcomers:
            return c
        support = Split(torch.cat((c.train.x, c.validation.x)), torch.cat((c.train.y, c.validation.y)))
        return replace(c, train=support, validation=empty(c.validation))

    training = {i: train for i, (train, _, _) in sizes.items() if i not in newcomers}
    return planted.federation(made, training, {i: sizes[i][0] + sizes[i][2] for i in held}, n_classes)


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
    """Positions of a client's training, test and validation samples, at random."""
    n_train, n_test, _ = _sizes(client, n, rule)
    return np.split(stream(seed, client, "split").permutation(n), [n_train, n_train + n_test])


def _sizes(client: str, n: int, rule: Cut) -> Sizes:
    """Of ``n`` samples how many a client trains, is tested and validates with; at least one of the first two."""
    if n < 2:
        raise InputError(
            f"client {client!r} has {n} labelled samples; it needs 2 at least, one to train and one to test with; take "
            "fewer clients, a larger concentration, or leave the client out"
        )
    n_test = min(max(round(rule.test * n), 1), n - 1)
    n_validation = min(round(rule.validation * n), n - n_test - 1)
    return n - n_test - n_validation, n_test, n_validation
