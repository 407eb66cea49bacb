"""The word counter that runs on a node. It needs CPython 3.8 or newer and its standard library."""

import sys

# The check is here because an older interpreter cannot compile the other modules. This file must run on Python 3.6.
if sys.version_info < (3, 8):  # noqa: UP036 - A node's Python may be older than the project's.
    raise SystemExit("topn needs Python 3.8 or newer on the node, but this is %s" % sys.version.split()[0])  # noqa: UP031
