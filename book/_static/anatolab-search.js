// Excerpts beside search results, from a file of the site instead of a request per page: they work from disk as well.
(() => {
  "use strict";
  const results = document.getElementById("search-results");
  if (!results) return;
  const words = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().split(/[^\p{L}\p{N}_]+/u).filter(Boolean);
  const source = new URL("anatolab-excerpts.js", document.currentScript.src).href;

  const excerpt = (text) => {
    const low = text.toLowerCase();
    const whole = low.indexOf(words.join(" "));
    const places = [whole, ...words.map((word) => low.indexOf(word))].filter((place) => place >= 0);
    if (!places.length) return null;
    const start = Math.max(0, text.lastIndexOf(" ", Math.max(0, places[0] - 90)) + 1);
    const end = text.indexOf(" ", start + 240);
    return `${start ? "… " : ""}${text.slice(start, end < 0 ? undefined : end)}${end < 0 ? "" : " …"}`;
  };

  const marked = (text) => {
    const box = document.createElement("p");
    box.className = "al-excerpt";
    const low = text.toLowerCase();
    let at = 0;
    while (at < text.length) {
      const hits = words.map((word) => [low.indexOf(word, at), word.length]).filter(([place]) => place >= 0);
      if (!hits.length) break;
      const [place, length] = hits.sort((a, b) => a[0] - b[0])[0];
      const mark = document.createElement("mark");
      mark.textContent = text.slice(place, place + length);
      box.append(text.slice(at, place), mark);
      at = place + length;
    }
    box.append(text.slice(at));
    return box;
  };

  const complete = () => {
    const texts = window.anatolabExcerpts ?? {};
    for (const item of results.querySelectorAll("ul.search > li:not([data-excerpt])")) {
      item.dataset.excerpt = "";
      const [page] = (item.querySelector("a")?.getAttribute("href") ?? "").split("#");
      const text = texts[page.replace(/\.html$/, "")];
      const shown = text && excerpt(text);
      if (shown) item.append(marked(shown));
    }
  };
  const script = document.createElement("script");
  script.src = source;
  script.onload = () => {
    complete();
    new MutationObserver(complete).observe(results, { childList: true, subtree: true });
  };
  document.head.append(script);
})();
