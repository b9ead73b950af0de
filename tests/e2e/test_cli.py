"""The graphclust command as a user runs it: from its own process where that can matter, else from this one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import igraph
import numpy as np
import pandas as pd
import pytest
import yaml

from graphclust.cli import main

CLI = [sys.executable, "-c", "from graphclust.cli import main; main()"]


@pytest.fixture
def here(in_process):
    return partial(in_process, main)


def test_run_prints_one_json_document_and_writes_the_folder(tmp_path, here):
    args = ["run", "leiden", "--data", "debtopics13", "--seed", "3", "--set", "resolution=1.5", "--json"]
    done = subprocess.run([*CLI, *args], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    doc = json.loads(done.stdout)
    assert doc["method"] == "leiden" and doc["data"] == "debtopics13" and doc["seed"] == 3
    assert {"acc", "nmi", "ari", "f1", "modularity"} <= set(doc["metrics"])
    assert all(0 <= doc["metrics"][m] <= 1 for m in ("acc", "nmi", "f1")) and doc["peak_memory_mb"] > 0
    assert doc["timings"]["fit"] > 0 and doc["config"]["params"]["resolution"] == 1.5
    folder = tmp_path / doc["run_dir"]
    labels = np.load(folder / "labels.npy")
    assert labels.max() + 1 == doc["n_clusters"]
    table = pd.read_csv(folder / "labels.csv")
    assert table.columns.tolist() == ["node", "cluster"] and (table["cluster"] == labels).all()
    assert json.loads(here(*args)[0]) == doc
    _, told = here("run", "leiden", "--data", "karate")
    assert "leiden on karate, seed 0" in told


def test_run_on_a_users_file_keeps_ids_and_needs_no_labels(tmp_path, here):
    edges = tmp_path / "friends.csv"
    edges.write_text("source,target\nann,bob\nbob,cat\ncat,ann\ndan,eve\neve,fay\nfay,dan\ncat,dan\n")
    out, _ = here("run", "leiden", "--data", edges, "--json", "--graphml", "--out", "here")
    doc = json.loads(out)
    assert doc["n_clusters"] == 2 and "acc" not in doc["metrics"] and "modularity" in doc["metrics"]
    table = pd.read_csv(tmp_path / "here/labels.csv").set_index("node")["cluster"]
    assert table["ann"] == table["bob"] == table["cat"] != table["eve"]
    g = igraph.Graph.Read_GraphML(str(tmp_path / "here/graph.graphml"))
    assert g.vs["name"] == list(table.index) and [int(c) for c in g.vs["cluster"]] == table.tolist()
    scored, _ = here("evaluate", "here/labels.csv", "--data", edges, "--json")
    assert json.loads(scored)["metrics"] == pytest.approx(doc["metrics"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "pamk", "--data", "karate"], ["pamk", "pamc"]),
        (["run", "leiden", "--data", "debtopics31"], ["debtopics31", "debtopics13"]),
        (["run", "leiden", "--data", "nowhere.csv"], ["nowhere.csv"]),
        (["run", "kmeans", "--data", "karate"], ["kmeans", "features", "leiden"]),
        (["run", "kmeans", "--data", "debtopics13", "-k", "0"], ["-k 0"]),
        (["run", "kmeans", "--data", "debtopics13", "-k", "99999"], ["99999", "3399"]),
        (["run", "leiden", "--data", "karate", "--set", "resolutoin=2"], ["resolutoin", "resolution"]),
        (["run", "leiden", "--data", "karate", "--set", "resolution=-2"], ["resolution", "-2"]),
        (["run", "leiden", "--data", "karate", "--set", "resolution"], ["a=b"]),
        (["run", "leiden", "--data", "karate", "--device", "cuda"], ["cuda"]),
        (["bench", "--data", "karate"], ["--methods"]),
        (["bench", "missing.yaml"], ["missing.yaml"]),
        (["report", "empty"], ["empty", "no run"]),
        (["evaluate", "missing.csv", "--data", "karate"], ["missing.csv"]),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, here, args, words):
    out, err = here(*args, code=2)
    assert out == ""
    assert err.startswith("error: ") and all(w in err for w in words), err
    assert not any("finished" in r.read_text() for r in tmp_path.glob("runs/*/record.json"))


def test_unknown_config_keys_are_refused_by_name(tmp_path, here):
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"data": ["karate"], "methods": ["leiden"], "sedes": 3}))
    _, err = here("bench", "b.yaml", code=2)
    assert "sedes" in err and "seeds" in err


def test_output_folder_of_another_run_is_refused(tmp_path, here):
    here("run", "leiden", "--data", "karate", "--out", "d")
    _, err = here("run", "leiden", "--data", "karate", "--seed", 1, "--out", "d", code=2)
    assert "another config" in err and json.loads((tmp_path / "d/record.json").read_text())["config"]["seed"] == 0


@pytest.mark.usefixtures("forkserver")
def test_bench_makes_rows_a_failed_row_and_a_report(tmp_path, here):
    args = ["bench", "--data", "karate,sbm:n=200,k=4", "--methods", "leiden,louvain,kmeans", "--out", "b"]
    out, _ = here(*args, "--seeds", 2, "--json", code=1)
    doc = json.loads(out)
    assert len(doc["runs"]) == 12
    by = {(r["method"], r["data"], r["seed"]): r for r in doc["runs"]}
    assert by["leiden", "sbm:n=200,k=4", 1]["status"] == "finished"
    failed = by["kmeans", "karate", 0]
    assert failed["status"] == "failed" and "features" in failed["error"] and failed["metrics"] == {}
    page = (tmp_path / "b/report.html").read_text()
    assert "features" in page and not re.search(r'(src|href)="http', page), "the page must be self-contained"
    assert (tmp_path / "b/table.csv").exists() and (tmp_path / "b/runs/index.sqlite").exists()
    _, err = here(*args, "--seeds", 3, code=2)
    assert "another benchmark" in err
    shown, _ = here("report", "b")
    assert "leiden" in shown and "report.html" in shown


@pytest.mark.usefixtures("forkserver")
def test_setting_files_and_set_reach_the_methods(tmp_path, here):
    (tmp_path / "fine.yaml").write_text(yaml.safe_dump({
        "method": "leiden", "label": "leiden (fine)", "params": {"resolution": 3.0},
        "data": {"karate": {"published": {"nmi": 0.5}}},
    }))
    plan = {"title": "T", "data": ["karate"], "methods": ["fine.yaml", "leiden"], "seeds": [4]}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(plan))
    out, _ = here("bench", "b.yaml", "--out", "b", "--json", "--set", "n_iterations=3")
    fine, plain = json.loads(out)["runs"]
    assert fine["method"] == "leiden (fine)" and fine["published"] == {"nmi": 0.5} and fine["seed"] == 4
    assert fine["n_clusters"] > plain["n_clusters"]
    config = yaml.safe_load(next((tmp_path / "b/runs").glob("*/config.yaml")).read_text())
    assert config["params"]["n_iterations"] == 3
    _, err = here("bench", "b.yaml", "--set", "n_iteration=1", code=2)
    assert "'n_iteration'; did you mean 'n_iterations'?" in err and "n_clusters" not in err


@pytest.mark.usefixtures("forkserver")
def test_a_bench_interrupted_and_then_killed_resumes_and_loses_nothing(tmp_path, here):
    args = ["bench", "--data", "asbm:n=400,k=4", "--methods", "leiden,ae_kmeans", "--seeds", "5", "--out", "b"]
    args += ["--set", "pretrain_epochs=40"]
    runs = tmp_path / "b/runs"

    def finished() -> dict[str, int]:
        files = runs.glob("*/record.json")
        return {f.parent.name: f.stat().st_mtime_ns for f in files if '"finished"' in f.read_text()}

    kept: dict[str, int] = {}
    for how, code, at_least in ((signal.SIGINT, 130, 6), (signal.SIGKILL, -signal.SIGKILL, 7)):
        process = subprocess.Popen(
            [*CLI, *args], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            # a shell that runs the tests in the background has them, and so their children, ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 120
        while len(finished()) < max(at_least, len(kept) + 1) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, "the bench ended before it could be killed"
        os.kill(process.pid, how)
        said = process.communicate(timeout=30)[1]
        assert process.returncode == code and ("interrupted; finished runs are kept in b" in said) == (code == 130)
        time.sleep(0.5)
        before, kept = kept, finished()
        assert at_least <= len(kept) < 10 and before.items() < kept.items(), "a finished run was run again"
    out, _ = here(*args, "--json")
    assert [r["status"] for r in json.loads(out)["runs"]] == ["finished"] * 10
    assert kept.items() < finished().items(), "a finished run was run again"


@pytest.mark.parametrize("kind", ["methods", "data", "metrics", "encoders"])
def test_lists(here, monkeypatch, kind):
    rows = json.loads(here("list", kind, "--json")[0])
    assert len(rows) >= 2 and all(r["name"] for r in rows)
    monkeypatch.setenv("COLUMNS", "200")
    assert rows[0]["name"] in here("list", kind)[0]


def test_info_and_help(tmp_path, here):
    assert "torch" in json.loads(here("info", "--json")[0])["versions"]
    text, _ = here("--help")
    assert all(c in text for c in ("run", "bench", "report", "evaluate", "scan", "list", "info", "data"))
    assert not list(Path(tmp_path).iterdir()), "looking around writes nothing"
