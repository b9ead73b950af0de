"""TGC: vectors of nodes that explain who meets whom next, and clusters of them."""

from __future__ import annotations

from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from graphclust.coerce import as_stream
from graphclust.graph import InputError, from_adjacency
from graphclust.methods._components import kmeans_apart
from graphclust.methods._events import Events
from graphclust.methods._network import kmeans_labels
from graphclust.methods._tgc import Rules, Table, fuse, in_order, one_pass, train_on
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.methods.node2vec import Node2Vec
from graphclust.monitor import Monitor, Silent
from graphclust.stream import Stream, equal_windows
from graphclust.training import Checkpoints, CollapseGuard, Epoch, Phase, StopRule, torch_generator, train

MODES: dict[str, dict[str, Any]] = {
    "default": {
        "kernel": "decay", "attention": "masked", "time_unit": "gap", "balance": "sample", "clusters": "kmeans",
        "components": "apart", "start": "views", "node_weight": 0.1, "dim": 32, "geometry": "cosine",
        "bandwidth": "auto", "collapse_guard": 0.5,
    },
    "faithful": {
        "kernel": "growth", "attention": "padded", "time_unit": "span", "balance": "code", "clusters": "kmeans",
        "components": "joined", "start": "static", "node_weight": 1.0, "dim": 128, "geometry": "euclidean",
        "bandwidth": 1.0, "collapse_guard": 0.0,
    },
}
"""What an option left at None means. "faithful" is the arithmetic of the authors' public code."""

PART = 2**20
"""Samples of a pass after which the training loop may write a checkpoint: some seconds of work."""


class TGC(GraphClusterer):
    """Temporal graph clustering (Liu et al., ICLR 2024, arXiv 2305.10738).

    L = L_tem + w_node L_node + w_batch L_batch over the events, each seen from both ends: who meets whom next by a
    Hawkes-like intensity (:mod:`graphclust.losses.temporal`), KL(P || Q) of the Student-t assignment Q against the
    sharpened assignment P of the vectors at the start, and angles between nodes that meet or do not.

    The public code departs from what the paper means, and this method from the public code, each by a named option; an
    option at None is what ``mode`` says, "faithful" being the public code. Other deviations of ours: vectors at the
    start come from :class:`Node2Vec` by factorisation, with rows of length 1 (public code: skip-gram by gensim); there
    is a seed; k has no default; a history shorter than H leaves out its oldest places, whichever ``mode`` (public code:
    its latest; the same at H = 1).

    A pass over more than 2^20 samples is taken in parts, each a row of ``history_``; a checkpoint may fall between two.

    Parameters
    ----------
    n_clusters : int
    mode : {"default", "faithful"}
    epochs : int, default 10
        Passes over all events; paper: 50 to 200.
    hist_len : int, default 1
        H, how many of the nodes that s met last count.
    negatives : int, default 2
        N.
    dim : int or None
        Of the vectors; 32, half of them for each view at the start, or 128 (paper).
    lr : float, default 0.01
        Step size of SGD, for each sample (public code: for the sum over a batch, which is the same).
    batch_size : int, default 1024
        Events a step.
    order : {"shuffled", "chronological"}
        Of the events in a pass; paper: shuffled.
    windows : int, default 1
        Above 1 the time is cut into that many windows of equal duration, and the model goes through them one after the
        other, with ``epochs`` passes over each; ``window_labels_`` then tells the clusters after each one. Those that
        a window's events do not tell apart (:func:`graphclust.methods._tgc.fuse`) are one in it; so ``n_clusters`` is
        how many there are over all windows, and ``labels_`` has them all.
    node_weight : float or None
        w_node; 0.1 where L_node is a sum over samples, which at 1 holds nodes to the clusters they began in. Paper: 1.
    batch_weight : float, default 1
        w_batch.
    kernel : {"decay", "growth"} or None
        exp(-delta |tau - tau_h|), delta >= 0, or exp(+delta |tau - tau_h|) (public code), which overflows where
        ``time_unit`` is "gap".
    attention : {"masked", "padded"} or None
        Whether missing history is left out, or stands in as node 0 at time 0 (public code).
    time_unit : {"gap", "span"} or None
        Of the times in the kernel: the median time between successive events of a node, or the whole stream (paper).
    balance : {"sample", "code"} or None
        "sample": L_node is a sum over the batch as L_tem is, and the centres move by the mean over their samples;
        "code": L_node is a mean over the batch (public code), a thousand times weaker at 1024. L_batch is the same in
        both, norms over the batch.
    clusters : {"model", "kmeans"} or None
        The result: argmax of Q, or k-means (20 starts) on the vectors (public code; with components apart also from
        the clusters of the vectors at the start, which random starts miss once training has drawn nodes into heaps).
        None is "model" at ``windows`` above 1, where clusters have to live on.
    components : {"apart", "joined"} or None
        Whether clusters of k-means may span components of the graph of contacts that K is enough for
        (:func:`graphclust.methods._components.kmeans_apart`). ``partial_fit`` does not ask.
    start : {"views", "temporal", "static"} or None
        What the vectors at the start are made of. "static": of who meets whom, each pair once (paper). "temporal": of
        the events and the co-contacts (:meth:`graphclust.methods._events.Events.cocontacts`) as one graph. "views": one
        half of who meets whom, as in "static", the other of the co-contacts alone; a view that tells nothing is about
        the same for all clusters and leaves them to the other.
    geometry : {"cosine", "euclidean"} or None
        Where clusters are compact: z / ||z||, or z (paper).
    bandwidth : float, "auto" or None
        Squared distance at which the Student-t kernel has fallen to one half; "auto": the mean squared distance of the
        nodes to their centre at the start. Paper: 1.
    collapse_guard : float in [0, 1) or None
        As in SCGC and PamC, of the clusters of the model; without effect where k-means gives them. Paper: 0, off.
    random_state : int, Generator or None
    """

    name = "tgc"
    summary = "vectors of nodes that explain who meets whom next (Hawkes-like intensity), and clusters of them"
    source = "Liu et al. 2024, arXiv 2305.10738 (ICLR 2024)"
    needs_k = True
    temporal = True
    trains = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "mode": [StrOptions(set(MODES))],
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "hist_len": [Interval(Integral, 1, None, closed="left")],
        "negatives": [Interval(Integral, 1, None, closed="left")],
        "dim": [Interval(Integral, 1, None, closed="left"), None],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "order": [StrOptions({"shuffled", "chronological"})],
        "windows": [Interval(Integral, 1, None, closed="left")],
        "node_weight": [Interval(Real, 0, None, closed="left"), None],
        "batch_weight": [Interval(Real, 0, None, closed="left")],
        "kernel": [StrOptions({"decay", "growth"}), None],
        "attention": [StrOptions({"masked", "padded"}), None],
        "time_unit": [StrOptions({"gap", "span"}), None],
        "balance": [StrOptions({"sample", "code"}), None],
        "clusters": [StrOptions({"model", "kmeans"}), None],
        "components": [StrOptions({"apart", "joined"}), None],
        "start": [StrOptions({"views", "temporal", "static"}), None],
        "geometry": [StrOptions({"cosine", "euclidean"}), None],
        "bandwidth": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "collapse_guard": [Interval(Real, 0, 1, closed="left"), None],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self, n_clusters: int | None = None, *, mode: str = "default", epochs: int = 10, hist_len: int = 1,
        negatives: int = 2, dim: int | None = None, lr: float = 0.01, batch_size: int = 1024, order: str = "shuffled",
        windows: int = 1, node_weight: float | None = None, batch_weight: float = 1.0, kernel: str | None = None,
        attention: str | None = None, time_unit: str | None = None, balance: str | None = None,
        clusters: str | None = None, components: str | None = None, start: str | None = None,
        geometry: str | None = None, bandwidth: float | str | None = None, collapse_guard: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.mode = mode
        self.epochs = epochs
        self.hist_len = hist_len
        self.negatives = negatives
        self.dim = dim
        self.lr = lr
        self.batch_size = batch_size
        self.order = order
        self.windows = windows
        self.node_weight = node_weight
        self.batch_weight = batch_weight
        self.kernel = kernel
        self.attention = attention
        self.time_unit = time_unit
        self.balance = balance
        self.clusters = clusters
        self.components = components
        self.start = start
        self.geometry = geometry
        self.bandwidth = bandwidth
        self.collapse_guard = collapse_guard
        self.random_state = random_state

    def _rules(self) -> Rules:
        """The options with every None filled in from ``mode``."""
        names = ("hist_len", "negatives", "lr", "batch_size", "order", "batch_weight")
        given = {name: getattr(self, name) for name in (*names, *MODES[self.mode])}
        usual = MODES[self.mode] | ({"clusters": "model"} if self.mode == "default" and self.windows > 1 else {})
        return Rules(**given | {name: value for name, value in usual.items() if given[name] is None})

    def _cluster(self, graph: Stream, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        rules, follows = self._rules(), self.windows > 1
        if follows and rules.clusters == "kmeans":
            raise InputError("windows > 1 with clusters = 'kmeans': its clusters do not live on from one window "
                             "to the next; take clusters = 'model'")
        if self.windows > graph.m:
            raise InputError(f"windows = {self.windows}; it must lie in 1..{graph.m}, the number of events")
        checkpoints = Checkpoints(monitor.checkpoint, self._identity(graph.n, graph.m), int(rng.integers(2**63)))
        rng = np.random.default_rng(checkpoints.seed)
        walk_seed, start_seed, self._partial_seed = (int(s) for s in rng.integers(2**31, size=3))
        events, edges = Events.of(graph, rules.time_unit), equal_windows(graph, self.windows)
        z = np.zeros((graph.n, rules.dim), np.float32)
        if checkpoints.state is None:  # else they come from the checkpoint
            z = self._vectors(graph, events, rules, np.random.default_rng(walk_seed))
        table = self._table = Table(z, self.n_clusters, self.windows, rules.geometry == "cosine")
        if checkpoints.state is None:
            table.start(start_seed, rules.bandwidth)
        samples = [events.entries(_marked(graph.m, part)) for part in graph.cut(edges)]
        size = max(1, PART // self.batch_size) * self.batch_size
        parts = max(1, ceil(max(map(len, samples)) / size))
        order: list[torch.Tensor] = []  # of the pass under way, in parts

        def epoch() -> Epoch:
            number, part = divmod(len(phase.history), parts)
            window, since = divmod(number, self.epochs)
            if window and not since and not part:
                table.close_window(window - 1, events.node[samples[window - 1]])
            labels = table.assign().argmax(1) if rules.clusters == "model" else None
            generator = phase.generator
            if not part:
                table.shuffle.copy_(generator.get_state())
            elif not order:  # resumed within a pass
                generator = torch.Generator()
                generator.set_state(table.shuffle)
            if not order or not part:
                whole = in_order(samples[window], rules, generator)
                order[:] = [whole[at * size : (at + 1) * size] for at in range(parts)]
            return Epoch(train_on(table, events, order[part], rules, optimiser, phase.generator), labels)

        optimiser = torch.optim.SGD([table.centres], lr=self.lr)
        phase = Phase("training", self.epochs * self.windows * parts, table, optimiser, torch_generator(rng), epoch)
        guarded = rules.collapse_guard and rules.clusters == "model"
        guards: list[StopRule] = [CollapseGuard(rules.collapse_guard)] if guarded else []
        train(phase, monitor, checkpoints, guards)
        if rules.clusters == "model":
            # the last window, and those that a guard left untrained or took back
            for window in torch.nonzero((table.window_labels < 0).all(1)).ravel().tolist():
                table.close_window(window, events.node[samples[window]])
            table.order_by_size()
            labels, q = table.assign().argmax(1).numpy(), table.assign().numpy()
        else:
            u, q, common = table.position(table.z).numpy(), None, (self.n_clusters, start_seed, 20)
            if rules.components == "apart":  # the anchor: the vectors at the start
                contacts = graph.graph().adjacency
                labels = kmeans_apart(u, contacts, *common, kmeans_apart(table.anchor.numpy(), contacts, *common))
            else:
                labels = kmeans_labels(u, *common)
        self._stream = graph
        return Clustering(
            labels, table.z.numpy().copy(), q, phase.history, {"stopped": phase.stopped or "last"},
            _windows(table, graph, edges, rules.time_unit) if follows else None, edges if follows else None,
        )

    def _vectors(self, stream: Stream, events: Events, rules: Rules, rng: np.random.Generator) -> np.ndarray:
        """The vectors at the start, (n, dim) float32, rows of length 1; a node that a view has none of: at random."""
        contacts, dim = stream.graph(), rules.dim
        views = [(contacts, dim, False)]  # graph, how many columns, whether its weights count
        if rules.start == "temporal":
            views = [(from_adjacency(contacts.adjacency + events.cocontacts()), dim, True)]
        elif rules.start == "views" and dim > 1:
            views = [(contacts, dim - dim // 2, False), (from_adjacency(events.cocontacts()), dim // 2, True)]
        parts = [Node2Vec(dim=d, weighted=weighted).embed(graph, rng) for graph, d, weighted in views]
        parts = [np.where(z.any(1, keepdims=True), z, normalize(rng.standard_normal(z.shape))) for z in parts]
        return (np.hstack(parts) / np.sqrt(len(parts))).astype(np.float32)

    def partial_fit(self, data: Any, *, epochs: int | None = None) -> Self:
        """Go on training with new events; clusters keep their ids.

        The new events may lie anywhere in time: they are merged into the history, and only they are trained on. A new
        node starts at the mean of the vectors of the nodes it meets, or anywhere when all of these are new too.

        Parameters
        ----------
        data : the new events, as for ``fit``; with node ids if ``fit`` saw any
        epochs : passes over the new events; None: ``epochs`` of the constructor

        Raises
        ------
        InputError
            Bad events or parameters, or node ids in only one of the two streams.
        """
        check_is_fitted(self, "_table")
        self.check_params()
        rules, passes = self._rules(), self.epochs if epochs is None else epochs
        if not isinstance(passes, Integral) or passes < 0:
            raise InputError(f"epochs = {passes!r}; it must be an integer >= 0")
        stream, new = self._stream.merge(as_stream(data))
        rng = np.random.default_rng((self._partial_seed, stream.m))
        table = self._table.grown(stream, rng)
        events = Events.of(stream, rules.time_unit)
        fresh = events.entries(torch.from_numpy(new))

        def epoch() -> Epoch:
            return Epoch(one_pass(table, events, fresh, rules, optimiser, phase.generator))

        optimiser = torch.optim.SGD([table.centres], lr=self.lr)
        phase = Phase("partial fit", passes, table, optimiser, torch_generator(rng), epoch)
        train(phase, Silent(), Checkpoints(None, "", 0))
        z, self._table, self._stream = table.z.numpy(), table, stream
        if rules.clusters == "model":
            self.soft_assignment_ = table.assign().numpy()
            self.labels_ = self.soft_assignment_.argmax(1)
        else:
            old = len(self.labels_)
            u = table.position(table.z).numpy()
            means = np.stack([u[:old][self.labels_ == c].mean(0) for c in range(self.n_clusters_)])
            self.labels_ = KMeans(self.n_clusters_, init=means, n_init=1).fit_predict(u).astype(np.int64)
        self.embedding_, self.history_ = z.copy(), self.history_ + phase.history
        self.n_clusters_ = len(np.unique(self.labels_))
        self.window_labels_ = self.window_edges_ = None  # of the time before the new events
        return self


def _marked(size: int, part: slice) -> torch.Tensor:
    chosen = torch.zeros(size, dtype=torch.bool)
    chosen[part] = True
    return chosen


def _windows(table: Table, stream: Stream, edges: np.ndarray, unit: str) -> np.ndarray:
    """The clusters of the model after each window, those as one that its contacts and co-contacts do not tell apart."""
    rows = table.window_labels.numpy().copy()
    for row, part in zip(rows, stream.windows(edges), strict=True):
        if part.m:
            row[:] = fuse(row, [part.graph().adjacency, Events.of(part, unit).cocontacts()])
    return rows
