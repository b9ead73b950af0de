"""Replies that are finite and of the right shape and still no answer: left out, counted, told why."""

import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord

from fedclust.algorithms import algorithm_names, make_algorithm
from fedclust.algorithms.base import Report
from fedclust.algorithms.fedavg import FedAvg
from fedclust.contract import PROMISES, Form, broken
from fedclust.flwr_compat import task_identity
from fedclust.messages import Packer, report_contents
from fedclust.records import pack, unpack
from fedclust.rounds import RunStopped, Wanted
from graphclust.graph import InputError
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import TRAINING, Loop, concepts

TWO_STARTS = {"n_groups": 2, "restarts": 2, "trial_rounds": 3}
LABELS = {"similarity": "labels", "method": "spectral", "n_groups": 2}
SENT, N = torch.tensor([4, 4, 4, 1]), torch.tensor([10.0, 20, 30, 40])


def says(array, change):
    """A client that changes one array of its reply."""
    def spoil(message, call):
        reply = call()
        content = reply.content.copy()
        if array not in unpack(content.get("arrays", pack({}))):
            return reply
        arrays = {name: t.clone() for name, t in unpack(content["arrays"]).items()}
        arrays[array] = change(arrays[array])
        content["arrays"] = pack(arrays)
        return Message(content, reply_to=message)
    return spoil


def told(array, *rows, sent=SENT, n=N, exact=True, **others):
    found = broken({array: torch.tensor(rows), **others}, sent[: len(rows)], n[: len(rows)], exact=exact)
    assert all(reason.startswith(array) for reason in found.values())
    return sorted(found)


def test_what_is_a_mixture_by_hand():
    assert told("weights", [0.25, 0.75], [1.5, -0.5], [0.5, 0.4], [0.5, 0.5 + 1e-5]) == [1, 2]
    two = {"likelihood": torch.zeros(3, 2)}
    assert told("omega", [0.5, 0.5, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 1.5, -0.5], **two) == [1, 2]


def test_what_is_a_group_by_hand():
    assert told("group", 0, 3, 4, 1) == [2, 3], "four models were sent, one to the last"
    assert told("group", -1, 2) == [0]
    two = {"likelihood": torch.zeros(3, 2)}
    assert told("group", [0, 1], [1, 2], [-1, 0], **two) == [1, 2], "of each of two starts two models"


def test_what_are_counts_by_hand():
    assert told("counts", [[6.0, 4.0]], [[25.0, -5.0]], [[30.0, 30.0]]) == [1, 2]
    assert told("labels", [6.0, 4.0], [25.0, -5.0], [30.0, 30.0], exact=False) == [1], "noise changes how many"
    assert told("counts", [[12.0, 8.0]], [[20.0, 0.0]], likelihood=torch.zeros(2, 2)) == [1], "n_i in each start"


def test_what_is_an_accuracy_and_what_may_be_anything():
    assert told("accuracy", [0.0, 1.0], [0.5, 1.01], [-0.1, 0.2]) == [1, 2]
    assert told("losses", [-1e9, 1e9]) == told("of_ones_own", [7.0]) == []


PHASES = {
    "community": [{"similarity": s, "warmup": 1, "every": e, "divergence": {"rounds": 3, "width": 2}}
                  for s, e in (("updates", 2), ("losses", 2), ("labels", 0), ("divergence", 0))],
    "fedcollab": [{"divergence": {"rounds": 3, "width": 2}, "c": 4.0, "inner": inner, "inner_settings": of}
                  for inner, of in (("fedavg", {}), ("ifca", {"n_groups": 2}), ("fedrc", TWO_STARTS))],
    "fedem": [TWO_STARTS], "fedrc": [TWO_STARTS, {"n_groups": 3, "prune": 0.2}],
    "ifca": [TWO_STARTS, {"n_groups": 2}],
    "fesem": [{"n_groups": 2, "start_from": start} for start in ("kmeans", "random")],
    "hierarchical": [{"warmup": 1}, {"warmup": 1, "meta": "fomaml"}], "flhc": [{"warmup": 1}],
    "cfl": [{"first_split": 1, "rho": 0.9}], "oracle": [{"true_groups": (0, 1) * 3}],
}
"""Settings under which five rounds see every phase; elsewhere the defaults."""
CASES = [(name, of) for name in algorithm_names() for of in PHASES.get(name, [{}])]


@pytest.mark.parametrize(("name", "of"), CASES)
def test_what_honest_clients_send_is_of_the_form_that_is_known_beforehand(name, of):
    """And the forms of all phases together have the arrays of ``extras``."""
    loop = Loop(make_algorithm(name, of, TRAINING), concepts())
    seen, found = set(), []
    answers = loop.answers
    loop.answers = lambda who, deliveries: found.extend(answers(who, deliveries)) or found
    while loop.round < 5:
        state, found[:] = {**loop.state, "round": torch.tensor(loop.round)}, []
        payloads = [loop.algorithm.payload(state, i) for i in range(6)]
        loop.step()
        packer = Packer(state)
        for payload, report in zip(payloads, found, strict=True):
            form = loop.algorithm.reply(payload, 4)
            records = report_contents(report, 1)[0]
            wanted = Wanted.of(form, packer.signature(payload.family), payload.phase)
            assert wanted.problem({key: r.signature() for key, r in records.items()}) is None
            seen |= {*form.arrays}
    assert seen == {*loop.algorithm.extras} <= {*PROMISES}


class Margins(FedAvg):
    """FedAvg whose clients report an array of their own."""

    @property
    def extras(self):
        return ("margins",)

    def local_step(self, cohort, delivery):
        report = super().local_step(cohort, delivery)
        return Report(report.models, {"margins": torch.ones(len(cohort), 3)})


class DeclaredMargins(Margins):
    def reply(self, payload, n_classes):
        return Form(1, {"margins": (3,)})


@pytest.fixture
def of_ones_own(monkeypatch):
    def register(cls):
        monkeypatch.setattr("fedclust.algorithms.get_algorithm", lambda name: cls)
        return settings("fedavg")
    return register


def test_an_algorithm_with_arrays_of_its_own_says_what_they_look_like(of_ones_own):
    longer = {"c02": says("margins", lambda t: torch.cat([t, t]))}
    result = Flower(of_ones_own(DeclaredMargins), spoil=longer).run()
    assert [row["failures"] for row in result.history.rounds] == [
        {"c02": "unusable reply: arrays: margins has shape (6,), (3,) is asked for"}] * 3


def test_an_array_of_which_nothing_is_known_is_refused_before_the_first_round(of_ones_own):
    with pytest.raises(InputError, match=r"extras: nothing is known about the shape of array 'margins'.*reply\(\)"):
        Flower(of_ones_own(Margins)).run()


def test_replies_of_unlike_forms_in_one_round_all_count():
    """A coalition that nobody answered for in the last round of its trial is in it for a round longer."""
    of = {"divergence": {"rounds": 8, "width": 16, "server_lr": 0.05}, "c": 4.0, "inner": "ifca",
          "inner_settings": {"n_groups": 2, "restarts": 2, "trial_rounds": 2}}

    def silent(message, call):
        if message.content["settings"]["round"] == 1:
            raise OSError("disk full")
        return call()

    second = [f"c0{i}" for i in (1, 3, 5)]
    result = Flower(settings("fedcollab", settings=of, rounds=4), spoil=dict.fromkeys(second, silent)).run()
    assert result.state["group"].tolist() == [0, 1, 0, 1, 0, 1], "the two concepts"
    rounds = [row for row in result.history.rounds if row["round"] >= 0]
    assert [[*row["failures"]] for row in rounds] == [[], second, [], []]
    assert result.state["sizes"].tolist() == [2, 2], "both have ended their trials"


@pytest.mark.parametrize(("algorithm", "of", "array", "change", "reason"), [
    ("ifca", {"n_groups": 2}, "group", lambda t: t + 7, "group is not the number of a model that was sent"),
    ("ifca", {"n_groups": 2}, "group", lambda t: t - 7, "group is not the number of a model that was sent"),
    ("ifca", {"n_groups": 2}, "group", lambda t: t + 0.5, "group holds torch.float32, torch.int64 is asked for"),
    ("ifca", TWO_STARTS, "group", lambda t: t + 2, "group is not the number of a model that was sent"),
    ("community", {"warmup": 1}, "group", lambda t: t + 9, "group is not the number of a model that was sent"),
    ("fedem", {"n_groups": 2, "restarts": 1}, "weights", lambda t: 2 * t, "weights is no mixture"),
    ("fedrc", {"n_groups": 2, "restarts": 1}, "weights", lambda t: t + torch.tensor([2.0, -2.0]), "weights is no"),
    ("fedrc", TWO_STARTS, "omega", lambda t: 3 * t, "omega is no mixture"),
    ("fedrc", {"n_groups": 2, "restarts": 1}, "counts", lambda t: -t, "counts are no label counts"),
    ("fedrc", {"n_groups": 2, "restarts": 1}, "counts", lambda t: 1e6 * t, "counts are no label counts"),
])
def test_a_client_that_breaks_its_promise_is_left_out_and_counted(algorithm, of, array, change, reason):
    result = Flower(settings(algorithm, settings=of), spoil={"c02": says(array, change)}).run()
    kinds = [row["failures"] for row in result.history.rounds]
    assert kinds[0].keys() == {"c02"} and reason in kinds[0]["c02"], kinds
    assert all(row["unusable"] == list(row["failures"]) for row in result.history.rounds)
    loop = Loop(make_algorithm(algorithm, of, TRAINING), concepts())
    for failed in kinds:
        loop.step([i for i in range(6) if f"c{i:02d}" not in failed])
    for name, t in loop.state.items():
        assert torch.equal(result.state[name].nan_to_num(9), t.nan_to_num(9)), name


@pytest.mark.parametrize(("algorithm", "of", "array"), [
    ("community", LABELS, "labels"), ("fedcollab", {"divergence": {"rounds": 2, "width": 2}}, "accuracy"),
])
def test_so_it_is_before_the_first_round(algorithm, of, array):
    result = Flower(settings(algorithm, settings=of), spoil={"c02": says(array, lambda t: t - 5)}).run()
    first = result.history.rounds[0]
    assert first["round"] < 0 and array in first["failures"]["c02"] and first["unusable"] == ["c02"]
    assert result.clients[0]["accuracy"] is not None


@pytest.mark.parametrize(("algorithm", "of"), [
    ("ifca", TWO_STARTS), ("fedem", TWO_STARTS), ("fedrc", TWO_STARTS), ("fedrc", {"n_groups": 3, "prune": 0.2}),
    ("community", LABELS), ("community", {"similarity": "losses", "warmup": 1}),
    ("fedcollab", {"divergence": {"rounds": 3, "width": 4}, "inner": "ifca", "inner_settings": {"n_groups": 1}}),
])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_honest_clients_keep_their_promises(algorithm, of, fraction):
    result = Flower(settings(algorithm, settings=of, rounds=5, fraction=fraction)).run()
    assert [row["failures"] for row in result.history.rounds] == [{} for _ in result.history.rounds]


@pytest.mark.parametrize("privacy", [{"clip": 1.0, "noise_multiplier": 0.5}, {"label_histogram": "noised",
                                                                            "label_epsilon": 1.0}])
def test_noise_keeps_them_too(privacy):
    config = settings("fedrc", settings={"n_groups": 2, "restarts": 1}, privacy=privacy)
    assert [row["failures"] for row in Flower(config).run().history.rounds] == [{}, {}, {}]


def lying(flower, kind, record, change):
    """The third client, or the first newcomer, changes a record of its replies to messages of this type."""
    real = flower.grid._app

    def app(message, context):
        reply = real(message, context)
        if message.metadata.message_type == kind and context.node_config["partition-id"] in (2, 6):
            content = reply.content.copy()
            content[record] = change(content[record])
            return Message(content, reply_to=message)
        return reply

    flower.grid._app = app
    return flower


def weights(change):
    return lambda held: pack({"weights": change(unpack(held)["weights"])})


@pytest.mark.parametrize("change", [lambda w: -w, lambda w: 3 * w, lambda w: w[None], lambda w: w * torch.nan])
def test_weights_of_the_last_evaluation_are_looked_at_too(change):
    config = settings("fedem", settings={"n_groups": 2, "restarts": 1})
    found = lying(Flower(config), "evaluate", "arrays", weights(change)).run()
    assert "weights is no mixture" in found.clients[2]["error"] and found.clients[2]["accuracy"] is None
    assert all(row["error"] is None for i, row in enumerate(found.clients) if i != 2)
    assert torch.equal(found.weights[2], found.state["weights"][2]), "what it sent in training stands"


@pytest.mark.parametrize("change", [lambda w: -w, lambda w: 3 * w, lambda w: torch.cat([w, 0 * w])])
def test_a_newcomer_whose_weights_are_no_mixture_is_undetermined(change):
    config = settings("fedem", settings={"n_groups": 2, "restarts": 1}, shots=())
    found = lying(Flower(config, unseen=concepts(7)[6:]), "query.evidence", "0-arrays", weights(change)).run()
    assert [row["undetermined"] for row in found.unseen] == [True]


@pytest.mark.parametrize(("record", "change", "reason"), [
    ("metrics", lambda held: MetricRecord({"accuracy": [0.5, 0.5]}), "one number for each name"),
    ("metrics", lambda held: pack({"accuracy": torch.ones(2)}), "one number for each name"),
    ("arrays", lambda held: ArrayRecord({"weights": Array("float32", (2,), "numpy.ndarray", b"no array")}), "unusable"),
    ("arrays", lambda held: pack({"weights": torch.ones(1), "embedding": torch.ones(3)}), "embedding is not one row"),
])
def test_so_is_the_form_of_the_last_evaluation(record, change, reason):
    found = lying(Flower(settings()), "evaluate", record, change).run()
    assert reason in found.clients[2]["error"] and found.clients[2]["accuracy"] is None
    assert all(row["error"] is None for i, row in enumerate(found.clients) if i != 2)


@pytest.mark.parametrize(("algorithm", "record", "change"), [
    ("flhc", "0-model-0", lambda held: pack({"encoder.0.weight": torch.ones(3)})),
    ("community", "0-model-0", lambda held: pack({name: torch.cat([t, t]) for name, t in unpack(held).items()})),
])
def test_evidence_of_another_form_is_the_newcomers_own_failure(algorithm, record, change):
    of = {"flhc": {"warmup": 1, "n_groups": 2}, "community": {"warmup": 1}}[algorithm]
    flower = Flower(settings(algorithm, settings=of, shots=()), unseen=concepts(8)[6:])
    first, second = lying(flower, "query.evidence", record, change).run().unseen
    assert "unusable reply" in first["error"] and first["undetermined"] and first["accuracy"] is None
    assert second["error"] is None and second["accuracy"] is not None


@pytest.mark.parametrize("held", [{"accuracy": [0.5]}, {"accuracy": 0.5, "loss": 1.0}, {"accuracy": [], "loss": []}])
def test_so_is_what_it_measures_of_another_form(held):
    flower = Flower(settings(shots=()), unseen=concepts(8)[6:])
    first, second = lying(flower, "evaluate.assigned", "metrics", lambda _: MetricRecord(held)).run().unseen
    assert "an accuracy and a loss for each trial" in first["error"] and first["accuracy"] is None
    assert second["error"] is None and second["accuracy"] is not None


def test_nobody_is_left_when_all_break_them():
    spoil = {f"c0{i}": says("group", lambda t: t + 7) for i in range(6)}
    with pytest.raises(RunStopped, match="0 of 6 replies can be used"):
        Flower(settings("ifca", settings={"n_groups": 2}), spoil=spoil).run()


@pytest.mark.parametrize("n", [0, -3, 1.5])
def test_a_client_without_a_sound_number_of_samples_is_refused_by_name(n, monkeypatch):
    flower = Flower(settings())
    real = flower.grid._app

    def boasting(message, context):
        reply = real(message, context)
        if "hello" in reply.content and context.node_config["partition-id"] == 1:
            reply.content["hello"]["n_train"] = n
        return reply

    flower.grid._app = boasting
    with task_identity(1), pytest.raises(InputError, match=f"client 'c01': it says that it has {n} training samples"):
        flower.strategy().start(flower.grid)
