"""Temporal methods as a user runs them: a file of events, the bench beside its baselines, a run that is killed."""

import json
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from graphclust.cli import main
from graphclust.data import load

SESSIONS = "sessions:n=80,k=2,sessions=4,events=8"
EVERY_EPOCH = (
    "from graphclust.training import Checkpoints; Checkpoints.__init__.__defaults__ = (0.0,); "
    "from graphclust.cli import main; main()"
)


@pytest.fixture
def here(in_process):
    return partial(in_process, main)


def write_events(file, shuffle=False) -> pd.DataFrame:
    """The planted sessions as a user's table of names and seconds since 1970; who is in which community."""
    data = load(SESSIONS)
    names = np.array([f"person {v:03}" for v in range(data.n_nodes)])
    table = pd.DataFrame({
        "caller": names[data.src], "callee": names[data.dst],
        "timestamp": 1_385_982_020 + np.round(60 * data.t.numpy(), 3),
    })
    if shuffle:
        table = table.sample(frac=1, random_state=0)
    table.to_csv(file, index=False)
    return pd.DataFrame({"node": names, "community": data.y.numpy()})


def record(folder) -> dict:
    return json.loads((folder / "record.json").read_text())


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "out of order"])
def test_run_on_a_file_of_events_keeps_the_ids(here, tmp_path, shuffle):
    truth = write_events(tmp_path / "calls.csv", shuffle)
    out, _ = here("run", "tgc", "--data", "calls.csv", "-k", 2, "--set", "epochs=5", "--json", "--out", "here")
    doc, folder = json.loads(out), tmp_path / "here"
    assert doc["n_clusters"] == 2 and "acc" not in doc["metrics"] and np.isfinite(doc["metrics"]["modularity"])
    assert record(folder)["n_nodes"] == 80 and record(folder)["n_events"] == 80 * 2 * 4 * 8
    found = pd.read_csv(folder / "labels.csv")
    assert found.columns.tolist() == ["node", "cluster"]
    both = truth.merge(found, on="node", validate="one_to_one")
    assert len(both) == len(found) == 80
    share = pd.crosstab(both["community"], both["cluster"]).max(axis=1).sum() / 80
    assert share > 0.95, "the names and their clusters do not belong together"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [h["epoch"] for h in history] == list(range(5)) and {"temporal", "node", "reconstruction"} <= set(history[0])
    assert np.load(folder / "embedding.npy").shape[0] == 80


def test_clusters_of_each_window_come_with_the_ids_and_the_times(here, tmp_path):
    write_events(tmp_path / "calls.csv")
    out, _ = here("run", "tgc", "--data", "calls.csv", "-k", 2, "--set", "epochs=1", "--set", "windows=3", "--out", "w")
    assert out.split()[-1] == "w/window_labels.csv"
    found = pd.read_csv(tmp_path / "w/window_labels.csv")
    events = pd.read_csv(tmp_path / "calls.csv")
    for number, (_, part) in enumerate(found.groupby("window"), start=1):
        low, high = part["from"].iloc[0], part["to"].iloc[0]
        inside = events[(events["timestamp"] >= low) & (events["timestamp"] < high + (number == 3))]
        assert set(part["node"]) == set(inside["caller"]) | set(inside["callee"]) and part["node"].is_unique
    assert number == 3 and found["from"].min() == events["timestamp"].min()
    last = found[found["window"] == 3].merge(pd.read_csv(tmp_path / "w/labels.csv"), on="node")
    assert (last["cluster_x"] == last["cluster_y"]).all()
    here("report", "w")
    page = (tmp_path / "w/report.html").read_text()
    assert "Clusters over time" in page and "Lives of clusters" in page


@pytest.mark.slow
@pytest.mark.usefixtures("forkserver")
def test_bench_prints_the_baselines_beside_tgc(here, tmp_path):
    methods = ["tgc", "node2vec", "spectral", "leiden", "temporal_leiden"]
    out, _ = here("bench", "--data", SESSIONS, "--methods", ",".join(methods), "--seeds", 2, "--out", "b", "--json")
    runs = json.loads(out)["runs"]
    assert [r["status"] for r in runs] == ["finished"] * 10
    ari = pd.DataFrame([{"method": r["method"], **r["metrics"]} for r in runs]).groupby("method")["ari"].mean()
    assert set(ari.index) == set(methods)
    assert ari["tgc"] >= 0.9 and ari[["node2vec", "spectral", "leiden"]].max() <= 0.1
    page = (tmp_path / "b/report.html").read_text()
    assert all(method in page for method in methods)


def test_bad_events_and_training_that_diverges_are_one_clear_line_and_no_run(here, tmp_path):
    (tmp_path / "bad.csv").write_text("source,target,time\na,b,1\nb,c,-3\n")
    for data, words in (("bad.csv", "'-3'"), ("karate", "without times")):
        _, err = here("run", "tgc", "--data", data, "-k", 2, code=2)
        assert err.startswith("error: ") and words in err
    _, err = here("run", "tgc", "--data", SESSIONS, "--set", "lr=1e9", code=1)
    assert "training diverged" in err and "lower lr" in err and "Traceback" not in err
    assert not any("finished" in r.read_text() for r in tmp_path.glob("runs/*/record.json"))


@pytest.mark.parametrize("windows", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_run_killed_in_the_middle_resumes_bit_for_bit(here, tmp_path, windows):
    write_events(tmp_path / "calls.csv")
    args = ["run", "tgc", "--data", "calls.csv", "-k", "2", "--set", "epochs=12", "--set", f"windows={windows}"]
    process = subprocess.Popen(
        [sys.executable, "-c", EVERY_EPOCH, *args, "--out", "cut"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    checkpoint, deadline = tmp_path / "cut/checkpoint.pt", time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait(30)
    assert checkpoint.exists() and not (tmp_path / "cut/labels.npy").exists(), "it was not killed in the middle"
    assert "no run in whole" in here(*args, "--out", "whole", "--resume", code=2)[1]
    again, whole = (json.loads(here(*args, "--json", *rest)[0])
                    for rest in (("--out", "cut", "--resume"), ("--out", "whole")))
    assert again["metrics"] == whole["metrics"]
    assert record(tmp_path / "cut")["taken_up"] and not record(tmp_path / "whole")["taken_up"]
    for name in ["labels", "embedding"] + ["window_labels"] * (windows > 1):
        np.testing.assert_array_equal(*(np.load(tmp_path / folder / f"{name}.npy") for folder in ("cut", "whole")))
    assert (tmp_path / "cut/history.jsonl").read_text() == (tmp_path / "whole/history.jsonl").read_text()
    assert not checkpoint.exists()
