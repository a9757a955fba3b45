"""One visit of a page of the built site: on a phone, then on a desk, light, then dark, with every rule in each state.

Nothing waits by the clock: figures, formulas, images, fonts, transitions and redrawing all tell when they are done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Of the theme, and harmless: printed once where a reader has not chosen light or dark.
KNOWN_CONSOLE = ("Got invalid theme mode",)
# axe rules that the theme breaks and that cannot be mended from here, with the reason.
KNOWN_AXE: dict[str, str] = {}
AXE = (Path(__file__).resolve().parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
# Rules of axe that see colors run in both themes; all others see none, and run at both widths.
COLOR = ("color-contrast", "link-in-text-block")
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
PATIENCE = 60_000  # ms until what never comes counts as missing

COMMON = f"""
const done = arguments[arguments.length - 1];
const all = (selector) => [...document.querySelectorAll(selector)];
const within = (promise) => Promise.race([promise, new Promise((r) => setTimeout(r, {PATIENCE}))]);
const frame = () => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)));
const quiet = () => within(Promise.all(document.getAnimations()
  .filter((a) => a.effect?.getComputedTiming().iterations !== Infinity).map((a) => a.finished.catch(() => null))));
"""
# What does not fit its box, and where the first picture stands. A reader finds folded cells and solutions closed.
FIT = """
const box = (node) => node.getBoundingClientRect();
const sticksOut = (node, frame) => Math.max(box(node).right - box(frame).right, box(frame).left - box(node).left);
const named = (nodes, frameOf, slack) => nodes.filter((n) => n.offsetParent !== null || n.ownerSVGElement)
  .map((n) => [sticksOut(n, frameOf(n)), n]).filter(([by]) => by > slack)
  .map(([by, n]) => `${n.textContent.trim().replace(/\\s+/g, " ").slice(0, 60)} (by ${Math.round(by)} px)`);
const blocks = "p, li, td, th, dd, dt, figcaption, caption, h1, h2, h3, h4, .math, .bd-article";
const fit = () => ({
  "formulas wider than their box": named(all(".bd-article mjx-math"), (n) => n.closest(blocks), 1),
  "formulas too small to read": all(".bd-article mjx-container")
    .filter((n) => n.offsetParent && parseFloat(getComputedStyle(n).fontSize) < 10.5)
    .map((n) => n.textContent.slice(0, 60)),
  "tables wider than their box": named(all(".bd-article table"), (n) => n.parentElement, 1),
  "code wider than its box": all(".bd-article pre").filter((n) => n.offsetParent && n.scrollWidth > n.clientWidth)
    .map((n) => `${n.textContent.trim().slice(0, 60)} (by ${n.scrollWidth - n.clientWidth} px)`),
  "cards without padding": all(".al-card, .al-claim")
    .filter((n) => n.offsetParent && parseFloat(getComputedStyle(n).paddingLeft) < 8)
    .map((n) => n.textContent.trim().slice(0, 60)),
  "figure text outside its figure": named(
    all(".bd-article svg text").filter((n) => n.textContent.trim() && n.getClientRects().length),
    (n) => n.closest(".al-plot") ?? n.ownerSVGElement, 2),
  "figure texts on top of each other": all(".al-plot").flatMap((plot) => {
    const texts = [...plot.querySelectorAll(".annotation-text, .xtitle, .ytitle, .gtitle, .legendtext")];
    const clash = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 3
      && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
    return texts.flatMap((a, i) => texts.slice(i + 1).filter((b) => clash(box(a), box(b)))
      .map((b) => `${a.textContent} / ${b.textContent}`));
  }),
});
const topOfPicture = () => {
  all("[data-opened]").forEach((d) => { d.open = false; });
  all("[data-unfolded]").forEach((d) => { d.classList.add("toggle-hidden"); });
  const kinds = [".al-figure", ".al-diagram", ".al-drawing", ".al-picture", ".al-overview", ".al-chart", "img"];
  const first = all(`.bd-article :is(${kinds.join()})`).find((n) => n.checkVisibility());
  const top = first ? Math.round(box(first).top + scrollY) : null;
  all("[data-opened]").forEach((d) => { d.open = true; });
  all("[data-unfolded]").forEach((d) => { d.classList.remove("toggle-hidden"); });
  return top;
};
"""
FITS = f"{COMMON}{FIT}return fit();"
READY = f"""{COMMON}
const loaded = (image) => image.complete ? null : new Promise((r) => {{ image.onload = image.onerror = r; }});
const drawing = (figure) => new Promise((resolve) => {{
  if (figure.dataset.state) return resolve();
  new MutationObserver((_, self) => {{ self.disconnect(); resolve(); }})
    .observe(figure, {{ attributeFilter: ["data-state"] }});
  figure.scrollIntoView({{ block: "center" }});
}});
{FIT}
(async () => {{
  all("details:not([open])").forEach((d) => {{ d.open = true; d.dataset.opened = ""; }});
  all(".toggle-hidden").forEach((d) => {{ d.classList.remove("toggle-hidden"); d.dataset.unfolded = ""; }});
  all("img[loading=lazy]").forEach((i) => {{ i.loading = "eager"; }});
  const figures = all(".al-figure").filter((f) => f.querySelector("script.al-spec"));
  for (const figure of figures.filter((f) => f.offsetParent !== null)) await within(drawing(figure));
  if (window.MathJax?.startup?.promise) await within(window.MathJax.startup.promise);
  await within(Promise.all([document.fonts.ready, ...[...document.images].map(loaded)]));
  window.scrollTo(0, 0);
  await frame();
  await quiet();
  const isDrawn = (f) => f.dataset.state === "drawn" && f.querySelector(".al-plot svg.main-svg")
    && f.querySelector("img").hidden;
  const text = (node) => node.textContent.slice(0, 80);
  done({{
    figures: figures.length,
    formulas: all(".math").length,
    undrawn: figures.filter((f) => !isDrawn(f)).map((f) => f.querySelector("img")?.alt),
    untypeset: all(".math").filter((m) => !m.querySelector("mjx-container")).map(text),
    broken: all("mjx-merror, .MathJax_Error").map(text),
    blank: [...document.images].filter((i) => i.offsetParent && i.complete && !i.naturalWidth)
      .map((i) => i.src.slice(0, 120)),
    wide: document.documentElement.scrollWidth > innerWidth
      ? [`by ${{document.documentElement.scrollWidth - innerWidth}} px`] : [],
    ...fit(),
    top: topOfPicture(),
  }});
}})();
"""
# Turns the page light or dark; returns the color of each figure's ticks, once all figures have been drawn again.
THEME = f"""{COMMON}
(async () => {{
  const root = document.documentElement;
  const plots = all(".al-figure[data-state=drawn] .al-plot");
  const turns = root.dataset.theme !== arguments[0];
  const again = turns ? plots.map((p) => new Promise((r) => p.once("plotly_afterplot", r))) : [];
  root.dataset.theme = root.dataset.mode = arguments[0];
  await within(Promise.all(again));
  await frame();
  await quiet();
  const ticks = plots.map((p) => p.querySelector(".xtick text, .ytick text"));
  done(ticks.map((t) => t && getComputedStyle(t).fill));
}})();
"""
# Of the tokens of code that look alike, one stands for all: axe would compare each of thousands with its ground. Code
# that holds no such token becomes plain text while axe reads, for a span with nothing but a class means nothing to its
# other rules, and tokens are half the nodes of a page. HTML is taken only where axe complains: axe spends a fifth of
# its time on keeping the HTML of every node, with all that is inside.
LINT = f"""{COMMON}
const [colors, names] = arguments;
axe.configure({{ noHtml: true }});
const violations = async (context) => (await axe.run(context, {{
  resultTypes: ["violations"], elementRef: true, preload: false, // from disk, axe cannot read the sheets anyway
  ...(colors ? {{ runOnly: {{ type: "rule", values: names }} }}
    : {{ rules: Object.fromEntries(names.map((name) => [name, {{ enabled: false }}])) }}),
}})).violations.map((v) => ({{
  id: v.id, impact: v.impact, nodes: v.nodes.map((n) => ({{ html: n.element.outerHTML.slice(0, 160) }})),
}}));
const ground = (node) => {{
  for (; node; node = node.parentElement) {{
    const color = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color)) return color;
  }}
}};
const tokens = () => {{
  const alike = new Map();
  for (const pre of all("pre")) {{
    for (const node of [pre, ...pre.querySelectorAll("*")]) {{
      if (![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
      const s = getComputedStyle(node);
      const key = [s.color, s.opacity, s.fontSize, s.fontWeight, s.visibility, ground(node)].join();
      if (!alike.has(key)) alike.set(key, node);
    }}
  }}
  return [...alike.values()];
}};
const isToken = (n) => n.localName === "span" && [...n.attributes].every((a) => a.name === "class");
const flattened = (kept) => all("pre").filter((pre) => !kept.some((node) => pre.contains(node)))
  .filter((pre) => [...pre.querySelectorAll("*")].every(isToken))
  .map((pre) => {{
    const nodes = [...pre.childNodes];
    pre.replaceChildren(pre.textContent);
    return () => pre.replaceChildren(...nodes);
  }});
(async () => {{
  const code = colors ? tokens() : [];
  const undo = flattened(code);
  try {{
    done(await violations(colors ? {{ include: [document.documentElement, ...code], exclude: [["pre"]] }} : document));
  }} finally {{
    undo.forEach((f) => f());
  }}
}})();
"""


FIRST_SCREEN = 900  # pixels from the top, within which the first picture of a page begins
PICTURELESS = {  # pages to look things up in, which open with words: reason
    "api": "a table of modules",
    "bibliography": "a list of papers",
    "changelog": "a list of releases",
    "cite": "a citation to copy",
    "contributing": "rules of the repository",
    "execution": "a table of run times",
    "glossary": "a list of terms",
    "notation": "a table of symbols",
    "page-template": "rules for pages",
    "records-page": "a table of runs",
    "reliability": "a table of faults",
    "solutions": "made from the chapters",
    "speed": "a table of contracts",
    "tool": "commands to copy",
    "troubleshooting": "symptoms to look up",
    "workstation": "commands to copy",
}


def of_chapter(address: str) -> bool:
    """Whether an address is that of a page that is read, not looked up in or made by Sphinx."""
    folder, name = address.rsplit("/", 2)[-2:]
    return folder in ("book", "notebooks") and name.removesuffix(".html") not in PICTURELESS


class Visit:
    """What one visit of a page finds: ``bad``, a sentence for each broken rule, and how many ``checks`` were made."""

    def __init__(self, browser: Any, address: str) -> None:
        """Opens the page as a phone shows it."""
        self.browser, self.address, self.bad, self.checks = browser, address, [], 0
        self.figures = self.formulas = 0
        browser.get("about:blank")  # the page before must not follow the window
        browser.get_log("browser")
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        browser.get(address)

    def report(self, state: str, problems: dict[str, list[Any]]) -> None:
        """Counts each rule as checked, and keeps what is wrong."""
        self.checks += len(problems)
        self.bad += [f"{state}: {rule}: {found}" for rule, found in problems.items() if found]

    def look(self, state: str) -> None:
        """Figures drawn, formulas typeset, images there, nothing that sticks out."""
        seen = self.browser.execute_async_script(READY)
        self.figures, self.formulas, top = (seen.pop(key) for key in ("figures", "formulas", "top"))
        if of_chapter(self.address):
            late = top is None or top > FIRST_SCREEN
            seen["first picture"] = [f"not above {FIRST_SCREEN} px, but at {top}"] if late else []
        self.report(state, seen)

    def desk(self) -> None:
        """Widens the window; figures follow."""
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def theme(self, name: str) -> list[str | None]:
        """Turns light or dark; the color of each figure's ticks."""
        return self.browser.execute_async_script(THEME, name)

    def axe(self, state: str, *, colors: bool) -> None:
        """Rules of axe, those that see colors or all others; serious and critical violations count."""
        self.browser.execute_script("if (!window.axe) (0, eval)(arguments[0])", AXE)
        found = self.browser.execute_async_script(LINT, colors, COLOR)
        bad = [v for v in found if v["impact"] in ("serious", "critical") and v["id"] not in KNOWN_AXE]
        words = [f"{v['id']} x {len(v['nodes'])}: {[node['html'] for node in v['nodes'][:3]]}" for v in bad]
        self.report(state, {"axe, colors" if colors else "axe, all but colors": words})

    def console(self) -> None:
        """Nothing that the page complained about, but for the known lines."""
        entries = [e["message"] for e in self.browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        self.report("console", {"complaints": [m[-300:] for m in entries if not any(k in m for k in KNOWN_CONSOLE)]})


def visit(browser: Any, address: str, *, axe: bool) -> Visit:
    """Visits a page once, in both widths and both themes."""
    page = Visit(browser, address)
    try:
        page.look("phone")
        if axe:
            page.axe("phone", colors=False)
    finally:
        page.desk()
    page.look("desk")
    light = page.theme("light")
    if axe:
        page.axe("desk", colors=False)
        page.axe("desk, light", colors=True)
    if axe or page.figures:
        dark = page.theme("dark")
        same = [i for i, (a, b) in enumerate(zip(light, dark, strict=True)) if a and a == b]
        page.report("desk, dark", {"figures that keep the ink of light": same, **browser.execute_script(FITS)})
    if axe:
        page.axe("desk, dark", colors=True)
    page.console()
    return page
