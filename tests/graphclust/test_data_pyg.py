"""torch_geometric's own downloaders, run against a server on this machine: nothing here leaves it."""

import http.server
import io
import json
import pickle
import socket
import sys
import threading
import zipfile
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch_geometric
import torch_geometric.datasets as pyg

from graphclust.cli import main
from graphclust.data import load
from graphclust.data.assemble import scipy_features
from graphclust.data.catalogue import cache_folder, cached, describe
from graphclust.graph import InputError

N, TEST = 700, 100  # PyG marks 500 nodes for validation, so there must be more


@pytest.fixture
def planted():
    """The graph that is served: edges in both directions, binary features, classes."""
    return load(f"asbm:n={N},k=3,d=16,features=binary,degree_in=6,degree_out=1,seed=4")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder and the address at which a server on this machine shows it; the cache is empty."""
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.delenv("GRAPHCLUST_OFFLINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        asked: list[str] = []  # noqa: RUF012  one list for all requests

        def log_message(self, *args):
            self.asked.append(self.path)

    Quiet.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield folder, f"http://127.0.0.1:{server.server_address[1]}", Quiet.asked
    finally:
        server.shutdown()
        server.server_close()
        socket.setdefaulttimeout(before)


def write_planetoid(folder, data):
    """Planetoid's eight files of ``data``: the test nodes are the last, listed in another order than theirs."""
    x = sp.csr_matrix(data.x.to_dense().numpy())
    y = np.eye(data.k, dtype=np.int32)[data.y.numpy()]
    test = np.random.default_rng(0).permutation(np.arange(N - TEST, N))
    rest = np.arange(N - TEST)
    graph = {i: data.edge_index[1][data.edge_index[0] == i].tolist() for i in range(N)}
    parts = {"x": x[:60], "y": y[:60], "allx": x[rest], "ally": y[rest], "tx": x[test], "ty": y[test], "graph": graph}
    for part, content in parts.items():
        (folder / f"ind.cora.{part}").write_bytes(pickle.dumps(content, protocol=2))
    (folder / "ind.cora.test.index").write_text("".join(f"{i}\n" for i in test))


def write_amazon(folder, data):
    """The npz of Amazon/Photo: CSR parts of adjacency and features, labels."""
    a = sp.csr_matrix((np.ones(data.num_edges), data.edge_index.numpy()), shape=(N, N))
    x = sp.csr_matrix(data.x.to_dense().numpy())
    arrays = {f"{name}_{part}": getattr(m, part) for name, m in (("adj", a), ("attr", x))
              for part in ("data", "indices", "indptr", "shape")}
    content = io.BytesIO()
    np.savez(content, labels=data.y.numpy(), **arrays)
    (folder / "amazon_electronics_photo.npz").write_bytes(content.getvalue())


def check_same(data, planted):
    assert (data.edge_index == planted.edge_index).all() and data.num_nodes == N
    assert (data.y == planted.y).all() and data.k >= 3
    assert (data.x.to_dense() == planted.x.to_dense()).all()


def test_planetoid_by_pygs_downloader(site, planted, monkeypatch):
    folder, address, asked = site
    write_planetoid(folder, planted)
    monkeypatch.setattr(pyg.Planetoid, "url", address)
    assert cached("pyg:Planetoid/Cora") is None
    check_same(load("pyg:Planetoid/Cora"), planted)
    assert "/ind.cora.allx" in asked
    assert cached("pyg:Planetoid/Cora") == cache_folder() / "pyg/Planetoid-Cora"
    asked.clear()
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")
    check_same(load("pyg:Planetoid/Cora"), planted)
    assert not asked, "the second load is from the cache"


def test_fetch_info_and_run_of_a_named_set(site, planted, monkeypatch, capsys):
    folder, address, asked = site
    write_amazon(folder, planted)
    monkeypatch.setattr(pyg.Amazon, "url", address + "/")

    def cli(*args):
        monkeypatch.setattr(sys, "argv", ["graphclust", *args, "--json"])
        try:
            main()
        except SystemExit as end:
            assert not end.code, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    assert {r["name"]: r["here"] for r in describe()}["amazon_photo"] is False
    row = cli("data", "fetch", "amazon_photo")[0]
    assert row["n_nodes"] == N and row["file"].endswith("pyg/Amazon-Photo")
    assert {r["name"]: r["here"] for r in describe()}["amazon_photo"] is True
    assert asked == ["/amazon_electronics_photo.npz"]
    check_same(load("amazon_photo"), planted)
    monkeypatch.chdir(folder)
    run = cli("run", "spectral", "--data", "amazon_photo", "-k", "3")
    assert run["metrics"]["acc"] > 0.9 and len(asked) == 1


def test_a_zip_with_wide_sparse_features(site, planted, monkeypatch):
    folder, address, asked = site
    x = sp.csr_matrix(planted.x.to_dense().numpy())
    wide = sp.csr_matrix((x.data, x.indices, x.indptr), shape=(N, 12_047))  # PyG keeps more than 10,000 columns sparse
    sp.save_npz(folder / "attrs.npz", wide)
    with zipfile.ZipFile(folder / "flickr.zip", "w") as z:
        z.write(folder / "attrs.npz", "flickr.attr/attrs.npz")
        z.writestr("flickr.attr/edgelist.txt", "".join(f"{a} {b}\n" for a, b in planted.edge_index.T.tolist()))
        z.writestr("flickr.attr/labels.txt", "".join(f"{i} {y + 1}\n" for i, y in enumerate(planted.y.tolist())))

    def here(id, folder, filename):  # PyG would ask Google Drive
        return torch_geometric.data.download_url(f"{address}/flickr.zip", folder, filename=filename)

    monkeypatch.setattr(torch_geometric.datasets.attributed_graph_dataset, "download_google_url", here)
    data = load("flickr")
    assert asked == ["/flickr.zip"] and data.x.is_sparse and data.x.shape == (N, 12_047) and data.k == 9
    assert (data.edge_index == planted.edge_index).all() and (data.y == planted.y).all()
    assert abs(scipy_features(data.x) - wide).max() == 0


def test_a_download_cut_short_leaves_nothing_and_the_next_one_works(site, planted, monkeypatch):
    folder, address, asked = site
    write_amazon(folder, planted)
    file = folder / "amazon_electronics_photo.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(pyg.Amazon, "url", address + "/")
    with pytest.raises(InputError, match=r"could not provide Amazon/Photo \(BadZipFile.*set GRAPHCLUST_DATA"):
        load("amazon_photo")
    assert not list((cache_folder() / "pyg").iterdir())
    file.unlink()
    with pytest.raises(InputError, match="HTTP Error 404"):
        load("amazon_photo")
    file.write_bytes(whole)
    check_same(load("amazon_photo"), planted)
    assert len(asked) == 4, asked  # the 404 is logged twice: as an error and as a request


def test_a_cached_copy_that_is_damaged_is_named(site, planted, monkeypatch):
    folder, address, _ = site
    write_amazon(folder, planted)
    monkeypatch.setattr(pyg.Amazon, "url", address + "/")
    load("amazon_photo")
    (cache_folder() / "pyg/Amazon-Photo/Photo/processed/data.pt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"delete .*Amazon-Photo to have it downloaded again"):
        load("amazon_photo")
