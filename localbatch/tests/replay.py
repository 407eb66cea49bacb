"""Replays recorded transcripts of the service against localbatch, in this process and in simulated time.

A transcript is a file of facts in the folder `transcripts`: requests that a client sent to the service, and what the
service answered. Values that differ from run to run are replaced by placeholders such as `<time>`. A transcript has:

- `client`, `api_version`, `source`: who recorded it, with which version of the API, and where it is
- `started`: when; the simulated time starts then
- `without`: properties and headers that are not compared, because the client used another version of the API or Windows
- `commands`: what the command lines of tasks do: `seconds`, `exit` and `files`
- `exchanges`: requests and their responses. A request without response only prepares the account. `after` are the seconds
  since the request before, `account` is the account that signs it, and `among` marks a list of which the transcript has
  only the entries that both have

Some recordings have no bodies of requests. Then the transcript has bodies that ask for what the response contains.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

from localbatch.account.records import Action, KillRun, Node, Report, StartRun
from localbatch.account.store import Store
from localbatch.api import auth
from localbatch.batch_service import BatchService, Request
from localbatch.nodes.agent import FOLDERS
from localbatch.rules.agenda import PACES
from localbatch.wire import http_date

Transcript = dict[str, Any]

FOLDER = Path(__file__).with_name("transcripts")

ACCOUNT = "transcripts"
BASE = "https://transcripts.example"
KEY = base64.b64encode(b"key").decode()
# Earlier ones are refused.
FIRST_API_VERSION = "2022-01-01"

# A read is repeated for a quarter of an hour of the simulated time.
MAX_READS, SECONDS_BETWEEN_READS = 180, 5

# Instead of the images of the transcripts, which are no longer supported.
IMAGE = {
    "publisher": "canonical",
    "offer": "0001-com-ubuntu-server-jammy",
    "sku": "22_04-lts",
    "nodeAgentSKUId": "batch.node.ubuntu 22.04",
}

# Ids and tokens that the service chooses, and that later requests contain.
_CHOSEN = {
    "node": re.compile(r"tvm(?:ps)?[-_][0-9a-zA-Z_-]+"),
    "etag": re.compile(r"0x8[0-9A-F]{14,15}"),
    "token": re.compile(r"(?<=skiptoken=)[^&\"]+"),
}
# In this order: later patterns match parts of earlier ones.
_PLACEHOLDERS = (
    (re.compile(r"https://[^/\"]+\.batch\.azure\.com(?::443)?"), "<account>"),
    (re.compile(re.escape(BASE)), "<account>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"), "<time>"),
    (re.compile(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "<guid>"),
    (re.compile(r"^\d+\.\d+\.\d+\.\d+$"), "<address>"),
    (re.compile(r"(?<=api-version=)[0-9.-]+"), "<version>"),
)
# Headers of which the value matters, and those that must only be there.
_VALUES = ("content-type", "dataserviceid", "location", "ocp-batch-file-isdirectory", "etag", "ocp-batch-file-mode")
_PRESENT = ("last-modified", "ocp-batch-file-url")


@dataclass
class Names:
    """The ids that the service chose, by their placeholders, which number them in the order in which they appear."""

    ids: dict[str, str] = field(default_factory=dict)

    def hide(self, value: Any) -> Any:
        """Return a JSON value with placeholders."""
        if isinstance(value, dict):
            return {name: self.hide(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.hide(each) for each in value]
        if not isinstance(value, str):
            return value
        for pattern, placeholder in _PLACEHOLDERS:
            value = pattern.sub(placeholder, value)
        return self.hide_ids(value)

    def hide_ids(self, text: str) -> str:
        """Return a text with placeholders for the ids that the service chose."""
        for kind, pattern in _CHOSEN.items():
            text = pattern.sub(lambda match, kind=kind: self._placeholder(kind, match[0]), text)
        return text

    def _placeholder(self, kind: str, chosen: str) -> str:
        chosen = unquote(chosen)
        for placeholder, known in self.ids.items():
            if known == chosen:
                return placeholder
        placeholder = f"<{kind} {len(self.ids) + 1}>"
        self.ids[placeholder] = chosen
        return placeholder

    def show(self, text: str) -> str:
        """Return a text with ids instead of placeholders."""
        for placeholder, known in self.ids.items():
            text = text.replace(placeholder, known)
        return text.replace("<account>", BASE)


def facts(names: Names, status: int, headers: dict[str, str], body: bytes | str) -> dict[str, Any]:
    """Return what a transcript has of a response: status, headers and the JSON of the body, with placeholders."""
    headers = {name.lower(): value for name, value in headers.items()}
    # Proxies that record format the header differently, and charset is of no meaning for JSON.
    kept = {name: headers[name].replace("; ", ";") for name in _VALUES if headers.get(name)}
    kept |= {name: "" for name in _PRESENT if name in headers}
    found: dict[str, Any] = {"status": status, "headers": names.hide(kept)}
    text = body.decode() if isinstance(body, bytes) else body
    if "json" in headers.get("content-type", "") and text:
        document = json.loads(text)
        if "code" in document and "message" in document:
            # Below the sentence are the id of the request and the time.
            document["message"]["value"] = document["message"]["value"].partition("\n")[0]
        found["body"] = names.hide(document)
    return found


class Account:
    """A Batch account at the pace of the service, whose tasks take no time."""

    def __init__(self, root: Path, transcript: Transcript) -> None:
        """Create an empty account whose nodes have their files below a folder."""
        self.now = datetime.fromisoformat(transcript["started"])
        self._root = root
        self._api_version = max(transcript["api_version"], FIRST_API_VERSION)
        self._commands = transcript.get("commands", {})
        self._ends: list[tuple[datetime, Report]] = []
        self._killed: set[int] = set()
        self._service = BatchService(Store(), PACES["real"], root_of=self._root_of, key=KEY, name=ACCOUNT)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + timedelta(seconds=seconds)
        while (due := self._tick()) and due <= end:
            self.now = max(due, self.now)
        self.now = end
        self._tick()

    def send(self, request: str, query: dict[str, str], body: Any, headers: dict[str, str], account: str) -> Any:
        """Send a request such as "GET /pools" that names an account, and return the response."""
        method, path = request.split(" ", 1)
        content = b"" if body is None else json.dumps(body).encode()
        headers = {name.lower(): value for name, value in headers.items()}
        if content:
            headers |= {"content-type": "application/json; odata=minimalmetadata", "content-length": str(len(content))}
        headers["ocp-date"] = http_date(self.now)
        text = urlencode({"api-version": self._api_version, **query})
        signature = auth.sign(KEY, auth.string_to_sign(account, method, path, text, headers))
        headers["authorization"] = f"SharedKey {account}:{signature}"
        answered = self._service.answer(
            Request(method=method, path=path, query=text, headers=headers, base=BASE, body=content), self.now
        )
        self._tick()
        return answered

    def _tick(self) -> datetime | None:
        """Do everything that is due, and return when something is due next."""
        while True:
            ended = [report for at, report in self._ends if at <= self.now and report.run_id not in self._killed]
            self._ends = [(at, report) for at, report in self._ends if at > self.now]
            for report in ended:
                self._service.receive(report)
            actions, due = self._service.tick(self.now)
            for action in actions:
                self._perform(action)
            ends = [at for at, _ in self._ends]
            if self.now not in ends:
                return min((*ends, due)) if due else min(ends, default=None)

    def _perform(self, action: Action) -> None:
        if isinstance(action, KillRun):
            self._killed.add(action.run_id)
        elif isinstance(action, StartRun):
            folder = self._root_of(action.node) / action.directory
            for each in (*FOLDERS, f"{action.directory}/wd"):
                (self._root_of(action.node) / each).mkdir(parents=True, exist_ok=True)
            command = self._commands.get(action.command_line, {})
            for name, text in {"stdout.txt": "", "stderr.txt": "", **command.get("files", {})}.items():
                (folder / name).write_bytes(text.encode())
                # Tests can run with any umask. The files of the service are those of a umask of 022.
                (folder / name).chmod(0o644)
            report = Report(run_id=action.run_id, exit_code=command.get("exit", 0))
            self._ends.append((self.now + timedelta(seconds=command.get("seconds", 0)), report))

    def _root_of(self, node: Node) -> Path:
        return self._root / node.id


def replay(transcript: Transcript, root: Path) -> Iterator[tuple[dict[str, Any], Any, Any]]:
    """Send the requests of a transcript, and yield each exchange, and the facts of both responses to compare.

    Durations are not compared: a read is repeated until its response is that of the service.
    """
    account, names = Account(root, transcript), Names()
    text = json.dumps(transcript["exchanges"])
    for name, value in IMAGE.items():
        text = text.replace(f"<{name}>", value)
    for exchange in json.loads(text):
        account.advance(exchange.get("after", 0))
        if "response" not in exchange:
            # What the transcript found in the account.
            _answer(account, Names(), exchange)
            continue
        without = {*transcript.get("without", ()), *exchange.get("without", ())}
        expected = _without(without, exchange["response"])
        known, first = dict(names.ids), None
        for _ in range(MAX_READS if exchange["request"].startswith("GET ") else 1):
            names.ids = dict(known)
            found = _without(without, _answer(account, names, exchange))
            if found == expected:
                break
            first = first or found
            account.advance(SECONDS_BETWEEN_READS)
        yield exchange, expected, found if found == expected else first


def _answer(account: Account, names: Names, exchange: dict[str, Any]) -> Any:
    query = {name: names.show(value) for name, value in exchange.get("query", {}).items()}
    body = json.loads(names.show(json.dumps(exchange["body"]))) if "body" in exchange else None
    response = account.send(
        names.show(exchange["request"]), query, body, exchange.get("headers", {}), exchange.get("account", ACCOUNT)
    )
    found = facts(names, response.status_code, dict(response.headers), bytes(response.body))
    if exchange.get("among"):
        # The list of the service is not the same, and the transcript has only what both have.
        found["body"]["value"] = [
            each for each in found["body"]["value"] if each in exchange["response"]["body"]["value"]
        ]
    return found


def _without(names: set[str], value: Any) -> Any:
    """Return a JSON value without some properties at any depth."""
    if isinstance(value, list):
        return [_without(names, each) for each in value]
    if isinstance(value, dict):
        return {name: _without(names, each) for name, each in value.items() if name not in names}
    return value
