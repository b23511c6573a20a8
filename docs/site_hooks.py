"""Hooks of MkDocs for `make docs`: folders in the navigation, the documents of the root, and drawings as SVG.

The pages are written so that a code host shows them well. These hooks do for the site what a code host does by itself;
above all, a Mermaid block becomes an SVG when the site is built, since a browser without a network cannot load Mermaid.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import BuildError
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# documents of the root that are pages of the site, too
PROJECT = {
    name: f"project/{name.lower()}" for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
}
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")
LOADED = re.compile(r"<(?:script|img|link rel=\"?(?:stylesheet|preconnect))[^>]*https?://[^>]*>")
DRAWING = re.compile(r'<pre class="mermaid"><code>(.*?)</code></pre>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in the place of its name."""
    config.nav = [_expanded(item) for item in config.nav]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents of the root."""
    for name, page in PROJECT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, ROOT, page)))
    return files


def on_page_markdown(markdown: str, page, **_: object) -> str:
    """Let a link that leaves docs/ lead to a page of the site, or be the name of a file."""
    source = page.file.src_uri
    return markdown if source in PROJECT.values() else _relinked(markdown, (DOCS / source).parent, source)


def on_page_content(content: str, **_: object) -> str:
    """Draw each Mermaid block."""
    numbers = iter(range(1000))
    return DRAWING.sub(lambda found: _drawn(html.unescape(found[1]), next(numbers)), content)


def on_post_build(config: MkDocsConfig) -> None:
    """Fail if a page would load something from another host."""
    for page in Path(config.site_dir).rglob("*.html"):
        if found := LOADED.search(page.read_text(encoding="utf-8")):
            raise BuildError(f"{page.name} would load from another host: {found[0]}")


def _expanded(item: object) -> object:
    if isinstance(item, dict):
        return {title: _expanded(below) for title, below in item.items()}
    if isinstance(item, list):
        return [_expanded(below) for below in item]
    if item == "project/":
        return list(PROJECT.values())
    if not str(item).endswith("/"):
        return item
    pages = sorted((DOCS / str(item)).glob("*.md"), key=lambda page: (page.stem != "index", page.name))
    return [str(page.relative_to(DOCS)) for page in pages]


def _relinked(markdown: str, folder: Path, source: str) -> str:
    """The text of a document of `folder`, with links as the page `source` needs them."""

    def replace(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        file = Path(posixpath.normpath(folder / target))
        name = str(file.relative_to(ROOT))
        if name in PROJECT:
            page = PROJECT[name]
        elif name == "README.md":
            page = "index.md"
        elif file.is_file() and file.is_relative_to(DOCS):
            page = str(file.relative_to(DOCS))
        else:
            return text  # a file or a folder of the checkout
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(source) or '.')}{anchor})"

    return LINK.sub(replace, markdown)


def _drawn(diagram: str, number: int) -> str:
    svg = mermaidx.render(diagram).svg()
    # the page holds several drawings: each has names of its own
    svg = svg.replace("my-svg", f"drawing-{number}")
    return f'<figure class="drawing">{svg}</figure>'
