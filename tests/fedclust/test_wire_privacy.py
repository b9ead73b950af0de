"""Noise at the clients: how much, on what, whose; what it cannot cover is refused; what it promises is written down."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedclust import noising
from fedclust.algorithms import algorithm_names, get_algorithm, make_algorithm
from fedclust.algorithms.base import Delivery, Report, models
from fedclust.algorithms.community import _histograms
from fedclust.data.client import Split
from fedclust.deploy.artefacts import keep_artefacts, run_folder
from fedclust.evaluation import evaluate
from fedclust.guard import Guard
from fedclust.noising import noised, with_noised_counts
from fedclust.outcome import outcome
from fedclust.participant import Participant
from fedclust.privacy import NO_SECURE_AGGREGATION, Privacy
from fedclust.record import FederationRecord
from fedclust.report import collect, write_report
from fedclust.report.tables import privacy_table
from fedclust.task import Cohort
from fedclust.wire_privacy import epsilon_spent, ledger, multiplier_of
from graphclust.graph import InputError
from graphclust.monitor import Silent
from graphclust.privacy.sampling import SCALE, seeded_uniform
from graphclust.runs.store import RunStore
from simulations.plan import Plan
from simulations.run import execute
from tests.contract.test_algorithms import QUICK
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import MODEL, TRAINING, Loop, concepts

UNCOVERED = {"fedcollab"}
P = sum(math.prod(t.shape) for t in MODEL.init(torch.Generator()).values())
LOUD = Privacy(clip=1.0, noise_multiplier=3.0)


def options(name):
    """Settings under which a few rounds see every phase, and no start is on trial."""
    known = get_algorithm(name).model_fields
    two = {"n_groups": 2} if "n_groups" in known and name not in QUICK else {}
    return {**two, **({"restarts": 1} if "restarts" in known else {}), **QUICK.get(name, {})}


def phi(x):
    return (1 + math.erf(x / math.sqrt(2))) / 2


def uniform(seed=0):
    return seeded_uniform(np.random.default_rng(seed))


class Noising:
    """An algorithm whose reports are noised, for the plain loop."""

    def __init__(self, inner, clip, multiplier):
        self._inner, self._how, self.seen = inner, (clip, multiplier), []

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def local_step(self, cohort, delivery):
        report = noised(self._inner.local_step(cohort, delivery), delivery, *self._how, uniform())
        self.seen.append((delivery, report))
        return report


# --- how much -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds, multiplier", [(1, 2.0), (9, 3.0), (60, 20.0)])
def test_epsilon_by_hand(rounds, multiplier):
    epsilon, mu = epsilon_spent(multiplier, rounds, 1e-5), math.sqrt(rounds) / multiplier
    delta = phi(mu / 2 - epsilon / mu) - math.exp(epsilon) * phi(-mu / 2 - epsilon / mu)
    assert delta == pytest.approx(1e-5, rel=1e-2)
    config = settings(rounds=rounds, privacy=Privacy(clip=1, epsilon=epsilon, delta=1e-5))
    assert multiplier_of(config) == pytest.approx(multiplier, rel=1e-4)


def test_a_published_multiplier():
    # dp-accounting's PLD accountant: epsilon 1 at delta 1e-6 takes 4.2247 for one release, so 3 times that for nine
    config = settings(rounds=9, privacy=Privacy(clip=1, epsilon=1, delta=1e-6))
    assert multiplier_of(config) == pytest.approx(3 * 4.2247, rel=1e-3)


def test_so_little_noise_that_nothing_is_promised():
    assert epsilon_spent(0.05, 10, 1e-5) is None
    held = ledger(settings(privacy=Privacy(clip=1, noise_multiplier=0.05)), [[1.0]], deployed=True)
    assert held.epsilon is None and not held.guarantee and "epsilon is above 30" in held.void[0]


def test_noise_has_the_deviation_that_the_ledger_says():
    g = torch.Generator().manual_seed(0)
    given = Delivery({"w": torch.randn(1, 1, 4000, generator=g)})
    sent = noised(Report(given.models), given, 0.5, 2.0, uniform()).models["w"] - given.models["w"]
    assert float(sent.std()) == pytest.approx(2.0 * 2 * 0.5, rel=0.04)
    assert abs(float(sent.mean())) < 4 * 2.0 / math.sqrt(4000)
    held = ledger(settings(privacy=Privacy(clip=0.5, noise_multiplier=2.0)), [[1.0]] * 4, deployed=True)
    assert held.sigma == 2.0 and held.group_sigma == [1.0], "a mean of four"


def test_the_noise_is_on_a_grid():
    given = Delivery({"w": torch.zeros(1, 1, 50, dtype=torch.float64)})
    found = noised(Report({"w": torch.full((1, 1, 50), 0.03)}), given, 1.0, 1.0, uniform()).models["w"]
    steps = found.double() / (2.0 / SCALE)
    assert float(steps.abs().max()) > 2**20 and float((steps.diff() / steps.diff().round()).nan_to_num(1).std()) < 1e-3


# --- on what --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", algorithm_names())
def test_updates_are_clipped_whatever_the_algorithm(name):
    clip = 0.05
    algorithm = Noising(make_algorithm(name, options(name), TRAINING), clip, 1e-6)
    loop = Loop(algorithm, concepts(6))
    if name in UNCOVERED:
        with pytest.raises(InputError, match="accuracy"):
            loop.step()
        return
    loop.run(5)
    lengths = []
    for delivery, report in algorithm.seen:
        for t in (t for key, t in report.arrays.items() if key != "group"):
            assert float(t.sum()) == pytest.approx(1, abs=1e-4) and (t >= 0).all()
        if report.models:
            new, old = (torch.cat([t[0].flatten(1) for _, t in sorted(m.items())], 1)
                        for m in (report.models, delivery.models))
            each = (new - old).norm() if len(new) == len(old) else (new - old).norm(dim=1).min()
            lengths.append(float(each))
    assert name == "local" or (0 < max(lengths) <= clip * 1.001)


@pytest.mark.parametrize("k, sent, arrays", [
    (1, 1, ()), (3, 3, ()), (3, 3, ("weights", "counts")), (3, 1, ("group",)), (3, 1, ()), (0, 0, ("labels",))])
def test_no_two_replies_are_further_apart_than_the_sensitivity(k, sent, arrays, monkeypatch):
    """What leaves before the noise, of any two clients; some are built to be as far apart as can be."""
    seen = []
    monkeypatch.setattr(noising, "_noisy", lambda v, sensitivity, *_: seen.append((v, sensitivity)) or v)
    g = torch.Generator().manual_seed(1)
    given = {"w": torch.randn(1, k, 4, generator=g)} if k else {}
    for i in range(60):
        far = 10.0 ** (i % 4 - 1) * (-1) ** i
        of = {"weights": torch.eye(3)[None, i % 3], "counts": 9 * torch.eye(30)[None, i % 30].view(1, 3, 10),
              "group": torch.tensor([i % 3]), "labels": torch.eye(10)[None, i % 10] * i}
        step = far * (torch.ones(4) if i % 2 else torch.randn(4, generator=g))
        moved = {"w": given["w"][:, :sent] + step} if k else {}
        noised(Report(moved, {a: of[a] for a in arrays}), Delivery(given), 0.7, 1.0, uniform())
    values, bounds = np.stack([v for v, _ in seen]), {s for _, s in seen}
    farthest = max(np.linalg.norm(a - b) for a in values for b in values)
    assert len(bounds) == 1 and 0.7 * bounds.copy().pop() < farthest <= bounds.pop()


def test_an_update_that_is_not_finite_becomes_nothing_but_noise():
    given = Delivery({"w": torch.zeros(1, 1, 5)})
    for bad in (torch.nan, torch.inf, 3e38):
        found = noised(Report({"w": torch.full((1, 1, 5), bad)}), given, 1.0, 1e-6, uniform()).models["w"]
        assert torch.isfinite(found).all() and float(found.norm()) < 1.001


def test_which_of_several_models_was_trained_is_hidden():
    given = Delivery({"w": torch.arange(3.0).view(1, 3, 1)})
    report = Report({"w": torch.tensor([[[2.5]]])}, {"group": torch.tensor([2])})
    exact = noised(report, given, 1.0, 1e-6, uniform())
    assert exact.arrays["group"].tolist() == [2] and exact.models["w"].item() == pytest.approx(2.5, abs=1e-3)
    said = [int(noised(report, given, 1.0, 8.0, uniform(s)).arrays["group"]) for s in range(150)]
    assert min(said.count(g) for g in range(3)) > 25


def test_what_is_not_what_was_sent_is_not_noised():
    with pytest.raises(InputError, match="not those that were sent"):
        noised(Report({"v": torch.zeros(1, 1, 2)}), Delivery({"w": torch.zeros(1, 1, 2)}), 1.0, 1.0, uniform())
    with pytest.raises(InputError, match="'losses' of the report has no bound"):
        noised(Report(arrays={"losses": torch.zeros(1, 4)}), Delivery({}), 1.0, 1.0, uniform())


# --- whose ----------------------------------------------------------------------------------------------------------


def updates_of(home=None, config=None, client=0):
    """What client ``client`` sends in three rounds from a model of zeros: its noise, for nothing was learnt."""
    guard = Guard(Participant(config or settings(privacy=LOUD), concepts(2)[client], 4, home=home))
    given = Delivery({"w": torch.zeros(1, 1, 50)})
    return [guard.report(Report(given.models), given, r, "f").models["w"] for r in range(3)]


def test_clients_and_rounds_have_noise_of_their_own():
    each = [*updates_of(), *updates_of(client=1)]
    far = [float((a - b).norm()) for i, a in enumerate(each) for b in each[:i]]
    assert min(far) > 0.5 * 6 * math.sqrt(2 * 50)
    again = updates_of()
    assert all(torch.equal(a, b) for a, b in zip(each, again, strict=False)), "a simulation is a function of its seed"


def test_a_real_client_takes_its_noise_from_its_system_and_answers_a_round_once(tmp_path):
    first = updates_of(tmp_path / "a")
    assert not any(torch.equal(x, y) for x, y in zip(first, updates_of(tmp_path / "b"), strict=True))
    guard = Guard(Participant(settings(rounds=3, privacy=LOUD), concepts(2)[0], 4, home=tmp_path / "a"))
    given = Delivery({"w": torch.ones(1, 1, 50)})
    assert torch.equal(guard.report(Report(given.models), given, 2, "f").models["w"], first[2])
    with pytest.raises(InputError, match="asked for after round 2"):
        guard.report(Report(given.models), given, 1, "f")
    with pytest.raises(InputError, match="3 noisy replies of at most 3"):
        guard.report(Report(given.models), given, 3, "f")


@pytest.mark.parametrize("name", ["fedavg", "fedrc"])
def test_real_clients_send_neither_numbers_nor_newcomers(name, tmp_path):
    config = settings(name, settings=options(name), privacy=LOUD).resolved()
    flower = Flower(config, concepts(4), unseen=[replace(concepts(5)[4], id="new")])
    flower.participants = [replace(p, home=tmp_path / p.data.id) for p in flower.participants]
    result = flower.run()
    assert not any(r["failures"] or r["mean"] for r in result.history.rounds)
    assert result.n_samples == [1] * 4 and all(c["accuracy"] is None for c in result.clients)
    assert all(row["undetermined"] and "fedclust assign" in row["error"] for row in result.unseen)
    tables = outcome(result, {})
    assert "local" not in evaluate(tables) and "n_groups" in evaluate(tables)
    run_dir = run_folder(tmp_path / "server", 0)
    keep_artefacts(run_dir, config, MODEL, result)
    held = run_dir.record().privacy
    assert held.guarantee and not held.void and held.epsilon == epsilon_spent(3.0, 3, 1e-5)
    sent = config.model_copy(update={"privacy": LOUD.model_copy(update={"metrics": "sent"})})
    assert "without noise" in ledger(sent, result.weights.tolist(), deployed=True).void[0]


# --- label counts ---------------------------------------------------------------------------------------------------


def test_one_sample_moves_the_counts_by_no_more_than_root_two():
    clients, g = concepts(1), torch.Generator().manual_seed(0)
    fedrc = make_algorithm("fedrc", {"n_groups": 3}, TRAINING)

    def both(client, gamma):
        cohort = Cohort([client], MODEL, seed=0, round=0)
        padded = torch.nn.functional.pad(gamma, (0, cohort.y.shape[1] - gamma.shape[2]))
        return _histograms(cohort).flatten(), fedrc.statistics(cohort, padded)["counts"].flatten()

    n = len(clients[0].train)
    gamma = torch.softmax(9 * torch.randn(1, 3, n, generator=g), 1)
    before, farthest = both(clients[0], gamma), 0.0
    for j in range(n):
        for label in range(4):
            y, other = clients[0].train.y.clone(), gamma.clone()
            y[j], other[0, :, j] = label, torch.eye(3)[label % 3]
            after = both(replace(clients[0], train=Split(clients[0].train.x, y)), other)
            farthest = max(farthest, *(float((a - b).norm()) for a, b in zip(after, before, strict=True)))
    assert 1.4 < farthest <= math.sqrt(2) + 1e-5


def test_counts_get_noise_and_nothing_else_does():
    report = Report({"w": torch.ones(1, 2, 3)}, {"counts": torch.full((1, 2, 500), 1e4), "weights": torch.ones(1, 2)})
    found = with_noised_counts(report, 5.0, uniform())
    assert torch.equal(found.models["w"], report.models["w"])
    assert torch.equal(found.arrays["weights"], report.arrays["weights"])
    assert float(found.arrays["counts"].std()) == pytest.approx(5 * math.sqrt(2), rel=0.08)
    few = with_noised_counts(Report(arrays={"labels": torch.zeros(1, 500)}), 5.0, uniform()).arrays["labels"]
    assert (few >= 0).all() and 0.3 < float((few == 0).float().mean()) < 0.7


def test_dropped_counts_do_not_leave_whatever_the_server_asks_for():
    config = settings("community", privacy=Privacy(label_histogram="dropped"))
    client = Participant(config, concepts(1)[0], 4)
    report = client.algorithm.local_step(client.cohort(0, {}), Delivery({}, phase="labels"))
    for send in (lambda: Guard(client).report(report, Delivery({}), 0, "f"), lambda: Guard(client).evidence(report, 0)):
        with pytest.raises(InputError, match="the server asks for labels"):
            send()


@pytest.mark.parametrize("name, more", [("fedrc", {}), ("community", {"similarity": "labels"}), ("local", {})])
def test_federations_with_noised_counts_run(name, more):
    few = Privacy(label_histogram="noised", label_epsilon=4.0)
    plain, noisy = (Flower(settings(name, settings=options(name) | more, rounds=2, privacy=p)).run()
                    for p in (Privacy(), few))
    key = {"fedrc": "class_weights", "community": "similarity"}.get(name)
    assert key is None or not torch.allclose(plain.state[key], noisy.state[key])
    held = ledger(settings(name, settings=options(name) | more, privacy=few), [[1.0]], deployed=True)
    if name == "local":
        assert held is None
    else:
        assert not held.guarantee and "alone" in held.what and held.epsilon == 4.0
        assert held.rounds == (3 if name == "fedrc" else 1)


# --- what comes of it -----------------------------------------------------------------------------------------------


def test_accuracy_falls_with_the_noise():
    def accuracy(privacy):
        result = Flower(settings(rounds=6, privacy=privacy, shots=()), concepts(6, n_concepts=1)).run()
        return np.mean([c["accuracy"] for c in result.clients])

    plain, quiet, loud = (accuracy(p) for p in (Privacy(), Privacy(clip=5.0, noise_multiplier=1e-3), LOUD))
    assert plain > 0.7 and quiet > plain - 0.1 and loud < plain - 0.2


@pytest.mark.parametrize("privacy, word", [
    ({"clip": 1}, "neither"), ({"clip": 1, "epsilon": 1, "noise_multiplier": 1}, "both"),
    ({"epsilon": 1}, "without privacy.clip"), ({"label_histogram": "noised"}, "label_epsilon"),
    ({"label_epsilon": 1}, "label_epsilon"), ({"clip": 1, "epsilon": 0}, "greater than 0"), ({"clop": 1}, "clop"),
    ({"clip": 1, "epsilon": 1, "label_histogram": "noised", "label_epsilon": 1}, "covers the label counts"),
    ({"secure_aggregation": True}, "legacy API")])
def test_settings_that_make_no_sense_are_refused(privacy, word):
    with pytest.raises((ValidationError, InputError), match=word):
        settings(privacy=privacy)
    assert "leave it out" in NO_SECURE_AGGREGATION


@pytest.mark.parametrize("name, more, privacy, word", [
    ("fedrc", {}, LOUD, "likelihood.*restarts=1"), ("fedem", {}, LOUD, "likelihood"),
    ("fedcollab", {}, LOUD, "accuracy"), ("community", {"similarity": "divergence"}, LOUD, "accuracy"),
    ("community", {"similarity": "losses"}, LOUD, "losses.*similarity=updates"),
    ("fedrc", {}, Privacy(label_histogram="dropped"), "fedem is fedrc without"),
    ("community", {"similarity": "labels"}, Privacy(label_histogram="dropped"), "they are its similarity")])
def test_what_cannot_be_covered_is_refused_before_the_first_round(name, more, privacy, word):
    flower = Flower(settings(name, settings=more, privacy=privacy))
    with pytest.raises(InputError, match=word):
        flower.run()


def test_what_can_is_not_refused():
    for name in set(algorithm_names()) - UNCOVERED:
        settings(name, settings=options(name), privacy=LOUD).check(20)
    for name in set(algorithm_names()) - {"fedrc"}:
        settings(name, settings=options(name), privacy=Privacy(label_histogram="dropped")).check(20)


def test_clients_who_cluster_cannot_be_covered():
    config = Plan(scenarios=["graph-cora-clustering"], algorithms=["fedavg"], seeds=1).runs()[0]
    with pytest.raises(InputError, match="embedding of every node"):
        config.model_copy(update={"privacy": LOUD}).check(4)


def test_settings_at_their_defaults_do_not_rename_a_run():
    assert settings(privacy=Privacy()).fingerprint() == settings().fingerprint() != settings(privacy=LOUD).fingerprint()


def test_record_and_report_hold_the_ledger(tmp_path):
    plan = Plan(scenarios=["digits-one-concept:n_clients=4"], algorithms=["fedavg"], seeds=1,
                config={"rounds": 2, "model.hidden": [4], "training.epochs": 1, "privacy.clip": 1.0,
                        "privacy.epsilon": 8.0})
    store = RunStore(tmp_path, FederationRecord)
    config = plan.runs()[0]
    execute(config, store.run_dir(config), Silent(), raises=True)
    held = store.run_dir(config).record().privacy
    assert (held.epsilon, held.delta, held.clip, held.rounds, held.guarantee) == (8.0, 1e-5, 1.0, 2, False)
    assert held.noise_multiplier == pytest.approx(multiplier_of(config)) and held.sensitivity == 2
    assert "one client" in held.adjacency and "seed" in held.randomness and "newcomers" in " ".join(held.not_covered)
    cells = [c.text for c in privacy_table(collect(store.records())).rows[0]]
    assert cells[0] == "fedavg" and "8" in cells and any(c.startswith("no: a simulation") for c in cells)
    page = write_report(store.records(), tmp_path / "report", "noise").read_text()
    assert "Noise at the clients" in page and "a simulation: the noise is drawn" in page


def test_the_state_of_a_noisy_federation_is_finite():
    for name in ("cfl", "community", "fedrc", "fesem", "hierarchical", "ifca"):
        result = Flower(settings(name, settings=options(name), rounds=4, privacy=LOUD, shots=()), concepts(4)).run()
        assert all(torch.isfinite(t).all() for t in models(result.state).values())
        assert not any(r["failures"] for r in result.history.rounds), name
