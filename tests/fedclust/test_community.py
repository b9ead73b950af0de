"""Similarities of clients, their graph, and the algorithm that clusters it."""

from inspect import signature

import numpy as np
import pytest
import torch

from fedclust.aggregate import flatten
from fedclust.algorithms import make_algorithm
from fedclust.algorithms.base import models, n_groups
from fedclust.data.client import ClientData
from fedclust.similarity import client_graph, loss_similarity, root_histograms, unit_rows
from graphclust.graph import InputError
from graphclust.methods import get_method, method_names
from tests.fedclust.loop import EMPTY, TRAINING, Loop, blobs, deliver

QUICK = {"rounds": 10, "width": 16, "server_lr": 0.05}


def community(**settings):
    return make_algorithm("community", {"warmup": 3, "divergence": QUICK, **settings}, TRAINING)


def clients(n: int = 8, by: str = "concept") -> list[ClientData]:
    """Two kinds of clients, in turn: two concepts, or two label supports."""
    out = []
    for i in range(n):
        shift, classes = (i % 2, (0, 1, 2, 3)) if by == "concept" else (0, ((0, 1), (2, 3))[i % 2])
        out.append(ClientData(f"c{i}", blobs(f"c{i}", 40 + 10 * (i % 3), shift, classes=classes),
                              blobs(f"t{i}", 40, shift, classes=classes), EMPTY))
    return out


KINDS = {"updates": "concept", "losses": "concept", "divergence": "concept", "labels": "labels"}
IN_TURN = [0, 1] * 4


def partition(loop: Loop) -> list[int]:
    groups = loop.state["weights"].argmax(1)
    return (groups != groups[0]).long().tolist()


@pytest.mark.parametrize("similarity", KINDS)
def test_every_similarity_finds_what_it_can_see(similarity):
    loop = Loop(community(similarity=similarity), clients(by=KINDS[similarity]))
    loop.run(12)
    assert n_groups(loop.state) == 2 and partition(loop) == IN_TURN
    s = loop.state["similarity"]
    same = torch.tensor(IN_TURN)[:, None] == torch.tensor(IN_TURN)
    assert torch.allclose(s, s.T, atol=1e-6)
    assert s[same].min() > s[~same].max()
    assert np.mean([loop.evaluate(i) for i in range(8)]) > 0.85
    for kind in (0, 1):
        new = clients(by=KINDS[similarity])[kind]
        assert loop.newcomer(new).argmax() == loop.state["weights"][kind].argmax()
    assert loop.algorithm.assign(loop.state, None).isnan().all()


@pytest.mark.parametrize("similarity", ["labels", "divergence"])
def test_what_needs_no_model_is_known_before_the_first_round(similarity):
    loop = Loop(community(similarity=similarity), clients(by=KINDS[similarity]))
    loop.run(0)
    assert int(loop.state["clusterings"]) == 1 and partition(loop) == IN_TURN


@pytest.mark.parametrize("method", [m for m in method_names()
                                     if not get_method(m).temporal and not get_method(m).private])
def test_every_clusterer_of_graphclust_serves(method):
    takes = signature(get_method(method)).parameters
    quick = {"epochs": 5, "pretrain_epochs": 2, "hidden": (8,), "min_cluster_size": 3, "min_samples": 2}
    settings = {name: value for name, value in quick.items() if name in takes and method != "leiden"}
    k = {"n_groups": 2} if get_method(method).needs_k else {}
    loop = Loop(community(similarity="labels", method=method, method_settings=settings, **k), clients(12, by="labels"))
    loop.run(1)
    weights = loop.state["weights"]
    assert weights.shape == (12, n_groups(loop.state)) and (weights.sum(1) == 1).all()
    if method not in ("pamc", "scgc", "scgc_star", "ae_kmeans"):  # a few epochs of training promise nothing
        assert partition(loop) == IN_TURN[:2] * 6


def test_groups_start_from_their_members_models():
    """In the clustering round the mean is taken over the new groups, each member from the common warm model."""
    loop = Loop(community(warmup=2), clients())
    loop.run(2)
    warm, round_ = models(loop.state), loop.round
    loop.step()
    sent = []
    for i in range(8):
        loop.round = round_
        state = {**loop.states[2], "round": torch.tensor(round_)}
        sent.append(loop.algorithm.local_step(loop.cohort(i), deliver(state, loop.algorithm.payload(state, i))).models)
    for k in range(2):
        members = (loop.state["weights"][:, k] == 1).nonzero()[:, 0]
        share = loop.n[members] / loop.n[members].sum()
        for name, t in models(loop.state).items():
            want = sum(w * sent[i][name][0, 0] for w, i in zip(share, members.tolist(), strict=True))
            torch.testing.assert_close(t[k], want)
    updates = torch.cat([flatten({n: t[:, 0] - warm[n] for n, t in s.items()}) for s in sent])
    cosines = torch.nn.functional.cosine_similarity(updates[:, None], updates[None], dim=2)
    torch.testing.assert_close(loop.state["similarity"], cosines.double(), atol=1e-5, rtol=1e-5)


def test_cross_losses_are_measured_with_every_clients_model():
    loop = Loop(community(similarity="losses", warmup=1), clients())
    loop.run(2)
    held = models(loop.state, "client")
    assert len(next(iter(held.values()))) == 8
    loop.step()
    losses = torch.stack([loop.cohort(i).losses({n: t[None] for n, t in held.items()})[0].sum(1) / loop.n[i]
                          for i in range(8)])
    torch.testing.assert_close(loop.state["similarity"], torch.from_numpy(loss_similarity(losses.double().numpy())),
                               atol=1e-5, rtol=1e-5)
    assert not models(loop.state, "client")
    members = loop.state["weights"][:, 0]
    for name, t in models(loop.state).items():
        share = (members * loop.n).view(-1, *[1] * (t.dim() - 1))
        torch.testing.assert_close(t[0], (share * held[name]).sum(0) / (members * loop.n).sum())


def test_clustering_again_takes_the_mean_similarity_and_rests_the_models():
    loop = Loop(community(warmup=1, every=2), clients())
    loop.run(3)
    first, held = loop.state["similarity"], models(loop.state)
    loop.step()
    assert int(loop.state["clusterings"]) == 2 and partition(loop) == IN_TURN
    assert not torch.equal(loop.state["similarity"], first)
    order = loop.state["weights"].T @ loop.states[3]["weights"]  # new groups by old ones
    for name, t in models(loop.state).items():
        torch.testing.assert_close(t, held[name][order.argmax(1)])
    loop.step()
    assert int(loop.state["clusterings"]) == 2


def test_a_client_that_missed_the_clustering_joins_the_model_that_fits():
    loop = Loop(community(warmup=2), clients())
    loop.run(2)
    loop.step([0, 1, 2, 3, 4, 5, 6])
    assert loop.state["weights"][7].isnan().all() and loop.state["similarity"][7].isnan().all()
    assert 0 <= loop.evaluate(7) <= 1
    loop.run(8, fraction=0.5)
    loop.step()
    assert partition(loop) == IN_TURN


def test_impossible_settings_are_refused():
    for settings, word in (
        ({"method": "kmedoids"}, "n_groups"), ({"method": "louvian"}, "louvain"),
        ({"method_settings": {"colour": 1}}, "colour"), ({"method": "louvain", "n_groups": 2}, "n_groups"),
        ({"similarity": "labels", "every": 3}, "every"), ({"method": "temporal_leiden"}, "streams of events"),
        ({"method": "dp_rr"}, "private"),
    ):
        with pytest.raises(InputError, match=word):
            community(**settings)


# --- similarities and the graph -----------------------------------------------------------------------------------


def test_similarities_by_hand():
    cosines = unit_rows(np.array([[3.0, 4], [4, 3], [0, 0]]))
    np.testing.assert_allclose(cosines @ cosines.T, [[1, 0.96, 0], [0.96, 1, 0], [0, 0, 0]])
    roots = root_histograms(np.array([[2, 2, 0], [0, 8, 0], [1, 1, 2]]))
    np.testing.assert_allclose(roots @ roots.T, [[1, 0.5**0.5, 0.5**0.5], [0.5**0.5, 1, 0.5], [0.5**0.5, 0.5, 1]])
    losses = np.array([[0.5, 1.5, 0.4], [2.0, 1.0, 1.0], [0.7, 0.6, 0.3]])
    s = loss_similarity(losses)
    assert s[0, 1] == pytest.approx(np.exp(-(1.0 + 1.0) / 2))
    assert s[0, 2] == pytest.approx(np.exp(-(0.0 + 0.4) / 2))  # a model better than one's own is no gain
    assert (s == s.T).all() and (np.diag(s) == 1).all()


def test_graph_keeps_similarities_as_weights_and_their_factor_as_features():
    s = np.array([[1, 0.9, -0.2, 0.1], [0.9, 1, 0.3, 0.2], [-0.2, 0.3, 1, 0.8], [0.1, 0.2, 0.8, 1]])
    whole = client_graph(s)
    np.testing.assert_allclose(whole.adjacency.toarray(), np.clip(s - np.eye(4), 0, None), atol=1e-6)
    cosines = unit_rows(np.random.default_rng(0).normal(size=(4, 9)))
    cosines = cosines @ cosines.T
    factor = client_graph(cosines).x
    np.testing.assert_allclose(factor @ factor.T, cosines, atol=1e-6)
    assert client_graph(s, threshold=0.25).edges()[0].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert client_graph(s, neighbours=1).edges()[0].tolist() == [[0, 1], [2, 3]]


def test_mutual_neighbours_but_nobody_is_cut_off():
    s = np.array([[1, 0.9, 0.8, 0.7], [0.9, 1, 0.85, 0.1], [0.8, 0.85, 1, 0.1], [0.7, 0.1, 0.1, 1]])
    # two nearest: 3 chooses 0 (and 1), neither chooses 3 back; its own nearest keeps it linked
    assert client_graph(s, neighbours=2).edges()[0].tolist() == [[0, 1], [0, 2], [0, 3], [1, 2]]


def test_no_graph_of_an_asymmetric_or_infinite_similarity():
    for bad in (np.array([[1, 0.5], [0.1, 1]]), np.array([[1, np.nan], [np.nan, 1]]), np.ones((2, 3))):
        with pytest.raises(InputError, match="similarity"):
            client_graph(bad)
