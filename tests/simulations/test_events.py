"""Clients that drop out or are late: a matter of the seed, the client and the round alone, in every engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args
from unittest.mock import create_autospec

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedclust.algorithms import algorithm_names, get_algorithm
from fedclust.algorithms.base import n_groups
from fedclust.config import Engine, FederationConfig
from fedclust.deploy.grid import PromptGrid
from fedclust.events import DROPPED, LATE, Events, read_trace
from fedclust.flwr_compat import task_identity
from fedclust.record import FederationRecord
from fedclust.rounds import RunStopped
from fedclust.strategy import KeepsMemories
from graphclust.graph import InputError
from graphclust.monitor import Silent
from graphclust.options import params
from graphclust.runs.store import RunStore
from simulations.engines import get_engine
from simulations.events import Schedule, eventful
from simulations.plan import Plan
from simulations.run import execute
from tests.contract.test_algorithms import QUICK, SOFT, N, check
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import Loop, concepts, deliver
from tests.simulations.test_inprocess import tiny

IDS = [f"c{i:02d}" for i in range(N)]
RATES = {"dropout": 0.3, "straggler": 0.2}
ENGINES = sorted({*get_args(Engine)} - {"inprocess", "ray"})
"""Ray has its turn in tests/e2e/test_flwr_run.py."""


def trace(tmp_path, *rows, head="client,first,last,event", name="trace.csv"):
    file = tmp_path / name
    file.write_text("\n".join([head, *rows]) + "\n")
    return str(file)


def run(flower, checkpoint=None, **options):
    """The federation of hand-made clients, with the events of its config."""
    with task_identity(1):
        return flower.strategy(checkpoint, **options).start(eventful(flower.config, flower.grid))


def happened(result):
    """(client, round) -> reason."""
    return {(c, row["round"]): reason for row in result.history.rounds for c, reason in row["failures"].items()}


# --- who and when -------------------------------------------------------------------------------------------------


def table(config, ids: Iterable[str] = IDS, rounds=range(200)):
    schedule = Schedule(config)
    return {(c, r): schedule.event(c, r) for r in rounds for c in ids}


def test_the_rates_are_kept_and_a_draw_is_its_clients_own():
    found = table(settings(events=RATES))
    n = len(found)
    assert list(found.values()).count("dropout") / n == pytest.approx(0.3, abs=0.04)
    assert list(found.values()).count("straggler") / n == pytest.approx(0.7 * 0.2, abs=0.03), "of those that start"
    assert table(settings(events=RATES), IDS[3:], range(199, -1, -1)).items() <= found.items(), "others do not matter"
    assert table(settings("ifca", events=RATES, fraction=0.5, rounds=9)) == found
    assert table(settings(events=RATES, seed=1)) != found


def test_another_rate_changes_no_other_draw():
    few, many = (table(settings(events={"dropout": d})) for d in (0.1, 0.4))
    assert {k for k, e in few.items() if e} < {k for k, e in many.items() if e}
    dropped, both = table(settings(events={"dropout": 0.3})), table(settings(events=RATES))
    assert {k for k, e in dropped.items() if e} == {k for k, e in both.items() if e == "dropout"}


def test_a_trace_comes_before_the_draws(tmp_path):
    file = trace(tmp_path, "c01,0,3,dropout", "c02,2,2,straggler", "c01,8,9,straggler")
    found = table(settings(events={"trace": file}))
    assert {k: e for k, e in found.items() if e} == {
        **{("c01", r): "dropout" for r in range(4)}, ("c02", 2): "straggler",
        ("c01", 8): "straggler", ("c01", 9): "straggler"}
    drawn, mixed = table(settings(events=RATES)), table(settings(events={**RATES, "trace": file}))
    traced = {k for k, e in found.items() if e}
    assert all(mixed[k] == (found[k] if k in traced else drawn[k]) for k in mixed)


# --- the trace's file ---------------------------------------------------------------------------------------------


def test_a_trace_may_come_from_elsewhere(tmp_path):
    file = tmp_path / "log.csv"
    file.write_bytes(b"\xef\xbb\xbfdevice,last,event, first,client\r\nx,7,dropout,3, c1 \r\nx,5,dropout,0,c1\r\n")
    assert [row[:4] for row in read_trace(file)] == [("c1", 3, 7, "dropout"), ("c1", 0, 5, "dropout")]


@pytest.mark.parametrize(("rows", "message"), [
    (["c0,0,1,late"], "line 2: event = 'late'; give dropout or straggler"),
    (["c0,0,1,dropout", ",0,1,dropout"], "line 3: no client is named"),
    (["c0,-1,1,dropout"], "line 2: first = '-1'; give a round, a whole number from 0"),
    (["c0,0,1.5,dropout"], "line 2: last = '1.5'"),
    (["c0,3,2,dropout"], "line 2: last = 2 is before first = 3"),
    (["c0,3"], "line 2: event = ''"),
    (["c0,0,9,dropout", "c1,0,9,straggler", "c0,4,4,straggler"],
     "line 4: client 'c0' has straggler in round 4, and dropout by line 2"),
    (["c0,5,6,straggler", "c0,7,9,straggler", "c0,0,3,dropout", "c0,2,5,dropout"],
     "line 5: client 'c0' has dropout in round 5, and straggler by line 2"),
    (["c0,0,9,dropout", "c0,1,2,dropout", "c0,5,6,straggler"], "line 4: client 'c0' has straggler in round 5"),
])
def test_what_is_wrong_in_a_trace_is_named_with_its_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Events(trace=trace(tmp_path, *rows))


def test_missing_columns_and_files_are_named(tmp_path):
    with pytest.raises(InputError, match="line 1: the columns last, event are missing"):
        read_trace(tmp_path / trace(tmp_path, head="client,first"))
    with pytest.raises(ValueError, match="no such file; give a CSV with the columns client, first, last, event"):
        Events(trace=str(tmp_path / "none.csv"))
    for bad in ({"dropout": 1.0}, {"straggler": -0.1}, {"trace_": "x"}):
        with pytest.raises(ValueError, match=r"dropout|straggler|trace_"):
            Events(**bad)


def test_the_content_of_a_trace_decides_the_run_and_not_its_path(tmp_path):
    rows = ("c01,0,3,dropout", "c02,2,2,straggler")
    one, same = (tiny(events={"trace": trace(tmp_path, *r, name=name)}) for r, name in ((rows, "a"), (rows[::-1], "b")))
    other = tiny(events={"trace": trace(tmp_path, rows[0], name="c")})
    assert one.events.trace != same.events.trace and one.fingerprint() == same.fingerprint()
    assert len({one.fingerprint(), other.fingerprint(), tiny(events={"dropout": 0.1}).fingerprint(),
                tiny().fingerprint()}) == 4


def test_without_events_a_run_keeps_the_name_it_had_before_there_were_any(tmp_path, monkeypatch):
    plain, traced, hashed = tiny(), tiny(events={"trace": trace(tmp_path, "c01,0,3,dropout")}), []
    monkeypatch.setattr("fedclust.config.json.dumps", lambda body, **_: hashed.append(body) or "")
    plain.fingerprint(), traced.fingerprint()
    assert "events" not in hashed[0]
    assert hashed[1]["events"] == {"dropout": 0, "straggler": 0, "trace_hash": traced.events.trace_hash}


def test_a_config_travels_without_its_trace_and_notices_another(tmp_path):
    file = trace(tmp_path, "c01,0,3,dropout")
    config = tiny(events={"trace": file})
    trace(tmp_path, "c01,0,4,dropout")
    assert FederationConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(InputError, match=r"its rows are not those that the config was made with.*bring the old file"):
        get_engine("inprocess")(config)
    (tmp_path / "trace.csv").unlink()
    assert FederationConfig.model_validate_json(config.model_dump_json()).fingerprint() == config.fingerprint()
    with pytest.raises(InputError, match="no such file"):
        get_engine("inprocess")(config)


def test_a_client_that_is_not_there_is_refused_before_the_first_round(tmp_path):
    events = {"trace": trace(tmp_path, "client-0000,0,3,dropout", "unseen-0000,0,3,dropout")}
    message = r"line 3: no training client is called 'unseen-0000'; the first is 'client-0000'"
    with pytest.raises(InputError, match=message):
        get_engine("inprocess")(tiny(events=events))
    store, config = RunStore(tmp_path / "runs", FederationRecord), tiny(events=events, engine="ray")
    with pytest.raises(InputError, match=message):
        execute(config, store.run_dir(config), Silent(), raises=True)


def test_the_command_line_has_the_fields(tmp_path):
    file = trace(tmp_path, "client-0001,0,3,dropout")
    given = params(["events.dropout=.2", f"events.trace={file}"])
    runs = Plan(scenarios=["digits-3shift"], algorithms=["fedavg"], seeds=1, config=given).runs()
    assert (runs[0].events.dropout, runs[0].events.straggler, runs[0].events.trace) == (0.2, 0.0, file)
    with pytest.raises(InputError, match="line 2: event = 'gone'"):
        Plan(scenarios=["digits-3shift"], algorithms=["fedavg"], seeds=1, config={
            "events.trace": trace(tmp_path, "client-0001,0,3,gone")}).runs()


# --- what it does -------------------------------------------------------------------------------------------------


def by_hand(config) -> Loop:
    """The same federation in a for loop: who drops out does nothing, who is late trains for itself."""
    schedule, loop = Schedule(config), Loop(config.make(), concepts(N))
    while loop.round < config.rounds:
        events = [schedule.event(c, loop.round) for c in IDS]
        state = {**loop.state, "round": torch.tensor(loop.round)}
        for i in range(N):
            if events[i] == "straggler":
                loop.answers([i], [deliver(state, loop.algorithm.payload(state, i))])
        loop.step([i for i in range(N) if events[i] is None])
    return loop


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_goes_on_as_it_does_by_hand(name):
    two = {"n_groups": 2} if "n_groups" in get_algorithm(name).model_fields else {}
    config = settings(name, settings=QUICK.get(name, two), rounds=6, events=RATES)
    flower, loop = Flower(config, unseen=concepts(N + 1)[N:]), by_hand(config)
    result = run(flower)
    assert {DROPPED, LATE} <= {*happened(result).values()}
    check(result.state, name not in SOFT, complete=False)
    for key, t in loop.algorithm.finished(loop.state).items():
        torch.testing.assert_close(result.state[key], t, rtol=1e-5, atol=1e-6, equal_nan=True, msg=key)
    memories = flower.grid.memories()
    assert len(memories) == sum(map(len, loop.memory))
    for node, held in zip(flower.grid.get_node_ids(), loop.memory, strict=False):
        for key, t in held.items():
            torch.testing.assert_close(memories[f"{node}/memory-0/{key}"], t, rtol=1e-5, atol=1e-6)
    assert all(r["error"] is None or "no model" in r["error"] for r in result.clients)
    assert {r["error"] for r in result.unseen} == {None} and result.unseen_weights.shape[1] == n_groups(result.state)


def test_who_is_late_remembers_the_round_and_who_drops_out_does_not(tmp_path):
    file = trace(tmp_path, "c01,1,1,dropout", "c02,1,1,straggler", "c03,0,0,straggler")
    config = settings("local", rounds=2, events={"trace": file})
    flower = Flower(config)
    result = run(flower)
    assert happened(result) == {("c01", 1): DROPPED, ("c02", 1): LATE, ("c03", 0): LATE}
    assert result.history.rounds[0]["participants"] == ["c00", "c01", "c02", "c04", "c05"]
    assert result.history.tables["before_accuracy"][1].isnan().tolist() == [False, True, True, False, False, False]
    once, twice = (Flower(settings("local", rounds=r)) for r in (1, 2))
    once.run(), twice.run()
    for key, t in flower.grid.memories().items():
        node = flower.grid.get_node_ids().index(int(key.split("/")[0]))
        expected = (once if node == 1 else twice).grid.memories()[key]
        # c03 was never heard in round 0: it is sent the initial model again, and goes on from its own
        assert torch.equal(t, expected), (node, key)


def test_preparation_rounds_have_events_traces_do_not_reach_them_and_evaluation_has_none(tmp_path):
    config = settings("fedcollab", settings=QUICK["fedcollab"], rounds=1, events={
        "straggler": 0.3, "trace": trace(tmp_path, "c00,0,99,dropout")})
    result = run(Flower(config, unseen=concepts(N + 1)[N:]))
    rows = result.history.rounds
    assert sum(LATE in row["failures"].values() for row in rows if row["round"] < 0) > 2
    assert [row["round"] for row in rows if row["failures"].get("c00") == DROPPED] == [0]
    assert {r["error"] for r in [*result.clients, *result.unseen]} == {None}


def test_how_many_are_asked_changes_nobodys_events():
    whole, part = (happened(run(Flower(settings(rounds=8, fraction=f, events=RATES)))) for f in (1.0, 0.6))
    assert part and part.items() < whole.items()


def test_bytes_go_down_to_all_and_come_up_from_those_in_time(tmp_path):
    plain = run(Flower(settings(rounds=1))).history.rounds[0]
    file = trace(tmp_path, "c01,0,0,dropout", "c02,0,0,straggler")
    found = run(Flower(settings(rounds=1, events={"trace": file}))).history.rounds[0]
    assert found["bytes_down"] == plain["bytes_down"] and found["bytes_up"] * 6 == plain["bytes_up"] * 4


def test_a_late_client_that_breaks_says_what_broke_it(tmp_path):
    def raises(message, call):
        raise OSError("disk full")

    config = settings(rounds=1, events={"trace": trace(tmp_path, "c01,0,0,straggler", "c02,0,0,dropout")})
    found = happened(run(Flower(config, spoil={"c01": raises, "c02": raises})))
    assert "disk full" in found["c01", 0] and found["c02", 0] == DROPPED


def test_a_run_without_enough_replies_says_that_the_events_did_it(tmp_path):
    file = trace(tmp_path, *(f"{c},2,2,dropout" for c in IDS[:4]), *(f"{c},2,2,straggler" for c in IDS[4:]))
    config, checkpoint = settings(events={"trace": file}), tmp_path / "checkpoint"
    for _ in range(2):  # resumed it meets the same events
        with pytest.raises(RunStopped, match=r"round 2: of 6 clients asked 4 drop out and 2 are late .*"
                                             r"min_replies = 1; a resumed run meets the same events"):
            run(Flower(config), checkpoint)
    file = trace(tmp_path, "c01,0,0,straggler", name="b")
    assert len(run(Flower(settings(min_replies=5, events={"trace": file}))).history.rounds) == 3
    with pytest.raises(RunStopped, match="round 0: of 6 clients asked 0 drop out and 1 are late"):
        run(Flower(settings(min_replies=6, events={"trace": file})))


def test_a_resumed_run_sees_the_same_events_and_memories(tmp_path):
    config, file = settings("fedrc", rounds=6, settings={"n_groups": 2}, events=RATES), tmp_path / "checkpoint"

    class Stop(Silent):
        def step(self, step, values, labels=None):
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Flower(config), file, monitor=Stop())
    resumed, whole = run(Flower(config), file), run(Flower(config))
    assert happened(resumed) == happened(whole) and resumed.clients == whole.clients
    assert all(torch.equal(t, resumed.state[key]) for key, t in whole.state.items())


# --- the Grid -----------------------------------------------------------------------------------------------------


def test_only_a_grid_that_keeps_memories_gives_them_out():
    flower = Flower(settings(events=RATES))
    assert isinstance(eventful(flower.config, flower.grid), KeepsMemories)
    assert not isinstance(eventful(flower.config, create_autospec(Grid, instance=True)), KeepsMemories)
    assert eventful(settings(), flower.grid) is flower.grid, "without events nothing is in between"
    with pytest.raises(InputError, match="real clients, who drop out by themselves"):
        eventful(flower.config, PromptGrid(flower.grid))


def test_messages_can_be_pushed_now_and_pulled_later(tmp_path):
    file = trace(tmp_path, "c01,0,0,dropout", "c02,0,0,straggler")
    flower = Flower(settings(events={"trace": file}))
    grid = eventful(flower.config, flower.grid)
    with task_identity(1):
        strategy = flower.strategy()
        strategy.start(grid)
        messages = strategy.configure_train(0, None, None, grid)
        ids = list(grid.push_messages(messages))
        assert sorted(ids) == sorted(m.metadata.message_id for m in messages) and len({*ids}) == 6
        assert [r.has_error() for r in grid.pull_messages(ids[:1])] == [False]
        replies = grid.pull_messages(ids)
        reasons = {r.metadata.reply_to_message_id: r.error.reason for r in replies if r.has_error()}
        assert len(replies) == 5 and list(grid.pull_messages(ids)) == []
        assert reasons == {messages[1].metadata.message_id: DROPPED, messages[2].metadata.message_id: LATE}
        hello = RecordDict({"settings": ConfigRecord({"job": 0})})
        again = Message(hello, messages[1].metadata.dst_node_id, "query.hello")
        assert [r.has_error() for r in grid.send_and_receive([again])] == [False], "only rounds have events"


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_has_the_same_events(tmp_path, engine):
    file = trace(tmp_path, "client-0003,0,0,straggler", "client-0001,1,2,dropout")
    config = tiny("fedrc", rounds=4, events={"dropout": 0.2, "straggler": 0.2, "trace": file})
    here, there = (get_engine(name)(config.model_copy(update={"engine": name})) for name in ("inprocess", engine))
    assert {DROPPED, LATE} == {*happened(here).values()} and happened(here) == happened(there)
    assert here.traffic == there.traffic
    for key, t in here.state.items():
        torch.testing.assert_close(there.state[key], t, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert [r["accuracy"] for r in there.clients] == pytest.approx([r["accuracy"] for r in here.clients])
