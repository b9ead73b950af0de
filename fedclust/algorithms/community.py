"""Community: the clients are the nodes of a graph, and any clusterer of graphclust finds their groups."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedclust.aggregate import flatten, group_means
from fedclust.algorithms._discriminators import JUDGE, LEARN, PairwiseDivergence
from fedclust.algorithms._groups import assigned, best_fitting, means_of_groups, own_models, sent_models
from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    group_of,
    initial_models,
    models,
    n_groups,
    one_hot,
    with_models,
)
from fedclust.contract import Form
from fedclust.models import Model, Params
from fedclust.similarity import client_graph, loss_similarity, root_histograms, unit_rows
from fedclust.task import Cohort
from graphclust.graph import InputError

PROBE, LOSSES, LABELS = "probe", "losses", "labels"
PREPARED = ("labels", "divergence")


class Community(FederatedAlgorithm):
    """FedAvg in the communities of the graph whose nodes are the clients and whose edges are their similarities.

    1. ``similarity`` S (N, N): "updates", the cosines of the clients' updates from the model after ``warmup`` rounds of
       FedAvg (as Sattler et al., arXiv 1910.01991); "losses", what each loses by taking the other's model, every model
       going to every client: :func:`fedclust.similarity.loss_similarity`; "labels", Bhattacharyya coefficients of the
       label histograms; "divergence", 1 - D with FedCollab's D (Bao et al., arXiv 2306.06508). The last two need no
       model: the groups are known before the first round.
    2. The graph: :func:`fedclust.similarity.client_graph` with S as edge weights, those <= ``threshold`` dropped.
    3. ``method``, any of graphclust, on the graph and on the rows of S's factor as features.

    A new group starts from the mean of its members' models. A client that missed the clustering is sent all group
    models when it is there again and joins the one that fits it best; so does a newcomer under "losses" and
    "divergence". Under "updates" and "labels" a newcomer joins the group of largest mean similarity.
    """

    source: ClassVar[str] = "graph clustering of clients: Traag et al. 2019, doi:10.1038/s41598-019-41695-z (default)"
    sends: ClassVar[str] = "its model; by similarity: nothing more, its loss under every client's model, its label " \
        "histogram, or FedCollab's discriminators"

    similarity: Literal["updates", "losses", "labels", "divergence"] = "updates"
    method: str = "leiden"
    """Name of a method of graphclust."""
    method_settings: dict[str, Any] = Field(default_factory=dict)
    n_groups: Annotated[int, Field(ge=1)] | None = None
    """For the methods that must be told; None: the method finds it."""
    warmup: Annotated[int, Field(ge=0)] = 15
    """Rounds of FedAvg before the first clustering, under "updates" and "losses"."""
    every: Annotated[int, Field(ge=0)] = 0
    """Rounds between further clusterings under "updates" and "losses"; 0: none. "updates": all start from the warm
    model again, and the mean similarity so far is clustered; "losses": with the models as they are."""
    neighbours: Annotated[int, Field(ge=1)] | None = None
    """Keep the edges between mutual nearest neighbours, so many; None: all above ``threshold``."""
    threshold: Annotated[float, Field(ge=0)] = 0.0
    divergence: PairwiseDivergence = Field(default_factory=PairwiseDivergence)

    @model_validator(mode="after")
    def _fits_together(self) -> Community:
        from graphclust.methods import get_method  # brings scikit-learn, which a list of algorithms does without

        cls = get_method(self.method)
        if cls.temporal:
            raise InputError(f"method = {self.method!r} clusters streams of events, and the graph of clients has no "
                             "times; give a method for graphs: leiden, spectral, hdbscan, ...")
        if cls.private:
            raise InputError(f"method = {self.method!r} keeps edges private that the server itself has made of what "
                             "the clients sent; noise at the clients (privacy) protects them, a private method here "
                             "does not")
        if cls.needs_k and self.n_groups is None and "n_clusters" not in self.method_settings:
            raise InputError(f"method = {self.method!r} must be told the number of groups; give n_groups, or a method "
                             "that finds it: leiden, leiden_auto, louvain, hdbscan")
        known = inspect.signature(cls).parameters
        unknown = sorted(set(self.method_settings) - set(known))
        if unknown or (self.n_groups is not None and "n_clusters" not in known):
            raise InputError(f"{self.method} does not take {', '.join(unknown) or 'n_groups'}; it takes: "
                             f"{', '.join(known)}")
        if self.every and self.similarity in PREPARED:
            raise InputError(f"every = {self.every}: {self.similarity} do not change in training; set every = 0")
        return self

    @property
    def needs_labels(self) -> bool:
        """True when the clients are compared by their labelled samples."""
        return self.similarity in PREPARED

    @property
    def extras(self) -> tuple[str, ...]:
        """The group, and what the similarity needs."""
        needed = {"losses": ("losses",), "labels": ("labels",), "divergence": ("accuracy",), "updates": ()}
        return ("group", *needed[self.similarity])

    # --- server ---------------------------------------------------------------------------------------------------

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """One model; every client in its group."""
        n = len(n_samples)
        state = with_models({}, initial_models(model, seed, 1), weights=torch.ones(n, 1), n_samples=n_samples,
                            seed=torch.tensor(seed), clusterings=torch.tensor(0))
        if self.similarity == "divergence" and n > 1:
            state |= self.divergence.start(n_samples, model, seed)
        return state

    def preparation_rounds(self, n_clients: int) -> int:
        """One for the histograms; those of the discriminators."""
        if n_clients == 1 or self.similarity not in PREPARED:
            return 0
        return 1 if self.similarity == "labels" else self.divergence.rounds

    def prepared(self, state: State) -> bool:
        """True once there are groups."""
        return int(state["clusterings"]) > 0

    def needs_everyone(self, state: State) -> bool:
        """True in the rounds that the clustering is made from."""
        return int(state["round"]) < 0 or self._phase(state) != "train" or self._collects(state)

    def _phase(self, state: State) -> str:
        """What this round is for."""
        if int(state["round"]) < 0:
            return LABELS if self.similarity == "labels" else LEARN
        if models(state, "client"):
            return LOSSES
        again = self._collects(state) and self.similarity == "updates" and int(state["clusterings"]) > 0
        return PROBE if again else "train"

    def _collects(self, state: State) -> bool:
        """True when a training round's models are to be compared."""
        late = int(state["round"]) - self.warmup
        if self.similarity in PREPARED or late < 0 or len(state["weights"]) == 1:
            return False
        return not int(state["clusterings"]) or (self.every > 0 and late % self.every == 0)

    def payload(self, state: State, client: int) -> Payload:
        """The group's model; all of them for a client without a group; or what the clustering needs."""
        phase = self._phase(state)
        if phase == LEARN:
            return self.divergence.payload(state, client, state["n_samples"])
        if phase == LABELS:
            return Payload([], phase=phase)
        if phase == LOSSES:
            return Payload(list(range(len(state["weights"]))), family="client", phase=phase)
        if phase == PROBE:
            return Payload([0], family="warm", phase=phase)
        return self._models_for(state, client)

    def _models_for(self, state: State, client: int) -> Payload:
        if state["weights"][client].isnan().any():
            return Payload(list(range(n_groups(state))))
        return Payload([group_of(state, client)])

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """One model, in training with its group; or what the clustering needs."""
        if payload.phase in (LEARN, JUDGE):
            return self.divergence.reply(payload)
        if payload.phase == LABELS:
            return Form(0, {"labels": (n_classes,)})
        if payload.phase == LOSSES:
            return Form(0, {"losses": (len(payload.groups),)})
        return Form(1) if payload.phase == PROBE else Form(1, {"group": ()})

    def evaluation(self, state: State, client: int) -> Payload:
        """The group's model; all of them for a client without a group."""
        return self._models_for(state, client)

    def update(self, state: State, reports: Reports) -> State:
        """FedAvg in every group, and the clustering when its evidence is there."""
        if reports.phase in (LEARN, JUDGE):
            state = self.divergence.update(state, reports, len(state["weights"]))
            if reports.phase == LEARN:
                return state
            return self._clustered(state, reports, 1 - state["divergence"], torch.arange(len(state["weights"])))
        if reports.phase == LABELS:
            return self._by_descriptors(state, reports, root_histograms(reports.arrays["labels"].numpy()))
        if reports.phase == LOSSES:
            among = reports.arrays["losses"][:, reports.clients]
            return self._clustered(state, reports, torch.from_numpy(loss_similarity(among.numpy())), reports.clients)
        if reports.phase == PROBE:
            return self._by_updates(state, reports)
        return self._trained(state, reports)

    def _trained(self, state: State, reports: Reports) -> State:
        """FedAvg in every group; in a collecting round the models are compared, or kept for the next round."""
        late = state["weights"][reports.clients].isnan().any(1)
        groups = torch.where(late, reports.arrays["group"], state["weights"][reports.clients].nan_to_num(0).argmax(1))
        state = {**state, "weights": assigned(state, reports.clients, groups)}
        if self._collects(state):
            if self.similarity == "updates":
                state = self._by_updates(with_models(state, models(state), "warm"), reports)
                groups = state["weights"][reports.clients].argmax(1)
            else:
                state = with_models(state, _models_of_all(state, reports), "client")
        return with_models(state, means_of_groups(state, reports, groups))

    def _by_updates(self, state: State, reports: Reports) -> State:
        warm = flatten(models(state, "warm"))
        return self._by_descriptors(state, reports, unit_rows((flatten(sent_models(reports)) - warm).numpy()))

    def _by_descriptors(self, state: State, reports: Reports, descriptors: np.ndarray) -> State:
        """Cluster by the inner products of descriptors (S, p), rows of length 1; keep the means for newcomers."""
        similarity = torch.from_numpy(descriptors @ descriptors.T)
        seen = int(state["clusterings"])
        if seen:
            old = state["similarity"][reports.clients][:, reports.clients]
            similarity = torch.where(old.isnan(), similarity, (seen * old + similarity) / (seen + 1))
        state = self._clustered(state, reports, similarity, reports.clients)
        member = state["weights"][reports.clients].double()
        means = member.T @ torch.from_numpy(descriptors).double() / member.sum(0)[:, None]
        return {**state, "descriptors": means.float()}

    def _clustered(self, state: State, reports: Reports, similarity: Tensor, clients: Tensor) -> State:
        """New groups of ``clients`` (S,) by ``similarity`` (S, S); each starts from the mean of its members' models."""
        from graphclust.methods import get_method

        graph = client_graph(similarity.double().numpy(), neighbours=self.neighbours, threshold=self.threshold)
        settings = {"random_state": int(state["seed"]), **self.method_settings}
        if self.n_groups is not None:
            settings["n_clusters"] = min(self.n_groups, len(clients))
        labels = torch.from_numpy(get_method(self.method)(**settings).fit(graph).labels_)
        k, n = int(labels.max()) + 1, len(state["weights"])
        members = models(state, "client") or _models_of_all(state)
        share = one_hot(labels, k) * state["n_samples"][clients][:, None]
        first = {name: t[:1].expand(k, *t.shape[1:]) for name, t in models(state).items()}
        new = group_means({name: t[clients] for name, t in members.items()}, share, first, reports.robust)
        groups = torch.full((n,), -1).index_copy(0, clients, labels)
        whole = torch.full((n, n), torch.nan, dtype=torch.float64)
        whole[clients[:, None], clients] = similarity.double()
        kept = {key: t for key, t in state.items() if not key.startswith("client/")}
        return with_models(kept, new, weights=one_hot(groups, k), similarity=whole,
                           clusterings=state["clusterings"] + 1)

    def newcomer(self, state: State) -> Payload:
        """The warm model under "updates", nothing under "labels", else all group models."""
        if self.similarity == "updates" and int(state["clusterings"]):
            return Payload([0], family="warm", phase="evidence")
        return Payload([], phase="evidence") if self.similarity == "labels" else super().newcomer(state)

    def assign(self, state: State, report: Reports | None) -> Tensor:
        """The group of largest mean similarity, or of smallest loss."""
        k = n_groups(state)
        if report is None or k == 1 or self.similarity not in ("updates", "labels"):
            return super().assign(state, report)
        if self.similarity == "updates":
            own = unit_rows((flatten(sent_models(report)) - flatten(models(state, "warm"))).numpy())
        else:
            own = root_histograms(report.arrays["labels"].numpy())
        return one_hot((torch.from_numpy(own).float() @ state["descriptors"].T).argmax(1), k)[0]

    # --- client ---------------------------------------------------------------------------------------------------

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train the model that arrived, or of several the one that fits best; or what the clustering needs."""
        if delivery.phase in (LEARN, JUDGE):
            return self.divergence.local_step(cohort, delivery)
        if delivery.phase == LABELS:
            return Report(arrays={"labels": _histograms(cohort)})
        if delivery.phase == LOSSES:
            return Report(arrays={"losses": cohort.losses(delivery.models).sum(-1) / cohort.n[:, None]})
        if delivery.phase == PROBE:
            return Report(cohort.train(delivery.models, self.training))
        choice = best_fitting(cohort, delivery.models)
        return Report(cohort.train(own_models(delivery.models, choice), self.training), {"group": choice})

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The model that arrived, or of several the one that fits best."""
        k = next(iter(delivery.models.values())).shape[1]
        return delivery.models, one_hot(best_fitting(cohort, delivery.models), k)

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """An update from the warm model, a histogram, or all weight on the model that fits best."""
        if self.similarity == "labels":
            return Report(arrays={"labels": _histograms(cohort)})
        if self.similarity == "updates":
            return Report(cohort.train(delivery.models, self.training))
        return super().local_evidence(cohort, delivery)


def _models_of_all(state: State, reports: Reports | None = None) -> Params:
    """The model (N, ...) of every client: the one it sent, else its group's, else the first group's."""
    held = {name: t[state["weights"].nan_to_num(0).argmax(1)] for name, t in models(state).items()}
    if reports is None:
        return held
    return {name: t.index_copy(0, reports.clients, sent_models(reports)[name]) for name, t in held.items()}


def _histograms(cohort: Cohort) -> Tensor:
    """Label counts (B, C)."""
    classes = torch.nn.functional.one_hot(cohort.y, cohort.model.n_classes).float()
    return (classes * cohort.mask[..., None]).sum(1)
