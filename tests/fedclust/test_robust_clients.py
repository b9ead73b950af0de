"""Clients that poison or send garbage: scored, suspected, left out, and named."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedclust.algorithms import algorithm_names, make_algorithm
from fedclust.algorithms.base import Delivery, Payload, Report, Reports, with_models
from fedclust.config import Attack
from fedclust.evaluation import evaluate, poisoning
from fedclust.outcome import Outcome
from fedclust.record import FederationRecord
from fedclust.report import collect, command, write_report
from fedclust.report.tables import suspects_table
from fedclust.robust import Robust
from fedclust.suspects import agreement_of, agreements, excluded, suspects, suspicion
from graphclust.graph import InputError
from graphclust.monitor import Silent
from graphclust.runs.store import RunStore
from simulations.attacks import Attacker, _Spoiling, attackers
from simulations.plan import Plan
from simulations.run import execute
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import MODEL, TRAINING, Loop, concepts
from tests.fedclust.test_fed_report import made, put
from tests.fedclust.test_strategy_failures import changed, nan

ROOT = Path(__file__).parents[2]
TEN = [f"c{i:02d}" for i in range(10)]
LEFT_OUT = Robust(exclude=True, unusable_rounds=2)


def one_concept(n=10):
    return concepts(n, n_concepts=1)


def attacking(kind, who, rounds=9, robust=None, algorithm="fedavg", n=10, **attack):
    """A federation of one concept in which the clients ``who`` attack."""
    config = settings(algorithm, rounds=rounds, attack=Attack(kind=kind, clients=tuple(who), **attack),
                      robust=robust or Robust(), shots=())
    flower = Flower(config, one_concept(n))
    flower.participants = [
        Attacker(config, p.data, p.n_classes) if p.data.id in who else p for p in flower.participants]
    return flower.run()


# --- scores ---------------------------------------------------------------------------------------------------------


def test_agreement_by_hand():
    updates = torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0], [-1.0, 0.0], [1.0, 0.0]])
    r = 2**-0.5
    # the others of client 3, at length 1: (1, 0) + (0, 1) + (r, r), and of client 0: (0, 1) + (r, r) + (-1, 0)
    rest = np.array([1 + r, 1 + r])
    first = np.array([r - 1, 1 + r])
    got = agreements([updates], torch.tensor([0, 0, 0, 0, 1]))
    assert got[3].item() == pytest.approx(-rest[0] / np.linalg.norm(rest), abs=1e-6)
    assert got[0].item() == pytest.approx(first[0] / np.linalg.norm(first), abs=1e-6)
    assert got[4].isnan(), "a group of one has no majority"


def test_agreement_does_not_see_lengths_or_the_order():
    g = torch.Generator().manual_seed(0)
    updates, groups = torch.randn(9, 5, generator=g), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0])
    scaled = updates * torch.rand(9, 1, generator=g)
    order = torch.randperm(9, generator=g)
    torch.testing.assert_close(agreements([scaled], groups), agreements([updates], groups))
    parts = agreements(updates.split(2, dim=1), groups)
    torch.testing.assert_close(agreements([updates[order]], groups[order]), parts[order])


def test_updates_are_measured_from_the_model_that_was_sent():
    w = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    before = with_models({}, {"w": w})
    after = {**before, "weights": torch.tensor([[0.0, 1.0]] * 4 + [[1.0, 0.0]] * 4)}
    move = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]]).repeat(2, 1)
    group = torch.tensor([1] * 4 + [0] * 4)
    expected = agreements([move], group)
    payload = Payload([0, 1])
    one = Reports(torch.arange(8), torch.ones(8), {"w": (w[group] + move)[:, None]}, {})
    torch.testing.assert_close(agreement_of(before, after, [payload] * 8, one), expected)
    both = w[None].repeat(8, 1, 1)
    both[torch.arange(8), group] += move
    torch.testing.assert_close(
        agreement_of(before, after, [payload] * 8, Reports(torch.arange(8), torch.ones(8), {"w": both}, {})), expected)
    four = torch.cat([w, w + 5])  # two starts of two groups, of which a client trains one each
    started = with_models({}, {"w": four})
    led = {**started, "weights": torch.nn.functional.one_hot(group + 2, 4).float()}
    sent = torch.stack([torch.randn(8, 2), four[group + 2] + move], dim=1)
    trial = Reports(torch.arange(8), torch.ones(8), {"w": sent}, {})
    torch.testing.assert_close(agreement_of(started, led, [Payload([0, 1, 2, 3])] * 8, trial), expected)
    assert agreement_of(started, after, [Payload([0, 1, 2, 3])] * 8, trial).isnan().all(), "groups were numbered anew"
    family = Payload([0], family="warm")
    assert agreement_of(before, after, [family] * 8, one).isnan().all(), "what the group's model did not start"
    assert agreement_of(before, after, [payload] * 8, replace(one, phase="learn")).isnan().all()


def test_suspicion_by_hand():
    table = torch.full((6, 5), torch.nan)
    table[:, :4] = torch.tensor([0.5, 0.4, 0.6, -0.9])
    table[4:, 4] = -0.9
    # median of the four that are judged: the lower middle, .4; absolute deviations .1, 0, .2, 1.3: median .1
    z = suspicion(table)
    assert z[3].item() == pytest.approx((0.4 + 0.9) / (1.4826 * 0.1), rel=1e-5)
    assert z[4].isnan(), "two rounds are too few"
    assert list(suspects(table, "abcde", Robust())) == ["d"]
    assert suspects(table, "abcde", Robust(alarm=20)) == {}
    assert not suspects(torch.zeros(6, 5), "abcde", Robust()) and not suspects(table[:0], "abcde", Robust())


def test_clients_that_hardly_differ_are_not_suspected():
    table = torch.full((8, 9), 0.9)
    table[:, 0] = 0.6
    assert not suspects(table, TEN, Robust()), "a third of a cosine is within what unlike labels make"
    table[:, 0] = 0.5
    assert list(suspects(table, TEN, Robust())) == ["c00"]


def test_only_the_last_rounds_count():
    table = torch.full((30, 6), 0.5)
    table[:15, 0] = -0.5
    table[20:, 1] = -0.5
    assert list(suspects(table, TEN, Robust())) == ["c01"], "c00 has mended its ways"
    table[-1, 1] = torch.nan
    assert suspects(table, TEN, Robust()) == {}, "who did not take part is not suspected again"


def row(r, participants=(), unusable=(), suspects=()):
    return {"round": r, "participants": list(participants), "unusable": list(unusable),
            "suspects": dict.fromkeys(suspects, 4.0)}


def test_who_is_left_out():
    rows = [row(r, ["a", "b"], ["x"]) for r in range(4)]
    assert excluded(rows, 3, Robust()) == {}
    assert excluded([*rows, row(4, ["a"], ["b", "x"])], 3, Robust()) == {"x": "none of its 5 replies could be used"}
    assert excluded([row(0, ["x"]), *[row(r, ["a"], ["x"]) for r in range(1, 9)]], 3, Robust()) == {}, "it worked once"
    seen = [row(6, suspects=["c", "d"]), row(7, suspects=["e"])]
    assert excluded(seen, 12, Robust()) == {}
    assert list(excluded(seen, 12, LEFT_OUT)) == ["c", "d"], "at most a fifth of twelve clients, the first suspected"
    assert excluded(seen, 4, LEFT_OUT) == {}


# --- federations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "scale"), [("sign_flip", 1.0), ("sign_flip", 5.0), ("label_flip", 1.0)])
def test_attackers_are_suspected_and_left_out(kind, scale):
    result = attacking(kind, ["c03", "c07"], robust=LEFT_OUT, scale=scale)
    named = {client for r in result.history.rounds for client in r["suspects"]}
    assert named == {"c03", "c07"}
    assert result.history.rounds[0]["participants"] == TEN
    assert result.history.rounds[-1]["participants"] == [c for c in TEN if c not in named]
    assert all(c["accuracy"] is not None for c in result.clients), "they are evaluated like everyone"


def test_honest_clients_are_not_suspected():
    result = Flower(settings(rounds=9, robust=LEFT_OUT, shots=()), one_concept()).run()
    assert not any(r["suspects"] or r["unusable"] for r in result.history.rounds)
    table = result.history.tables["agreement"]
    assert table.shape == (9, 10) and (table[0] > 0).all(), "at first all go the same way"


@pytest.mark.parametrize("algorithm", ["fedavg", "fedrc"])
def test_a_client_that_sends_garbage_in_every_round_is_left_out_and_changes_nothing(algorithm):
    options = {"settings": {"n_groups": 2}} if algorithm == "fedrc" else {}
    config = settings(algorithm, rounds=4, robust=Robust(unusable_rounds=2), **options)
    result = Flower(config, spoil={"c02": changed(nan)} if algorithm == "fedavg" else {"c02": _nan_everywhere}).run()
    loop = Loop(make_algorithm(algorithm, options.get("settings"), TRAINING), concepts())
    for _ in range(4):
        loop.step([0, 1, 3, 4, 5])
    for name, t in loop.algorithm.finished(loop.state).items():
        if name != "weights" and name != "omega":
            torch.testing.assert_close(result.state[name], t, atol=1e-6, rtol=1e-6)
    assert [r["unusable"] for r in result.history.rounds] == [["c02"], ["c02"], [], []], "then it is not asked"
    assert excluded(result.history.rounds, 6, config.robust) == {"c02": "none of its 2 replies could be used"}


def _nan_everywhere(message, call):
    for name, record in (reply := call()).content.items():
        if name.startswith("model-"):
            reply.content[name] = _garbage(record)
    return reply


def _garbage(record):
    from fedclust.records import pack, unpack
    return pack({name: t * torch.nan for name, t in unpack(record).items()})


def test_cfl_does_not_wait_for_a_client_that_is_left_out():
    """Its groups split only when all members answered."""
    cfl = {"first_split": 3, "eps1": 1e6, "eps2": 1e-6}
    config = settings("cfl", settings=cfl, rounds=5, robust=Robust(unusable_rounds=2))
    assert Flower(config, spoil={"c02": changed(nan)}).run().state["weights"].shape[1] > 1
    patient = config.model_copy(update={"robust": Robust(unusable_rounds=9)})
    assert Flower(patient, spoil={"c02": changed(nan)}).run().state["weights"].shape[1] == 1


def test_the_clients_of_a_round_are_drawn_among_those_that_are_asked():
    config = settings(rounds=15, fraction=1 / 3, robust=Robust(unusable_rounds=1), shots=())
    rounds = Flower(config, spoil={"c02": changed(nan)}).run().history.rounds
    first = next(r["round"] for r in rounds if r["unusable"])
    assert first < 10 and all(len(r["participants"]) == 2 for r in rounds[first + 1:]), "nobody's place stays empty"


def test_who_was_left_out_survives_a_restart(tmp_path):
    config = settings(rounds=5, robust=Robust(unusable_rounds=2))

    def stop(message, call):
        raise OSError("disk full")

    def later(message, call):
        return stop(message, call) if message.content["settings"]["round"] == 3 else call()

    broken = {f"c0{i}": later for i in (0, 1, 3, 4, 5)} | {"c02": changed(nan)}
    with pytest.raises(RuntimeError, match="round 3: 0 of 5"):
        Flower(config, spoil=broken).run(tmp_path / "checkpoint")
    result = Flower(config).run(tmp_path / "checkpoint")
    assert all("c02" not in r["participants"] for r in result.history.rounds)


# --- attackers ------------------------------------------------------------------------------------------------------


def attacker(kind, algorithm="ifca", **attack):
    config = settings(algorithm, settings={"n_groups": 2}, attack=Attack(kind=kind, **attack))
    client = concepts()[0]
    return Attacker(config, client, 4), make_algorithm(algorithm, {"n_groups": 2}, TRAINING), client


def delivered(k, seed=0):
    states = [MODEL.init(torch.Generator().manual_seed(seed + j)) for j in range(k)]
    return Delivery({name: torch.stack([s[name] for s in states])[None] for name in states[0]})


def test_a_sign_flip_goes_the_other_way_from_the_model_that_was_trained():
    bad, honest, _ = attacker("sign_flip", scale=3.0)
    given = delivered(2)
    good = honest.local_step(bad.cohort(0, {}), given)
    sent = bad.algorithm.local_step(bad.cohort(0, {}), given)
    k = int(good.arrays["group"][0])
    assert torch.equal(sent.arrays["group"], good.arrays["group"])
    for name, t in good.models.items():
        start = given.models[name][:, k][:, None]
        torch.testing.assert_close(sent.models[name], start - 3 * (t - start))


def test_noise_is_seeded_and_differs_by_round_and_nan_is_nan():
    bad, *_ = attacker("noise", scale=2.0)
    sent = [bad.algorithm.local_step(bad.cohort(r, {}), delivered(2)).models for r in (0, 0, 1)]
    a, b, c = (torch.cat([t.flatten() for t in m.values()]) for m in sent)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.std().item() == pytest.approx(2, rel=0.2)
    bad, *_ = attacker("nan")
    assert all(t.isnan().all() for t in bad.algorithm.local_step(bad.cohort(0, {}), delivered(2)).models.values())


def test_what_sends_no_models_is_left_alone():
    bad, *_ = attacker("nan")
    silent = type("Silent", (), {"local_step": lambda *_: Report(arrays={"x": torch.ones(1)})})()
    assert _Spoiling(silent, Attack(kind="nan")).local_step(bad.cohort(0, {}), delivered(2)).arrays["x"].item() == 1


def test_attackers_are_drawn_by_the_seed_or_named():
    share = settings(attack=Attack(kind="nan", share=0.3))
    found = attackers(share, TEN)
    assert len(found) == 3 and found == attackers(share, TEN[::-1])
    assert any(attackers(share.model_copy(update={"seed": s}), TEN) != found for s in range(1, 4))
    assert attackers(settings(attack=Attack(kind="nan", clients=("c05",))), TEN) == {"c05"}
    assert attackers(settings(), TEN) == set()


@pytest.mark.parametrize("attack", [{"clients": ("c05", "zoe")}, {"share": 0.01}, {"share": 0.99}])
def test_attackers_that_cannot_be_are_refused(attack):
    with pytest.raises(InputError, match=r"attack\.(clients|share)"):
        attackers(settings(attack=Attack(kind="nan", **attack)), TEN)


def test_nothing_that_trains_or_judges_reads_who_attacks():
    rooms = [ROOT / "fedclust" / f"{name}.py" for name in (
        "strategy", "rounds", "suspects", "robust", "aggregate", "task", "client_app", "server_app", "newcomers")]
    for path in [*rooms, *(ROOT / "fedclust/algorithms").glob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        read = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
        told = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert not {"attack", "attacker"} & (read | told), path
    assert len(algorithm_names()) > 10


def test_honest_clients_are_evaluated_apart():
    clients = pd.DataFrame({"id": list("abcd"), "accuracy": [0.5, 1.0, 0.0, 0.75], "true_group": [0, 0, 1, 1],
                            "true_attacker": [0, 0, 1, 0]})
    accuracy = np.array([[0.1] * 4, [0.5, 1.0, 0.0, 0.75]])
    whole = Outcome(clients, accuracy, np.full((2, 4), np.nan), np.array([[-1] * 4, [0, 0, 0, 1]]), np.eye(4)[:, :2],
                    pd.DataFrame(columns=["client", "shots", "draw", "group", "accuracy", "error"]), np.eye(4))
    assert whole.honest.clients["id"].tolist() == ["a", "b", "d"] and whole.honest.similarity.shape == (3, 3)
    values = evaluate(whole.honest)
    assert values["local"] == 0.75 and values["ari"] == 1.0
    assert poisoning(whole, {"c", "a"}) == {"attackers": 0.0, "caught": 1.0, "false_alarms": pytest.approx(1 / 3)}
    assert poisoning(whole.honest, {"b"}) == {"false_alarms": pytest.approx(1 / 3)}


def test_a_simulation_with_attackers_from_its_plan_to_its_report(tmp_path):
    fields = {"attack.kind": "sign_flip", "attack.clients": ["client-0003"], "attack.scale": 4, "robust.exclude": True,
              "evaluate_every": 0, "shots": []}
    plan = Plan(scenarios=["digits-one-concept:n_clients=8"], algorithms=["fedavg"], seeds=1,
                config=fields | {"rounds": 8, "model.hidden": [8], "training.epochs": 1})
    store = RunStore(tmp_path, FederationRecord)
    config = plan.runs()[0]
    record = execute(config, store.run_dir(config), Silent(), raises=True)
    assert record.metrics["caught"] == 1 and record.metrics["false_alarms"] == 0
    assert list(record.suspects) == list(record.excluded) == ["client-0003"]
    clients = pd.read_csv(tmp_path / config.run_id / "clients.csv").set_index("id")
    honest = clients.loc[clients["true_attacker"] == 0, "accuracy"]
    assert len(honest) == 7 and record.metrics["local"] == pytest.approx(honest.mean(), abs=1e-6)
    assert record.metrics["attackers"] == pytest.approx(clients.loc["client-0003", "accuracy"], abs=1e-6)
    runs = collect(store.records())
    assert runs[0].outcome.clients["id"].tolist() == honest.index.tolist(), "figures show honest clients"
    told = suspects_table(runs)
    assert [[c.text for c in r][:3] for r in told.rows] == [["fedavg", "0", "client-0003"]]
    assert "suspected in round" in told.rows[0][4].text
    words = command(config)
    assert "robust.exclude=true" in words and "attack.scale=4.0" in words and "attack.share" not in words


def test_runs_with_and_without_attackers_fit_in_one_report(tmp_path):
    """Their honest clients are others: no figure may lay them side by side."""
    store = RunStore(tmp_path / "store", FederationRecord)
    held = made("fedrc")
    bad = np.arange(len(held.clients)) % 5 == 0
    poisoned = replace(held, clients=held.clients.assign(true_attacker=bad.astype(int)))
    put(store, "fedrc", outcome=held)
    put(store, "fedrc", outcome=poisoned, label="poisoned", attack=Attack(kind="sign_flip"))
    page = write_report(store.records(), tmp_path / "report", "both").read_text()
    assert page.count("<svg") > 5 and "poisoned" in page
