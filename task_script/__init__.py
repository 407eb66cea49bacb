"""The word counter that runs on a node: standard library only, on any CPython from 3.8 on."""

import sys

# Here, because an older interpreter cannot even compile the other modules; this one must stay without their syntax.
if sys.version_info < (3, 8):  # noqa: UP036 - A node's Python may be older than the project's.
    raise SystemExit("topn needs Python 3.8 or newer on the node, this is %s" % sys.version.split()[0])  # noqa: UP031
