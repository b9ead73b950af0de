"""Metrics of a federation against values worked out by hand, scikit-learn and enumeration of pairs."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from fedclust import evaluation as ev
from fedclust.config import FederationConfig
from fedclust.outcome import ALL, Outcome, groups_of, outcome
from fedclust.record import FederationRecord, conclude
from fedclust.state import FederationResult, History
from graphclust.runs.store import RunDir
from simulations.scenarios import scenario

NAN = float("nan")


def test_the_worst_decile_is_the_mean_of_the_lowest_tenth_rounded_up():
    accuracy = np.array([0.9, 0.1, 0.3, NAN, *[0.8] * 9])  # 12 known clients: the lowest 2
    values = ev.spread(accuracy)
    assert values["worst_decile"] == pytest.approx(0.2)
    assert values["local"] == pytest.approx((0.9 + 0.1 + 0.3 + 7.2) / 12)
    assert values["std"] == pytest.approx(np.nanstd(accuracy))
    assert ev.spread(np.array([0.4]))["worst_decile"] == 0.4
    assert all(np.isnan(v) for v in ev.spread(np.array([NAN])).values())


def test_group_sizes():
    assert ev.sizes(np.array([4, 4, 4, 0, 2, 2, -1, -1])) == {
        "n_groups": 3, "groups_of_several": 2, "largest_group": 3 / 8, "unassigned": 2 / 8}
    assert ev.sizes(np.array([-1, -1]))["n_groups"] == 0


def test_recovery_against_scikit_learn_and_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        found, truth = rng.integers(-1, 4, 15), rng.integers(3, size=15)
        known = [i for i in range(15) if found[i] >= 0]
        conflicting = [(i, j) for i, j in combinations(known, 2) if truth[i] != truth[j]]
        merged = [(i, j) for i, j in conflicting if found[i] == found[j]]
        values = ev.recovery(found, truth)
        assert values["ari"] == pytest.approx(adjusted_rand_score(truth[known], found[known]))
        assert values["nmi"] == pytest.approx(normalized_mutual_info_score(truth[known], found[known]))
        assert values["conflicting_pairs_merged"] == pytest.approx(len(merged) / len(conflicting))


def test_recovery_where_there_is_nothing_to_recover():
    assert np.isnan(ev.recovery(np.array([0, 1, 0]), np.zeros(3))["conflicting_pairs_merged"])
    assert np.isnan(ev.recovery(np.array([-1, -1]), np.arange(2))["ari"])
    one_for_all = ev.recovery(np.zeros(6, dtype=int), np.array([0, 0, 1, 1, 2, 2]))
    assert one_for_all["conflicting_pairs_merged"] == 1 and one_for_all["ari"] == 0


def test_ipr_is_strict_and_rsd_is_the_population_deviation():
    accuracy, local = np.array([0.9, 0.5, 0.6, 0.7, NAN]), np.array([0.8, 0.5, 0.7, 0.4, 0.1])
    values = ev.gains(accuracy, local)
    assert values["ipr"] == 2 / 4  # the tie does not count
    gain = np.array([0.1, 0.0, -0.1, 0.3])
    assert values["rsd"] == pytest.approx(np.sqrt(((gain - gain.mean()) ** 2).mean()))
    assert ev.gains(local, local) == {"ipr": 0.0, "rsd": 0.0}


def test_the_published_ipr_of_a_fixture():
    # FedCollab on FashionMNIST: all 20 clients gain, by unlike amounts
    local = np.r_[np.full(10, 0.93), np.full(10, 0.80)]
    assert ev.gains(np.full(20, 0.94), local) == {"ipr": 1.0, "rsd": pytest.approx(0.065)}


def test_curves_average_those_that_were_asked():
    accuracy = np.array([[0.2, NAN, 0.4], [NAN, NAN, NAN], [0.6, 0.6, 0.9]])
    assert ev.mean_curve(accuracy) == pytest.approx([0.3, NAN, 0.7], nan_ok=True)
    assert ev.worst_curve(accuracy) == pytest.approx([0.2, NAN, 0.6], nan_ok=True)
    assert ev.rounds_to(ev.mean_curve(accuracy), 0.5) == 2 and ev.rounds_to(ev.mean_curve(accuracy), 0.1) == 0
    assert np.isnan(ev.rounds_to(ev.mean_curve(accuracy), 0.95))


def test_the_best_validation_round_is_picked_without_the_test_accuracy():
    validation = np.array([[0.1, 0.1], [0.9, 0.7], [0.8, 0.8], [0.5, NAN]])
    accuracy = np.array([[0.0, 0.0], [0.4, 0.4], [0.9, 0.9], [0.6, 0.6]])
    assert ev.best_validation(validation, accuracy) == {"best_validation_round": 1.0, "best_validation": 0.4}
    assert np.isnan(ev.best_validation(np.full((3, 2), NAN), accuracy[:3])["best_validation"])


def trial(client, shots, draw, group, accuracy=NAN, error=None):
    return {"client": client, "shots": shots, "draw": draw, "group": group, "accuracy": accuracy, "error": error}


NEWCOMERS = pd.DataFrame([
    trial("u", ALL, 0, 2, 0.8), trial("v", ALL, 0, 1, 0.6), trial("w", ALL, 0, -1, error="no reply"),
    trial("u", 0, 0, -1), trial("v", 0, 0, -1),
    trial("u", 5, 0, 2, 0.8), trial("u", 5, 1, 0, 0.2), trial("v", 5, 0, 1, 0.6), trial("v", 5, 1, -1),
])


def test_newcomers_by_shots():
    table = ev.newcomer_curve(NEWCOMERS)
    assert table.index.tolist() == [0, 5, ALL] and table["labels_used"].tolist() == [False, True, True]
    assert table["trials"].tolist() == [2, 4, 2], "a newcomer that did not answer is left out"
    assert table["undetermined"].tolist() == [1.0, 0.25, 0.0]
    assert table["agreement"].tolist() == [0.0, 0.5, 1.0], "an undetermined trial does not agree"
    assert table["accuracy"].tolist() == pytest.approx([NAN, 1.6 / 3, 0.7], nan_ok=True)


def test_groups_of_weights():
    assert groups_of(np.array([[0.2, 0.8], [NAN, NAN], [0.5, 0.5]])).tolist() == [1, -1, 0]


def result(config, groups=((0, NAN, 0, 1), (1, 0, 1, 1)), final=(0.9, 0.8, 0.7, None)):
    """A federation of four clients after one round of preparation and two of training, the second without c1."""
    rounds = [{"round": i, "phase": phase, "failures": failures, "seconds": seconds, "bytes_up": up, "bytes_down": 10}
              for i, phase, failures, seconds, up in
              [(-1, "pairs", {}, 9.0, 100), (0, "train", {}, 1.0, 20), (1, "train", {"c1": "NaN"}, 3.0, 15)]]
    nothing = [NAN] * 4
    tables = {"before_accuracy": torch.tensor([nothing, [0.1, 0.1, 0.3, 0.1], [0.5, NAN, 0.5, 0.5]]),
              "before_accuracy_validation": torch.tensor([nothing, [0.1] * 4, [0.9, NAN, 0.9, 0.9]]),
              "group": torch.tensor([nothing, *groups])}
    clients = [{"id": f"c{i}", "n": 10, "accuracy": a, "loss": 0.3, "accuracy_validation": 0.4, "loss_validation": 0.5,
                "error": None if a else "no reply"} for i, a in enumerate(final)]
    unseen = [{"client": "u", "shots": m, "draw": 0, "labels_used": m != 0, "accuracy": a, "loss": a,
               "undetermined": a is None, "error": None} for m, a in [(None, 0.6), (0, None)]]
    return FederationResult(
        config.model_dump(mode="json"), [f"c{i}" for i in range(4)], [10] * 4, History(rounds, tables),
        {"similarity": torch.eye(4)}, torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [NAN, NAN]]), clients, unseen,
        torch.tensor([[0.0, 1.0], [NAN, NAN]]), {}, 20.0)


TRUTH = {"concept": {"c0": 0, "c1": 1, "c2": 0, "c3": 1, "u": 1}, "feature": {"c0": 0, "c1": 0, "c2": 1, "c3": 1}}


@pytest.fixture
def config():
    return FederationConfig(algorithm="ifca", scenario="digits-3shift", federation=scenario("digits-3shift")).resolved()


def test_the_tables_of_a_result(config, tmp_path):
    tables = outcome(result(config), TRUTH)
    assert tables.groups.tolist() == [[-1] * 4, [0, -1, 0, 1], [0, 1, 0, 1]]
    assert ev.mean_curve(tables.accuracy) == pytest.approx([0.15, 0.5, 0.8]), "the preparation is no training round"
    assert tables.truth["concept"].tolist() == [0, 1, 0, 1]
    assert tables.newcomers[["shots", "group"]].to_numpy().tolist() == [[ALL, 1], [0, -1]]
    tables.save(tmp_path)
    again = Outcome.load(tmp_path)
    assert ev.evaluate(again) == pytest.approx(ev.evaluate(tables), nan_ok=True)
    assert np.array_equal(again.similarity, np.eye(4)) and Outcome.load(tmp_path / "elsewhere") is None


def test_a_divergence_is_the_opposite_of_a_similarity(config):
    found = result(config)
    found.state = {"divergence": torch.tensor([[0.0, 0.25], [0.25, 0.0]])}
    assert outcome(found, TRUTH).similarity.tolist() == [[1.0, 0.75], [0.75, 1.0]]
    found.state = {}
    assert outcome(found, TRUTH).similarity is None


def test_concluding_a_run_fills_its_record_and_folder(config, tmp_path):
    run_dir = RunDir(tmp_path, FederationRecord)
    record = FederationRecord(id=config.run_id, status="finished", config=config)
    conclude(record, run_dir, result(config), TRUTH)
    run_dir.write_record(record)
    assert run_dir.record().metrics == pytest.approx(record.metrics, nan_ok=True) and len(run_dir.history()) == 3
    assert (record.n_clients, record.n_unseen, record.rounds_done, record.left_out) == (4, 1, 2, 1)
    assert (record.bytes_up, record.bytes_down, record.seconds_per_round) == (135, 30, 2.0)
    metrics = record.metrics
    assert metrics["local"] == pytest.approx(0.8) and metrics["best_validation"] == pytest.approx(0.5)
    assert metrics["best_validation_round"] == 1 and metrics["rounds_to_95"] == 2
    assert metrics["ari"] == 1.0 and metrics["unassigned"] == 0 and metrics["ari_feature"] < 0.5
    assert metrics["unseen"] == pytest.approx(0.6) and metrics["unseen_0_undetermined"] == 1.0
    row = record.row()
    assert row["metrics"]["unseen_0"] is None and row["algorithm"] == "ifca", "JSON has no NaN"


def test_runs_are_compared_client_by_client(config):
    mine = outcome(result(config, final=(0.9, 0.5, 0.7, None)), TRUTH)
    local = outcome(result(config, final=(0.8, 0.5, 0.8, 0.6)), TRUTH)
    shuffled = Outcome(local.clients.iloc[::-1], local.accuracy, local.validation, local.groups, local.weights,
                       local.newcomers)
    values = ev.compare(mine, shuffled)
    assert values["ipr"] == pytest.approx(1 / 3) and values["rsd"] == pytest.approx(np.std([0.1, 0, -0.1]))
    assert values["rounds_to"] == 2  # .7 reaches the reference's mean of .675
