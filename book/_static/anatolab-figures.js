// Draws the figures that anatolab.viz.show() left in a page, when the reader gets near them.
// Each holds a picture (kept where anything goes wrong) and its data as JSON; plotly is loaded once, from beside this file.
(() => {
  "use strict";
  const here = document.currentScript.src.split("?")[0];
  const bundle = new URL("vendor/plotly/plotly-cartesian.min.js", here).href;
  const COLORWAY = ["#2b7fd0", "#b98a00", "#d0445f", "#457d57", "#a15895", "#a19558", "#5757fa", "#b24d1b"]; // viz.PALETTE
  const coarse = matchMedia("(pointer: coarse)").matches;
  const drawn = new Set();
  let loading = null;

  const load = () =>
    (loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = bundle;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("plotly is not beside the page"));
      document.head.append(script);
    }));

  const fold = (flat, shape) => {
    if (shape.length < 2) return flat;
    const size = flat.length / shape[0];
    return Array.from({ length: shape[0] }, (_, i) => fold(flat.slice(i * size, (i + 1) * size), shape.slice(1)));
  };

  // Undoes anatolab/viz/spec.py: little-endian codes, the largest of which stands for "no value".
  const unpack = (packed) => {
    const bytes = Uint8Array.from(atob(packed.v), (c) => c.charCodeAt(0));
    const [codes, none] = packed.al === "u1" ? [bytes, 255] : [new Uint16Array(bytes.buffer), 65535];
    const round = 10 ** packed.decimals;
    const values = Array.from(codes, (c) => (c === none ? null : Math.round((packed.offset + c * packed.scale) * round) / round));
    return fold(values, packed.shape);
  };

  const decode = (value) => {
    if (Array.isArray(value)) return value.map(decode);
    if (value === null || typeof value !== "object") return value;
    if ("al" in value) return unpack(value);
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decode(item)]));
  };

  const ink = () =>
    document.documentElement.dataset.theme === "dark"
      ? { text: "#ced6dd", grid: "#3a424b", zero: "#57616c", hover: "#222832" }
      : { text: "#323d48", grid: "#e3e6ea", zero: "#c9ced6", hover: "#ffffff" };

  const ruler = document.createElement("canvas").getContext("2d");

  // Breaks a text with <br> where it is wider than its place; marks of its own (<b>, <i>, <sub>) take no room.
  const wrap = (text, width, size, family) => {
    ruler.font = `${size}px ${family}`;
    const long = (line) => ruler.measureText(line.replace(/<[^>]*>/g, "")).width > width;
    return String(text).split(/<br ?\/?>/).map((whole) => {
      const lines = [""];
      for (const word of whole.split(" ")) {
        const tried = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
        if (long(tried) && lines.at(-1)) lines.push(word);
        else lines[lines.length - 1] = tried;
      }
      return lines.join("<br>");
    }).join("<br>");
  };
  const linesOf = (text) => String(text).split(/<br ?\/?>/).length;

  // Titles of figure, axes and panels, each within its panel; the top margin and the legend make way.
  const fitTexts = (out, width) => {
    const { family, size } = out.font;
    const inner = Math.max(80, width - out.margin.l - out.margin.r);
    const height = (out.height ?? 420) - out.margin.t - out.margin.b;
    const spans = { x: [], y: [] };
    for (const [key, axis] of Object.entries(out)) {
      const [, letter] = key.match(/^([xy])axis\d*$/) ?? [];
      if (!letter) continue;
      const domain = axis.domain ?? [0, 1];
      spans[letter].push(domain);
      if (!axis.title) continue;
      const title = typeof axis.title === "string" ? { text: axis.title } : axis.title;
      const place = (domain[1] - domain[0]) * (letter === "x" ? inner : height) - 2;
      out[key] = { ...axis, title: { ...title, text: wrap(title.text ?? "", place, title.font?.size ?? size * 1.08, family) } };
    }
    if (out.title?.text) {
      out.title = { ...out.title, text: wrap(out.title.text, inner - 8, out.title.font?.size ?? size, family) };
    }
    let above = 0;
    const highest = Math.max(...spans.y.map(([, top]) => top), 0.5);
    out.annotations = (out.annotations ?? []).map((note) => {
      const onPaper = note.xref === "paper" || /domain$/.test(note.xref ?? "");
      if (!note.text || note.textangle || !onPaper) return note;
      const panel = /domain$/.test(note.xref)
        ? out[note.xref.replace(" domain", "").replace("x", "xaxis")]?.domain ?? [0, 1]
        : spans.x.filter(([a, b]) => note.x >= a - 0.01 && note.x <= b + 0.01).sort((p, q) => p[1] - p[0] - q[1] + q[0])[0] ?? [0, 1];
      const at = /domain$/.test(note.xref) ? panel[0] + note.x * (panel[1] - panel[0]) : note.x;
      const centered = !note.xanchor || note.xanchor === "auto" || note.xanchor === "center";
      const next = Math.min(1.02, ...spans.x.map(([a]) => a).filter((a) => a > at + 0.01));
      const edge = Math.min(out.margin.l + at * inner, out.margin.r + (1 - at) * inner);
      const share = centered ? panel[1] - panel[0] : note.xanchor === "left" ? next - at : at - panel[0] + 0.02;
      const text = wrap(note.text, Math.max(48, centered ? Math.min(share * inner - 2, 2 * edge - 12) : share * inner - 4), note.font?.size ?? size, family);
      if ((note.yref === "paper" && note.y >= highest - 0.02) || /domain$/.test(note.yref ?? "")) {
        above = Math.max(above, linesOf(text) * (note.font?.size ?? size) * 1.35);
      }
      return { ...note, text };
    });
    const titled = out.title?.text ? linesOf(out.title.text) * (out.title.font?.size ?? size) * 1.35 + 8 : 0;
    if (above) out.margin = { ...out.margin, t: Math.max(out.margin.t, above + titled + 16) };
    if (titled) out.margin = { ...out.margin, t: Math.max(out.margin.t, titled + 14) };
    return above;
  };

  // Rows that a flat legend takes.
  const legendRows = (data, width, size, family) => {
    const names = new Set(data.filter((t) => t.name && t.showlegend !== false).map((t) => t.name));
    if (names.size < 2) return 0;
    ruler.font = `${size}px ${family}`;
    const widest = Math.max(...[...names].map((name) => ruler.measureText(name.replace(/<[^>]*>/g, "")).width)) + 50;
    return Math.ceil(names.size / Math.max(1, Math.floor(width / widest)));
  };

  // The axis of a panel gets longer where a text beside a mark sticks out of the figure.
  const widen = (plot, frame) => {
    const ranges = {};
    for (const text of plot.querySelectorAll(".textpoint text")) {
      const at = text.getBoundingClientRect();
      const [left, right] = [frame.left - at.left, at.right - frame.right].map((by) => Math.max(0, by));
      const [, id] = text.closest(".subplot")?.getAttribute("class").match(/\b(x\d*)y\d*\b/) ?? [];
      const axis = id && plot._fullLayout[id.replace("x", "xaxis")];
      if (!at.width || !axis || axis.type === "category" || left + right < 1) continue;
      const [low, high] = ranges[axis._name] ?? axis.range;
      const unit = (1.3 * (axis.range[1] - axis.range[0])) / axis._length;
      ranges[axis._name] = [
        Math.sign(unit) * Math.min(Math.sign(unit) * low, Math.sign(unit) * (axis.range[0] - unit * (left ? left + 4 : 0))),
        Math.sign(unit) * Math.max(Math.sign(unit) * high, Math.sign(unit) * (axis.range[1] + unit * (right ? right + 4 : 0))),
      ];
    }
    return Object.fromEntries(Object.entries(ranges).map(([name, range]) => [`${name}.range`, range]));
  };

  // A title that still sticks out of the figure gets smaller.
  const settle = async (plot) => {
    for (let pass = 0; pass < 3; pass += 1) {
      const frame = plot.getBoundingClientRect();
      const out = [...plot.querySelectorAll("g.annotation")].filter((g) => {
        const at = g.querySelector("text")?.getBoundingClientRect();
        return at?.width && (at.left < frame.left || at.right > frame.right);
      }).map((g) => Number(g.dataset.index));
      const longer = widen(plot, frame);
      if (!out.length && !Object.keys(longer).length) return;
      const notes = (plot.layout.annotations ?? []).map((note, i) => out.includes(i)
        ? { ...note, font: { ...note.font, size: 0.86 * (note.font?.size ?? plot.layout.font.size) } } : note);
      await window.Plotly.relayout(plot, out.length ? { ...longer, annotations: notes } : longer);
    }
  };

  // Fills in what the figure leaves open; never overrides what it says.
  const dress = (layout, data, width) => {
    const { text, grid, zero, hover } = ink();
    const narrow = width < 520;
    const out = {
      colorway: COLORWAY,
      colorscale: { sequential: "Viridis" },
      hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0 },
      hoverlabel: { bgcolor: hover, font: { color: text } },
      ...layout,
      dragmode: coarse ? false : (layout.dragmode ?? "zoom"),
      autosize: true,
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 13, color: text, ...layout.font },
      margin: { l: narrow ? 44 : 60, r: narrow ? 10 : 20, t: layout.title ? 64 : 40, b: narrow ? 44 : 52, ...layout.margin },
    };
    delete out.width;
    const square = Object.values(layout).some((axis) => axis?.scaleanchor);
    if (square && layout.height) out.height = Math.min(layout.height, width + 60);
    if (typeof out.title === "string") out.title = { text: out.title };
    if (out.title) out.title = { x: 0, xref: "paper", yref: "container", y: 0.98, yanchor: "top", font: { size: narrow ? 13 : 16 }, ...out.title };
    const used = data.flatMap((t) => ["x", "y"].map((a) => a + "axis" + (t[a + "axis"] || a).slice(1)));
    for (const key of new Set([...used, ...Object.keys(layout).filter((k) => /^[xy]axis\d*$/.test(k))])) {
      out[key] = { gridcolor: grid, zerolinecolor: zero, linecolor: zero, automargin: true, ...layout[key] };
    }
    const raised = fitTexts(out, width);
    if (raised && !layout.legend?.y) {
      const height = (out.height ?? 420) - out.margin.t - out.margin.b;
      out.legend = { ...out.legend, y: 1.02 + (raised + 6) / Math.max(120, height) };
      const rows = out.showlegend === false ? 0 : legendRows(data, width - out.margin.l - out.margin.r, out.font.size, out.font.family);
      out.margin = { ...out.margin, t: Math.max(out.margin.t, raised + rows * 21 + 22) };
    }
    return out;
  };

  // Long names of lines break in the legend.
  const named = (data, width) => data.map((trace) =>
    trace.name ? { ...trace, name: wrap(trace.name, width - 120, 13, getComputedStyle(document.body).fontFamily) } : trace);

  // Another width has other margins, sizes and breaks: the figure is dressed anew.
  const widths = new WeakMap();
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (!target.clientWidth || widths.get(target) === target.clientWidth) continue;
      widths.set(target, target.clientWidth);
      target.closest(".al-figure").alRedraw();
    }
  });

  const slider = (figure, stage, plot, spec) => {
    const row = document.createElement("label");
    row.className = "al-slider";
    const name = document.createElement("span");
    const input = Object.assign(document.createElement("input"), {
      type: "range", min: 0, max: spec.frames.length - 1, step: 1, value: spec.slider.active,
    });
    const output = document.createElement("output");
    const tell = () => {
      const frame = spec.frames[input.value];
      output.textContent = frame.name;
      input.setAttribute("aria-valuetext", `${spec.slider.label} ${frame.name}`);
      return frame;
    };
    name.textContent = spec.slider.label;
    input.addEventListener("input", () => {
      const frame = tell();
      figure.dataset.frame = frame.name;
      window.Plotly.react(plot, named(frame.data, stage.clientWidth), dress({ ...spec.layout, ...frame.layout }, frame.data, stage.clientWidth), plot.alConfig);
    });
    tell();
    row.append(name, input, output);
    stage.after(row);
  };

  const draw = async (figure) => {
    const stage = figure.querySelector(".al-stage");
    const image = stage.querySelector("img");
    try {
      const spec = decode(JSON.parse(stage.querySelector("script").textContent));
      const Plotly = await load();
      const plot = document.createElement("div");
      plot.className = "al-plot";
      plot.setAttribute("role", "img");
      plot.setAttribute("aria-label", image.alt);
      plot.alConfig = { responsive: false, displaylogo: false, displayModeBar: false, scrollZoom: false };
      stage.append(plot);
      figure.alRedraw = async () => {
        const frame = spec.frames.find((f) => f.name === figure.dataset.frame) ?? { data: spec.data };
        await Plotly.react(plot, named(frame.data, stage.clientWidth), dress({ ...spec.layout, ...frame.layout }, frame.data, stage.clientWidth), plot.alConfig);
        await settle(plot);
      };
      widths.set(stage, stage.clientWidth);
      await Plotly.newPlot(plot, named(spec.data, stage.clientWidth), dress(spec.layout, spec.data, stage.clientWidth), plot.alConfig);
      await settle(plot);
      image.hidden = true;
      if (spec.slider) slider(figure, stage, plot, spec);
      drawn.add(figure);
      resized.observe(stage);
      figure.dataset.state = "drawn";
    } catch (error) {
      stage.querySelector(".al-plot")?.remove();
      image.hidden = false;
      figure.dataset.state = "failed";
      console.error(`figure not drawn: ${error}`);
    }
  };

  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        draw(target);
      }
    },
    { rootMargin: "600px 0px" },
  );
  for (const figure of document.querySelectorAll(".al-figure")) {
    if (figure.querySelector("script.al-spec")) near.observe(figure);
  }
  new MutationObserver(() => drawn.forEach((figure) => figure.alRedraw())).observe(document.documentElement, {
    attributeFilter: ["data-theme"],
  });

  // Wide tables and formulas scroll sideways: let the keyboard do that too. Formulas get their width from MathJax.
  const wide = "pre, .pst-scrollable-table-container, div.math, .cell_output, mjx-container[display]";
  const reach = () => {
    const boxes = [...document.querySelectorAll(wide)].filter((b) => b.scrollWidth > b.clientWidth && !b.hasAttribute("tabindex"));
    for (const box of boxes) box.tabIndex = 0; // all are measured before the first changes, or each would be laid out anew
  };
  reach();
  window.addEventListener("load", () => {
    reach();
    window.MathJax?.startup?.promise?.then(reach);
  });
})();
