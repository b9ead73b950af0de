"""From a declaration to tensors: clients that draw from pools."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedclust.data.client import ClientData, Federation, Split
from fedclust.data.draw import Draw, cut_pools, draw_counts, draw_indices, label_distribution, vary
from fedclust.data.feature import corrupt
from fedclust.data.planted import Planted, empty
from fedclust.data.settings import stream
from fedclust.data.sources import Samples, load_samples
from graphclust.graph import InputError

if TYPE_CHECKING:
    from fedclust.data.spec import FederationSpec


def build_drawn(spec: FederationSpec) -> Federation:
    """The federation of a spec whose partition is a :class:`Draw`; each client is drawn when it is asked for."""
    draw = spec.partition
    assert isinstance(draw, Draw)
    samples = load_samples(spec.source)
    if spec.max_samples is not None:
        samples = samples.subset(spec.max_samples, spec.seed)
    ids = [f"client-{i:04d}" for i in range(spec.n_clients)]
    drawing = _Drawing(spec, draw, samples, ids)
    planted, unseen = drawing.planted, _newcomers(spec, drawing.planted)
    planted.check_features(samples.x.shape[1:])
    if draw.centred and samples.x.ndim != 4:
        raise InputError(f"partition.centred = true and {spec.source} has features of shape {samples.x.shape[1:]}; "
                         "only the pixels of images are known to lie in [0, 1]: leave it out")
    drawing.check([*ids, *unseen])
    n_train = {i: draw.n_samples(planted.of["size"][i])["train"] for i in ids}
    return planted.federation(drawing.client, n_train, unseen, samples.n_classes)


def _newcomers(spec: FederationSpec, planted: Planted) -> dict[str, int]:
    """Plant the newcomers' variants; how much support each has, by id."""
    from fedclust.data.spec import Unseen

    if not isinstance(spec.unseen, Unseen):
        return {}
    variants = spec.feature.variants
    wrong = [f for f in spec.unseen.features if f >= len(variants)]
    if wrong:
        raise InputError(f"unseen.features holds {wrong[0]}; the feature shift has the variants 0..{len(variants) - 1}")
    names = [n for n in ("concept", "domain", "label") if planted.counts[n] > 1]
    found = {}
    for *values, f in itertools.product(*(range(planted.counts[n]) for n in names), spec.unseen.features):
        mine = dict(zip(names, values, strict=True))
        name = "-".join(["unseen", *(f"{n}{v}" for n, v in mine.items()), variants[f].name])
        planted.add(name, feature=f, **mine)
        found[name] = spec.unseen.support
    return found


class _Drawing:
    """Draws the splits of clients; every draw by the stream of the client's id and the pool."""

    def __init__(self, spec: FederationSpec, draw: Draw, samples: Samples, ids: list[str]) -> None:
        self._spec, self._draw, self._samples, self._training = spec, draw, samples, {*ids}
        self._weights = draw.labels.weights(samples.n_classes)
        self.planted = Planted(spec, ids, samples.n_classes, {
            "label": (len(self._weights), draw.labels.deal),
            "size": (draw.n_sizes, draw.sizes),
            "domain": (samples.n_domains, spec.domain),
        })
        self._pools = [cut_pools(samples, d, draw.pools, spec.seed) for d in range(samples.n_domains)]

    def client(self, i: str) -> ClientData:
        """A client, or a newcomer: it does not train, and its support comes from the validation pool."""
        how = self._how(i)
        drawn = {pool: self._split(i, pool, n, how) for pool, n in self._wanted(i).items()}
        if i in self._training:
            return ClientData(i, drawn["train"], drawn["test"], drawn["validation"])
        return ClientData(i, drawn["validation"], drawn["test"], empty(drawn["test"]))

    def check(self, ids: list[str]) -> None:
        """InputError for the first client that a pool has too few samples for; no sample is drawn."""
        if self._draw.bootstrap is not None and all(len(c) for pools in self._pools for c in pools.all):
            return  # with replacement one sample of each class is enough
        for i in ids:
            how = self._how(i)
            for pool, n in self._wanted(i).items():
                draw_counts(self._pool(i, pool), n=n, rng=stream(self._spec.seed, i, pool), **how)

    def _wanted(self, i: str) -> dict[str, int]:
        """How many samples of which pool the client draws."""
        if i in self._training:
            return self._draw.n_samples(self.planted.of["size"][i])
        return {"validation": self._spec.unseen.support, "test": self._spec.unseen.test}  # type: ignore[union-attr]

    def _how(self, i: str) -> dict[str, Any]:
        """What :func:`draw_counts` must know about the client."""
        labels, q = self._draw.labels, self._weights[self.planted.of["label"][i]]
        trains = i in self._training
        if trains:
            q = label_distribution(labels, q, stream(self._spec.seed, i, "labels"))
        return {"q": q, "random_counts": trains and labels.concentration is not None,
                "replace": self._draw.bootstrap is not None, "client": i}

    def _pool(self, i: str, pool: str) -> list[np.ndarray]:
        members: list[np.ndarray] = getattr(self._pools[self.planted.of["domain"][i]], pool)
        return members

    def _split(self, i: str, pool: str, n: int, how: dict[str, Any]) -> Split:
        """``n`` samples of the pool of that name, as the client sees them."""
        rng = stream(self._spec.seed, i, pool)
        chosen = draw_indices(self._pool(i, pool), n=n, rng=rng, **how)
        x, bootstrap = self._samples.take(chosen), self._draw.bootstrap
        if bootstrap is not None and (pool == "train" or bootstrap.varied == "all"):
            x = vary(x, bootstrap, rng)
        x = corrupt(x, self.planted.corruption(i), rng)
        if self._draw.centred:
            x = x - np.float32(0.5)
        return Split(torch.from_numpy(x), self.planted.labels(i, self._samples.y[chosen]))
