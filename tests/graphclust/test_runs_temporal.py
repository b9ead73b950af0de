"""Runs on streams: what the methods see, what is written, how the truth over time is compared, the report."""

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch_geometric.data import TemporalData

from graphclust.coerce import as_stream
from graphclust.data import load
from graphclust.metrics import METRICS
from graphclust.runs import execute as runner
from graphclust.runs.execute import execute
from graphclust.runs.record import RunConfig, RunRecord
from graphclust.runs.report import write_report
from graphclust.runs.store import RunDir, RunStore
from graphclust.runs.tables import frame, main_table, windows_table
from graphclust.stream import Stream

DATA = "drifting:n=60,k=3,windows=4,events=30,move=0.1,mixing=0.05"


def run(tmp_path, method="temporal_leiden", **params):
    run_dir = RunDir(tmp_path, RunRecord)
    return execute(RunConfig(method=method, data=DATA, params=params), run_dir, raises=True), run_dir


def test_a_run_over_time_writes_its_windows_and_their_metrics(tmp_path):
    record, run_dir = run(tmp_path, windows=4)
    data = load(DATA)
    labels, edges = run_dir.array("window_labels"), run_dir.array("window_edges")
    assert labels.shape == (4, 60) and edges.shape == (5,)
    assert record.n_events == data.num_events and record.n_edges == as_stream(data).graph().m < record.n_events
    for name in (m for m in METRICS if m.startswith("window_")):
        assert np.isfinite(record.metrics[name]), name
    # the windows are the planted ones up to a hundredth, and it follows the changes
    truth = data.y_windows.numpy()
    by_hand = [adjusted_rand_score(t[t >= 0], f[t >= 0]) for t, f in zip(truth, labels, strict=True)]
    assert record.metrics["window_ari"] == pytest.approx(np.mean(by_hand), abs=0.05) and np.mean(by_hand) > 0.8


def test_a_static_method_is_compared_with_one_cluster_for_all_windows(tmp_path):
    record, run_dir = run(tmp_path, "leiden")
    assert run_dir.array("window_labels") is None
    truth, labels = load(DATA).y_windows.numpy(), run_dir.array("labels")
    by_hand = [adjusted_rand_score(t[t >= 0], labels[t >= 0]) for t in truth]
    assert record.metrics["window_ari"] == pytest.approx(np.mean(by_hand))
    assert {m for m in record.metrics if m.startswith("window_")} == {"window_ari", "window_nmi", "window_acc"}


@pytest.mark.parametrize("method", ["temporal_leiden", "leiden"])
def test_the_planted_truth_never_reaches_fit(tmp_path, monkeypatch, method):
    """Whatever the truth says the labels are the same, and what fit gets holds no truth."""
    seen = []
    cls = runner.get_method(method)
    fit = cls.fit
    monkeypatch.setattr(cls, "fit", lambda self, data, *args, **named: seen.append(data) or fit(self, data, **named))
    first, run_dir = run(tmp_path / "first", method)

    def shuffled(ref):
        rng = np.random.default_rng(0)
        data = load(ref)
        data.y = torch.from_numpy(rng.permutation(data.y.numpy()))
        data.y_windows = torch.from_numpy(rng.permuted(data.y_windows.numpy(), axis=1))
        data.window_edges = data.window_edges + 0.5
        return data

    monkeypatch.setattr(runner, "load", shuffled)
    other, other_dir = run(tmp_path / "other", method)
    np.testing.assert_array_equal(run_dir.array("labels"), other_dir.array("labels"))
    assert first.metrics["window_ari"] != other.metrics["window_ari"], "the truth was another one"
    assert [type(data) for data in seen] == [Stream] * 2 and all(data.x is None for data in seen)


def test_a_stream_without_truth_over_time_has_no_such_metrics(tmp_path, monkeypatch):
    bare = load(DATA)
    without = TemporalData(src=bare.src, dst=bare.dst, t=bare.t)
    monkeypatch.setattr(runner, "load", lambda ref: without)
    record, _ = run(tmp_path)
    assert "window_smoothness" in record.metrics and not {"window_ari", "acc"} & set(record.metrics)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"), RunRecord)
    for method in ("temporal_leiden", "leiden"):
        for seed in range(2):
            config = RunConfig(method=method, data=DATA, seed=seed)
            execute(config, store.run_dir(config), raises=True)
    return store


def test_the_report_shows_the_rivers_the_lives_and_the_table(store, tmp_path):
    text = write_report(store.records(), tmp_path, "Streams").read_text()
    words = re.sub(r"<[^>]+>|\s+", " ", text)
    for phrase in ("Over time", "smooth", "Clusters over time", "Clusters per window, and what becomes of them",
                   "continuations", "events"):
        assert phrase in words, phrase
    assert "$" not in words


def test_the_table_over_time_marks_what_is_judged_only(store):
    df = frame(store.records())
    table = windows_table(df)
    assert table.columns[:5] == ["method", "ARI", "NMI", "clusters", "smooth"]
    rows = {row[0].text: row for row in table.rows}
    assert rows["temporal_leiden"][1].best and not rows["leiden"][1].best
    assert not any(cell.best for row in table.rows for cell in row[3:])
    assert {cell.text for cell in rows["leiden"][3:]} == {"–"}, "it does not follow clusters over time"
    assert re.fullmatch(r"drifting.*: 60 nodes, [\d,]+ events", main_table(df, DATA).title)


def test_static_data_has_no_table_over_time(tmp_path):
    config = RunConfig(method="leiden", data="karate")
    store = RunStore(tmp_path, RunRecord)
    execute(config, store.run_dir(config))
    assert windows_table(frame(store.records())) is None
    assert "Over time" not in write_report(store.records(), tmp_path / "out", "Static").read_text()
