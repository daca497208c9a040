"""A page as a reader without a script has it, and a name that no page may obey."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

HOSTILE = """</script><script>alert("x")</script>&'{{ 7 * 6 }}"""


class Page(HTMLParser):
    """What a page consists of: elements, anchors, links, and the texts of the rows of runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.numbers: list[list[str]] = []  # the runs of every linked number
        self.attributes: set[str] = set()
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements[tag] += 1
        self.attributes |= set(given)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if given.get("href"):
            self.links.append(str(given["href"]))
        if given.get("data-runs"):
            self.numbers.append(str(given["data-runs"]).split())

    def handle_data(self, data: str) -> None:
        self.shown.append(data.strip())

    def broken(self, file: Path) -> list[str]:
        """Links that lead to nothing."""
        found = []
        for link in self.links:
            parts = urlsplit(link)
            here = not parts.path and parts.fragment in self.ids
            there = bool(parts.path) and (file.parent / unquote(parts.path)).exists()
            if parts.scheme or parts.netloc or not (here or there):
                found.append(link)
        return found
