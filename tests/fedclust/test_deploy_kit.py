"""The deployment kit: what each machine is given, who can read it, and what is refused."""

import configparser
import os
import shutil
import socket
import stat
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedclust.config import FederationConfig
from fedclust.deploy import kit as kits
from fedclust.deploy.certificates import (
    AUTHORITY_DAYS,
    certificate_names,
    check_server,
    key_pair,
    new_authority,
    read_authority,
    read_certificate,
    read_private_key,
    read_public_key,
    server_certificate,
)
from fedclust.deploy.settings import address, join, read_run, read_superlink, read_supernode
from graphclust.config_file import read_model
from graphclust.graph import InputError

CLIENTS = ["amber", "birch.2", "cedar_x"]


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    root = tmp_path_factory.mktemp("deploy") / "kit"
    return kits.init(root, "fed.example.org", CLIENTS, names=["192.0.2.10"], port=9443, days=100)


def test_the_kit_has_a_folder_for_every_role(kit):
    def names(folder):
        return {p.name for p in folder.iterdir()}

    assert names(kit.root) == {"README.md", "ca", "superlink", "supernodes", "run"}
    assert names(kit.authority) == {"ca.crt", "ca.key"}
    assert names(kit.superlink) == {"ca.crt", "server.crt", "server.key", "keys", "superlink.yaml", "superlink.service",
                                    "compose.yaml", "README.md", "nginx.conf", "nftables.conf"}
    assert names(kit.superlink / "keys") == {f"{c}.pub" for c in CLIENTS}
    assert names(kit.run) == {"ca.crt", "federation.yaml", "run.yaml", "README.md"}
    for client in CLIENTS:
        assert names(kit.supernode(client)) == {"ca.crt", "key", "key.pub", "supernode.yaml", "supernode.service",
                                                "compose.yaml", "README.md"}
    assert kit.clients == sorted(CLIENTS)


def test_private_keys_are_where_they_belong_and_nobody_else_reads_them(kit):
    private = {p.relative_to(kit.root).as_posix() for p in kit.root.rglob("*")
               if p.is_file() and b"PRIVATE KEY" in p.read_bytes()}
    assert private == {"ca/ca.key", "superlink/server.key", *(f"supernodes/{c}/key" for c in CLIENTS)}
    assert all(stat.S_IMODE((kit.root / p).stat().st_mode) == 0o600 for p in private)


def test_no_bundle_holds_the_secret_of_another(kit):
    # the last full lines of each key's body: what a copy under any name or in any file would have to hold
    secrets = {owner: [line for line in (kit.root / file).read_text().splitlines()[-3:-1] if len(line) > 32]
               for owner, file in [("ca", "ca/ca.key"), ("superlink", "superlink/server.key"),
                                   *((f"supernodes/{c}", f"supernodes/{c}/key") for c in CLIENTS)]}
    assert all(secrets.values())
    for bundle in ["superlink", "run", *(f"supernodes/{c}" for c in CLIENTS)]:
        text = "".join(p.read_text() for p in (kit.root / bundle).rglob("*") if p.is_file())
        for owner, lines in secrets.items():
            assert (owner == bundle) == any(line in text for line in lines), (bundle, owner)


def test_the_server_certificate_is_signed_for_its_names_and_days(kit):
    authority, server = (read_certificate(kit.superlink / f) for f in ("ca.crt", "server.crt"))
    server.verify_directly_issued_by(authority)
    assert certificate_names(server) == ["fed.example.org", "localhost", "192.0.2.10", "127.0.0.1", "::1"]
    now = datetime.now(UTC)
    assert abs(server.not_valid_after_utc - now - timedelta(days=100)) < timedelta(minutes=5)
    assert abs(authority.not_valid_after_utc - now - timedelta(days=AUTHORITY_DAYS)) < timedelta(minutes=5)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not server.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert {(kit.root / f / "ca.crt").read_bytes() for f in ("ca", "superlink", "run", "supernodes/amber")} == {
        (kit.authority / "ca.crt").read_bytes()}
    for name in ("fed.example.org", "192.0.2.10", "localhost"):
        assert check_server(server, authority, name, "here") == 99


def test_client_keys_are_the_pairs_that_flower_takes(kit):
    for client in CLIENTS:
        key = read_private_key(kit.supernode(client) / "key")
        assert isinstance(key.curve, ec.SECP384R1)
        public = serialization.load_ssh_public_key(kit.public_key(client).read_bytes())
        assert key.public_key() == public
        assert kit.public_key(client).read_bytes() == (kit.supernode(client) / "key.pub").read_bytes()
    assert len({read_public_key(kit.public_key(c)) for c in CLIENTS}) == len(CLIENTS)


def test_settings_units_and_compose_files_are_well_formed(kit):
    assert read_superlink(kit.superlink).model_dump() == {"host": "127.0.0.1", "port": 9443, "threads": 1}
    assert read_run(kit.run).superlink == "fed.example.org:9443"
    nodes = [read_supernode(kit.supernode(c)) for c in CLIENTS]
    assert [n.client for n in nodes] == CLIENTS
    assert {n.superlink for n in nodes} == {"fed.example.org:9443"}
    assert len({n.port for n in nodes}) == len(CLIENTS)
    config = read_model(kit.run / "federation.yaml", FederationConfig)
    assert config.federation.n_clients == len(CLIENTS)
    config.check(len(CLIENTS))
    for file in kit.root.rglob("*.service"):
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.optionxform = str
        unit.read_string(file.read_text())
        assert unit["Service"]["ExecStart"].split()[1:3] == ["deploy", file.stem]
        assert unit["Service"]["KillMode"] == "mixed"
        # `systemctl stop` is no failure, and Flower may end a process with status 0 that should go on
        assert (unit["Service"]["SuccessExitStatus"], unit["Service"]["Restart"]) == ("143", "always")
    compose = yaml.safe_load((kit.superlink / "compose.yaml").read_text())["services"]["superlink"]
    assert compose["ports"] == ["127.0.0.1:9443:9443"]
    assert compose["restart"] == "unless-stopped", "on-failure is not started again with the machine"
    assert yaml.safe_load((kit.supernode("amber") / "compose.yaml").read_text())["services"]["supernode"]["volumes"]
    nginx = (kit.superlink / "nginx.conf").read_text()
    assert nginx.count("{") == nginx.count("}")
    control = nginx[nginx.index("location /v1/control/"):].partition("}")[0]
    assert "deny all;" in control
    assert "/v1/runtime" not in nginx
    assert nginx[nginx.index("location / {"):].split()[3:5] == ["return", "403;"]


def tool(name):
    """Where a program is that not every machine has; the kit was run with all of them, see docs/deployment.md."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return found or pytest.skip(f"{name} is not installed")


def accepts(*command):
    """The program ends with success; what it wrote."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_nginx_takes_its_configuration(tmp_path):
    nginx = tool("nginx")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    kit = kits.init(tmp_path / "kit", "127.0.0.1", ["a"], port=port)
    (tmp_path / "superlink.conf").write_text(
        (kit.superlink / "nginx.conf").read_text().replace("/opt/fedclust/superlink", str(kit.superlink)))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; "
                                         f"include {tmp_path}/superlink.conf; }}\n")
    assert "successful" in accepts(nginx, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))


def test_nftables_takes_its_rules(kit):
    nft = tool("nft")
    rules = kit.superlink / "nftables.conf"
    # without it a second load would add to the first, and an address that was taken out would stay in
    assert "delete table inet fedclust\ntable inet fedclust {" in rules.read_text()
    if os.geteuid() != 0:
        pytest.skip("nft checks rules for root only")
    accepts(nft, "--check", "--file", str(rules))


@pytest.mark.parametrize("role", ["superlink", "supernode"])
def test_systemd_takes_its_unit(kit, tmp_path, role):
    analyze = tool("systemd-analyze")
    folder = kit.superlink if role == "superlink" else kit.supernode("amber")
    unit = tmp_path / f"{role}.service"
    unit.write_text((folder / unit.name).read_text().replace("/opt/fedclust/venv/bin/fedclust", "/bin/true"))
    assert accepts(analyze, "verify", str(unit)) == ""


@pytest.mark.parametrize(("arguments", "told"), [
    ({"clients": []}, "none"),
    ({"clients": ["a", "b", "a"]}, "'a' is there twice"),
    ({"clients": ["a/b"]}, "letters, digits"),
    ({"clients": [".."]}, "letters, digits"),
    ({"server_name": "https://fed.example.org"}, "neither a host name nor an IP address"),
    ({"names": ["fed example"]}, "neither a host name nor an IP address"),
    ({"port": 0}, "host:port"),
    ({"days": 0}, "at least one day"),
])
def test_init_refuses_and_leaves_nothing(tmp_path, arguments, told):
    given = {"server_name": "fed.example.org", "clients": ["a"], **arguments}
    with pytest.raises(InputError, match=told):
        kits.init(tmp_path / "kit", **given)
    assert not list(tmp_path.iterdir())


def test_init_takes_an_empty_folder_and_no_other(tmp_path):
    kits.init(tmp_path, "::1", ["a"])
    assert read_run(tmp_path / "run").superlink == "[::1]:8443"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="exists and is not empty"):
        kits.init(tmp_path, "::1", ["b"])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kit_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(kits, "_render", full)
    with pytest.raises(OSError, match="no space"):
        kits.init(tmp_path / "kit", "localhost", ["a"])
    assert not list(tmp_path.iterdir())


def test_names_that_yaml_reads_as_something_else(tmp_path):
    kit = kits.init(tmp_path / "kit", "localhost", ["no", "1e5", "007"])
    assert [read_supernode(kit.supernode(c)).client for c in kit.clients] == ["007", "1e5", "no"]


def test_clients_come_and_go(tmp_path):
    kit = kits.init(tmp_path / "kit", "localhost", ["a", "b"])
    comments = [line for line in (kit.run / "federation.yaml").read_text().splitlines() if "#" in line]
    kits.add_client(kit.root, "c")
    assert kit.clients == ["a", "b", "c"]
    assert read_supernode(kit.supernode("c")).port == 1 + read_supernode(kit.supernode("b")).port
    assert read_public_key(kit.public_key("c")) == read_public_key(kit.supernode("c") / "key.pub")
    kits.remove_client(kit.root, "a")
    kits.remove_client(kit.root, "b")
    assert kit.clients == ["c"]
    assert not kit.supernode("a").exists()
    text = (kit.run / "federation.yaml").read_text()
    assert yaml.safe_load(text)["federation"]["n_clients"] == 1
    assert [line for line in text.splitlines() if "#" in line] == comments
    with pytest.raises(InputError, match="'a' is not in"):
        kits.remove_client(kit.root, "a")
    with pytest.raises(InputError, match=r"'c' is in .* already"):
        kits.add_client(kit.root, "c")
    with pytest.raises(InputError, match="no deployment kit"):
        kits.add_client(tmp_path, "d")


def test_a_client_may_keep_its_private_key_to_itself(tmp_path):
    kit = kits.init(tmp_path / "kit", "localhost", ["a"])
    private, public = key_pair("made elsewhere")
    (tmp_path / "key.pub").write_bytes(public)
    kits.add_client(kit.root, "own", public_key=tmp_path / "key.pub")
    assert not (kit.supernode("own") / "key").exists()
    assert read_public_key(kit.public_key("own")) == b" ".join(public.split()[:2])
    (tmp_path / "key.pub").write_bytes(private)
    with pytest.raises(InputError, match="no public key"):
        kits.add_client(kit.root, "other", public_key=tmp_path / "key.pub")
    assert kit.clients == ["a", "own"]
    assert not kit.supernode("other").exists()


def test_renewal_keeps_authority_names_and_clients(tmp_path):
    kit = kits.init(tmp_path / "kit", "fed.example.org", ["a"], names=["192.0.2.10"], days=10)
    before = {p: p.read_bytes() for p in kit.root.rglob("*") if p.is_file()}
    old = read_certificate(kit.superlink / "server.crt")
    kits.renew(kit.root, names=["fed2.example.org"], days=500)
    new = read_certificate(kit.superlink / "server.crt")
    assert set(certificate_names(new)) == {*certificate_names(old), "fed2.example.org"}
    assert new.public_key() != old.public_key()
    assert check_server(new, read_certificate(kit.authority / "ca.crt"), "fed2.example.org", "here") == 499
    assert {p.name for p, held in before.items() if p.read_bytes() != held} == {"server.crt", "server.key"}
    assert stat.S_IMODE((kit.superlink / "server.key").stat().st_mode) == 0o600
    with pytest.raises(InputError, match="run this where the kit was made"):
        read_authority(kit.superlink)


def test_a_certificate_never_outlives_its_authority():
    authority = new_authority(days=30)
    server = server_certificate(authority, ["localhost"], 825).certificate
    assert server.not_valid_after_utc <= authority.certificate.not_valid_after_utc


@pytest.mark.parametrize(("text", "host", "port"), [
    ("fed.example.org:8443", "fed.example.org", 8443), ("192.0.2.1:1", "192.0.2.1", 1), ("[::1]:65535", "::1", 65535)])
def test_addresses(text, host, port):
    assert address(text) == (host, port)
    assert join(host, port) == text


@pytest.mark.parametrize("text", ["fed.example.org", "https://fed.example.org:8443", ":8443", "a:0", "a:65536", "a:b"])
def test_no_addresses(text):
    with pytest.raises(InputError, match="host:port"):
        address(text)
