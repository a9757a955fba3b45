// Filters and sorts the table of records in place. The table is whole without this script; nothing is fetched.
(() => {
  "use strict";
  const FILTERS = ["method", "data", "budget", "size", "processor"]; // columns with a choice of values
  const BOUNDS = ["Dice", "CPU (s)"]; // columns with a least or greatest value: Dice at least, CPU seconds at most

  const bundle = new URL("vendor/plotly/plotly-cartesian.min.js", document.currentScript.src).href;
  const COLORS = ["#2b7fd0", "#b98a00", "#d0445f", "#457d57", "#a15895", "#a19558", "#5757fa", "#b24d1b"]; // viz.PALETTE
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross"];

  // Dice against CPU seconds of training, a mark a record that the filters leave; a click on one keeps its method only.
  const chart = (table, rows, column, choose) => {
    const figure = document.createElement("figure");
    figure.className = "al-chart";
    const plot = document.createElement("div");
    plot.className = "al-plot";
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", "Dice of each record in the table below against the CPU seconds of its training.");
    const caption = document.createElement("figcaption");
    caption.textContent = "Dice against CPU seconds of training, a mark per record that counts them; compare marks of one processor. Click a mark to keep its method.";
    figure.append(plot, caption);
    table.before(figure);
    const [dice, seconds, method] = ["Dice", "CPU (s)", "method"].map(column);
    const methods = [...new Set(rows.map((row) => text(row, method)))].sort();
    const draw = () => {
      if (!window.Plotly) return;
      const dark = document.documentElement.dataset.theme === "dark";
      const [ink, grid] = dark ? ["#ced6dd", "#3a424b"] : ["#323d48", "#e3e6ea"];
      const shown = rows.filter((row) => !row.hidden && number(text(row, dice)) >= 0 && number(text(row, seconds)) > 0);
      const traces = methods.map((name, i) => {
        const points = shown.filter((row) => text(row, method) === name);
        return {
          name, type: "scatter", mode: "markers",
          x: points.map((row) => number(text(row, seconds))), y: points.map((row) => number(text(row, dice))),
          text: points.map((row) => text(row, 0)), hovertemplate: "%{text}<br>Dice %{y}, %{x} s<extra></extra>",
          marker: { size: 8, color: COLORS[i % COLORS.length], symbol: SYMBOLS[Math.floor(i / COLORS.length) % SYMBOLS.length] },
        };
      }).filter((trace) => trace.x.length);
      const axis = { gridcolor: grid, zeroline: false, automargin: true };
      window.Plotly.react(plot, traces, {
        height: 420, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: plot.clientWidth > 600,
        font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
        margin: { l: 56, r: 12, t: 12, b: 48 },
        xaxis: { ...axis, type: "log", title: { text: "CPU seconds of training" } },
        yaxis: { ...axis, title: { text: "Dice" } },
      }, { displayModeBar: false, responsive: false });
      figure.dataset.marks = shown.length;
    };
    const script = document.createElement("script");
    script.src = bundle;
    script.onload = () => {
      draw();
      plot.on("plotly_click", (event) => choose(event.points[0].data.name));
      new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
      let width = plot.clientWidth;
      new ResizeObserver(() => { if (plot.clientWidth !== width) { width = plot.clientWidth; draw(); } }).observe(plot);
    };
    document.head.append(script);
    return draw;
  };

  const text = (row, column) => row.cells[column].textContent.trim();
  const number = (cell) => Number.parseFloat(cell.replaceAll(",", ""));

  const labeled = (box, words, field) => {
    const label = document.createElement("label");
    label.append(`${words} `, field);
    box.append(label);
    return field;
  };

  const start = (table) => {
    const headings = [...table.tHead.rows[0].cells];
    const names = headings.map((cell) => cell.textContent.trim());
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const column = (name) => names.indexOf(name);

    const form = document.createElement("form");
    form.className = "al-filters";
    form.setAttribute("aria-label", "Filter the table of records");
    form.addEventListener("submit", (event) => event.preventDefault());
    const tests = [];
    const choices = {};
    for (const name of FILTERS) {
      const at = column(name);
      const select = labeled(form, name, document.createElement("select"));
      const values = [...new Set(rows.map((row) => text(row, at)))].sort();
      choices[name] = select;
      for (const value of ["all", ...values]) select.append(new Option(value, value));
      tests.push((row) => select.value === "all" || text(row, at) === select.value);
    }
    for (const name of BOUNDS) {
      const at = column(name);
      const atLeast = name === "Dice";
      const input = labeled(form, `${name} at ${atLeast ? "least" : "most"}`, document.createElement("input"));
      input.type = "number";
      input.step = "any";
      input.min = "0";
      tests.push((row) => {
        const bound = Number.parseFloat(input.value);
        const value = number(text(row, at));
        return Number.isNaN(bound) || (atLeast ? value >= bound : value <= bound);
      });
    }
    const reset = document.createElement("button");
    reset.type = "reset";
    reset.textContent = "Show all";
    form.append(reset);
    const said = document.createElement("output");
    form.append(said);

    let draw = () => {};
    const apply = () => {
      for (const row of rows) row.hidden = !tests.every((test) => test(row));
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} records`;
      draw();
    };
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    draw = chart(table, rows, column, (method) => {
      choices.method.value = method;
      apply();
    });
    table.before(form);
    apply();

    for (const [at, cell] of headings.entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = names[at];
      button.className = "al-sort";
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => number(text(row, at));
        const plain = rows.every((row) => Number.isNaN(key(row)));
        const order = (a, b) => {
          if (plain) return text(a, at).localeCompare(text(b, at)) * (down ? -1 : 1);
          const [x, y] = [key(a), key(b)];
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // without a value: last
          return (x - y) * (down ? -1 : 1);
        };
        body.append(...rows.sort(order));
      });
    }
  };

  addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll("table.al-dashboard")) start(table);
  });
})();
