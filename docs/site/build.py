"""Build the docs site: `make docs`. The pages are those of docs/, README.md is the first, and nothing is written twice.

Links that leave docs/ arrive too. A README elsewhere becomes a page, another file is shown as text, and the reference
is made from the docstrings of every name in `FACES`. The result is in build/docs/site.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from os.path import relpath
from pathlib import Path

__all__ = ["FACES", "build", "configuration", "fetched", "gather", "linked"]

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parent.parent
_DOCS = _REPOSITORY / "docs"
_BUILD = _REPOSITORY / "build" / "docs"

FACES = (
    "workqueue",
    "dispatcher",
    "dispatcher.schedules",
    "dispatcher.targets",
    "dispatcher.testing",
    "workqueue.access.oidc",
    "workqueue.access.security",
    "workqueue.access.tokens",
    "workqueue.backends",
    "workqueue.conformance",
    "workqueue.enqueuer",
    "workqueue.paging",
    "workqueue.routing",
    "workqueue.rpc",
    "workqueue.run_now",
    "workqueue.searching",
    "workqueue.sources.cloudevents",
    "workqueue.sources.kubernetes",
    "workqueue.sources.schedules",
    "workqueue.sources.sqs",
    "workqueue.sqs",
    "workqueue.sync",
    "workqueue.telemetry.tracing",
    "workqueue.testing",
    "workqueue.web.console",
)
"""The modules whose `__all__` is for users; each is a page of the reference."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
_SHOWN_AS = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".proto": "protobuf"}
_PICTURES = frozenset({".png", ".svg"})

_ELSEWHERE = r"""["']?(?:https?:)?//[^\s"'>)]+"""
_FETCHED = re.compile(
    rf"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\s(?:src|srcset)={_ELSEWHERE}"""
    rf"""|<link\b(?![^>]*\brel=["']?(?:canonical|prev|next)\b)[^>]*?\shref={_ELSEWHERE}"""
    rf"""|(?:url\(\s*|@import\s+){_ELSEWHERE}"""
    r"""|<\w+\b[^>]*?\sclass=["']?[^"'>]*\b(?:mermaid|glightbox|pyodide)\b"""
)
"""What a browser fetches from elsewhere by itself. For the last classes the theme's script does, from a CDN."""


def build(folder: Path = _BUILD) -> None:
    """Write the site below `folder`, which is emptied first.

    Raises:
        FileNotFoundError: a page links to a file that is not there.
        subprocess.CalledProcessError: a link or a name of the reference leads nowhere; the reason is on stderr.
        ValueError: a page would have its reader's browser fetch something from another site.
    """
    gather(folder / "pages")
    (folder / "zensical.toml").write_text(configuration(folder / "pages"), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=folder, check=True)
    if strangers := list(fetched(folder / "site")):
        raise ValueError("the site would fetch from elsewhere:\n" + "\n".join(strangers))


def fetched(site: Path) -> Iterator[str]:
    """What the pages and styles of a built site make a browser fetch from elsewhere, each with its file."""
    for file in sorted(site.rglob("*")):
        if file.suffix in {".html", ".css", ".svg"}:
            for found in _FETCHED.finditer(file.read_text(encoding="utf-8")):
                yield f"{file.relative_to(site)}: {found[0]}"


def gather(pages: Path) -> None:
    """Write every page and picture of the site to `pages`.

    Raises:
        FileNotFoundError: a page links to a file that is not there.
    """
    shutil.rmtree(pages, ignore_errors=True)
    waiting, known = [_REPOSITORY / "README.md", *sorted(_DOCS.rglob("*.md"))], set[Path]()
    while waiting:
        source = waiting.pop()
        if source in known:
            continue
        known.add(source)
        if source.suffix == ".md":
            waiting += linked(source, source.read_text(encoding="utf-8"))
        place = pages / _place(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_content(source))
    (pages / "reference").mkdir()
    for face in FACES:
        (pages / "reference" / f"{face}.md").write_text(_reference(face), encoding="utf-8")


def configuration(pages: Path) -> str:
    """The text of zensical.toml, with the pages of each folder that its navigation names."""

    def listed(folder: re.Match[str]) -> str:
        names = sorted(page.stem for page in (pages / folder[1]).glob("*.md"))
        entries = [f'{{ "{name}" = "{folder[1]}/{name}.md" }}' for name in names if name != "index"]
        return "[" + ", ".join([f'"{folder[1]}/index.md"'] * ("index" in names) + entries) + "]"

    return re.sub(r'"([\w-]+)/"', listed, (_HERE / "zensical.toml").read_text(encoding="utf-8"))


def _place(source: Path) -> Path:
    """Where a file of the repository is among the pages."""
    if source == _REPOSITORY / "README.md":
        return Path("index.md")
    path = source.relative_to(_DOCS if source.is_relative_to(_DOCS) else _REPOSITORY)
    if path.name == "README.md":
        return path.with_name("index.md")
    return path if path.suffix in {".md", *_PICTURES} else path.with_name(f"{path.name}.md")


def linked(source: Path, text: str) -> Iterator[Path]:
    """The files that a page links to or shows.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    for link in _LINK.finditer(text):
        target = _target(source, link)
        if not target.is_file():
            raise FileNotFoundError(f"{source.name} links to {link[1]}, which is not there")
        yield target


def _target(source: Path, link: re.Match[str]) -> Path:
    target = (source.parent / link[1]).resolve()
    return target / "README.md" if target.is_dir() else target


def _moved(source: Path, link: re.Match[str]) -> str:
    """What a link of the page says once both are where the site has them."""
    target = relpath(_place(_target(source, link)), _place(source).parent)
    return f"{target}{link[2] or ''}"


def _content(source: Path) -> bytes:
    """What the site has of a file: a page with its links moved, a picture, or a page that shows the file."""
    content = source.read_bytes()
    if source.suffix in _PICTURES:
        return content
    text = content.decode()
    if source.suffix == ".md":
        return _LINK.sub(lambda link: _moved(source, link), text).encode()
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall(r"`{3,}", text)), 3)
    title, language = source.relative_to(_REPOSITORY), _SHOWN_AS.get(source.suffix, "text")
    return f"# {title}\n\n{fence}{language}\n{text}{fence}\n".encode()


def _reference(face: str) -> str:
    """The page of the reference for a package: its docstring, and each public name with its own."""
    lines = [
        f"# {face}",
        "",
        f"::: {face}",
        "    options:",
        "      members: false",
        "      show_root_heading: false",
        "",
    ]
    for name in import_module(face).__all__:
        lines += [f"::: {face}.{name}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    build()
