"""Count the top words of a file like the Azure Batch tutorial's task script: in memory, word by word."""

from __future__ import annotations

import json
import string
import sys
from collections import Counter
from pathlib import Path


def main() -> int:
    """Count the words of the first argument, and write the result to the second."""
    source, target = map(Path, sys.argv[1:])
    words = [word.strip(string.punctuation) for word in source.read_text("utf-8").split()]
    counts = Counter(words)
    # The tutorial also counts strings that are empty after stripping. topn does not count them as words.
    top = [(word, count) for word, count in counts.most_common(11) if word][:10]
    target.write_text(json.dumps({"top": top, "distinct": len(counts) - ("" in counts)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
