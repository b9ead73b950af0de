"""The commands in the process of the tests: one of its own takes seconds to import what every command needs."""

import sys

import pytest


@pytest.fixture
def in_process(monkeypatch, tmp_path, capfd):
    """Run a command's ``main`` with arguments, in an empty folder or in ``cwd``; gives (stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(main, *args, code=0, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["command", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert (end.value.code or 0) == code, err + out
        return out, err

    return run
