"""The fedclust command as a user runs it: from its own process where that can matter, else from this one."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from fedclust.joining import assign_file
from simulations.cli import main

CLI = [sys.executable, "-c", "from simulations.cli import main; main()"]
SMALL = ["--with", "draws=1", "--with", "shots=[0,5]"]
SIX = "digits-3shift:n_clients=6"
SIMULATE = ["simulate", "ifca", "--scenario", SIX, "--rounds", 3, "--seeds", 2, "--bounds", *SMALL, "--out", "here",
            "--json"]


@pytest.fixture
def here(in_process):
    return partial(in_process, main)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """One simulation with its bounds: the folder that it ran in, and what it printed."""
    cwd = tmp_path_factory.mktemp("simulated")
    done = subprocess.run([*CLI, *map(str, SIMULATE)], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr + done.stdout
    return cwd, json.loads(done.stdout)


def test_simulate_prints_one_document_with_means_and_runs(simulated):
    cwd, doc = simulated
    said = {"algorithm": "ifca", "scenario": SIX, "seeds": [0, 1], "rounds": 3, "engine": "auto"}
    assert said.items() <= doc.items()
    assert {"ari", "local", "unseen", "worst_decile", "ipr", "rsd", "ari_feature"} <= set(doc["metrics"])
    assert [r["seed"] for r in doc["runs"]] == [0, 1] and {r["algorithm"] for r in doc["runs"]} == {"ifca"}
    assert doc["metrics"]["local"] == pytest.approx(np.mean([r["metrics"]["local"] for r in doc["runs"]]))
    assert doc["bytes_up"] > 0 and doc["bytes_down"] > doc["bytes_up"] and doc["seconds_per_round"] > 0
    assert len(list((cwd / "here/runs").glob("*/record.json"))) == 8  # ifca, local, fedavg, oracle on two seeds


def test_the_report_is_one_page_with_its_tables(simulated, here):
    cwd, doc = simulated
    page = (cwd / doc["report"]).read_text()
    assert page.count("<svg") + page.count("data:image/png") >= 4
    assert "src=\"http" not in page and "<link" not in page and "<script src" not in page
    again, _ = here("report", "here", "--json", cwd=cwd)
    assert len(json.loads(again)["runs"]) == 8
    one = next((cwd / "here/runs").glob("ifca*"))
    alone, _ = here("report", one, "--json", cwd=cwd)
    assert [r["algorithm"] for r in json.loads(alone)["runs"]] == ["ifca"] and (one / "report.html").is_file()
    assert {"report.html", "table.md", "table.csv", "table.tex"} <= {f.name for f in (cwd / "here").iterdir()}


def test_a_finished_simulation_is_not_run_again(simulated, here):
    cwd, doc = simulated
    before = {f: f.stat().st_mtime_ns for f in (cwd / "here/runs").glob("*/record.json")}
    out, _ = here(*SIMULATE, cwd=cwd)
    assert json.loads(out)["metrics"] == doc["metrics"]
    assert before == {f: f.stat().st_mtime_ns for f in (cwd / "here/runs").glob("*/record.json")}


def test_another_plan_does_not_take_over_the_folder(simulated, here):
    cwd, _ = simulated
    _, error = here("simulate", "ifca", "--scenario", SIX, "--rounds", 4, "--out", "here", cwd=cwd, code=2)
    assert "holds another" in error and "--out" in error


def test_a_newcomer_is_assigned_from_its_file(simulated, tmp_path, here):
    cwd, doc = simulated
    x, y = np.random.default_rng(0).random((30, 64), dtype=np.float32), np.arange(30) % 10
    np.savez(tmp_path / "new.npz", x=x, y=y)
    model = cwd / doc["runs"][0]["run_dir"] / "model"
    found = json.loads(here("assign", model, "--data", "new.npz", "--json")[0])
    assert sum(found["weights"]) == pytest.approx(1) and found["labels_used"] == 30
    none = json.loads(here("assign", model, "--data", "new.npz", "--shots", 0, "--json")[0])
    assert none["group"] == "undetermined" and none["weights"] is None
    here("assign", model, "--data", "new.npz", "--out", "said.csv")
    said = pd.read_csv(tmp_path / "said.csv")
    assert len(said) == 30 and said["predicted"].between(0, 9).all()


def test_a_newcomer_without_labels_is_undetermined_unless_there_is_one_group(simulated, tmp_path):
    cwd, doc = simulated
    np.savez(tmp_path / "new.npz", x=np.random.default_rng(0).random((30, 64), dtype=np.float32))
    found = assign_file(cwd / doc["runs"][0]["run_dir"] / "model", tmp_path / "new.npz")
    assert (found["group"], found["weights"], found["labels_used"]) == ("undetermined", None, 0)
    (one,) = (cwd / "here/runs").glob("fedavg*s0*/model")
    found = assign_file(one, tmp_path / "new.npz", out=tmp_path / "said.csv")
    assert (found["group"], found["labels_used"], found["accuracy"]) == (0, 0, None)
    said = pd.read_csv(tmp_path / "said.csv")
    assert list(said) == ["sample", "predicted", "probability"] and len(said) == 30


@pytest.mark.usefixtures("forkserver")
def test_a_killed_simulation_goes_on_and_ends_the_same(tmp_path, here):
    args = ["simulate", "fedrc", "--scenario", SIX, "--rounds", 6, *SMALL, "--set", "restarts=1", "--json"]
    process = subprocess.Popen([*CLI, *map(str, args), "--out", "cut"], cwd=tmp_path, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("cut/runs/fedrc*/checkpoint.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("cut/runs/fedrc*/checkpoint.safetensors")), "killed before the first round was saved"
    cut, whole = (json.loads(here(*args, *rest)[0]) for rest in (("--out", "cut", "--resume"), ("--out", "whole")))
    assert cut["metrics"] == whole["metrics"] and cut["bytes_up"] == whole["bytes_up"]


@pytest.mark.usefixtures("forkserver")
def test_compare_over_two_algorithms_and_a_failed_run_is_a_row(tmp_path, here):
    (tmp_path / "bad.yaml").write_text("algorithm: oracle\nlabel: wrong truth\nsettings: {true_groups: [0, 1]}\n")
    args = ["compare", "--scenarios", SIX, "--algorithms", "fedavg,bad.yaml", "--rounds", 1, "--seeds", 1, *SMALL]
    doc = json.loads(here(*args, "--json", code=1)[0])
    rows = {r["algorithm"]: r for r in doc["runs"]}
    assert rows["fedavg"]["status"] == "finished" and rows["wrong truth"]["status"] == "failed"
    assert "true_groups" in rows["wrong truth"]["error"] and not rows["wrong truth"]["metrics"]


@pytest.mark.usefixtures("forkserver")
def test_clients_without_labels_train_an_encoder_that_graphclust_clusters_with(here, tmp_path):
    """A federation over subgraphs, and the example of the docs: its encoder with graphclust's head."""
    from typer.testing import CliRunner

    from graphclust.cli import app

    name = "graph-sbm-clustering:n=120"
    doc = json.loads(here("simulate", "fedavg", "--scenario", name, "--rounds", 3, "--with", "model.hidden=[16]",
                          "--out", "here", "--json")[0])
    metrics = doc["metrics"]
    assert {f"{kind}_{m}" for kind in ("nodes", "own", "features") for m in ("acc", "nmi", "ari", "f1")} < set(metrics)
    assert not {"local", "worst_decile", "unseen", "ipr", "rsd"} & set(metrics) and metrics["nodes_nmi"] > 0.3
    run_dir = tmp_path / doc["runs"][0]["run_dir"]
    assert len(pd.read_csv(run_dir / "nodes.csv")) == 120
    source = "asbm:n=120,k=4,degree_in=20,degree_out=4,d=16,signal=1,seed=0"
    settings = [f"encoder={run_dir}/model/encoder", "epochs=0", "start=kmeans"]
    said = CliRunner().invoke(app, ["run", "scgc", "--data", source, "-k", "4", "--json",
                                    *(word for s in settings for word in ("--set", s))])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["metrics"]["nmi"] > 0.3
    _, error = here("simulate", "fedrc", "--scenario", name, code=2)
    assert "fedrc needs labelled samples" in error


def test_partition_shows_and_saves_who_holds_what(here, tmp_path):
    doc = json.loads(here("partition", SIX, "--show", "--out", "mine", "--json")[0])
    assert len(doc["clients"]) == 15 and (tmp_path / doc["picture"]).stat().st_size > 5000
    shown, _ = here("partition", SIX, "--show")
    assert "6 clients, 9 newcomers, 10 classes" in shown and "unseen-concept0-noise0.25" in shown


@pytest.mark.parametrize("kind, name", [("algorithms", "fedrc"), ("scenarios", "digits-3shift")])
def test_lists(kind, name, here):
    rows = json.loads(here("list", kind, "--json")[0])
    assert name in [r["name"] for r in rows] and all(r["summary"] for r in rows)
    assert name in here("list", kind)[0]


def test_lists_without_a_kind_are_both_and_name_the_settings(here, monkeypatch):
    both = json.loads(here("list", "--json")[0])
    settings = {r["name"]: r["settings"] for r in both["algorithms"]}
    assert settings["ifca"]["n_groups"] == 3 and "digits-3shift" in [r["name"] for r in both["scenarios"]]
    monkeypatch.setenv("COLUMNS", "80")
    shown = here("list")[0]
    for words in ("trial_rounds=30", "graph-debtopics13-clustering"):
        assert words in shown


def test_a_broken_file_of_a_client_is_refused_before_anything_runs(here, tmp_path):
    (tmp_path / "mine").mkdir()
    for i in range(3):
        np.savez(tmp_path / f"mine/site{i}.npz", x=np.ones((30, 4), np.float32), y=np.arange(30) % 2)
    (tmp_path / "mine/site3.npz").write_bytes(b"not an archive")
    _, error = here("simulate", "fedavg", "--scenario", "mine", code=2)
    assert error.startswith("error: mine/site3.npz is no npz file") and "pickle" not in error
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("args, words", [
    (["simulate", "fedavgg", "--scenario", SIX], ["fedavgg", "fedavg"]),
    (["simulate", "fedavg", "--scenario", "digits"], ["digits"]),
    (["simulate", "fedavg"], ["--scenario"]),
    (["simulate", "ifca", "--scenario", SIX, "--set", "groups=2"], ["groups", "ifca has n_groups"]),
    (["simulate", "ifca", "--scenario", SIX, "--set", "n_groups=9"], ["n_groups = 9", "6 clients"]),
    (["simulate", "ifca", "--scenario", SIX, "--with", "fraction=0"], ["fraction = 0: Input should be greater than 0"]),
    (["simulate", "ifca", "--scenario", SIX, "--with", "ratio=1"], ["ratio = 1", "no such key", "fraction"]),
    (["simulate", "ifca", "--scenario", SIX, "--with", "training.rate=1"], ["training.rate = 1: there is no such key; "
                                                                            "training has the keys: epochs"]),
    (["simulate", "ifca", "--scenario", SIX, "--with", "training=3"], ["training = 3: it must be keys and values; "
                                                                       "training has the keys: epochs"]),
    (["simulate", "ifca", "--scenario", SIX, "--with", "seed=3"], ["seed cannot be set here"]),
    (["simulate", "ifca", "--scenario", SIX, "--out", "x" * 300], ["File name too long; give a place that"]),
    (["compare"], ["--scenarios"]),
    (["assign", "nowhere", "--data", "x.npz"], ["nowhere holds no trained federation", "finished fedclust run"]),
    (["report", "."], ["no federated run"]),
])
def test_bad_input_is_one_line_and_nothing_is_written(args, words, here, tmp_path):
    _, error = here(*args, code=2)
    for word in words:
        assert word in error
    assert "Traceback" not in error and not list(tmp_path.iterdir())
