"""The pages: every link leads somewhere, where the repository is browsed and in the book; every page is in the book."""

import re
import subprocess
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from conftest import DEPLOY, ROOT, tool

DOCS = ROOT / "docs"
PICTURES = ROOT / "target/book-pictures"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DEPLOY.rglob("*.md"), ROOT / "certs/README.md", ROOT / "loadtest/README.md"})
FENCE = re.compile(r"^```.*?^```$", flags=re.M | re.S)
MARKDOWN_LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]*)\)")


@cache
def text_of(page):
    """Without code, in which a bracket is no link and a hash no heading."""
    return FENCE.sub("", page.read_text())


@cache
def anchors_of(page):
    """As GitHub, GitLab and mdBook make them."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in MARKDOWN_LINK.findall(text_of(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{page.name}: {link}"


def test_what_pages_include_is_there():
    for page in PAGES:
        for path in re.findall(r"\{\{#include ([^}]+)\}\}", page.read_text()):
            assert (page.parent / path).is_file(), f"{page.name}: {path}"


def test_keys_are_named_as_forebay_pki_names_them():
    """NAME.key beside NAME.pem, on every page and in every program for devices."""
    programs = [file for file in (DOCS / "devices").rglob("*") if file.is_file() and "target" not in file.parts]
    for page in [*PAGES, *programs]:
        assert not re.search(r"key\.pem\b", page.read_text()), page


def test_every_page_is_in_the_book():
    listed = {(DOCS / link).resolve() for link in MARKDOWN_LINK.findall((DOCS / "SUMMARY.md").read_text())}
    assert set(DOCS.glob("*.md")) - {DOCS / "SUMMARY.md"} <= listed
    assert ROOT / "certs/README.md" in listed and ROOT / "loadtest/README.md" in listed


class Page(HTMLParser):
    """What a page of the book links to, and what it can be linked to."""

    def __init__(self, file):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            if name == "id":
                self.ids.add(value)


@pytest.fixture(scope="module")
def book(folder):
    built = folder / "book"
    done = subprocess.run([tool("mdbook"), "build", DOCS, "--dest-dir", built], capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "WARN" not in said and "ERROR" not in said, said
    return {file: Page(file) for file in built.rglob("*.html") if file.name not in ("print.html", "toc.html", "404.html")}


def test_the_book_has_what_the_summary_lists(book):
    entries = MARKDOWN_LINK.findall((DOCS / "SUMMARY.md").read_text())
    assert len(book) == len(entries)


def test_links_of_the_book_lead_somewhere(book):
    checked = 0
    for file, page in book.items():
        for link in page.links:
            path, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            target = (file.parent / path).resolve() if path else file
            assert target.exists(), f"{file.name}: {link}"
            assert not anchor or anchor in book[target].ids, f"{file.name}: {link}"
            checked += 1
    assert checked > 500


def test_the_book_shows_the_programs_themselves(book):
    shown = next(file for file in book if file.name == "devices.html").read_text()
    assert "{{#include" not in shown
    for first_words in ("#!/usr/bin/env bash", "package main", "public class Device", "connect_device", "fn backoff", "def backoff",
                        "wait_again", "func fill", "public class Buffer", "read_problem", "fn judge_each", "def judge"):
        assert first_words in shown


# What is wider than its place: on it one would have to scroll sideways.
CUT_OFF = """() => [...document.querySelectorAll("html, main pre, main pre code, main .table-wrapper")]
    .filter(shown => shown.scrollWidth > shown.clientWidth + 1).map(shown => shown.innerText.slice(0, 80))"""


@pytest.mark.parametrize("width, height", [(1280, 800), (375, 812)])
def test_nothing_is_cut_off(book, browser, width, height):
    """On a phone, tables but for those of settings have more columns than there is room for: they alone go sideways. Pictures are left
    in target/book-pictures."""
    page = browser.new_page(viewport={"width": width, "height": height})
    PICTURES.mkdir(parents=True, exist_ok=True)
    for file in book:
        page.goto(file.as_uri())
        if width < 600:
            page.add_style_tag(content="main .table-wrapper:not(:has(td:first-child br)) { display: none }")
        assert page.evaluate(CUT_OFF) == [], file.name
        if file.name in ("configuration.html", "devices.html"):
            page.locator("main :is(table, pre):visible").nth(2).scroll_into_view_if_needed()
            page.screenshot(path=PICTURES / f"{file.stem}-{width}.png")
    page.close()


def test_files_outside_the_book_are_named_not_linked(book):
    shown = next(file for file in book if file.name == "operations.html").read_text()
    assert "<code>deploy/prometheus/alerts.rules.yml</code>" in shown
