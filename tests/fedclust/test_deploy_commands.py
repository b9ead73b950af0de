"""``fedclust deploy``: the exact commands, supervision, registered keys, and the documentation's own commands."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from fedclust.deploy import commands, registration, runs, supervise
from fedclust.deploy import kit as kits
from fedclust.deploy.settings import read_superlink, read_supernode
from graphclust.graph import InputError
from simulations.cli import app
from tests.fedclust.test_deploy_checks import free_port
from tests.processes import commands_below

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"
# each of these stands for what it starts, so that nothing is started
DRY = ("superlink", "register", "supernode", "run", "status", "stop")


@pytest.fixture
def kit(tmp_path):
    return kits.init(tmp_path / "kit", "localhost", ["a", "b"], port=free_port())


@pytest.fixture
def cli(monkeypatch):
    """Runs ``fedclust deploy``: (status, document or text); data are read in this process, which has torch already."""
    monkeypatch.setattr("fedclust.deploy.cli.ProcessPoolExecutor", lambda n, context: ThreadPoolExecutor(n))

    def run(*arguments, as_json=True):
        done = CliRunner().invoke(app, ["deploy", *arguments, *(["--json"] if as_json else [])])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(done.stdout) if as_json else done.output

    return run


def script(text, folder):
    """A command that runs Python code."""
    return commands.Command([sys.executable, "-S", "-c", text], {"PYTHONUNBUFFERED": "1"}, folder)


def test_the_superlink_s_command(kit, cli):
    port, at = read_superlink(kit.superlink).port, kit.superlink
    held = cli("superlink", str(at), "--dry-run")
    assert Path(held["command"][0]).name == "flower-superlink"
    assert held["command"][1:] == [
        "--host", "127.0.0.1", "--port", str(port), "--ssl-ca-certfile", f"{at}/ca.crt", "--ssl-certfile",
        f"{at}/server.crt", "--ssl-keyfile", f"{at}/server.key", "--enable-supernode-auth", "--database",
        f"{at}/flwr/state.db", "--disable-runtime-dependency-installation"]
    environment = held["environment"]
    assert environment["FLWR_HOME"] == f"{at}/flwr"
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"]) == (
        "0", "1")
    assert not commands.flower_home(at).exists()
    line = cli("superlink", str(at), "--port", str(free_port()), "--dry-run", as_json=False).splitlines()[-1]
    assert shlex.split(line)[:4] == ["cd", str(at), "&&", "env"]


def test_the_supernode_s_command(kit, cli, tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 2)), y=np.arange(9) % 3)
    at = kit.supernode("a")
    monkeypatch.chdir(tmp_path)
    held = cli("supernode", "kit/supernodes/a", "--data", ".", "--port", str(free_port()), "--dry-run")
    command = held["command"]
    assert command[command.index("--node-config") + 1] == f'client="a" data="{tmp_path}"'
    assert command[command.index("--auth-supernode-private-key") + 1] == str(at / "key")
    assert command[command.index("--root-certificates") + 1] == str(at / "ca.crt")
    assert command[command.index("--superlink") + 1] == read_supernode(at).superlink
    assert "--insecure" not in command
    assert held["environment"]["PYTHONPATH"].split(os.pathsep)[0] == str(at)
    with pytest.raises(InputError, match="data: none given"):
        cli("supernode", str(at), "--dry-run")
    with pytest.raises(InputError, match="takes no quotes"):
        commands.supernode(at, read_supernode(at), '/srv/a "b"', root_certificates=at / "ca.crt")


def test_data_are_read_by_a_process_that_ends(kit, tmp_path):
    done = CliRunner().invoke(app, ["deploy", "supernode", str(kit.supernode("a")), "--data", str(tmp_path / "none")])
    assert isinstance(done.exception, InputError)
    assert "is no folder" in str(done.exception)
    assert not [p for p, command in commands_below().items() if "multiprocessing.spawn" in " ".join(command)]


def test_flower_reads_the_node_config_as_it_was_meant(kit):
    at = kit.supernode("a")
    given = commands.supernode(at, read_supernode(at), "/srv/my data=1", root_certificates=at / "ca.crt").arguments
    code = ("import sys, json; from flwr.common.config import parse_config_args; "
            "print(json.dumps(parse_config_args([sys.argv[1]])))")
    told = subprocess.check_output([sys.executable, "-c", code, given[given.index("--node-config") + 1]])
    assert json.loads(told) == {"client": "a", "data": "/srv/my data=1"}


def test_a_run_s_command_and_config(kit, cli, tmp_path):
    held = cli("run", str(kit.run), "--folder", "runs/second", "--dry-run")
    assert held["command"][1] == "run"
    assert (Path(held["command"][2]) / "pyproject.toml").is_file()
    assert held["command"][3:] == ["kit", "--run-config", f"{kit.run}/flwr/run.toml"]
    assert (held["run_config"]["clients"], held["run_config"]["folder"]) == (2, "runs/second")
    assert json.loads(held["run_config"]["config"])["algorithm"] == "fedrc"
    trial = cli("run", str(kit.run), "--scenario", "digits-3shift:n_clients=3", "--clients", "3", "--dry-run")
    config = json.loads(trial["run_config"]["config"])
    assert (config["scenario"], config["federation"]["source"], trial["run_config"]["clients"]) == (
        "digits-3shift:n_clients=3", "digits", 3)
    alone = str(kit.run / "federation.yaml")
    assert cli("run", alone, "--superlink", "localhost:1", "--dry-run")["run_config"] == {
        **held["run_config"], "folder": "runs/first"}
    with pytest.raises(InputError, match="--superlink host:port"):
        cli("run", alone, "--dry-run")
    with pytest.raises(InputError, match="no such file"):
        cli("run", alone, "--superlink", "localhost:1", "--root-certificates", str(tmp_path / "no.crt"), "--dry-run")


def test_what_a_run_cannot_be(kit, cli):
    with pytest.raises(InputError, match="legacy API only"):
        cli("run", str(kit.run), "--secure-aggregation", "--dry-run")
    file = kit.run / "run.yaml"
    file.write_text(file.read_text() + "secure_aggregation: true\n")
    with pytest.raises(InputError, match="legacy API only"):
        cli("run", str(kit.run), "--dry-run")
    file.write_text(file.read_text().replace("secure_aggregation: true", "secure: true"))
    with pytest.raises(InputError, match=r"wrong: secure = True: there is no such key; it has the keys"):
        cli("run", str(kit.run), "--dry-run")
    file.write_text(file.read_text().replace("secure: true\n", ""))
    with pytest.raises(InputError, match="n_groups = 2"):
        cli("run", str(kit.run), "--clients", "1", "--dry-run")
    with pytest.raises(InputError, match="nobody answers at"):
        cli("run", str(kit.run))
    with pytest.raises(InputError, match=r"has no superlink.yaml"):
        cli("superlink", str(kit.run), "--dry-run")


REFUSED = "import sys; print('Exit Code: 305'); sys.exit(1)"


def test_a_refused_supernode_is_started_again_until_it_is_let_in(tmp_path, clock):
    told, shown = [], []
    text = ("import pathlib, sys; f = pathlib.Path('n'); n = len(f.read_text()) if f.exists() else 0\n"
            "f.write_text('x' * (n + 1))\nprint('Exit Code: 305' if n < 3 else 'Exit Code: 302')\nsys.exit(1)")
    supervise.keep_supernode(script(text, tmp_path), told.append, shown.append, first=0.02, longest=0.05)
    assert [t.rpartition("next start in ")[2] for t in told[:-1]] == ["0.02 s", "0.04 s", "0.05 s"]
    assert all("has not expired" in t for t in told[:-1])
    assert shown == ["Exit Code: 305\n"] * 3 + ["Exit Code: 302\n"]


@pytest.mark.parametrize(("text", "told_first"), [("print('SuperNode terminated gracefully.')", supervise.LET_GO),
                                                 ("import sys; sys.exit(7)", "it ended with status 7")])
def test_a_supernode_that_ends_unasked_is_started_again_and_told_of(tmp_path, clock, text, told_first):
    """Flower ends one with status 0 and without a word when its key is removed or the clocks differ."""
    told = []
    supervise.keep_supernode(script(text, tmp_path), told.append, str, patience=0.3, first=0.1)
    assert told[0] == f"{told_first}; next start in 0.1 s"
    assert told[-1].startswith("the SuperNode is given up after") and told[-1].endswith(told_first)


def test_what_the_server_shows_is_the_reason_before_flower_s_code(tmp_path, clock):
    def check():
        raise InputError("localhost:1 does not speak TLS")

    told = []
    supervise.keep_supernode(script(REFUSED, tmp_path), told.append, str, check=check, patience=0.2, first=0.1)
    assert told[0] == "localhost:1 does not speak TLS; next start in 0.1 s"
    told.clear()
    supervise.keep_supernode(script(REFUSED.replace("305", "302"), tmp_path), told.append, str, check=check)
    assert told == [f"the SuperNode does not start: {supervise.REASONS[302]}"], "a key is no matter of the server"


def test_a_supernode_that_tries_on_is_told_of_now_and_then(tmp_path):
    told, shown = [], []
    trying = "WARNING : Connection attempt failed, retrying in 0.79 seconds"
    text = f"import sys; print('x\\n' + {trying!r} + '\\n' + {trying!r} + '\\nExit Code: 302'); sys.exit(1)"
    for found in (["note: nobody answers at localhost:1 yet"], ["server: localhost:1 answers over TLS"]):
        supervise.keep_supernode(script(text, tmp_path), told.append, shown.append, check=lambda f=found: f)
    assert [t for t in told if "answers" in t] == ["note: nobody answers at localhost:1 yet"], "once a minute"
    assert shown.count(trying + "\n") == 4


def test_a_supernode_is_given_up_when_it_cannot_be_let_in(tmp_path, clock):
    told = []
    supervise.keep_supernode(script(REFUSED, tmp_path), told.append, str, patience=0.3, first=0.1)
    assert told[-1].startswith("the SuperNode is given up after")
    assert "its key is not registered" in told[-1]
    assert supervise.PATIENCE >= 120


def test_a_mistake_is_not_tried_again(tmp_path):
    told = []
    text = REFUSED.replace("305", "302")
    supervise.keep_supernode(script(text, tmp_path), told.append, str)
    assert told == [f"the SuperNode does not start: {supervise.REASONS[302]}"]


def test_sigterm_ends_the_supernode_and_its_children(tmp_path):
    child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); print(p.pid); time.sleep(600)"
    code = (f"import sys\nfrom pathlib import Path\nfrom fedclust.deploy import commands, supervise\n"
            f"c = commands.Command([sys.executable, '-S', '-c', {child!r}], {{'PYTHONUNBUFFERED': '1'}}, Path('.'))\n"
            "supervise.keep_supernode(c, print, lambda line: print(line, flush=True))")
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "PYTHONPATH": str(DOCS.parents[1])}, cwd=tmp_path)
    grandchild = psutil.Process(int(supervisor.stdout.readline()))
    family = [*psutil.Process(supervisor.pid).children(recursive=True)]
    assert grandchild in family
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=60) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


class FakeLink:
    """A SuperLink's list of keys, as ``flwr supernode`` shows it."""

    def __init__(self):
        self.keys, self.calls, self.next, self.gone = {}, [], 1, set()

    def ask(self, folder, *arguments):
        verb = arguments[1]
        self.calls.append(verb)
        if verb == "ls":
            return {"nodes": [{"node-id": n, "status": "online"} for n in self.keys]}
        if verb == "unregister":
            del self.keys[arguments[2]]
            return {"success": True}
        key = Path(arguments[2]).read_bytes()
        if key in self.keys.values() or key in self.gone:
            raise InputError("flwr supernode register: Public key already in use.")
        self.keys[str(self.next)] = key
        self.next += 1
        return {"node-id": str(self.next - 1)}


def test_keys_are_registered_once_and_forgotten_with_their_files(kit, monkeypatch):
    link, told = FakeLink(), []
    monkeypatch.setattr(registration, "ask", link.ask)

    def synchronise():
        link.calls.clear()
        registration.synchronise(kit.superlink, told.append)
        return link.calls

    assert synchronise() == ["ls", "register", "register"]
    assert synchronise() == ["ls"]
    kits.remove_client(kit.root, "b")
    kits.add_client(kit.root, "c")
    assert synchronise() == ["ls", "unregister", "register"]
    old = kit.public_key("a").read_bytes()
    kits.remove_client(kit.root, "a")
    kits.add_client(kit.root, "a")  # a new key under the old name
    assert synchronise() == ["ls", "unregister", "register"]
    assert sorted(link.keys.values()) == sorted(kit.public_key(c).read_bytes() for c in ("a", "c"))
    assert {c: k["node"] for c, k in registration.registered(kit.superlink).items()} == {"c": "3", "a": "4"}
    link.keys.clear()  # its database is gone
    assert synchronise() == ["ls", "register", "register"]
    commands.flower_home(kit.superlink).joinpath("registered.json").unlink()  # ours is gone
    assert synchronise() == ["ls", "register", "register"]
    assert told[-1] == "c: the SuperLink knows its key already"
    # Flower lets nobody in by a key that it once unregistered, and says of it the same
    link.gone.add(old)
    kit.public_key("a").write_bytes(old)
    with pytest.raises(InputError, match=r"the key of 'a' was unregistered before, .*remove-client DIR a"):
        synchronise()


def test_what_flwr_answers_is_read_past_its_other_lines(kit, monkeypatch):
    refused = ("Listing all nodes...\\nClient error '403 Forbidden' for url 'https://localhost/v1/control/list-nodes'"
               "\\nFor more information check: https://example.org/403\\n")
    answers = iter(['Config created.\n{"success": true, "nodes": []}', '{"success": false, "error-message": "x\\nno"}',
                    "Traceback\nboom", f'{{"success": false, "error-message": "{refused}"}}'])
    monkeypatch.setattr(commands.Command, "output", lambda self, *further: next(answers))
    assert registration.ask(kit.superlink, "supernode", "ls") == {"success": True, "nodes": []}
    with pytest.raises(InputError, match="flwr supernode ls: no; is the SuperLink up"):
        registration.ask(kit.superlink, "supernode", "ls")
    with pytest.raises(InputError, match="boom"):
        registration.ask(kit.superlink, "supernode", "ls")
    with pytest.raises(InputError, match=r"'403 Forbidden' .*list-nodes'; .*its address at OPERATOR in nginx.conf"):
        registration.ask(kit.superlink, "supernode", "ls")


def test_a_superlink_admits_its_clients_once_it_answers(kit, monkeypatch):
    told, seen = [], []

    def tell(text):
        told.append(text)
        (kit.superlink / "told").touch()

    def answers(address, root, *, needed):
        seen.append(address)
        if len(seen) < 3:
            raise InputError("nobody answers")

    monkeypatch.setattr(supervise, "check_server_side", answers)
    monkeypatch.setattr(supervise, "synchronise", lambda folder, tell: seen.append("admitted"))
    settings = read_superlink(kit.superlink)
    until_told = script("import os, time\nwhile not os.path.exists('told'): time.sleep(0.02)", kit.superlink)
    assert supervise.keep_superlink(until_told, settings, tell) == 0
    address = f"127.0.0.1:{settings.port}"
    assert (seen, told) == ([address] * 3 + ["admitted"], [f"ready at {address}"])
    held = (commands.flower_home(kit.superlink) / "config.toml").read_text()
    assert f'address = "{address}"' in held
    assert "insecure" not in held


def test_status_names_the_clients(kit, monkeypatch):
    monkeypatch.setattr(runs, "check_server_side", lambda *a, **k: [])
    (commands.flower_home(kit.superlink)).mkdir()
    registration._keep(kit.superlink, {"a": {"node": "11", "key": "k"}})
    nodes = [{"node-id": n, "status": s, "online-at": "now"} for n, s in [("11", "online"), ("12", "unregistered")]]
    row = {"run-id": "5", "status": "running", "elapsed": 1.0, "status-details": "",
           "network-traffic": {"total-bytes": 9}}
    monkeypatch.setattr(runs, "nodes", lambda folder: nodes)
    monkeypatch.setattr(runs, "ask", lambda folder, *a: {"runs": [row]})
    assert runs.status(kit.run) == {
        "clients": [{"client": "a", "node": "11", "status": "online", "online at": "now"}],
        "runs": [{"run": "5", "status": "running", "elapsed": 1.0, "details": "", "bytes": 9}]}


def documented():
    """The commands of the documentation's sh blocks, in order."""
    return [line for block in re.findall(r"```sh\n(.*?)```", DOCS.read_text(), re.S) for line in block.splitlines()]


def test_every_command_of_the_documentation_is_taken(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for client in ("amber", "birch"):
        (tmp_path / "data" / client).mkdir(parents=True)
        np.savez(tmp_path / "data" / client / "x.npz", x=np.zeros((20, 4)), y=np.arange(20) % 10)
    seen = set()
    for line in documented():
        words = shlex.split(line.replace("fed.example.org", "localhost"))
        assert words[:2] == ["fedclust", "deploy"], line
        verb, dry = words[2], words[2] in DRY and "--dry-run" not in words
        document = cli(*words[2:], *(["--dry-run"] if dry else []))
        assert "command" in document if verb in DRY else "kit" in document, line
        seen.add(verb)
    assert seen == {"init", "add-client", "remove-client", "renew", *DRY}
    assert kits.open_kit(tmp_path / "kit").clients == ["amber", "birch"]


def test_the_documentation_covers_every_option_and_port():
    text = DOCS.read_text()
    listed = CliRunner().invoke(app, ["deploy", "--help"]).output
    for verb in (*DRY, "init", "add-client", "remove-client", "renew"):
        assert verb in listed
        assert f"`{verb}" in text or f"fedclust deploy {verb}" in text
    for part in ("8443", "9094", "/v1/fleet/", "/v1/control/", "/v1/runtime/", "### What travels"):
        assert part in text


def test_the_terminal_is_told_what_was_found(kit, cli):
    told = cli("superlink", str(kit.superlink), "--dry-run", as_json=False)
    assert "fedclust: certificate: good for another 824 days" in told
