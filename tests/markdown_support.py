"""What a page shows of Markdown, rendered with inline HTML as in the Prefect UI."""

from __future__ import annotations

from html.parser import HTMLParser

from markdown_it import MarkdownIt


class Shown(HTMLParser):
    """The visible text, the names of the elements, and the cells of each table row."""

    def __init__(self, markdown):
        super().__init__()
        self.text, self.elements, self.rows = "", set(), []
        self._is_in_cell = False
        self.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self._is_in_cell = tag in {"td", "th"}
        if tag == "tr":
            self.rows.append([])
        if self._is_in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._is_in_cell = False

    def handle_data(self, data):
        self.text += data
        if self._is_in_cell:
            self.rows[-1][-1] += data
