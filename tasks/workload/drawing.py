"""Style and helpers for charts. matplotlib draws them as SVG documents without fonts or scripts."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# In dark mode, a style sheet in each picture finds shapes by these colours and replaces them.
INK = "#1f2933"
FAINT = "#9aa5b1"
PAPER = "#ffffff"
ACCENT = "#2b6cb0"
WAITING = "#dd9a3b"
AREA = "#7fb2e5"

DARK_COLOURS = {
    INK: "#e4e9ee",
    FAINT: "#52606d",
    PAPER: "#1b2128",
    ACCENT: "#5a9bdc",
    WAITING: "#d9943a",
    AREA: "#2f5680",
}

WIDTH_INCHES = 8.0
ROW_INCHES = 0.3

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    # With a fixed salt, equal runs have identical documents.
    "svg.hashsalt": "topn",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
}


# The page and the artifact of a run have the same picture.
@lru_cache(maxsize=1)
def bars_picture(named_counts: tuple[tuple[str, int], ...]) -> str:
    """Draw counts as horizontal bars, with the first on top."""
    with mpl.rc_context(STYLE):
        rows = named_counts[::-1]
        figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows) + 0.5), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh(range(len(rows)), [count for _, count in rows], color=ACCENT, height=0.7)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.bar_label(bars, [f"{count:,}" for _, count in rows], padding=4)
        axes.margins(x=0.12, y=0.02)
        axes.tick_params(left=False, bottom=False, labelbottom=False)
        axes.spines["bottom"].set_visible(False)
        return render_svg(figure)


def render_svg(figure: Figure) -> str:
    """Return a figure as an SVG element, without the XML header."""
    document = io.BytesIO()
    with warnings.catch_warnings():
        # The browser chooses the font, so it does not matter that matplotlib's own font lacks letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(document, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = document.getvalue().decode()
    dark = "".join(
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }} '
        for light, dark in DARK_COLOURS.items()
        for what in ("fill", "stroke")
    )
    style = f"@media (prefers-color-scheme: dark) {{ {dark}}}"
    return text[text.index("<svg") :].replace("</style>", f"{style}</style>", 1)
