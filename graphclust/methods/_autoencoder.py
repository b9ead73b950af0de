"""What the deep methods share: transformed features, a pre-trained auto-encoder, centres, prediction, storage."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, InvalidParameterError, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from graphclust.coerce import as_graph
from graphclust.encoders import MLP, Autoencoder, load_tensors, save_tensors
from graphclust.graph import Graph, InputError
from graphclust.methods._features import Features, FeatureTransform
from graphclust.methods._network import ClusterNetwork, Ensemble, kmeans_labels, reconstruction_epoch
from graphclust.methods.base import Clustering, GraphClusterer, by_size
from graphclust.monitor import Monitor
from graphclust.training import Checkpoints, Phase, resolve_device, torch_generator, train

# SDCN's pre-training (data/pretrain.py); SCGC and PamC start from its weights.
PRETRAIN_LR = 1e-3
PRETRAIN_BATCH = 256
KMEANS_STARTS = 20


class AutoencoderClusterer(GraphClusterer):
    """Features -> auto-encoder trained to reconstruct them -> centres by k-means on its latent.

    Subclasses may go on training from there (:meth:`_refine`).

    Attributes
    ----------
    device_ : torch.device
        Where ``fit`` ran.
    """

    needs_features = True
    needs_k = True
    trains = True
    _reconstructs: ClassVar[bool] = False
    """True when training after the pre-training needs the decoder."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "hidden": ["array-like"],
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"none", "l2", "tfidf", "auto"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "center": ["boolean"],
        "smoothing": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "scale": ["boolean"],
        "geometry": [StrOptions({"euclidean", "cosine"})],
        "bandwidth": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "device": [str],
        "random_state": ["random_state", np.random.Generator],
    }

    def _check(self, graph: Graph) -> None:
        super()._check(graph)
        if not all(isinstance(width, Integral) and width >= 1 for width in self.hidden):
            raise InvalidParameterError(f"hidden = {self.hidden!r}; it must be a list of layer widths, ints >= 1")
        self.device_ = resolve_device(self.device)

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        key = self._identity(graph.n, graph.adjacency.nnz, graph.x.shape[1])
        checkpoints = Checkpoints(monitor.checkpoint, key, int(rng.integers(2**63)))
        rng = np.random.default_rng(checkpoints.seed)
        svd_seed, start_seed = (int(s) for s in rng.integers(2**31, size=2))
        initial, shuffle, training = (torch_generator(rng) for _ in range(3))
        held = self._held()
        self._transform = held[1] if held else FeatureTransform(
            self.weighting, self.n_components, self.center, self.smoothing, self.scale
        ).fit(graph, svd_seed)
        x = self._transform.transform(graph)
        autoencoders = [held[0].to(self.device_)] if held else [
            Autoencoder(x.shape[1], self.hidden, self.latent_dim, initial).to(self.device_)
            for _ in range(self.networks)
        ]
        self._ensemble = Ensemble(
            ClusterNetwork(
                a.encoder, a.decoder if self._reconstructs else None, self.n_clusters, self.geometry == "cosine"
            )
            for a in autoencoders
        ).to(self.device_)
        history: list[dict[str, float]] = []
        if not checkpoints.reached("training"):
            if not held:
                history = self._pretrain(autoencoders, x, shuffle, monitor, checkpoints)
            zs = self._ensemble.encode(x, self.device_)
            labels = torch.from_numpy(self._start(graph, zs, start_seed)).to(self.device_)
            for network, z in zip(self._ensemble, zs, strict=True):
                if self.bandwidth != "auto":
                    network.bandwidth.fill_(self.bandwidth)
                network.start(z, labels, self.bandwidth == "auto")
        del autoencoders  # and with them decoders that training may not need
        trained, chosen = self._refine(graph, x, training, monitor, checkpoints)
        zs, q = self._order_centres(x)
        return Clustering(
            q.argmax(1).cpu().numpy(), self._ensemble.position(zs).cpu().numpy(), q.cpu().numpy(),
            trained or history, {"smoothing": self._transform.steps, **chosen},
        )

    def _held(self) -> tuple[Autoencoder, FeatureTransform] | None:
        """An auto-encoder that was trained elsewhere, with its transform; None: train one from the start."""
        return None

    def _pretrain(
        self, autoencoders: list[Autoencoder], x: Features, generator: torch.Generator, monitor: Monitor,
        checkpoints: Checkpoints,
    ) -> list[dict[str, float]]:
        """Train the auto-encoders to reconstruct ``x``; the history."""
        module = nn.ModuleList(autoencoders)
        optimiser = torch.optim.Adam(module.parameters(), lr=PRETRAIN_LR)
        epoch = reconstruction_epoch(autoencoders, x, PRETRAIN_BATCH, self.device_, optimiser, generator)
        phase = Phase("pre-training", self.pretrain_epochs, module, optimiser, generator, epoch)
        train(phase, monitor, checkpoints)
        return phase.history

    def _start(self, graph: Graph, zs: list[Tensor], seed: int) -> np.ndarray:
        """The partition whose cluster means become the centres, shape (n,)."""
        u = self._ensemble.position(zs).cpu().numpy()
        return kmeans_labels(u, self.n_clusters, seed, KMEANS_STARTS).astype(np.int64)

    def _refine(
        self, graph: Graph, x: Features, generator: torch.Generator, monitor: Monitor, checkpoints: Checkpoints
    ) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """Train the network further; the history of that, and what was decided without labels."""
        return [], {}

    def _order_centres(self, x: Features) -> tuple[list[Tensor], Tensor]:
        """Put the centres by decreasing cluster size, as ``labels_`` are, so that ``predict`` agrees; z and q."""
        zs = self._ensemble.encode(x, self.device_)
        with torch.no_grad():
            order = by_size(self._ensemble.assign(zs).argmax(1).cpu().numpy())[1]
            empty = np.setdiff1d(np.arange(self.n_clusters), order)
            columns = torch.from_numpy(np.concatenate((order, empty)))
            for network in self._ensemble:
                network.centres.copy_(network.centres[columns])
            return zs, self._ensemble.assign(zs)

    def predict_proba(self, data: Any) -> np.ndarray:
        """Soft assignment of the nodes of ``data``, shape (n, K); columns as in ``labels_``.

        Parameters
        ----------
        data : whatever :func:`graphclust.coerce.as_graph` takes, with the features that ``fit`` saw

        Raises
        ------
        InputError
            Bad data, or another number of features.
        """
        check_is_fitted(self, "_ensemble")
        x = self._transform.transform(as_graph(data))
        with torch.no_grad():
            return self._ensemble.assign(self._ensemble.encode(x, self.device_)).cpu().numpy()

    def predict(self, data: Any) -> np.ndarray:
        """Cluster ids of the nodes of ``data``, new ones included, shape (n,); parameters as :meth:`predict_proba`."""
        return self.predict_proba(data).argmax(axis=1)

    def save(self, path: str | Path) -> None:
        """Write the trained encoders, centres and feature transform to the folder ``path`` (safetensors and JSON)."""
        check_is_fitted(self, "_ensemble")
        tensors = {name: tensor for name, tensor in self._ensemble.state_dict().items() if "decoder" not in name}
        arrays, plain = self._transform.parts()
        params = {k: v for k, v in self.get_params(deep=False).items() if k != "random_state"}
        layers = next(iter(self._ensemble)).encoder.layers
        sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        description = {"method": self.name, "params": params, "sizes": sizes, "transform": plain}
        save_tensors(path, {**tensors, **arrays}, description)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> Self:
        """A fitted clusterer that predicts, from what :meth:`save` wrote.

        Raises
        ------
        InputError
            No saved model in ``path``, one of another method, or a device that is absent.
        """
        tensors, description = load_tensors(path)
        if description["method"] != cls.name:
            raise InputError(f"{path} holds a model of {description['method']!r}; load it with that method's class")
        new = cls(**description["params"])
        new.device_ = resolve_device(device)
        new._transform = FeatureTransform.from_parts(tensors, description["transform"])
        weights = {k: v for k, v in tensors.items() if not k.startswith("transform.")}
        new._ensemble = Ensemble(
            ClusterNetwork(MLP(description["sizes"]), None, new.n_clusters, new.geometry == "cosine")
            for _ in range(new.networks)
        ).to(new.device_)
        new._ensemble.load_state_dict(weights)
        return new
