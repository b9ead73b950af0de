"""Clients that are missing, broken or slow: never averaged in, always counted, and never taken for a success."""

import time
from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedclust.algorithms import make_algorithm
from fedclust.algorithms.base import Report
from fedclust.contract import Form
from fedclust.flwr_compat import task_identity
from fedclust.messages import report_contents, reports
from fedclust.records import pack, unpack
from fedclust.rounds import RunStopped, Wanted, handshake, sound_reports
from fedclust.strategy import ClusteredStrategy
from graphclust.graph import InputError
from simulations.engines.inprocess import InProcessGrid
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import TRAINING, Loop, blobs, concepts


def raises(message, call):
    raise OSError("disk full")


def changed(change):
    """A client that sends something else than what it trained."""
    def spoil(message, call):
        reply = call()
        report = reports([reply.content])
        name = next(iter(report.models))
        own = ({n: t[0].clone() for n, t in of.items()} for of in (report.models, report.arrays))
        models, arrays = change(*own, name)
        content = RecordDict({f"model-{j}": pack({n: t[j] for n, t in models.items()}) for j in range(1)})
        if arrays:
            content["arrays"] = pack(arrays)
        content["metrics"] = reply.content["metrics"]
        return Message(content, reply_to=message)
    return spoil


def nan(models, arrays, name):
    models[name] = torch.full_like(models[name], torch.nan)
    return models, arrays


def infinite(models, arrays, name):
    models[name][0, 0] = torch.inf
    return models, arrays


def longer(models, arrays, name):
    models[name] = torch.cat([models[name], models[name]], dim=1)
    return models, arrays


def renamed(models, arrays, name):
    models["head"] = models.pop(name)
    return models, arrays


def other_dtype(models, arrays, name):
    models[name] = models[name].double()
    return models, arrays


def another_array(models, arrays, name):
    return models, {**arrays, "more": torch.zeros(2)}


def with_record(name, make):
    """A client whose reply holds another record of this name."""
    def spoil(message, call):
        content = call().content.copy()
        content[name] = make(content)
        return Message(content, reply_to=message)
    return spoil


def of_another_node(message, call):
    """What the server answers for a node that is gone: an error from itself."""
    reply = Message(Error(5, "Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return reply


@pytest.mark.parametrize(("spoil", "reason"), [
    (raises, "OSError: disk full"),
    (changed(nan), "holds NaN or inf"),
    (changed(infinite), "holds NaN or inf"),
    (changed(longer), "is asked for"),
    (changed(renamed), "lacks encoder"),
    (changed(other_dtype), "holds torch.float64, torch.float32 is asked for"),
    (changed(another_array), "arrays holds more, which nobody asked for"),
    (with_record("model-1", lambda reply: reply["model-0"]), "model-1 holds"),
    (with_record("arrays", lambda reply: ConfigRecord({"a": 1})), "it holds arrays, which nobody asked for"),
    (with_record("model-0", lambda reply: ConfigRecord({"a": 1})), "model-0 lacks encoder"),
    (with_record("model-0", lambda reply: ArrayRecord({"w": Array("float32", (2,), "numpy.ndarray", b"no array")})),
     "unusable reply"),
    (with_record("metrics", lambda reply: MetricRecord({"after_accuracy": [0.5, 0.5]})), "one number for each name"),
    (with_record("metrics", lambda reply: reply["model-0"]), "one number for each name"),
    (of_another_node, "Node Unavailable"),
], ids=["raises", "nan", "inf", "shape", "name", "dtype", "array", "model too many", "no arrays", "no model", "bytes",
        "two metrics", "no metrics", "dead node"])
def test_a_broken_client_is_left_out_and_counted(spoil, reason):
    result = Flower(settings(), spoil={"c02": spoil}).run()
    loop = Loop(make_algorithm("fedavg", {}, TRAINING), concepts())
    for _ in range(3):
        loop.step([0, 1, 3, 4, 5])
    for name, t in loop.state.items():
        assert torch.equal(result.state[name], t)
    for row in result.history.rounds:
        assert list(row["failures"]) == ["c02"] and reason in row["failures"]["c02"]
        assert row["participants"] == ["c00", "c01", "c03", "c04", "c05"]
    assert result.history.tables["after_accuracy"][:, 2].isnan().all()
    assert result.clients[2]["accuracy"] is not None, "only its training is broken"


def test_a_client_may_come_back():
    calls = []

    def first_time(message, call):
        calls.append(1)
        return raises(message, call) if len(calls) == 1 else call()

    result = Flower(settings(), spoil={"c00": first_time}).run()
    assert [list(row["failures"]) for row in result.history.rounds] == [["c00"], [], []]


def test_a_slow_client_ends_the_waiting(clock):
    def slow(message, call):
        time.sleep(0.6)
        return call()

    flower = Flower(settings(timeout=0.5, rounds=1), spoil={"c03": slow})
    result = flower.run()
    assert result.history.rounds[0]["failures"] == {f"c0{i}": "no reply within 0.5 s" for i in (3, 4, 5)}


def test_when_every_client_fails_the_run_stops_and_can_be_resumed(tmp_path):
    file, config = tmp_path / "checkpoint", settings("fedrc")
    fail_from = 2

    def later(message, call):
        if message.content["settings"]["round"] >= fail_from:
            raise OSError("disk full")
        return call()

    flower = Flower(config, spoil={f"c0{i}": later for i in range(6)})
    with pytest.raises(RunStopped, match=r"round 2: 0 of 6 .*c00: OSError: disk full.*and 3 more.*resume"):
        flower.run(file)
    told = []

    class Watch:
        checkpoint = None

        def start(self, total, what):
            told.append(total)

        def step(self, step, values, labels=None):
            told.append(step)

    resumed, whole = Flower(config).run(file, monitor=Watch()), Flower(config).run()
    assert told == [3, 2], "only the third round was left"
    assert resumed.clients == whole.clients
    for name, t in whole.state.items():
        assert torch.equal(resumed.state[name], t), name


def test_too_few_replies_stop_the_round():
    spoil = {"c01": raises, "c04": raises}
    assert Flower(settings(min_replies=4), spoil=spoil).run().history.rounds[0]["failures"].keys() == spoil.keys()
    with pytest.raises(RunStopped, match=r"4 of 6 replies can be used, min_replies = 5"):
        Flower(settings(min_replies=5), spoil=spoil).run()


def test_a_failure_in_the_final_evaluation_is_a_row_with_its_error():
    flower = Flower(settings())
    real = flower.grid._app

    def no_evaluation(message, context):
        if message.metadata.message_type == "evaluate" and context.node_config["partition-id"] == 1:
            raise OSError("disk full")
        return real(message, context)

    flower.grid._app = no_evaluation
    rows = flower.run().clients
    assert rows[1]["accuracy"] is None and "disk full" in rows[1]["error"]
    assert all(r["error"] is None and r["accuracy"] is not None for r in rows[:1] + rows[2:])


def test_missing_clients_end_the_handshake_at_the_deadline(clock):
    flower = Flower(settings(timeout=0.4))
    with task_identity(1), pytest.raises(RunStopped, match=r"6 of 7 clients answered within 0\.4 s"):
        ClusteredStrategy(flower.config, 7).start(flower.grid)
    assert time.monotonic() == pytest.approx(0.4)


def test_nodes_that_come_later_are_waited_for():
    class Growing(InProcessGrid):
        asked = 0

        def get_node_ids(self):
            self.asked += 1
            return super().get_node_ids()[: 2 * self.asked]

    flower = Flower(settings(), grid_class=Growing)
    with task_identity(1):
        assert handshake(flower.grid, 6, 30).ids == [f"c0{i}" for i in range(6)]


def test_a_client_that_cannot_load_is_named_at_once():
    flower = Flower(settings(timeout=60))
    del flower.participants[5]
    with task_identity(1), pytest.raises(RunStopped, match=r"5 of 6 clients.*IndexError"):
        ClusteredStrategy(flower.config, 6).start(flower.grid)


def test_two_nodes_with_one_id_are_refused():
    clients = concepts()
    with pytest.raises(InputError, match="client id 'c01' is used by nodes"):
        Flower(settings(), [*clients, replace(clients[1], train=blobs("x", 10))]).run()


def test_clients_that_do_not_fit_together_are_refused():
    clients = concepts()
    odd = replace(clients[2], train=replace(clients[2].train, x=clients[2].train.x[:, :5]))
    with pytest.raises(InputError, match=r"client 'c02' has samples of shape \(5,\)"):
        Flower(settings(), [*clients[:2], odd, *clients[3:]]).run()


def test_a_federation_of_newcomers_only_is_refused():
    with pytest.raises(InputError, match="none of the 2 clients trains"):
        Flower(settings(), [], unseen=concepts(2)).run()


def test_settings_that_do_not_fit_the_clients_are_refused_before_the_first_round():
    calls = []

    def watched(message, call):
        calls.append(1)
        return call()

    with pytest.raises(InputError, match="n_groups"):
        Flower(settings("ifca", settings={"n_groups": 7}), spoil={"c00": watched}).run()
    assert not calls


def test_every_reply_is_judged_by_itself():
    """By what it was to hold: three that break it in one way are not in the right, and two forms are two stacks."""
    model = (("w", (2,), torch.float32),)
    two, other = Wanted.of(Form(2), model, "train"), Wanted.of(Form(1), model, "train")
    contents = {f"c{i}": report_contents(Report({"w": torch.full((1, k, 2), float(i))}), 1)[0]
                for i, k in enumerate([3, 2, 3, 3, 1])}
    stacks, failures = sound_reports(contents, {**dict.fromkeys(contents, two), "c4": other})
    assert [(who, together.models["w"].tolist()) for who, together in stacks] == [
        (["c1"], [[[1.0, 1.0], [1.0, 1.0]]]), (["c4"], [[[4.0, 4.0]]])]
    assert failures == {c: "unusable reply: model-2 holds w, which nobody asked for" for c in ("c0", "c2", "c3")}


def test_a_broken_reply_does_not_lend_its_form_to_another():
    """Signatures are remembered by the tensors' identity, which a freed reply's would pass on."""
    wanted = Wanted.of(Form(1), (("w", (2,), torch.float32),), "train")
    bad, good = (pack({"w": torch.zeros(n)}) for n in (3, 2))
    each = [ArrayRecord(dict((bad if i % 2 else good).items())) for i in range(40)]
    contents = {f"c{i}": RecordDict({"model-0": record}) for i, record in enumerate(each)}
    stacks, failures = sound_reports(contents, dict.fromkeys(contents, wanted))
    assert stacks[0][0] == [f"c{i}" for i in range(0, 40, 2)] and len(failures) == 20


def dropped(array):
    def spoil(message, call):
        content = call().content.copy()
        arrays = {name: t for name, t in unpack(content["arrays"]).items() if name != array}
        content["arrays"] = pack(arrays)
        return Message(content, reply_to=message)
    return spoil


def stretched(array):
    def spoil(message, call):
        content = call().content.copy()
        arrays = unpack(content["arrays"])
        content["arrays"] = pack({**arrays, array: torch.stack([arrays[array]] * 2)})
        return Message(content, reply_to=message)
    return spoil


@pytest.mark.parametrize(("algorithm", "of", "array"), [
    ("ifca", {"n_groups": 2}, "group"), ("fedrc", {"n_groups": 2, "restarts": 1}, "counts"),
    ("fedem", {"n_groups": 2, "restarts": 2}, "likelihood"),
])
@pytest.mark.parametrize(("spoil", "reason"), [(dropped, "arrays lacks {}"), (stretched, "arrays: {} has shape (2")])
@pytest.mark.parametrize("who", [["c03"], ["c00", "c01", "c03", "c04", "c05"]], ids=["one", "most"])
def test_who_sends_a_broken_form_is_left_out_be_they_one_or_most(algorithm, of, array, spoil, reason, who):
    result = Flower(settings(algorithm, settings=of), spoil=dict.fromkeys(who, spoil(array))).run()
    good = [i for i in range(6) if f"c{i:02d}" not in who]
    loop = Loop(make_algorithm(algorithm, of, TRAINING), concepts())
    for row in result.history.rounds:
        loop.step(good)
        assert list(row["failures"]) == row["unusable"] == who
        assert all(reason.format(array) in why for why in row["failures"].values())
    for name, t in loop.algorithm.finished(loop.state).items():
        assert torch.equal(result.state[name].nan_to_num(9), t.nan_to_num(9)), name


def test_a_lone_client_without_its_array_stops_the_run_with_its_state_saved(tmp_path):
    file, config = tmp_path / "checkpoint", settings("ifca", settings={"n_groups": 1})
    with pytest.raises(RunStopped, match=r"0 of 1 replies can be used, min_replies = 1 \(c00: .*arrays lacks group\)"):
        Flower(config, concepts(1), spoil={"c00": dropped("group")}).run(file)
    assert len(Flower(config, concepts(1)).run(file).history.rounds) == 3
