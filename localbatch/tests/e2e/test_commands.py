"""The other commands of localbatch as processes: signals, exit statuses, and options that reach the services."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from authority_support import TENANT
from server_support import LOCALBATCH, command_lines, processes

from localbatch.processes.installation import azurite_folder
from localbatch.testing import wait_until


@pytest.mark.parametrize("command", [["serve"], ["exec", "--", "true"]])
def test_missing_azurite_is_one_sentence(monkeypatch, tmp_path, command):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path))
    result = subprocess.run([*LOCALBATCH, *command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "Azurite is not installed; run `localbatch install`." in result.stderr


def test_install_keeps_installed_version(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCALBATCH_DATA", str(tmp_path))
    azurite_folder().mkdir()
    result = subprocess.run([*LOCALBATCH, "install"], capture_output=True, text=True, check=True)
    assert result.stdout == f"Azurite is in {azurite_folder()}\n"
    assert list(azurite_folder().iterdir()) == []


@pytest.mark.parametrize(("script", "status"), [('test "$TOPN_BATCH_KEY" && exit 7', 7), ("kill -9 $$", 137)])
def test_exec_ends_as_its_command_does(script, status):
    assert subprocess.run([*LOCALBATCH, "exec", "--", "sh", "-c", script], check=False).returncode == status


def test_exec_forwards_signals(tmp_path):
    command = [*LOCALBATCH, "exec", "--", "sh", "-c", "echo $TOPN_BATCH_ENDPOINT; exec sleep 300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        endpoint = process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_exec_keeps_ignored_signals_ignored(number):
    """As with `nohup`: the terminal sends the signal to the command, too."""
    command = [*LOCALBATCH, "exec", "--", "sh", "-c", "echo started; read answer; exit $answer"]
    ignoring = ["sh", "-c", f"trap '' {number.name.removeprefix('SIG')}; exec \"$@\"", "sh", *command]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(ignoring, **pipes) as process:
        process.stdout.readline()
        os.killpg(process.pid, number)
        process.communicate("7\n", timeout=60)
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_exec_outlives_it(tmp_path, escaping, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [*LOCALBATCH, "exec", "--", "sh", "-c", f"echo started; {escaping.partition(' -c ')[2][1:-1]}"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        process.stdout.readline()
        wait_until(lambda: sum("sleep" in line for line in command_lines(tmp_path)) >= 4)
        process.send_signal(number)
        process.wait(60)
    wait_until(lambda: not processes(tmp_path) and not list(temporary.iterdir()))


def test_command_line_has_https_options(authority):
    certificate = authority[1]
    options = [f"--cert={certificate.file}", f"--key={certificate.key}", "--oauth=basic", f"--tenant={TENANT}"]
    script = "import os; print(os.environ['TOPN_BATCH_ENDPOINT'], os.environ['TOPN_STORAGE_ENDPOINT'])"
    command = [*LOCALBATCH, "exec", *options, "--", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [endpoint.partition(":")[0] for endpoint in done.stdout.split()] == ["https", "https"]


def test_file_scripts_both_accounts(tmp_path):
    file = tmp_path / "faults.json"
    file.write_text(
        json.dumps(
            {
                "faults": [{"fault": "answer", "operation": "create_pool", "probability": 0.25}],
                "storage_faults": [{"fault": "drop_after", "operation": "put_blob", "times": 3}],
            }
        )
    )
    look = (
        "import os, urllib.request as u\n"
        "from localbatch.api.auth import password_header\n"
        "endpoint, account, key = (os.environ['TOPN_BATCH_' + name] for name in ('ENDPOINT', 'ACCOUNT', 'KEY'))\n"
        "for name in ('faults', 'storage-faults'):\n"
        "    headers = {'Authorization': password_header(account, key)}\n"
        "    print(u.urlopen(u.Request(endpoint + '/_internal/' + name, headers=headers)).read().decode())"
    )
    command = [*LOCALBATCH, "exec", f"--faults={file}", "--", sys.executable, "-c", look]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    batch, storage = (json.loads(line)["faults"] for line in result.stdout.splitlines())
    assert [(fault["operation"], fault["probability"]) for fault in batch] == [("create_pool", 0.25)]
    assert [(fault["operation"], fault["left"]) for fault in storage] == [("put_blob", 3)]
    assert f"the seed of answer create_pool is {batch[0]['seed']}" in result.stderr
