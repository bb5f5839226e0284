"""A preprocessor of mdBook: pages that lie outside docs/ get a place in the book.

SUMMARY.md names them by their own paths (`../certs/README.md`), so that it and all links work where the repository is browsed. In the book
`../certs/README.md` becomes `repository/certs.md`, and links follow. A file that is no page of the book (a test, a rule, a manifest) is not in it: a
link to one becomes its text and its path.
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    places = {chapter["path"]: place(chapter["path"]) for chapter in chapters(book["items"])}
    for chapter in chapters(book["items"]):
        source, chapter["path"] = chapter["path"], places[chapter["path"]]
        chapter["content"] = LINK.sub(lambda link: follow(link, source, places), chapter["content"])
    json.dump(book, sys.stdout)


def chapters(items):
    """All of them, in any depth, that have a page."""
    for chapter in (item["Chapter"] for item in items if "Chapter" in item):
        if chapter["path"]:
            yield chapter
        yield from chapters(chapter["sub_items"])


def place(path):
    """`../deploy/compose/README.md` is `repository/deploy/compose.md` in the book, whose first page is the project's own."""
    if path == "../README.md" or not path.startswith("../"):
        return path.removeprefix("../")
    return "repository/" + path.removeprefix("../").replace("/README.md", ".md")


def follow(link, source, places):
    """The link as it has to be in the book."""
    text, target, anchor = link[1], link[2], link[3] or ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), target)).removeprefix("../docs/")
    if target.startswith("../") and target not in places:
        return f"{text} (`{target.removeprefix('../')}`)"
    from_here = posixpath.relpath(places.get(target, target), posixpath.dirname(places[source]) or ".")
    return f"[{text}]({from_here}{anchor})"


main()
