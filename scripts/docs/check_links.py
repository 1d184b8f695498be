"""Check every link and picture of a built site: what is inside exists, with its anchor; what is outside is https.

python scripts/docs/check_links.py scripts/docs/site
"""

import html.parser
import sys
import urllib.parse
from pathlib import Path


class Page(html.parser.HTMLParser):
    """The links of a page, and the anchors in it."""

    def __init__(self, text: str) -> None:
        """Read the page."""
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element links to, and what it may be linked by."""
        found = dict(attrs)
        self.anchors.update(value for value in (found.get("id"), found.get("name")) if value)
        for name in ("href", "src"):
            if found.get(name):
                self.links.append(str(found[name]))


def broken(site: Path) -> list[str]:
    """List what leads nowhere, as `page: link`."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("https", "mailto", "data") and not link.startswith("http://127.0.0.1"):
                    wrong.append(f"{path.relative_to(site)}: {link} is not https")
                continue
            if path.name == "404.html":
                continue  # its links begin at the root of wherever the site lies
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{path.relative_to(site)}: {link} is not there")
                continue
            fragment = urllib.parse.unquote(parts.fragment)
            known = fragment.startswith("__") or target not in pages or fragment in pages[target].anchors
            if fragment and not known:  # those with two underscores are the theme's own
                wrong.append(f"{path.relative_to(site)}: {link} has no such anchor")
    return wrong


def main() -> int:
    """Check the site that is named."""
    site = Path(sys.argv[1]).resolve()
    wrong = broken(site)
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages, {len(wrong)} broken links")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
