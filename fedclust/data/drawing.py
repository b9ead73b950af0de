"""From a declaration to tensors: clients that draw from pools."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedclust.data.client import ClientData, Federation, Split
from fedclust.data.draw import Draw, Pools, cut_pools, draw_indices, label_distribution, vary
from fedclust.data.feature import corrupt
from fedclust.data.planted import Planted, empty
from fedclust.data.settings import stream
from fedclust.data.sources import Samples, load_samples
from graphclust.graph import InputError

if TYPE_CHECKING:
    from fedclust.data.spec import FederationSpec


def build_drawn(spec: FederationSpec) -> Federation:
    """The federation of a spec whose partition is a :class:`Draw`."""
    draw = spec.partition
    assert isinstance(draw, Draw)
    samples = load_samples(spec.source)
    if spec.max_samples is not None:
        samples = samples.subset(spec.max_samples, spec.seed)
    weights = draw.labels.weights(samples.n_classes)
    ids = [f"client-{i:04d}" for i in range(spec.n_clients)]
    planted = Planted(spec, ids, samples.n_classes, {
        "label": (len(weights), draw.labels.deal),
        "size": (draw.n_sizes, draw.sizes),
        "domain": (samples.n_domains, spec.domain),
    })
    drawing = _Drawing(spec, draw, samples, planted)
    clients = []
    for i in ids:
        q = label_distribution(draw.labels, weights[planted.of["label"][i]], stream(spec.seed, i, "labels"))
        random_counts = draw.labels.concentration is not None
        counts = draw.n_samples(planted.of["size"][i])
        splits = {s: drawing.split(i, s, n, q, random_counts) for s, n in counts.items()}
        clients.append(ClientData(i, splits["train"], splits["test"], splits["validation"]))
    return planted.federation(clients, _newcomers(spec, weights, planted, drawing), samples.n_classes)


def _newcomers(spec: FederationSpec, weights: np.ndarray, planted: Planted, drawing: _Drawing) -> list[ClientData]:
    from fedclust.data.spec import Unseen

    if not isinstance(spec.unseen, Unseen):
        return []
    variants = spec.feature.variants
    wrong = [f for f in spec.unseen.features if f >= len(variants)]
    if wrong:
        raise InputError(f"unseen.features holds {wrong[0]}; the feature shift has the variants 0..{len(variants) - 1}")
    names = [n for n in ("concept", "domain", "label") if planted.counts[n] > 1]
    found = []
    for *values, f in itertools.product(*(range(planted.counts[n]) for n in names), spec.unseen.features):
        mine = dict(zip(names, values, strict=True))
        name = "-".join(["unseen", *(f"{n}{v}" for n, v in mine.items()), variants[f].name])
        planted.add(name, feature=f, **mine)
        q = weights[mine.get("label", 0)]
        support = drawing.split(name, "validation", spec.unseen.support, q, False)
        test = drawing.split(name, "test", spec.unseen.test, q, False)
        found.append(ClientData(name, support, test, empty(test)))
    return found


class _Drawing:
    """Draws the splits of clients; every draw by the stream of the client's id and the pool."""

    def __init__(self, spec: FederationSpec, draw: Draw, samples: Samples, planted: Planted) -> None:
        self._seed, self._draw, self._samples, self._planted = spec.seed, draw, samples, planted
        self._pools = [cut_pools(samples, d, draw.pools, spec.seed) for d in range(samples.n_domains)]

    def split(self, client: str, pool: str, n: int, q: np.ndarray, random_counts: bool) -> Split:
        """``n`` samples of the pool of that name, as the client sees them."""
        rng, bootstrap = stream(self._seed, client, pool), self._draw.bootstrap
        pools: Pools = self._pools[self._planted.of["domain"][client]]
        chosen = draw_indices(getattr(pools, pool), q, n, random_counts=random_counts, replace=bootstrap is not None,
                              client=client, rng=rng)
        x = corrupt(vary(self._samples.take(chosen), bootstrap, rng), self._planted.corruption(client), rng)
        return Split(torch.from_numpy(x), self._planted.labels(client, self._samples.y[chosen]))
