"""A trained federation on disk: its group models, its state, and what a new client makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedclust.algorithms import FederatedAlgorithm, make_algorithm
from fedclust.algorithms.base import Delivery, Payload, Reports, State, models
from fedclust.data.client import ClientData, Split
from fedclust.models import Model, ModelConfig
from fedclust.task import Cohort, Training
from graphclust.encoders import load_tensors, save_tensors
from graphclust.graph import InputError


@dataclass(frozen=True)
class Assignment:
    """A newcomer's weights (K,), or None when they cannot be known, and its accuracy if it has test samples."""

    weights: list[float] | None
    group: int | None
    labels_used: int
    accuracy: float | None


@dataclass(frozen=True)
class TrainedFederation:
    """What a finished run leaves: the algorithm, the architecture and the last state."""

    algorithm_name: str
    algorithm: FederatedAlgorithm
    model: Model
    state: State
    seed: int

    def save(self, folder: Path) -> None:
        """Write model.safetensors and model.json into ``folder``."""
        description = {
            "kind": "federation", "algorithm": self.algorithm_name, "seed": self.seed,
            "settings": self.algorithm.model_dump(mode="json", exclude={"training"}),
            "training": self.algorithm.training.model_dump(mode="json"),
            "model": self.model.config.model_dump(mode="json"),
            "input_shape": list(self.model.input_shape), "n_classes": self.model.n_classes,
        }
        save_tensors(folder, self.state, description)

    @classmethod
    def load(cls, folder: Path) -> TrainedFederation:
        """Read what :meth:`save` wrote; InputError when the folder holds something else."""
        state, d = load_tensors(folder)
        if d.get("kind") != "federation":
            raise InputError(f"{folder} holds no trained federation; give the model folder of a fedclust run")
        algorithm = make_algorithm(d["algorithm"], d["settings"], Training.model_validate(d["training"]))
        model = Model(ModelConfig.model_validate(d["model"]), tuple(d["input_shape"]), d["n_classes"])
        return cls(d["algorithm"], algorithm, model, state, d["seed"])

    def assign(self, client: ClientData, *, shots: int | None = None) -> Assignment:
        """Find the group of a client that was never seen in training.

        Parameters
        ----------
        client : its labelled samples are ``train``; ``test``, if any, is scored with the weights that come out
        shots : labelled samples to use, the first of ``train``; None: all

        Raises
        ------
        InputError
            Samples of another shape than the model's.
        """
        have = client.train.x if client.nodes is None else client.nodes
        if tuple(have.shape[1:]) != self.model.input_shape:
            raise InputError(
                f"client {client.id!r} has samples of shape {tuple(have.shape[1:])}, the model takes "
                f"{self.model.input_shape}; give data of that shape"
            )
        used = len(client.train) if shots is None else min(shots, len(client.train))
        report = None
        if used:
            shown = ClientData(client.id, Split(client.train.x[:used], client.train.y[:used]), client.test,
                               client.validation, client.nodes, client.adjacency)
            cohort = self._cohort(shown)
            found = self.algorithm.local_evidence(cohort, self._deliver(self.algorithm.newcomer(self.state)))
            report = Reports(torch.zeros(1, dtype=torch.long), cohort.n.float(), found.models, found.arrays, "evidence")
        weights = self.algorithm.assign(self.state, report)
        if weights.isnan().any():
            return Assignment(None, None, used, None)
        accuracy = None
        if len(client.test):
            everything = {name: t[None] for name, t in models(self.state).items()}
            scores = self._cohort(client).evaluate(everything, weights[None], hard=self.algorithm.hard)
            accuracy = float(scores["accuracy"])
        return Assignment(weights.tolist(), int(weights.argmax()), used, accuracy)

    def predict(self, client: ClientData, weights: Tensor, split: Split) -> Tensor:
        """Class probabilities (n, C) of the samples of ``split`` under the newcomer's ``weights`` (K,)."""
        if self.algorithm.hard:
            weights = torch.nn.functional.one_hot(weights.argmax(), len(weights)).float()
        return torch.einsum("k,knc->nc", weights, self._cohort(client).probabilities(0, models(self.state), split))

    def _cohort(self, client: ClientData) -> Cohort:
        return Cohort([client], self.model, seed=self.seed, round=int(self.state.get("round", torch.tensor(0))))

    def _deliver(self, payload: Payload) -> Delivery:
        sent = {name: t[payload.groups][None] for name, t in models(self.state, payload.family).items()}
        return Delivery(sent, {name: t[None] for name, t in payload.arrays.items()}, payload.phase)
