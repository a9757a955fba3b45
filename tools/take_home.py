"""The book to take home: `take_home.py pdf | zip`, from the built site, into its folder `take-home`.

`pdf` puts all chapters on one page, in the order of the table of contents, and lets Chromium print it, with bookmarks,
pictures and links that work. `zip` packs the site, which opens from disk. Both write what they made into the front
page, which names a file only when it is there.
"""

from __future__ import annotations

import base64
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
FOLDER = "take-home"
NAMES = {"pdf": "anatolab-book.pdf", "zip": "anatolab-book.zip"}
WORDS = {"pdf": "All chapters as one PDF", "zip": "The whole site to read off-line (ZIP, open index.html)"}
MAX_PDF = 40_000_000  # bytes
NOT_PRINTED = {"book/solutions", "book/execution", "book/dashboard", "book/api", "book/changelog"}
NEEDLESS = "script, .headerlink, .al-data, .al-slider, .copybtn, .al-filters, details.hide > summary, button"
STYLE = """
@page { size: A4; margin: 16mm 14mm 18mm; }
html, body { background: #fff; }
article { break-before: page; }
article:first-of-type { break-before: auto; }
details.hide { display: none; }
figure, table, pre, .math { break-inside: avoid; }
h1, h2, h3 { break-after: avoid; padding-top: 1px; } /* without it, Chromium doubles bookmarks at the top of a page */
img { max-width: 100%; }
pre { white-space: pre-wrap; font-size: 8.5pt; }
body { font-size: 10.5pt; line-height: 1.45; max-width: none; }
"""


def chapters(root: Path = ROOT) -> list[str]:
    """Returns the pages that are printed, in the order of the table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    return [name for name in names if name not in NOT_PRINTED]


def anchor(page: str, name: str = "") -> str:
    """Returns the id of a page, or of a place in it, in the print of all pages."""
    return re.sub(r"[^\w-]", "-", f"{page}--{name}" if name else page)


def moved(page: str, link: str, printed: set[str], address: str) -> str | None:
    """Returns a link of a page as the print must write it: inside it, or to the published site; None if to neither."""
    if re.match(r"[a-z]+:", link):
        return link
    target, name = urldefrag(urljoin(f"{page}.html", link))
    if unquote(target).removesuffix(".html") in printed:
        return "#" + anchor(unquote(target).removesuffix(".html"), unquote(name))
    return urljoin(address, f"{target}#{name}" if name else target) if address else None


def article(site: Path, page: str, printed: set[str]) -> Any:
    """Returns the article of a built page with ids, links and images as the print needs them."""
    soup: Any = BeautifulSoup((site / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    canonical = soup.select_one("link[rel=canonical]")  # where a published address is set
    address = canonical["href"].removesuffix(f"{page}.html") if canonical else ""
    body = soup.select_one("article") or soup.body
    for node in body.select(NEEDLESS):
        node.decompose()
    for node in body.select("[id]"):
        node["id"] = anchor(page, node["id"])
    for node in body.select("[hidden], .toggle-hidden"):
        del node["hidden"]
    for node in body.select("a[href]"):
        link = moved(page, node["href"], printed, address)
        if link is None:  # to a file beside the site, which a PDF has not
            node.unwrap()
        else:
            node["href"] = link
    for node in body.select("img[src]"):
        if not node["src"].startswith("data:"):
            node["src"] = urljoin(f"{page}.html", node["src"])
        node["loading"] = "eager"
    body.name, body["id"] = "article", anchor(page)
    return body


def one_page(site: Path, pages: list[str]) -> str:
    """Returns all pages as one, with the style sheets and the formulas of the site."""
    front: Any = BeautifulSoup((site / f"{pages[0]}.html").read_text(encoding="utf-8"), "html.parser")
    sheets = [urljoin(f"{pages[0]}.html", n["href"]) for n in front.select("link[rel=stylesheet]")]
    math = [n for n in front.select("script") if "MathJax" in n.get_text() or "mathjax" in n.get("src", "")]
    for node in math:
        if node.get("src"):
            node["src"] = urljoin(f"{pages[0]}.html", node["src"])
    head = "".join(f'<link rel="stylesheet" href="{sheet}">' for sheet in sheets) + "".join(map(str, math))
    printed = set(pages)
    articles = "\n".join(str(article(site, page, printed)) for page in pages)
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>Learning anatomy from few labels</title>{head}<style>{STYLE}</style></head>"
        f'<body><main class="bd-article">{articles}</main></body></html>'
    )


READY = """
const done = arguments[arguments.length - 1];
(async () => {
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  const loaded = (image) => image.complete || new Promise((r) => { image.onload = image.onerror = r; });
  await Promise.all([...document.images].map(loaded));
  done(document.querySelectorAll("mjx-merror").length);
})();
"""


def browser() -> Any:
    """Starts a Chromium without a network."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        sys.exit("take_home.py pdf needs Chromium and chromedriver on PATH; install them, or make the ZIP only.")
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver: Any = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(1800)
    driver.set_script_timeout(1800)
    driver.command_executor.client_config.timeout = 3600
    return driver


def print_pdf(site: Path, pages: list[str]) -> bytes:
    """Prints all pages as one PDF with bookmarks."""
    path = site / "_print.html"
    path.write_text(one_page(site, pages), encoding="utf-8")
    driver = browser()
    try:
        driver.get(path.as_uri())
        driver.execute_async_script(READY)
        footer = '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>'
        choice = {
            "printBackground": False,
            "preferCSSPageSize": True,
            "displayHeaderFooter": True,
            "headerTemplate": "<span></span>",
            "footerTemplate": footer,
            "generateDocumentOutline": True,
            "generateTaggedPDF": True,
        }
        return base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", choice)["data"])
    finally:
        driver.quit()
        path.unlink()


def packed(site: Path) -> Iterator[Path]:
    """Yields the files of the site that the ZIP holds: all but what is taken home already, and caches."""
    for path in sorted(site.rglob("*")):
        if path.is_file() and FOLDER not in path.relative_to(site).parts and path.name != ".buildinfo":
            yield path


def write_zip(site: Path, target: Path) -> None:
    """Packs the site into a folder of its own."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in packed(site):
            archive.write(path, Path("anatolab-book") / path.relative_to(site))


def name_on_front_page(site: Path) -> None:
    """Writes links to the files that are there into the front page."""
    page = site / "book" / "intro.html"
    made = {kind: site / FOLDER / name for kind, name in NAMES.items() if (site / FOLDER / name).exists()}
    links = " · ".join(
        f'<a href="../{FOLDER}/{path.name}">{WORDS[kind]}, {path.stat().st_size / 1e6:.0f} MB</a>'
        for kind, path in made.items()
    )
    text = page.read_text(encoding="utf-8")
    mended = re.sub(r'(<p class="al-take-home">).*?(</p>)', lambda m: m[1] + links + m[2], text, flags=re.DOTALL)
    page.write_text(mended, encoding="utf-8")


def main(arguments: list[str], site: Path = SITE) -> int:
    """Makes the PDF or the ZIP; the exit status."""
    if arguments not in (["pdf"], ["zip"]):
        print(__doc__, file=sys.stderr)
        return 2
    if not (site / "book" / "intro.html").exists():
        print(f"{site} holds no built book; run `make book` first.", file=sys.stderr)
        return 1
    target = site / FOLDER / NAMES[arguments[0]]
    target.parent.mkdir(exist_ok=True)
    if arguments == ["pdf"]:
        data = print_pdf(site, chapters())
        if len(data) > MAX_PDF:
            print(
                f"The PDF has {len(data):,} bytes, more than {MAX_PDF:,}; make its pictures smaller.", file=sys.stderr
            )
            return 1
        target.write_bytes(data)
    else:
        write_zip(site, target)
    name_on_front_page(site)
    print(f"{target}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
