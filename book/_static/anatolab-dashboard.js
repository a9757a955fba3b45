// Filters and sorts the table of records in place. The table is whole without this script; nothing is fetched.
(() => {
  "use strict";
  const FILTERS = ["method", "data", "budget", "size"]; // columns with a choice of values
  const BOUNDS = ["Dice", "time (s)"]; // columns with a least or greatest value: Dice at least, time at most

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
    for (const name of FILTERS) {
      const at = column(name);
      const select = labeled(form, name, document.createElement("select"));
      const values = [...new Set(rows.map((row) => text(row, at)))].sort();
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

    const apply = () => {
      for (const row of rows) row.hidden = !tests.every((test) => test(row));
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} records`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
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
