"""What several tests need: an independent count, waiting for something, and looking at processes."""

from __future__ import annotations

import string
import time
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

WAIT_SECONDS = 60


def independent_count(text, n=3):
    """Count as the specification says, in the plainest way: words, distinct words, the top n."""
    words = [word for word in (token.strip(string.punctuation) for token in text.split()) if word]
    counts = Counter(words)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:n]
    return len(words), len(counts), [list(pair) for pair in top]


def wait_until(condition, what, *, while_running=None, seconds=WAIT_SECONDS):
    """Wait until a condition holds; fail when it does not in time, or when a process ends before it does."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"not in time: {what}"
        assert while_running is None or while_running.poll() is None, f"ended before: {what}"
        time.sleep(0.01)


def processes_of(marker):
    """List the processes in whose command line or environment a text stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes():
                found.append((folder.name, (folder / "cmdline").read_bytes()))
        except OSError:
            continue
    return found
