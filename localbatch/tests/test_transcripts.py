"""localbatch answers as the service did: the recorded transcripts in the folder `transcripts`, replayed."""

import json

import pytest
from reference_page import read_transcript
from replay import FOLDER, replay

FILES = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_responses_are_those_of_the_service(file, tmp_path):
    differences = [
        {"request": exchange["request"], "body": exchange.get("body"), "service": expected, "localbatch": found}
        for exchange, expected, found in replay(json.loads(file.read_text()), tmp_path)
        if expected != found
    ]
    assert differences == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_transcript_names_its_source(file):
    transcript = read_transcript(file)
    assert transcript.source.startswith("https://github.com/")
    assert transcript.client
    assert transcript.responses


def test_wrong_fact_is_noticed(tmp_path):
    transcript = json.loads((FOLDER / "python-stop-resize.json").read_text())
    transcript["exchanges"][-2]["response"]["body"]["resizeErrors"][0]["code"] = "ResizeFailed"
    results = [expected == found for _, expected, found in replay(transcript, tmp_path)]
    assert results == [True] * 3 + [False, True]
