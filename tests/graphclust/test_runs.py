"""Run identity, the run folder, atomic writes, the parallel engine."""

import json
import os
import sqlite3
from typing import ClassVar

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from graphclust.atomic import write_atomic
from graphclust.graph import InputError
from graphclust.monitor import Silent
from graphclust.runs.base import Record
from graphclust.runs.execute import Trace, execute
from graphclust.runs.lifecycle import carry_out
from graphclust.runs.parallel import run_all
from graphclust.runs.record import RunConfig, RunRecord
from graphclust.runs.store import RunDir, RunStore, save_array


def leiden(**changes) -> RunConfig:
    return RunConfig(**{"method": "leiden", "data": "karate", **changes})


def test_identity_depends_on_what_decides_the_result_and_on_nothing_else():
    base = leiden().fingerprint()
    assert leiden(label="another name", published={"acc": 0.5}).fingerprint() == base
    assert leiden(params={"n_iterations": 2}).fingerprint() == base, "a default spelled out is the same run"
    others = [leiden(seed=1), leiden(params={"resolution": 2.0}), leiden(data="debtopics13"), leiden(threads=2)]
    assert len({c.fingerprint() for c in others} | {base}) == 5


def test_identity_follows_the_content_of_a_file(tmp_path):
    file = tmp_path / "edges.csv"
    file.write_text("a,b\nb,c\n")
    first = leiden(data=str(file)).fingerprint()
    file.write_text("a,b\nb,d\n")
    assert leiden(data=str(file)).fingerprint() != first
    assert leiden(data=f"{file}:directed=error").fingerprint() != leiden(data=str(file)).fingerprint()


def test_unknown_method_parameter_and_key_name_the_nearest():
    with pytest.raises(InputError, match="did you mean 'leiden'"):
        leiden(method="lieden").resolved()
    with pytest.raises(InputError, match="did you mean 'resolution'"):
        leiden(params={"resolutoin": 1}).resolved()
    with pytest.raises(InputError, match="--seed"):
        leiden(params={"random_state": 1}).resolved()
    with pytest.raises(ValidationError, match="colour"):
        RunConfig(method="leiden", data="karate", colour="red")


def test_run_writes_a_complete_folder_and_is_not_run_twice(tmp_path):
    store = RunStore(tmp_path, RunRecord)
    run_dir = store.run_dir(leiden())
    record = execute(leiden(), run_dir)
    assert record.status == "finished" and record.k_source == "method" and record.metrics["modularity"] > 0.4
    assert run_dir.array("labels").shape == (34,)
    assert {"config.yaml", "record.json", "labels.npy"} <= {p.name for p in run_dir.path.iterdir()}
    before = (run_dir.path / "record.json").stat().st_mtime_ns
    again = execute(leiden(), run_dir)
    assert again == record and (run_dir.path / "record.json").stat().st_mtime_ns == before


def test_folder_of_another_config_is_refused_and_kept(tmp_path):
    execute(leiden(), RunDir(tmp_path, RunRecord))
    with pytest.raises(InputError, match="another config"):
        execute(leiden(seed=5), RunDir(tmp_path, RunRecord))
    assert RunDir(tmp_path, RunRecord).record().config.seed == 0


class Plan(BaseModel):
    """A config of another kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = 0
    text: str
    name: ClassVar[str] = "plan"

    @property
    def title(self):
        return f"plan {self.text}"

    @property
    def run_id(self):
        return f"plan-{self.fingerprint()}"

    def fingerprint(self):
        return f"{self.text}{self.seed}"

    def resolved(self):
        return self


class PlanRecord(Record):
    config: Plan
    length: int | None = None

    def facts(self):
        return {"length": self.length}


def test_the_store_holds_any_kind_of_run_and_keeps_kinds_apart(tmp_path):
    plans, graphs = RunStore(tmp_path, PlanRecord), RunStore(tmp_path, RunRecord)
    execute(leiden(), graphs.run_dir(leiden()))

    def work(record):
        record.length, record.metrics = len(record.config.text), {"vowels": 1.0}

    done = carry_out(Plan(text="abc"), plans.run_dir(Plan(text="abc")), work, packages=["numpy"])
    assert done.status == "finished" and done.versions["numpy"] == np.__version__
    assert [r for _, r in plans.records()] == [done] and [r.config.method for _, r in graphs.records()] == ["leiden"]
    db = sqlite3.connect(plans.reindex())
    assert db.execute("select name, status, length from runs").fetchall() == [("plan", "finished", 3)]
    assert db.execute("select * from metrics").fetchall() == [(done.id, "vowels", 1.0)]
    with pytest.raises(InputError, match="another kind"):
        plans.run_dir(Plan(text="abc")).path.joinpath("config.yaml").write_text("method: leiden")
        carry_out(Plan(text="abc"), plans.run_dir(Plan(text="abc")), work, packages=[])


def test_interrupted_work_stays_running_and_says_that_it_was_taken_up(tmp_path):
    run_dir = RunDir(tmp_path, PlanRecord)

    def interrupted(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(Plan(text="a"), run_dir, interrupted, packages=[])
    assert run_dir.record().status == "running"
    assert carry_out(Plan(text="a"), run_dir, lambda record: None, packages=[]).taken_up


def test_failure_is_a_record_with_its_error(tmp_path):
    record = execute(leiden(method="kmeans", data="karate"), RunDir(tmp_path, RunRecord))
    assert record.status == "failed" and not record.metrics
    assert record.error["type"] == "InputError" and "features" in record.error["message"]
    with pytest.raises(InputError):
        execute(leiden(method="kmeans", data="karate"), RunDir(tmp_path, RunRecord), raises=True)


def test_index_is_rebuilt_from_the_folders(tmp_path):
    store = RunStore(tmp_path, RunRecord)
    for seed in (0, 1):
        execute(leiden(seed=seed), store.run_dir(leiden(seed=seed)))
    (tmp_path / "index.sqlite").write_text("garbage")
    db = sqlite3.connect(store.reindex())
    assert db.execute("select count(*) from runs where status = 'finished'").fetchone() == (2,)
    (value,) = db.execute("select value from metrics where name = 'nmi' limit 1").fetchone()
    assert 0 < value <= 1


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_atomic(file, "old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(file, "new")
    assert file.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_save_array_round_trip(tmp_path):
    save_array(tmp_path / "a.npy", np.arange(5))
    assert RunDir(tmp_path, RunRecord).array("a").tolist() == [0, 1, 2, 3, 4]
    assert RunDir(tmp_path, RunRecord).array("b") is None


def test_trace_thins_out_to_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("graphclust.runs.execute.TRACE_LIMIT", 50)
    trace = Trace(10, tmp_path, Silent())
    trace.start(20, "training")
    for step in range(20):
        trace.step(step, {}, lambda: np.full(10, step))  # noqa: B023
    assert [(e, row.tolist()) for e, row in trace.epochs()] == [(e, [e] * 10) for e in (0, 4, 8, 12, 16)]
    trace.clear()
    assert not list(tmp_path.iterdir())


def test_trace_goes_on_after_an_interruption_and_starts_anew_without_a_checkpoint(tmp_path):
    first = Trace(3, tmp_path, Silent())
    for step in range(4):  # interrupted after epoch 3, with a checkpoint taken after epoch 1
        first.step(step, {}, lambda: np.zeros(3))
    (tmp_path / "checkpoint.pt").write_bytes(b"state")
    second = Trace(3, tmp_path, Silent())
    for step in range(2, 6):
        second.step(step, {}, lambda: np.ones(3))
    assert [(e, row[0]) for e, row in second.epochs()] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1), (5, 1)]
    (tmp_path / "checkpoint.pt").unlink()
    assert not list(Trace(3, tmp_path, Silent()).epochs())


def test_refused_input_leaves_the_folder_free(tmp_path):
    run_dir = RunDir(tmp_path / "out", RunRecord)
    with pytest.raises(InputError, match="features"):
        execute(leiden(method="kmeans", data="karate", n_clusters=2), run_dir, raises=True)
    assert not run_dir.path.exists()
    run_dir.path.mkdir()
    (run_dir.path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="n = 34"):
        execute(leiden(method="spectral", n_clusters=99), run_dir, raises=True)
    assert [f.name for f in run_dir.path.iterdir()] == ["notes.txt"]
    assert execute(leiden(), run_dir, raises=True).status == "finished"
    with pytest.raises(InputError, match="another config"):
        execute(leiden(method="kmeans", n_clusters=2), run_dir, raises=True)
    assert run_dir.record().status == "finished"


@pytest.mark.usefixtures("forkserver")
def test_engine_gives_the_same_results_as_one_process(tmp_path):
    configs = [leiden(seed=s).resolved() for s in range(3)] + [leiden(method="kmeans", n_clusters=2).resolved()]
    events = []
    store = RunStore(tmp_path / "a", RunRecord)
    records = run_all(configs, store, execute, jobs=2, listen=lambda c, e: events.append((c, e)))
    assert [r.status for r in records] == ["finished"] * 3 + ["failed"]
    assert "features" in records[3].error["message"]
    for config, record in zip(configs[:3], records[:3], strict=True):
        alone = RunDir(tmp_path / "b" / config.run_id, RunRecord)
        execute(config, alone)
        assert (alone.array("labels") == store.run_dir(config).array("labels")).all()
        assert alone.record().metrics == record.metrics
    assert run_all(configs[:3], store, execute) == records[:3]
    assert len({c.run_id for c, _ in events}) == 4


@pytest.mark.usefixtures("forkserver")
def test_the_order_of_a_benchmark_stays_when_its_folder_is_read_again(tmp_path):
    """Not that of the folders' names; a run that is not of the benchmark comes after it."""
    store = RunStore(tmp_path, RunRecord)
    other = leiden(method="propagation").resolved()
    execute(other, store.run_dir(other))
    plan = [leiden(data=data, method=m, seed=s).resolved() for data in ("sbm:n=60,k=3", "karate")
            for m in ("louvain", "leiden") for s in (1, 0)]
    assert (names := [c.run_id for c in plan]) != sorted(names)
    records = run_all(plan, store, execute, jobs=2)
    assert [r.id for _, r in store.records()] == [r.id for r in records] + [other.run_id] == [*names, other.run_id]
    run_all(plan[::-1], store, execute)
    assert [r.id for _, r in store.records()] == [*names[::-1], other.run_id]


@pytest.mark.usefixtures("forkserver")
def test_a_run_whose_process_dies_is_a_failed_row(tmp_path, monkeypatch):
    store = RunStore(tmp_path, RunRecord)
    config = leiden(data="sbm:n=20000,k=4").resolved()
    run_dir = store.run_dir(config)
    run_dir.path.mkdir(parents=True)
    (run_dir.path / "config.yaml").mkdir()  # the child cannot claim its folder and dies with a traceback
    (record,) = run_all([config], store, execute)
    assert record.status == "failed" and "exit code 1" in record.error["message"]
    assert "IsADirectoryError" in record.error["traceback"]
    assert json.loads((run_dir.path / "record.json").read_text())["status"] == "failed"


class Unborn:
    """Work that the child cannot even unpickle."""

    def __call__(self, config, run_dir, monitor):
        raise AssertionError

    def __reduce__(self):
        return os._exit, (3,)


@pytest.mark.usefixtures("forkserver")
def test_a_process_that_dies_before_its_first_line_is_a_failed_row(tmp_path):
    store = RunStore(tmp_path, RunRecord)
    (record,) = run_all([leiden().resolved()], store, Unborn())
    assert record.status == "failed" and "exit code 3" in record.error["message"]
    assert [r.status for _, r in store.records()] == ["failed"]
