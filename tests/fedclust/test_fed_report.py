"""Tables, figures and the HTML report over hand-made federated runs."""

import io
import re
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedclust.config import FederationConfig
from fedclust.evaluation import evaluate
from fedclust.events import DROPPED, LATE
from fedclust.outcome import ALL, NEWCOMER_COLUMNS, Outcome
from fedclust.record import FederationRecord
from fedclust.report import collect, command, frame, rows, section, terminal_tables, write_report
from fedclust.report.tables import (
    groups_table,
    main_table,
    main_tables,
    newcomers_table,
    ordered,
    participation_table,
    rounds_table,
)
from graphclust.runs.store import RunStore
from simulations.scenarios import scenario
from tests.graphclust.test_report import Page

N, R = 12, 4
CONCEPT = np.arange(N) % 3
FOUND = {"local": np.arange(N), "fedavg": np.zeros(N, int), "oracle": CONCEPT, "fedrc": CONCEPT,
         "ifca": np.where(CONCEPT == 2, 1, CONCEPT)}
LEVEL = {"local": 0.75, "fedavg": 0.4, "oracle": 0.95, "fedrc": 0.9, "ifca": 0.6}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store", FederationRecord)


def made(algorithm, seed=0, level=None):
    """The tables of a run whose clients rise to ``level``, the last ones less than the first."""
    rng, k = np.random.default_rng(seed), FOUND[algorithm].max() + 1
    last = (LEVEL[algorithm] if level is None else level) - 0.05 * np.linspace(0, 1, N) + rng.normal(0, 0.01, N)
    accuracy = np.linspace(0.1, 1, R + 1)[:, None] * last
    clients = pd.DataFrame({"id": [f"c{i:02d}" for i in range(N)], "n": 20, "accuracy": last, "loss": 0.5,
                            "accuracy_validation": last, "loss_validation": 0.5, "error": None,
                            "true_concept": CONCEPT, "true_feature": np.arange(N) % 2, "true_group": CONCEPT})
    trials = [("u0", ALL, 0, 0, 0.8), ("u1", ALL, 0, 1, 0.7), ("u0", 0, 0, -1, None), ("u1", 0, 0, -1, None),
              ("u0", 5, 0, 0, 0.8), ("u1", 5, 0, 0, 0.2)]
    newcomers = pd.DataFrame([(*t, None) for t in trials], columns=NEWCOMER_COLUMNS).astype({"accuracy": float})
    groups = np.vstack([np.full(N, -1), *[rng.integers(k, size=N) for _ in range(R - 1)], FOUND[algorithm]])
    return Outcome(clients, accuracy, accuracy, groups, np.eye(k)[FOUND[algorithm]], newcomers)


def put(store, algorithm="fedrc", seed=0, status="finished", *, ref="digits-3shift", outcome=None, settings=None,
        failures=None, **config):
    """Write one run by hand."""
    settings = settings or ({"true_groups": [int(c + seed) % 3 for c in CONCEPT]} if algorithm == "oracle" else {})
    c = FederationConfig(algorithm=algorithm, scenario=ref, seed=seed, settings=settings,
                         **{"federation": scenario("digits-3shift", seed=seed), "rounds": R, **config}).resolved()
    run_dir = store.run_dir(c)
    run_dir.open(c)
    more = {}
    if status == "finished":
        outcome = outcome or made(algorithm, seed)
        outcome.save(run_dir.path)
        preparation = [-1] if algorithm == "fedrc" else []
        ids, failures = list(outcome.clients["id"]), failures or {}
        run_dir.write_history([{"round": r, "seconds": 1.0, "bytes_up": 10**6, "bytes_down": 2 * 10**6,
                                "participants": [i for i in ids if i not in failures.get(r, {})],
                                "failures": failures.get(r, {})} for r in [*preparation, *range(R)]])
        more = {"metrics": evaluate(outcome), "n_clients": N, "n_unseen": 2, "rounds_done": R, "bytes_up": R * 10**6,
                "bytes_down": 2 * R * 10**6, "seconds_per_round": 1.0}
    elif status == "failed":
        more = {"error": {"type": "RunStopped", "message": "2 of 12 <replies>", "traceback": "line 1"}}
    run_dir.write_record(FederationRecord(id=c.run_id, status=status, config=c, **more))
    return run_dir


def full(store):
    for seed in range(4):
        for algorithm in ("ifca", "fedrc", "fedavg", "local", "oracle"):
            put(store, algorithm, seed)
    put(store, "flhc", 0, "failed")
    return store.records()


def texts(table):
    return {row[0].text: dict(zip(table.columns[1:], [c.text for c in row[1:]], strict=True)) for row in table.rows}


def test_gains_are_against_the_reference_of_the_same_federation_and_seed(store):
    for seed in range(2):
        put(store, "fedrc", seed)
        put(store, "local", seed)
    put(store, "fedrc", 2)  # without a local run of its seed
    runs = {(r.name, r.config.seed): r for r in collect(store.records())}
    for seed in range(2):
        gain = made("fedrc", seed).accuracy[-1] - made("local", seed).accuracy[-1]
        assert runs["fedrc", seed].gains["rsd"] == pytest.approx(gain.std(), abs=1e-6)
        assert runs["fedrc", seed].gains["ipr"] == 1.0
    assert runs["fedrc", 2].gains == {} and runs["local", 0].gains == {}


def test_of_several_references_the_one_trained_alike_is_taken(store):
    for lr, level in ((0.1, 0.2), (0.5, 0.95)):
        put(store, "local", training={"lr": lr}, outcome=made("local", level=level))
        put(store, "ifca", training={"lr": lr})
    gains = {r.config.training.lr: r.gains["ipr"] for r in collect(store.records()) if r.config.algorithm == "ifca"}
    assert gains == {0.1: 1.0, 0.5: 0.0}


def test_unlike_federations_and_settings_are_told_apart_and_seeds_are_not(store):
    for seed in range(2):
        put(store, "ifca", seed, settings={"n_groups": 2})
        put(store, "ifca", seed, settings={"n_groups": 3})
        put(store, "oracle", seed)
        put(store, "fedavg", seed, federation=scenario("digits-3shift", seed=seed, A=10.0))
    df = frame(collect(store.records()))
    names = df.groupby("method").size().to_dict()
    assert {n for n in names if n.startswith("ifca")} == {"ifca (n_groups=2)", "ifca (n_groups=3)"}
    assert names["oracle"] == 2, "true groups follow the seed: one row"
    assert df["data"].nunique() == 2 and df["data"].str.contains("concentration=10.0").sum() == 2


def test_scenarios_come_in_the_order_in_which_they_were_given(store, tmp_path):
    refs = ("one-concept", "digits-3shift")
    ids = [put(store, algorithm, ref=ref, federation=scenario("digits-3shift", A=a)).path.name
           for ref, a in zip(refs, (10.0, 3.0), strict=True) for algorithm in ("local", "fedrc")]
    assert ids != sorted(ids)
    store.put_in_order(ids)
    assert [t.title.partition(":")[0] for t in main_tables(frame(collect(store.records())))] == list(refs)
    page = write_report(store.records(), tmp_path / "out", "t").read_text()
    assert page.index("<h2>one-concept") < page.index("<h2>digits-3shift")


def test_the_main_table(store):
    table = main_table(frame(collect(full(store))))
    assert table.title == "digits-3shift: 12 clients, 2 newcomers"
    assert [row[0].text for row in table.rows] == ["local", "fedavg", "oracle", "fedrc", "ifca", "flhc"]
    cells = texts(table)
    assert cells["fedrc"]["ARI"] == "1.000 ± 0.000" and cells["fedrc"]["IPR"] == "1.000 ± 0.000"
    assert cells["local"]["IPR"] == "–" and cells["local"]["groups"] == "12" and cells["fedrc"]["groups"] == "3"
    assert cells["fedrc"]["MB"] == "12" and cells["flhc"]["runs"] == "0 of 1 finished"
    mean = np.mean([made("fedrc", seed).accuracy[-1].mean() for seed in range(4)])
    assert cells["fedrc"]["local"].startswith(f"{mean:.3f}")
    best = {row[0].text for row in table.rows for c in row if c.best}
    assert "oracle" not in best and {row[0].text for row in table.rows if row[1].best} == {"fedrc"}


def test_the_further_tables(store):
    df = frame(collect(full(store)))
    assert texts(groups_table(df))["fedavg"]["conflicts"] == "1.000 ± 0.000"
    assert texts(groups_table(df))["fedavg"]["IPR FedAvg"] == "–" and "unassigned" not in groups_table(df).columns
    rounds = texts(rounds_table(df))
    assert rounds["fedavg"]["rounds to Local"] == "never" and rounds["local"]["rounds to Local"] == "–"
    assert rounds["fedrc"]["rounds to Local"] == "4 ± 0" and rounds["flhc"]["best round"] == "–"
    assert rounds["fedrc"]["last round"] == rounds["fedrc"]["best val."]
    new = newcomers_table(df)
    assert new.columns == ["algorithm", "no labels", "m = 5", "all labels"]
    assert texts(new)["fedrc"] == {"no labels": "undetermined", "m = 5": "0.500 ± 0.000 (50% agree)",
                                   "all labels": "0.750 ± 0.000"}


def test_clients_without_a_group_show_in_the_groups_table(store):
    outcome = made("ifca")
    outcome.groups[-1, 0] = -1
    put(store, "ifca", outcome=outcome)
    assert texts(groups_table(frame(collect(store.records()))))["ifca"]["unassigned"] == "0.083"


def test_the_terminal_table_fits_eighty_columns(store):
    console = Console(file=io.StringIO(), width=80)
    console.print(*terminal_tables(full(store)))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and any("fedrc" in li and "1.000" in li and "12" in li for li in lines)


def test_rows_for_json_hold_the_gains(store):
    put(store, "local")
    run_dir = put(store, "fedrc")
    row = next(r for r in rows(store.records()) if r["algorithm"] == "fedrc")
    assert row["metrics"]["ipr"] == 1.0 and row["run_dir"] == str(run_dir.path)
    assert row["metrics"]["unseen_0"] is None and "ipr" not in run_dir.record().metrics, "the record stays as it was"


def test_the_whole_report(store, tmp_path):
    out = tmp_path / "out"
    html = write_report(full(store), out, "Title <&>").read_text()
    assert {f.name for f in out.iterdir()} == {"report.html", "table.md", "table.tex", "table.csv"}
    page = Page(html)
    assert page.open == [] and "script" not in page.seen and "url(http" not in html
    assert all(r.startswith(("#", "data:image/png")) for r in page.references)
    text = re.sub(r"\s+", " ", page.text)
    for words in (
        "Title <&>", "21 runs: 1 scenario, 6 algorithms, 4 seeds", "20 finished", "1 failed", "2 of 12 <replies>",
        "Paired comparison in client accuracy: fedrc against the others", "Groups found", "Clients that never trained",
        "Accuracy and recovery over rounds", "ARI against the true groups", "gain over Local", "gain over FedAvg",
        "Accuracy of each group", "Assignment over rounds", "true concept", "fedrc: feature", "Similarity of the",
        "Bytes down and up", "Newcomers by labelled samples", "fedclust simulate fedrc",
    ):
        assert words in text, words
    assert page.seen.count("svg") == 8
    assert re.search(r"\| fedrc +\| \*\*0\.8", (out / "table.md").read_text())
    assert r"\textbf{" in (out / "table.tex").read_text()
    csv = pd.read_csv(out / "table.csv").set_index("method")
    assert csv.loc["fedrc", "ipr_mean"] == 1.0 and csv.loc["flhc", ["finished", "total"]].tolist() == [0, 1]


def test_a_report_twice_is_the_same(store, tmp_path):
    put(store, "fedrc")
    first, second = (write_report(store.records(), tmp_path / name, "T").read_bytes() for name in "ab")
    assert first == second


def test_a_report_of_failures_only(store, tmp_path):
    put(store, "fedrc", status="failed")
    put(store, "ifca", status="running")
    text = write_report(store.records(), tmp_path, "None").read_text()
    assert "1 failed" in text and "1 not finished" in text and "<svg" not in text


def test_without_truth_validation_newcomers_and_measured_rounds(store, tmp_path):
    whole = made("ifca")
    bare = replace(
        whole, clients=whole.clients.drop(columns=["true_concept", "true_feature", "true_group"]),
        accuracy=np.vstack([np.full((R, N), np.nan), whole.accuracy[-1]]), validation=np.full((R + 1, N), np.nan),
        newcomers=whole.newcomers.iloc[:0], similarity=np.full((N, N), 0.5))
    put(store, "ifca", outcome=bare)
    text = write_report(store.records(), tmp_path, "Bare").read_text()
    assert "coloured by their last group" in text and "ARI against" not in text and "true concept" not in text
    assert "Clients that never trained" not in text and "Similarity of the clients" in text


def test_clients_that_cluster_have_no_accuracy_anywhere(store, tmp_path):
    """What they have is shown, and leads; nothing says 'nan', 'local' is the algorithm's name only."""
    for algorithm, level in (("local", 0.4), ("fedavg", 0.7), ("ifca", 0.6)):
        plain, nothing = made(algorithm), np.full((R + 1, N), np.nan)
        silent = replace(plain, clients=plain.clients.assign(accuracy=np.nan, accuracy_validation=np.nan),
                         accuracy=nothing, validation=nothing, newcomers=plain.newcomers[:0])
        run_dir = put(store, algorithm, outcome=silent)
        record = run_dir.record()
        assert not {"local", "worst_decile", "rounds_to_95", "best_validation"} & set(record.metrics)
        record.metrics |= {"nodes_acc": level, "nodes_nmi": level / 2, "own_acc": 0.5}
        run_dir.write_record(record)
    runs = collect(store.records())
    assert not {"ipr", "rsd", "rounds_to_local"} & set(runs[1].values)
    df = frame(runs)
    assert ordered(df) == ["local", "fedavg", "ifca"] and rounds_table(df) is None and newcomers_table(df) is None
    table = main_table(df)
    assert table.columns[1:4] == ["ACC", "NMI", "own ACC"] and "local" not in table.columns
    assert [row[1].text for row in table.rows] == ["0.400", "0.700", "0.600"]
    page = write_report(store.records(), tmp_path / "out", "Clusters").read_text()
    assert "Paired comparison in accuracy of the clusters: fedavg against" in page and "Bytes down and up" in page
    assert not [title for title in ("Accuracy and recovery over rounds", "Accuracy of the clients") if title in page]


def test_two_scenarios_are_ranked(store, tmp_path, monkeypatch):
    monkeypatch.setattr("fedclust.report.pictures", lambda runs, order: [])
    for algorithm in ("fedrc", "fedavg"):
        put(store, algorithm)
        put(store, algorithm, ref="digits-3shift:A=10", federation=scenario("digits-3shift", A=10.0))
    text = write_report(store.records(), tmp_path, "Two").read_text()
    assert "Ranks by local over digits-3shift, digits-3shift:A=10" in text and "Over all scenarios" in text


def test_bounds_come_first_then_the_best(store):
    for algorithm in ("ifca", "fedrc", "local", "fedavg"):
        put(store, algorithm)
    put(store, "flhc", status="failed")
    assert ordered(frame(collect(store.records()))) == ["local", "fedavg", "fedrc", "ifca", "flhc"]


def test_commands_say_what_differs_from_the_defaults():
    config = FederationConfig(algorithm="ifca", scenario="digits-3shift", federation=scenario("digits-3shift"), seed=2,
                              rounds=7, settings={"n_groups": 4}, training={"lr": 0.3}, fraction=0.5).resolved()
    assert shlex.split(command(config)) == [
        "fedclust", "simulate", "ifca", "--scenario", "digits-3shift", "--seeds", "3", "--rounds", "7",
        "--set", "n_groups=4", "--with", "fraction=0.5", "--with", "training.lr=0.3"]


def test_participation_is_counted_by_reason(store):
    put(store, "ifca", 0)
    put(store, "flhc", 0, "failed")
    assert participation_table(frame(collect(store.records()))) is None, "everyone was asked and answered"
    put(store, "cfl", 0, outcome=made("ifca"), failures={
        0: {"c00": DROPPED, "c01": DROPPED, "c02": LATE}, 2: {"c00": DROPPED, "c03": "OSError: disk full"}})
    put(store, "cfl", 1, outcome=made("ifca"), failures={1: {"c05": LATE}})
    runs = collect(store.records())
    first, second = (r.participation for r in runs if r.name == "cfl")
    assert first == {"asked": 12, "answered": 10.75, "dropped_out": 0.75, "late": 0.25, "failed": 0.25}
    assert second == {"asked": 12, "answered": 11.75, "dropped_out": 0, "late": 0.25, "failed": 0}
    assert next(r for r in runs if r.name == "flhc").participation == {}, "it failed"
    told = texts(participation_table(frame(runs)))
    assert told["cfl"] == {"asked": "12.0 ± 0.0", "answered": "11.2 ± 0.7", "dropped out": "0.4 ± 0.5",
                           "late": "0.2 ± 0.0", "failed": "0.1 ± 0.2"}
    assert told["ifca"]["answered"] == "12.0" and told["flhc"]["answered"] == "–"
    assert section(frame(runs), runs)["participation"] is not None
