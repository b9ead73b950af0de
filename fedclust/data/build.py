"""From a declaration to tensors: clients drawn from pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fedclust.data.client import ClientData, Federation, Split
from fedclust.data.concept import label_maps
from fedclust.data.deal import deal
from fedclust.data.draw import Draw, Pools, cut_pools, draw_indices, label_distribution, vary
from fedclust.data.feature import Corruption, corrupt
from fedclust.data.settings import stream
from fedclust.data.sources import Samples, load_samples
from graphclust.graph import InputError

if TYPE_CHECKING:
    from fedclust.data.spec import FederationSpec


def build_drawn(spec: FederationSpec) -> Federation:
    """The federation of a spec whose partition is a :class:`Draw`."""
    draw, n = spec.partition, spec.n_clients
    samples = load_samples(spec.source)
    pools = cut_pools(samples, 0, draw.pools, spec.seed)
    maps = label_maps(spec.concept, samples.n_classes, spec.seed)
    groups = draw.labels.weights(samples.n_classes)
    ids = [f"client-{i:04d}" for i in range(n)]
    planted = {
        "concept": deal(spec.concept.deal, len(maps), n, spec.seed, "concept"),
        "feature": deal(spec.feature.deal, len(spec.feature.variants), n, spec.seed, "feature"),
        "label": deal(draw.labels.deal, len(groups), n, spec.seed, "label"),
        "size": deal(draw.sizes, draw.n_sizes, n, spec.seed, "size"),
    }
    truth = {name: dict(zip(ids, dealt, strict=True)) for name, dealt in planted.items()}
    clients = []
    for i in ids:
        corruption = spec.feature.variants[truth["feature"][i]]
        q = label_distribution(draw.labels, groups[truth["label"][i]], stream(spec.seed, i, "labels"))
        splits = {
            name: _draw_split(samples, pools, name, i, k, q, draw, maps[truth["concept"][i]], corruption, spec.seed)
            for name, k in draw.n_samples(truth["size"][i]).items()
        }
        clients.append(ClientData(id=i, **splits))
    unseen = _newcomers(spec, samples, pools, maps, truth)
    kept = {name: truth[name] for name in truth if name in ("concept", "feature") or len(set(planted[name])) > 1}
    return Federation(tuple(clients), unseen, samples.n_classes, kept | {"group": truth["concept"]})


def _newcomers(
    spec: FederationSpec, samples: Samples, pools: Pools, maps: list[np.ndarray], truth: dict[str, dict[str, int]]
) -> tuple[ClientData, ...]:
    if spec.unseen is None:
        return ()
    q = np.full(samples.n_classes, 1 / samples.n_classes)
    found = []
    for k, new_labels in enumerate(maps):
        for f in spec.unseen.features:
            if f >= len(spec.feature.variants):
                raise InputError(f"unseen.features holds {f}; the feature shift has variants "
                                 f"0..{len(spec.feature.variants) - 1}")
            corruption = spec.feature.variants[f]
            name = f"unseen-{k}-{corruption.name}"
            support, test = (
                _draw_split(samples, pools, pool, name, n, q, spec.partition, new_labels, corruption, spec.seed,
                            random_counts=False)
                for pool, n in (("validation", spec.unseen.support), ("test", spec.unseen.test))
            )
            found.append(ClientData(name, support, test, Split(test.x[:0], test.y[:0])))
            truth["concept"][name], truth["feature"][name] = k, f
    return tuple(sorted(found, key=lambda c: c.id))


def _draw_split(
    samples: Samples, pools: Pools, pool: str, client: str, n: int, q: np.ndarray, draw: Draw, new_labels: np.ndarray,
    corruption: Corruption, seed: int, random_counts: bool | None = None,
) -> Split:
    rng = stream(seed, client, pool)
    if random_counts is None:
        random_counts = draw.labels.concentration is not None
    chosen = draw_indices(getattr(pools, pool), q, n, random_counts=random_counts, replace=draw.bootstrap is not None,
                          client=client, rng=rng)
    x = corrupt(vary(samples.x[chosen], draw.bootstrap, rng), corruption, rng)
    return Split(torch.from_numpy(x), torch.from_numpy(new_labels[samples.y[chosen]]))
