"""The release bundle and the lab report: physically apart."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from graphclust.cli import main
from graphclust.graph import InputError
from graphclust.privacy.ledger import read_budget
from graphclust.runs import release as module
from graphclust.runs.record import RunConfig
from graphclust.runs.release import release

DATA = "sbm:n=120,k=2,p_in=0.6,p_out=0.1"


def run(capsys, monkeypatch, *args, code=0):
    """The command line in this process: what it printed, errors last."""
    monkeypatch.setattr("sys.argv", ["graphclust", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code in ((0, None) if code == 0 else (code,)), err
    return out, err


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_release_holds_labels_and_ledger_and_nothing_that_saw_the_edges(here, capsys, monkeypatch):
    out, _ = run(capsys, monkeypatch, "run", "dp_rr", "--data", DATA, "-k", 2, "--set", "epsilon=9", "--json")
    document = json.loads(out)
    folder = here / document["run_dir"]
    assert sorted(f.name for f in folder.iterdir()) == ["labels.csv", "labels.npz", "ledger.json"]
    assert [p.name for p in here.iterdir()] == ["releases"], "a release leaves no run record behind"
    assert not {"metrics", "timings", "peak_memory_mb", "n_edges", "seed"} & (set(document) | set(document["ledger"]))
    ledger = json.loads((folder / "ledger.json").read_text())
    assert ledger == document["ledger"] and ledger["guarantee"] is True and ledger["parameters"]["n_clusters"] == 2
    assert len(pd.read_csv(folder / "labels.csv")) == 120
    assert set(np.load(folder / "labels.npz")["labels"]) == {0, 1}


def test_a_users_file_keeps_its_ids(here, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    names = [f"person {i}" for i in range(60)]
    pairs = [(a, b) for a in range(60) for b in range(a) if rng.random() < (0.7 if a % 2 == b % 2 else 0.1)]
    with (here / "calls.csv").open("w") as f:
        csv.writer(f).writerows([("source", "target"), *((names[a], names[b]) for a, b in pairs)])
    run(capsys, monkeypatch, "run", "dp_rr", "--data", "calls.csv", "-k", 2, "--set", "epsilon=9", "--out", "bundle")
    table = pd.read_csv(here / "bundle/labels.csv").set_index("node")["cluster"]
    assert set(table.index) == set(names)
    assert table["person 0"] == table["person 2"] != table["person 1"]


def test_a_dry_run_says_so_everywhere(here, capsys, monkeypatch):
    args = ["run", "dp_rr", "--data", DATA, "-k", 2, "--set", "epsilon=9", "--dry-run", "--seed", 3]
    _, err = run(capsys, monkeypatch, *args, "--out", "a")
    assert "NO GUARANTEE" in err
    run(capsys, monkeypatch, *args, "--out", "b")
    for name in ("labels.csv", "ledger.json"):
        assert (here / "a" / name).read_text() == (here / "b" / name).read_text()
    assert json.loads((here / "a/ledger.json").read_text())["guarantee"] is False


@pytest.mark.parametrize(("args", "match"), [
    (["--seed", "3"], "--seed 3.*--dry-run"), (["--graphml"], "--graphml"),
    (["--set", "epsilon=0"], "epsilon"), (["--set", "epsilon=-1"], "epsilon"),
    (["--set", "unit=node"], "n - 1 edges"), (["--set", "bugdet=b.json"], "did you mean 'budget'"),
    (["--set", "budget=none.json"], "does not exist"),
])
def test_refusals_come_before_the_data(here, capsys, monkeypatch, args, match):
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("the private data was read"))
    _, err = run(capsys, monkeypatch, "run", "dp_rr", "--data", DATA, "-k", 2, "--set", "epsilon=1", *args, code=2)
    assert pd.Series([err]).str.contains(match).all(), err
    assert not (here / "releases").exists()


def test_k_must_be_given_since_counting_clusters_looks(here):
    with pytest.raises(InputError, match="give -k N"):
        release(RunConfig(method="dp_rr", data="karate", params={"epsilon": 1.0}), None)


def test_a_release_is_never_replaced_and_a_failed_one_leaves_nothing(here, monkeypatch):
    config = RunConfig(method="dp_rr", data=DATA, n_clusters=2, params={"epsilon": 9.0})
    release(config, here / "bundle")
    before = (here / "bundle/labels.csv").read_text()
    with pytest.raises(InputError, match="is not empty; a release is never replaced"):
        release(config, here / "bundle")
    assert (here / "bundle/labels.csv").read_text() == before
    monkeypatch.setattr(module, "export_labels", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        release(config, here / "other")
    assert sorted(p.name for p in here.iterdir()) == ["bundle"]


def test_the_budget_of_a_graph_over_several_runs(here, capsys, monkeypatch):
    out, _ = run(capsys, monkeypatch, "budget", "b.json", "--data", DATA, "--epsilon", 10, "--json")
    assert json.loads(out)["left"] == {"epsilon": 10, "delta": 0}
    args = ["run", "dp_rr", "--data", DATA, "-k", 2, "--set", "epsilon=9", "--set", "budget=b.json"]
    run(capsys, monkeypatch, *args)
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("the private data was read"))
    _, err = run(capsys, monkeypatch, *args, code=2)
    assert "left after 1 runs" in err
    other = [a if a != DATA else "karate" for a in args]
    _, err = run(capsys, monkeypatch, *other, code=2)
    assert "is of the graph" in err
    assert len(read_budget(here / "b.json").spent) == 1
    out, _ = run(capsys, monkeypatch, "budget", "b.json")
    assert "dp_rr" in out and "left" in out
    _, err = run(capsys, monkeypatch, "budget", "b.json", "--data", DATA, "--epsilon", 10, code=2)
    assert "never replaced" in err


def test_prediction_without_any_data(capsys, monkeypatch):
    out, _ = run(capsys, monkeypatch, "predict", "-n", 2708, "-k", 7, "--density", 0.00144)
    assert "at epsilon 1 on a graph this sparse no mechanism can find communities" in out
    out, _ = run(capsys, monkeypatch, "predict", "-n", 800, "-k", 2, "--density", 0.2, "--json")
    document = json.loads(out)
    assert document["recommended"] == "dp_rr" and document["mechanisms"][0]["verdict"] == "good"
    for bad in (["--epsilon", 0], ["--delta", 0.1], ["--contrast", 0]):
        _, err = run(capsys, monkeypatch, "predict", "-n", 800, "-k", 2, "--density", 0.2, *bad, code=2)
        assert bad[0] in err


@pytest.mark.usefixtures("forkserver")
def test_a_bench_is_a_lab_report(here, capsys, monkeypatch):
    args = ["--data", DATA, "--methods", "dp_rr", "--set", "epsilon=9", "--seeds", 1, "--out", "lab"]
    out, _ = run(capsys, monkeypatch, "bench", *args)
    assert "NOT PRIVATE" in out
    for name in ("report.html", "table.md"):
        assert "NOT PRIVATE: a lab report" in (here / "lab" / name).read_text(), name
    out, _ = run(capsys, monkeypatch, "report", "lab", "--json")
    for row in json.loads(out)["runs"]:
        assert row["not_private"].startswith("NOT PRIVATE") and row["metrics"]["ari"] > 0.9
    record = json.loads(next((here / "lab/runs").glob("*/record.json")).read_text())
    assert record["privacy"]["guarantee"] is False
    assert "--dry-run" in (here / "lab/report.html").read_text(), "the command that repeats a lab run is a dry run"
