// Fits tables and formulas to the column, on any screen, whenever a box gets another width or is opened:
// a formula breaks before relations, then before sums, then shrinks; a table gets small print, then stands as cards, a
// row each. Without this script both scroll sideways.
(() => {
  "use strict";
  const SMALLEST = 0.56; // of the formula's size; smaller cannot be read
  const NESTED = "mjx-mrow, mjx-mstyle, mjx-texatom, mjx-semantics";

  const isTop = (node, math) => {
    for (let up = node.parentElement; up !== math; up = up.parentElement) if (!up.matches(NESTED)) return false;
    return true;
  };

  // Lets the line break before operators that stand outside fractions, roots and tables.
  const breakBefore = (math, space) => {
    for (const operator of math.querySelectorAll(`mjx-mo[space="${space}"]`)) {
      if (!isTop(operator, math) || operator.previousSibling?.nodeName === "WBR") continue;
      for (let up = operator.parentElement; up !== math; up = up.parentElement) up.classList.add("al-inline");
      operator.before(document.createElement("wbr"));
      math.classList.add("al-broken");
    }
  };

  const room = (container) => {
    const block = container.closest("div.math") ?? container.closest("p, li, td, th, dd, dt, figcaption, h1, h2, h3, h4");
    if (!block) return Infinity;
    const style = getComputedStyle(block);
    const number = block.querySelector(":scope > .eqno");
    const taken = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight) + (number ? number.offsetWidth + 8 : 0);
    return block.clientWidth - taken;
  };

  const fitFormula = (container) => {
    const math = container.querySelector("mjx-math");
    if (!math || container.offsetParent === null) return;
    container.style.fontSize = "";
    const space = room(container);
    const width = () => math.getBoundingClientRect().width;
    const size = parseFloat(getComputedStyle(container).fontSize);
    const shrink = (least) => {
      if (width() <= space) return true;
      container.style.fontSize = `${(size * Math.max(least, (0.985 * space) / width())).toFixed(2)}px`;
      if (width() <= space) return true;
      container.style.fontSize = "";
      return false;
    };
    if (shrink(0.8)) return;
    for (const operators of ["4", "3", "2"]) {
      breakBefore(math, operators);
      if (shrink(operators === "2" ? SMALLEST : 0.8)) return;
    }
    shrink(SMALLEST);
  };

  const label = (table) => {
    if (table.dataset.labeled) return;
    table.dataset.labeled = "";
    const head = [...(table.tHead?.rows[table.tHead.rows.length - 1]?.cells ?? [])].map((c) => c.textContent.trim());
    for (const body of table.tBodies) {
      for (const row of body.rows) [...row.cells].forEach((cell, i) => { if (head[i]) cell.dataset.label = head[i]; });
    }
  };

  const fitTable = (table) => {
    const frame = table.parentElement;
    if (!frame || table.offsetParent === null) return;
    table.classList.remove("al-tight", "al-stacked");
    const style = getComputedStyle(frame);
    const space = frame.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) + 1;
    if (table.offsetWidth <= space) return;
    table.classList.add("al-tight");
    if (table.offsetWidth <= space) return;
    label(table);
    table.classList.add("al-stacked");
  };

  const article = document.querySelector(".bd-article");
  if (!article) return;
  const widths = new WeakMap();
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (widths.get(target) === target.clientWidth) continue; // only its height, which fitting changes
      widths.set(target, target.clientWidth);
      for (const table of target.alTables ?? []) fitTable(table);
      for (const formula of target.alFormulas ?? []) fitFormula(formula);
    }
  });
  const attend = (selector, list, frameOf) => {
    for (const node of article.querySelectorAll(selector)) {
      const frame = frameOf(node);
      if (!frame || node.alAttended) continue;
      node.alAttended = true;
      (frame[list] ??= []).push(node);
      widths.delete(frame);
      watch.unobserve(frame);
      watch.observe(frame);
    }
  };
  const tables = () => attend("table", "alTables", (table) => table.parentElement);
  const formulas = () =>
    attend("mjx-container", "alFormulas", (c) => c.closest("div.math") ?? c.closest("p, li, td, th, dd, dt, figcaption"));
  tables();
  window.addEventListener("load", () => {
    tables();
    window.MathJax?.startup?.promise?.then(() => {
      formulas();
      article.querySelectorAll("table").forEach(fitTable); // typeset formulas are wider than their TeX
    });
  });
})();
