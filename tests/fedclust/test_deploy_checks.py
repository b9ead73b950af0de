"""What is refused before anything starts: certificates, keys, ports, data, versions; each with its mend."""

import http.server
import importlib.metadata
import json
import shutil
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fedclust.deploy import certificates, checks
from fedclust.deploy import kit as kits
from fedclust.deploy.certificates import check_server, read_certificate
from fedclust.deploy.settings import SuperLinkSettings, read_superlink, read_supernode
from graphclust.graph import InputError

FLOWER = importlib.metadata.version("flwr")


class YearAgo(datetime):
    """The clock when the kit was made."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) - timedelta(days=365)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def kit(tmp_path):
    return kits.init(tmp_path / "kit", "localhost", ["a", "b"], port=free_port())


@contextmanager
def serving(folder, document, tls=True, status=200, ahead=0):
    """A server with the certificate of a SuperLink's folder, and a clock that is some seconds ahead; its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + ahead)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # clients that refuse the certificate
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def flower(version=FLOWER):
    return {"info": {"title": "SuperLink API", "version": version}}


def test_a_good_superlink_is_told(kit):
    settings = read_superlink(kit.superlink)
    assert checks.check_superlink(kit.superlink, settings) == [
        "certificate: good for another 824 days", "keys: 2 clients listed: a, b",
        f"port {settings.port} of 127.0.0.1 is free"]
    open_to_all = checks.check_superlink(kit.superlink, settings.model_copy(update={"host": "0.0.0.0"}))
    assert open_to_all[-1].startswith("warning: host = 0.0.0.0: whoever reaches port")


def test_a_certificate_near_its_end_is_warned_of(kit):
    kits.renew(kit.root, days=20)
    assert checks.check_superlink(kit.superlink, read_superlink(kit.superlink))[0].startswith("warning: certificate")


def test_an_expired_certificate(kit):
    authority, server = (read_certificate(kit.superlink / f) for f in ("ca.crt", "server.crt"))
    late = datetime.now(UTC) + timedelta(days=826)
    with pytest.raises(InputError, match=r"the certificate server.crt expired on .*renew DIR"):
        check_server(server, authority, "localhost", "server.crt", at=late)
    with pytest.raises(InputError, match=r"the authority's certificate expired .*init"):
        check_server(server, authority, "localhost", "server.crt", at=datetime.now(UTC) + timedelta(days=4000))
    with pytest.raises(InputError, match="set this machine's clock"):
        check_server(server, authority, "localhost", "server.crt", at=datetime.now(UTC) - timedelta(days=1))


def test_certificates_of_two_kits_do_not_mix(kit, tmp_path):
    other = kits.init(tmp_path / "other", "localhost", ["a"])
    settings = read_superlink(kit.superlink)
    shutil.copy(other.superlink / "server.key", kit.superlink / "server.key")
    with pytest.raises(InputError, match=r"server.key does not belong to server.crt"):
        checks.check_superlink(kit.superlink, settings)
    shutil.copy(other.superlink / "server.crt", kit.superlink / "server.crt")
    with pytest.raises(InputError, match="not signed by this kit's authority"):
        checks.check_superlink(kit.superlink, settings)
    (kit.superlink / "server.crt").write_text("gone")
    with pytest.raises(InputError, match=r"server.crt is no certificate"):
        checks.check_superlink(kit.superlink, settings)


def test_a_port_in_use(kit):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} of 127.0.0.1 is in use; .*--port"):
            checks.check_superlink(kit.superlink, SuperLinkSettings(port=port))
        node = read_supernode(kit.supernode("a")).model_copy(update={"port": port})
        with pytest.raises(InputError, match=rf"port {port} .* is in use; .*this SuperNode"):
            checks.check_supernode(kit.supernode("a"), node, kit.supernode("a") / "ca.crt")
    with pytest.raises(InputError, match="cannot be had"):
        checks.check_superlink(kit.superlink, SuperLinkSettings(host="192.0.2.77", port=free_port()))


def test_keys_of_the_server(kit):
    settings = read_superlink(kit.superlink)
    shutil.copy(kit.public_key("a"), kit.public_key("b"))
    with pytest.raises(InputError, match="'a' and 'b' have one key"):
        checks.check_superlink(kit.superlink, settings)
    kit.public_key("b").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x")
    with pytest.raises(InputError, match=r"b.pub is not an elliptic-curve key"):
        checks.check_superlink(kit.superlink, settings)
    for client in ("a", "b"):
        kit.public_key(client).unlink()
    with pytest.raises(InputError, match="holds no client's key"):
        checks.check_superlink(kit.superlink, settings)


@pytest.mark.parametrize("role", ["superlink", "supernode"])
def test_a_private_key_that_others_can_read(kit, role):
    key = kit.superlink / "server.key" if role == "superlink" else kit.supernode("a") / "key"
    key.chmod(0o640)
    with pytest.raises(InputError, match=r"can be read by others \(mode 640\); run: chmod 600"):
        node(kit, "a") if role == "supernode" else checks.check_superlink(kit.superlink, read_superlink(kit.superlink))


def node(kit, client, **changes):
    """The checks of one client's SuperNode."""
    folder = kit.supernode(client)
    settings = read_supernode(folder).model_copy(update={"port": free_port(), **changes})
    return checks.check_supernode(folder, settings, folder / "ca.crt")


def test_the_key_of_a_client(kit):
    found = node(kit, "a")
    assert found[:2] == ["key: private", "key: listed at the server"]
    assert "nobody answers" in found[-1]
    (kit.public_key("a")).unlink()
    with pytest.raises(InputError, match=r"the key of 'a' is not listed in .*key.pub there as a.pub"):
        node(kit, "a")
    shutil.copy(kit.supernode("b") / "key.pub", kit.supernode("a") / "key.pub")
    with pytest.raises(InputError, match=r"key.pub does not belong to"):
        node(kit, "a")
    (kit.supernode("b") / "key").write_bytes((kit.superlink / "server.key").read_bytes())
    with pytest.raises(InputError, match="no private key in the format of OpenSSH"):
        node(kit, "b")
    (kit.supernode("b") / "key").unlink()
    with pytest.raises(InputError, match="is missing"):
        node(kit, "b")


def test_the_server_as_a_client_sees_it(kit):
    with serving(kit.superlink, flower()) as port:
        told = node(kit, "a", superlink=f"localhost:{port}")[-1]
        assert f"its certificate is good, Flower {FLOWER} there and {FLOWER} here" in told
        kits.renew(kit.root)  # not served yet, and nothing that the client must know
        assert "good" in node(kit, "a", superlink=f"127.0.0.1:{port}")[-1]
    with serving(kit.superlink, {}) as port:
        assert "does not tell its version" in node(kit, "a", superlink=f"localhost:{port}")[-1]


def test_a_server_of_another_version(kit):
    with (serving(kit.superlink, flower("1.28.3")) as port,
          pytest.raises(InputError, match=rf"Flower is {FLOWER} here and 1.28.3 at .*pip install 'flwr==1.28.3'")):
        node(kit, "a", superlink=f"localhost:{port}")


def test_a_server_of_another_authority_name_or_time(kit, tmp_path, monkeypatch):
    other = kits.init(tmp_path / "other", "localhost", ["a"])
    with (serving(other.superlink, flower()) as port,
          pytest.raises(InputError, match="not signed by this kit's authority")):
        node(kit, "a", superlink=f"localhost:{port}")
    monkeypatch.setattr(certificates, "LOCAL", ())
    elsewhere = kits.init(tmp_path / "elsewhere", "fed.example.org", ["a"])
    with (serving(elsewhere.superlink, flower()) as port,
          pytest.raises(InputError, match=r"is for fed.example.org, not for 'localhost'; .*--san localhost")):
        node(elsewhere, "a", superlink=f"localhost:{port}")
    monkeypatch.setattr(certificates, "datetime", YearAgo)
    old = kits.init(tmp_path / "old", "localhost", ["a"], days=30)
    monkeypatch.undo()
    with serving(old.superlink, flower()) as port, pytest.raises(InputError, match="expired on"):
        node(old, "a", superlink=f"localhost:{port}")


def test_a_server_without_tls_or_no_server(kit):
    with (serving(kit.superlink, flower(), tls=False) as port,
          pytest.raises(InputError, match=rf"localhost:{port} does not speak TLS")):
        node(kit, "a", superlink=f"localhost:{port}")
    with pytest.raises(InputError, match=r"nobody answers at localhost:.*start the SuperLink"):
        checks.check_server_side(f"localhost:{free_port()}", kit.run / "ca.crt", needed=True)


@pytest.mark.parametrize(("ahead", "told"), [(-60, "ahead of"), (400, "behind")])
def test_a_server_of_another_time(kit, ahead, told):
    """What a SuperNode sends is signed with the time; the operator's commands are not."""
    with serving(kit.superlink, flower(), ahead=ahead) as port:
        with pytest.raises(InputError, match=rf"clock is \d+ s {told} that of .*timedatectl"):
            node(kit, "a", superlink=f"localhost:{port}")
        assert "good" in checks.check_server_side(f"localhost:{port}", kit.run / "ca.crt")[-1]
    with serving(kit.superlink, flower(), ahead=60) as port:
        assert "good" in node(kit, "a", superlink=f"localhost:{port}")[-1], "5 minutes behind are allowed"


def test_a_proxy_without_its_server(kit):
    with serving(kit.superlink, {}, status=502) as port:
        assert "what stands before the SuperLink answers 502) yet" in node(kit, "a", superlink=f"localhost:{port}")[-1]
        with pytest.raises(InputError, match=r"answers 502\); start the SuperLink"):
            checks.check_server_side(f"localhost:{port}", kit.run / "ca.crt", needed=True)


def test_data_in_a_folder(tmp_path):
    folder = tmp_path / "samples"
    with pytest.raises(InputError, match=r"is no folder"):
        checks.check_data("a", str(folder), tmp_path)
    folder.mkdir()
    (folder / "readme.txt").write_text("to come")
    with pytest.raises(InputError, match=r"holds no .npz and no .csv file; put labelled samples there"):
        checks.check_data("a", str(folder), tmp_path)
    np.savez(folder / "x.npz", x=np.zeros((0, 3)), y=np.zeros(0, int))
    with pytest.raises(InputError, match="no samples"):
        checks.check_data("a", str(folder), tmp_path)
    np.savez(folder / "x.npz", x=np.zeros((20, 3)), y=np.arange(20) % 4)
    (folder / "more.csv").write_text("u,v,w,label\n" + "1,2,3,0\n" * 10)
    assert checks.check_data("a", str(folder), tmp_path) == (
        str(folder), f"data: 30 labelled samples of {folder}")
    (folder / "more.csv").write_text("u,v,w,label\n1,2,,0\n")
    with pytest.raises(InputError, match=r"more.csv.*NaN"):
        checks.check_data("a", str(folder), tmp_path)


def test_data_of_a_function_and_of_a_scenario(tmp_path):
    (tmp_path / "own_samples_here.py").write_text(
        "import numpy as np\nnothing = 1\n"
        "def load(client):\n    return {'x': np.zeros((8, 2)), 'y': np.arange(8) % 2}\n")
    assert checks.check_data("a", "own_samples_here:load", tmp_path) == (
        "own_samples_here:load", "data: 8 labelled samples of own_samples_here:load")
    for data in ("own_samples_here:nothing", "own_samples_here:missing", "no_such_module_here:load"):
        with pytest.raises(InputError, match=data.replace(":", ".*")):
            checks.check_data("a", data, tmp_path)
    trial = "scenario:digits-3shift:n_clients=3:client-0001"
    assert checks.check_data("a", trial, tmp_path)[0] == trial
    with pytest.raises(InputError, match="scenario:NAME:CLIENT"):
        checks.check_data("a", "scenario:digits-3shift", tmp_path)
