"""Tables and the HTML report over hand-made runs."""

import io
import re
import shlex
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from graphclust.data import load
from graphclust.runs.figures import _paint
from graphclust.runs.layout import significant_digits, terminal_tables, to_csv, to_latex, to_markdown
from graphclust.runs.record import RunConfig, RunRecord
from graphclust.runs.report import command, write_report
from graphclust.runs.store import RunStore, save_array
from graphclust.runs.tables import NARROW, NOTE, frame, main_table, numbers, tables


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store", RunRecord)


def put(store, method="leiden", data="karate", seed=0, status="finished", metrics=None, arrays=(), history=(), **more):
    """Write one run by hand."""
    keys = ("params", "label", "published", "n_clusters")
    config = RunConfig(method=method, data=data, seed=seed, **{k: more.pop(k) for k in keys if k in more}).resolved()
    run_dir = store.run_dir(config)
    run_dir.open(config)
    if status == "finished":
        more = {"metrics": metrics or {"nmi": 0.5, "modularity": 0.4}, "n_clusters": 4, "k_source": "method",
                "timings": {"fit": 0.5}, "peak_memory_mb": 300.0, "n_nodes": 34, "n_edges": 78} | more
    elif status == "failed":
        more = {"error": {"type": "ValueError", "message": "it <broke> & burnt", "traceback": "line 1\nline 2"}} | more
    run_dir.write_record(RunRecord(id=config.run_id, status=status, config=config, **more))
    for name, array in dict(arrays).items():
        save_array(run_dir.path / f"{name}.npy", array)
    if history:
        run_dir.write_history(list(history))
    return run_dir


def full_store(store):
    y = load("karate").y.numpy()
    rng = np.random.default_rng(0)
    for seed in range(5):
        put(store, "leiden", seed=seed, metrics={"acc": 0.7, "nmi": 0.6 + seed / 100, "modularity": 0.41},
            published={"nmi": 0.9}, arrays={"labels": y})
        put(store, "pamc", seed=seed, metrics={"acc": 0.6, "nmi": 0.3 + seed**2 / 100, "modularity": 0.2},
            oracle={"oracle_acc": 0.99, "oracle_nmi": 0.98}, n_clusters=2,
            arrays={"labels": rng.integers(30, size=34), "embedding": rng.normal(size=(34, 8)),
                    "epoch_metrics": np.column_stack((np.arange(6), rng.random((6, 4))))},
            history=[{"epoch": e, "loss": 2.0 / (e + 1)} for e in range(6)])
        put(store, "louvain", seed=seed, status="failed" if seed > 2 else "finished",
            metrics={"acc": 0.5, "nmi": 0.1, "modularity": 0.3}, arrays={"labels": y})
    put(store, "kmeans", seed=0, status="failed", n_clusters=2)
    return store.records()


def test_data_sets_come_in_the_order_in_which_they_were_given(store, tmp_path):
    ids = [put(store, method, data).path.name
           for data in ("sbm:n=60,k=3", "karate") for method in ("louvain", "leiden")]
    store.put_in_order(ids)
    df = frame(store.records())
    assert [t.title for t in tables(df)] == [f"{d}: 34 nodes, 78 edges" for d in ("sbm:n=60,k=3", "karate")]
    page = write_report(store.records(), tmp_path / "out", "t").read_text()
    assert page.index("<h2>sbm") < page.index("<h2>karate")
    assert list(df["method"].unique()) == ["louvain", "leiden"], "and methods their colours"


def test_the_frame_counts_and_names(store):
    put(store, seed=0)
    put(store, seed=1, status="failed")
    df = frame(store.records())
    assert df["status"].value_counts().to_dict() == {"finished": 1, "failed": 1}
    row = [c.text for c in main_table(df, "karate").rows[0]]
    assert row == ["leiden", "4 (method)", "0.500", "0.400", "0.5", "300", "1 of 2 finished"]


def test_unlike_settings_of_one_name_are_not_averaged(store):
    for resolution in (1.0, 2.0):
        for seed in range(2):
            put(store, seed=seed, params={"resolution": resolution}, metrics={"nmi": resolution / 4})
    df = frame(store.records())
    assert set(df["method"]) == {"leiden (resolution=1.0)", "leiden (resolution=2.0)"}
    assert df.groupby("method")["nmi"].std().max() == 0


def test_a_setting_that_differs_between_data_sets_keeps_its_name(store):
    put(store, data="karate", params={"resolution": 1.0})
    put(store, data="debtopics13", params={"resolution": 2.0})
    assert frame(store.records())["method"].tolist() == ["leiden", "leiden"]


def test_the_best_is_marked_in_the_right_direction(store):
    put(store, "leiden", metrics={"nmi": 0.5, "conductance_weighted": 0.1})
    put(store, "louvain", metrics={"nmi": 0.6, "conductance_weighted": 0.3})
    table = main_table(frame(store.records()), "karate")
    best = {(row[0].text, table.columns[i]) for row in table.rows for i, cell in enumerate(row) if cell.best}
    assert best == {("louvain", "NMI"), ("leiden", "conductance")}
    assert [row[0].text for row in table.rows] == ["louvain", "leiden"]  # rows by NMI


def test_terminal_table_fits_eighty_columns(store):
    df = frame(full_store(store))
    console = Console(file=io.StringIO(), width=80)
    console.print(*terminal_tables(tables(df), NARROW))
    text = console.file.getvalue()
    assert all(word in text for word in ("leiden", "louvain", "3 of 5", "0 of 1", "0.620", "±.016"))


def test_names_are_not_folded_on_a_narrow_terminal(store):
    seven = {m: 0.5 for m in ("acc", "nmi", "ari", "f1", "modularity", "conductance_weighted")}
    for seed in range(3):
        put(store, "leiden_auto", seed=seed, metrics={m: v + seed / 10 for m, v in seven.items()})
        put(store, "pamc", label="pamc (3 networks)", seed=seed, metrics=seven, n_clusters=2)
    console = Console(file=io.StringIO(), width=80)
    console.print(*terminal_tables(tables(frame(store.records())), NARROW))
    assert "leiden_auto " in console.file.getvalue() and "pamc (3 networks) " in console.file.getvalue()


def test_markdown_latex_and_csv(store):
    df = frame(full_store(store))
    assert re.search(r"\| leiden +\| .*\*\*0.620 ± 0.016\*\*", to_markdown(tables(df), NOTE))
    latex = to_latex(tables(df), NOTE)
    assert r"\toprule" in latex and r"\textbf{0.620 $\pm$ 0.016}" in latex and "±" not in latex
    table = pd.read_csv(io.StringIO(to_csv(df, numbers(df)))).set_index("method")
    assert table.loc["leiden", "nmi_mean"] == pytest.approx(0.62) and table.loc["louvain", "nmi_n"] == 3
    assert table.loc["kmeans", ["finished", "total"]].tolist() == [0, 1]


def test_latex_escapes_names(store):
    put(store, "leiden_auto", label="a_b & 50%")
    assert r"a\_b \& 50\%" in to_latex(tables(frame(store.records())), NOTE)


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes that could fetch something, and text."""

    VOID = frozenset({"meta", "path", "use", "image", "rect", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.references, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.references += [v for k, v in attrs if k in ("href", "src", "xlink:href", "action") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


def test_the_whole_report(store, tmp_path):
    out = tmp_path / "out"
    html = write_report(full_store(store), out, "Title <&>").read_text()
    assert {f.name for f in out.iterdir()} == {"report.html", "table.md", "table.tex", "table.csv"}
    page = Page(html)
    assert page.open == [] and "script" not in page.seen
    assert all(r.startswith(("#", "data:image/png")) for r in page.references)
    assert "currentColor" in html and "$\\" not in html and "url(http" not in html
    text = re.sub(r"\s+", " ", page.text)
    for words in (
        "Title <&>", "16 runs: 1 data set, 4 methods, 5 seeds", "13 finished", "3 failed", "it <broke> & burnt",
        "3 of 5 finished", "0.620 ± 0.016", "0.900 -0.280", "Oracle columns: not results", "best epoch of the run",
        "leiden against the others", "does not vary", "too few pairs (3)", "graphclust run pamc", "Mr. Hi",
        "Speed against quality", "Cluster sizes", "Confusion", "Embedding", "Metrics per epoch", "Loss per epoch",
    ):
        assert words in text, words
    assert page.seen.count("svg") == 6 and page.seen.count("figcaption") == 6


def test_one_method_is_not_said_to_win_anything(store, tmp_path):
    put(store, "leiden")
    text = write_report(store.records(), tmp_path, "One").read_text()
    assert "no other method has a result" in text and "class=\"best\"" not in text and "Paired comparison" not in text


def test_a_report_of_failures_and_interruptions_only(store, tmp_path):
    put(store, "leiden", status="failed")
    put(store, "louvain", status="running")
    text = write_report(store.records(), tmp_path, "None").read_text()
    assert "1 failed" in text and "1 not finished" in text and "<svg" not in text


def test_without_the_data_the_numbers_stand(store, tmp_path):
    put(store, data="gone.npz", arrays={"labels": np.arange(34) % 4})
    text = write_report(store.records(), tmp_path, "Gone").read_text()
    assert "the data cannot be loaded again" in text and "Cluster sizes" in text and "Confusion" not in text


def test_labels_of_changed_data_are_not_used(store, tmp_path):
    put(store, n_nodes=20, arrays={"labels": np.zeros(20, dtype=int)})
    text = write_report(store.records(), tmp_path, "Changed").read_text()
    assert "Confusion" not in text and "another number of nodes" in text


def test_a_report_twice_is_the_same(store, tmp_path):
    put(store, arrays={"labels": np.arange(34) % 4, "embedding": np.random.default_rng(0).normal(size=(34, 3))})
    records = store.records()
    first, second = (write_report(records, tmp_path / name, "T").read_bytes() for name in "ab")
    assert first == second


def test_commands_say_what_differs_from_the_defaults():
    config = RunConfig(method="leiden", data="my graph.csv", seed=3, params={"resolution": 2.5}).resolved()
    expected = ["graphclust", "run", "leiden", "--data", "my graph.csv", "--seed", "3", "--set", "resolution=2.5"]
    assert shlex.split(command(config)) == expected


@pytest.mark.parametrize(("value", "text"), [(0.012345, "0.0123"), (4.5678, "4.57"), (1234.5, "1,230"), (np.nan, "–")])
def test_significant_digits(value, text):
    assert significant_digits(value) == text


def test_matched_clusters_and_classes_share_a_colour():
    y = np.array([0] * 6 + [1] * 3 + [2] * 4 + [-1] * 2)
    labels = np.array([7] * 6 + [5] * 3 + [9] * 3 + [8] + [7] * 2)
    clusters, classes = _paint(labels, y)
    assert classes.tolist() == [0, 2, 1] and clusters.tolist() == [7, 9, 5, 8]
    assert _paint(labels, None)[0].tolist() == [7, 5, 9, 8]


def test_without_labels_modularity_leads(store, tmp_path):
    for seed in range(6):
        put(store, "leiden", "debtopics13", seed, metrics={"modularity": 0.5 + seed / 100, "conductance_weighted": 0.1})
        put(store, "louvain", "debtopics13", seed, metrics={"modularity": 0.4 + seed / 50, "conductance_weighted": 0.2})
    text = write_report(store.records(), tmp_path, "No labels").read_text()
    assert "Paired comparison in modularity: leiden" in text and "Wilcoxon" in text and "ACC</th>" not in text


def test_ranks_over_several_data_sets(store, tmp_path):
    for data in ("karate", "debtopics13"):
        put(store, "leiden", data, metrics={"nmi": 0.9})
        put(store, "louvain", data, metrics={"nmi": 0.1})
    put(store, "spectral", "karate", metrics={"nmi": 0.5}, params={})
    text = write_report(store.records(), tmp_path, "Ranks").read_text()
    assert "Left out, without a finished run on some data set: spectral" in text
    assert "the ranks do not show that the methods differ" in text  # two data sets cannot
