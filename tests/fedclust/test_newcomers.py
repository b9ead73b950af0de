"""Newcomers of an algorithm that adapts its models to them: in a run, and from what a run leaves on disk."""

from dataclasses import replace

import pytest
import torch

from fedclust.algorithms import algorithm_names, make_algorithm
from fedclust.algorithms.base import models, n_groups
from fedclust.data.client import Split
from fedclust.participant import ALL
from fedclust.task import Cohort
from fedclust.trained import TrainedFederation
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import MODEL, TRAINING, Loop, blobs, concepts

# many test samples and few labelled ones: fine-tuning shows
NEWCOMERS = [replace(c, id=f"new{i}", test=blobs(f"many{i}", 400, i)) for i, c in enumerate(concepts(2, 2))]
TRIALS = [(ALL, 0), (0, 0), (2, 0), (2, 1)]
SETTINGS = {"warmup": 5, "cut": "k", "n_groups": 2, "finetune_epochs": 4}


def run(**changes):
    flower = Flower(settings("hierarchical", settings={**SETTINGS, **changes}, rounds=8), unseen=NEWCOMERS)
    return flower, flower.run()


@pytest.fixture(scope="module")
def finished():
    return run()


def tuned(flower, result, trial, m, draw):
    """The model of the group that a trial found, fine-tuned on its m samples; the cohort of these; and the model."""
    me = flower.participants[6 + trial // len(TRIALS)]
    cohort = Cohort([me.with_shots(m, draw)], me.model, seed=me.config.seed, round=8)
    group = int(result.unseen_weights[trial].argmax())
    sent = {name: t[group][None, None] for name, t in models(result.state).items()}
    return cohort.train(sent, TRAINING.model_copy(update={"epochs": 4}), key="finetune"), cohort, sent


def test_each_trial_fine_tunes_on_its_own_labelled_samples(finished):
    flower, result = finished
    assert [(r["shots"], r["draw"]) for r in result.unseen] == [(None if m == ALL else m, d) for m, d in TRIALS] * 2
    for trial, (row, (m, draw)) in enumerate(zip(result.unseen, TRIALS * 2, strict=True)):
        if m == 0:
            assert row["undetermined"] and row["accuracy"] is None
            continue
        own, cohort, sent = tuned(flower, result, trial, m, draw)
        loss, plain = (float(cohort.evaluate(p, torch.ones(1, 1), hard=True)["loss"]) for p in (own, sent))
        assert row["loss"] == pytest.approx(loss, abs=1e-5) and abs(loss - plain) > 1e-4


def test_without_fine_tuning_trials_of_one_group_are_one_evaluation():
    flower, result = run(finetune_epochs=0)
    for i in range(2):
        cohort = flower.participants[6 + i].cohort(8, {})
        for row, w in zip(result.unseen[4 * i : 4 * i + 4], result.unseen_weights[4 * i : 4 * i + 4], strict=True):
            if not row["undetermined"]:
                group = {name: t[int(w.argmax())][None, None] for name, t in models(result.state).items()}
                expected = cohort.evaluate(group, torch.ones(1, 1), hard=True)["loss"]
                assert row["loss"] == pytest.approx(float(expected), abs=1e-6)


def test_what_a_run_leaves_on_disk_assigns_and_predicts_as_the_run_did(finished, tmp_path):
    flower, result = finished
    algorithm = make_algorithm("hierarchical", SETTINGS, TRAINING)
    TrainedFederation("hierarchical", algorithm, MODEL, result.state, 0).save(tmp_path)
    trained = TrainedFederation.load(tmp_path)
    for i, client in enumerate(NEWCOMERS):
        found = trained.assign(client)
        assert found.labels_used == len(client.train)
        assert found.weights == result.unseen_weights[4 * i].tolist()
        assert found.accuracy == pytest.approx(result.unseen[4 * i]["accuracy"])
        own, cohort, _ = tuned(flower, result, 4 * i, ALL, 0)
        expected = cohort.probabilities(own, "test")[0, 0, : len(client.test)]
        torch.testing.assert_close(trained.predict(client, torch.tensor(found.weights), client.test), expected)


def test_assign_uses_as_many_samples_as_it_may(finished):
    _, result = finished
    trained = TrainedFederation("hierarchical", make_algorithm("hierarchical", SETTINGS, TRAINING), MODEL,
                                result.state, 0)
    client = NEWCOMERS[0]
    few = replace(client, train=Split(client.train.x[:3], client.train.y[:3]))
    found, same = trained.assign(client, shots=3), trained.assign(few)
    assert found == same and found.labels_used == 3
    none = trained.assign(client, shots=0)
    assert none.weights is None and none.labels_used == 0
    w = torch.tensor([0.0, 1.0])
    plain = MODEL.logits({name: t[1] for name, t in models(result.state).items()}, client.test.x).softmax(1)
    torch.testing.assert_close(trained.predict(client, w, client.test, shots=0), plain)
    assert not torch.allclose(trained.predict(client, w, client.test, shots=3), plain, atol=1e-3)


def test_only_those_that_say_so_adapt():
    adapting = {name for name in algorithm_names() if name != "fedcollab" and make_algorithm(name).adapts}
    assert adapting == {"hierarchical"} and not make_algorithm("hierarchical", {"finetune_epochs": 0}).adapts
    inside = {"inner": "hierarchical", "inner_settings": {"finetune_epochs": 2}}
    assert make_algorithm("fedcollab", inside).adapts and not make_algorithm("fedcollab").adapts


@pytest.mark.parametrize(("name", "more"), [("fedrc", {"class_balance": 0}), ("fedem", {}), ("ifca", {}),
                                            ("fedcollab", {"inner": "ifca"})])
def test_a_run_that_ends_among_its_starts_ends_with_the_leading_one(name, more):
    """As if it had been chosen in the last round: K groups, the same models, clients and newcomers."""
    results = []
    for trial_rounds in (4, 99):
        starts = {"n_groups": 2, "restarts": 3, "trial_rounds": trial_rounds}
        own = {"inner": more["inner"], "inner_settings": starts} if "inner" in more else {**starts, **more}
        results.append(Flower(settings(name, settings=own, rounds=4), unseen=NEWCOMERS).run())
    chosen, cut = results
    assert n_groups(cut.state) == cut.weights.shape[1] == cut.unseen_weights.shape[1] == n_groups(chosen.state)
    assert n_groups(cut.state) % 2 == 0 and n_groups(cut.state) < 6
    for key, t in models(chosen.state).items():
        assert torch.equal(t, models(cut.state)[key])
    assert torch.equal(chosen.weights, cut.weights) and chosen.clients == cut.clients
    assert torch.allclose(chosen.unseen_weights, cut.unseen_weights, equal_nan=True) and chosen.unseen == cut.unseen


def test_a_mixture_is_measured_with_all_its_groups():
    config = settings("fedem", settings={"n_groups": 2, "restarts": 1}, rounds=4)
    flower = Flower(config, unseen=NEWCOMERS)
    result = flower.run()
    for trial, row in enumerate(result.unseen):
        w = result.unseen_weights[trial]
        if not row["undetermined"]:
            cohort = flower.participants[6 + trial // len(TRIALS)].cohort(4, {})
            everything = {name: t[None] for name, t in models(result.state).items()}
            expected = cohort.evaluate(everything, w[None], hard=False)
            assert (w > 0).all() and row["loss"] == pytest.approx(float(expected["loss"]), abs=1e-6)


def test_a_state_whose_entries_are_one_tensor_is_saved(tmp_path):
    algorithm = make_algorithm("fedrc", {"n_groups": 2, "prune": 0.2, "restarts": 1}, TRAINING)
    state = Loop(algorithm, concepts()).run(2)
    assert state["omega"].data_ptr() == state["weights"].data_ptr(), "the case that this is about"
    TrainedFederation("fedrc", algorithm, MODEL, state, 0).save(tmp_path)
    held = TrainedFederation.load(tmp_path)
    assert torch.equal(held.state["weights"], state["weights"]) and torch.equal(held.state["omega"], state["omega"])
