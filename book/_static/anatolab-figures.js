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

  // Fills in what the figure leaves open; never overrides what it says.
  const dress = (layout, data, width) => {
    const { text, grid, zero, hover } = ink();
    const narrow = width < 520;
    const above = (layout.annotations || []).some((n) => n.yref === "paper" && n.y >= 1);
    const out = {
      colorway: COLORWAY,
      colorscale: { sequential: "Viridis" },
      hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      legend: { orientation: "h", yanchor: "bottom", y: above ? 1.1 : 1.02, x: 0 },
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
    return out;
  };

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
      window.Plotly.react(plot, frame.data, dress({ ...spec.layout, ...frame.layout }, frame.data, stage.clientWidth), plot.alConfig);
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
      plot.alConfig = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
      stage.append(plot);
      figure.alRedraw = () => {
        const frame = spec.frames.find((f) => f.name === figure.dataset.frame) ?? { data: spec.data };
        return Plotly.react(plot, frame.data, dress({ ...spec.layout, ...frame.layout }, frame.data, stage.clientWidth), plot.alConfig);
      };
      await Plotly.newPlot(plot, spec.data, dress(spec.layout, spec.data, stage.clientWidth), plot.alConfig);
      image.hidden = true;
      if (spec.slider) slider(figure, stage, plot, spec);
      drawn.add(figure);
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
    for (const box of document.querySelectorAll(wide)) {
      if (box.scrollWidth > box.clientWidth && !box.hasAttribute("tabindex")) box.tabIndex = 0;
    }
  };
  reach();
  window.addEventListener("load", () => {
    reach();
    window.MathJax?.startup?.promise?.then(reach);
  });
})();
