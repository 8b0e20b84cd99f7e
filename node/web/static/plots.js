"use strict";
// Draws the charts of a page with Plotly, in the colours of the theme. `data-plot` names the chart; its numbers are in
// `data-values`, or come page by page from the address in `data-source`. What is told by colour is told by shape too.
(() => {
  const INKS = { light: ["#0b4f8a", "#a3431b", "#1a6b3c", "#6b3fa0", "#7a5c00", "#12737a", "#8f1d5b"],
                 dark: ["#7cc7e8", "#f2a06b", "#8fd7a6", "#c7a6f2", "#f1d387", "#7fd9df", "#f2a0cc"] };
  const MARKS = ["circle", "triangle-up", "square", "triangle-down", "diamond", "star", "circle-open",
                 "triangle-up-open", "square-open", "triangle-down-open", "diamond-open", "star-open"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const KINDS = { complete: ["CR", "iCR", "CMR"], partial: ["PR", "iPR", "PMR"],
                  stable: ["SD", "iSD", "SMD", "NMR", "NON-CR/NON-PD", "NON-iCR/NON-iUPD"],
                  progression: ["PD", "iUPD", "iCPD", "PMD"] };
  const LOOKS = { complete: ["complete response", "", "star", 2], partial: ["partial response", "/", "triangle-down", 0],
                  stable: ["stable disease", ".", "square", 4], progression: ["progression", "x", "x", 1],
                  other: ["not evaluable, or none", "-", "circle-open", 3] };
  const MOST_ROWS = 5000, LANES = 40;

  const kindOf = (verdict) => Object.keys(KINDS).find((kind) => KINDS[kind].includes(verdict)) ?? "other";
  const text = (value) => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const percent = (value) => `${value > 0 ? "+" : ""}${(Math.trunc((10 * value).toFixed(6)) / 10).toFixed(1)} %`.replace("-", "−");
  let isPrinting = false;
  const isDark = () => !isPrinting && (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

  function theme() {
    if (isPrinting) return { ink: "#000", soft: "#444", line: "#bbb", card: "#fff", bad: "#9c1f24", good: "#1d6b3a", inks: INKS.light };
    const css = getComputedStyle(document.documentElement);
    const of = (name) => css.getPropertyValue(`--${name}`).trim();
    return { ink: of("ink"), soft: of("soft"), line: of("line"), card: of("card"), bad: of("bad"), good: of("good"), inks: INKS[isDark() ? "dark" : "light"] };
  }

  function layout(t, more) {
    const axis = { gridcolor: t.line, linecolor: t.soft, zerolinecolor: t.soft, tickcolor: t.soft, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: "pan", showlegend: true,
      font: { color: t.ink, family: "system-ui, sans-serif", size: 13 }, margin: { l: 56, r: 20, t: 64, b: 40 },
      hoverlabel: { bgcolor: t.card, bordercolor: t.soft, font: { color: t.ink } },
      modebar: { color: t.soft, activecolor: t.ink, bgcolor: "rgba(0,0,0,0)" },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: t.ink } },
      ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
    };
  }

  const level = (t, x, y, dash, colour, name) => ({
    type: "scatter", mode: "lines", x, y, name, line: { color: colour, dash, width: 1.5 }, hovertemplate: `${name}: %{y:.1f}<extra></extra>` });

  function curve(t, data) {
    const known = data.points.filter((p) => p.sum !== null), sure = known.filter((p) => p.sd !== null);
    const unit = data.unit ? ` ${data.unit}` : "";
    const traces = [];
    if (sure.length > 1) {
      traces.push({ type: "scatter", mode: "lines", hoverinfo: "skip", name: "±1.96 standard deviations", fill: "toself", line: { width: 0 }, fillcolor: isDark() ? "rgba(124,199,232,.18)" : "rgba(11,79,138,.14)",
        x: [...sure.map((p) => p.date), ...sure.map((p) => p.date).reverse()],
        y: [...sure.map((p) => p.sum + 1.96 * p.sd), ...sure.map((p) => p.sum - 1.96 * p.sd).reverse()] });
    }
    const first = data.points[0].date, last = data.points.at(-1).date;
    if (data.response_to !== null) traces.push(level(t, [first, last], [data.response_to, data.response_to], "dot", t.good, "partial response up to"));
    const x = [], y = [];
    data.points.forEach((p, n) => {
      if (n && p.progression_from !== null) { x.push(data.points[n - 1].date, p.date, null); y.push(p.progression_from, p.progression_from, null); }
    });
    if (x.length) traces.push(level(t, x, y, "dash", t.bad, "progression from"));
    traces.push({
      type: "scatter", mode: "lines+markers+text", name: data.quantity, connectgaps: false,
      x: data.points.map((p) => p.date), y: data.points.map((p) => p.sum),
      text: data.points.map((p) => text(p.verdict)), textposition: "top center",
      customdata: data.points.map((p) => [text(p.verdict), p.sd === null ? "" : ` ± ${p.sd.toFixed(1)}`, p.days]),
      line: { color: t.inks[0], width: 2.5 }, marker: { size: 9, color: t.inks[0] },
      hovertemplate: `%{x|%Y-%m-%d}, day %{customdata[2]}<br><b>%{y:.1f}%{customdata[1]}${unit}</b><br>%{customdata[0]}<extra></extra>` });
    if (data.nadir !== null && data.nadir_date) {
      traces.push({ type: "scatter", mode: "markers", name: "nadir", x: [data.nadir_date], y: [data.nadir],
        marker: { symbol: "circle-open", size: 18, color: t.ink, line: { width: 1.5 } }, hovertemplate: `nadir %{y:.1f}${unit}<extra></extra>` });
    }
    return { traces, layout: layout(t, { xaxis: { type: "date", tickvals: data.points.map((p) => p.date), tickformat: "%Y-%m-%d" }, yaxis: { rangemode: "tozero", title: { text: data.unit } } }) };
  }

  function spider(t, data) {
    const traces = [];
    data.lesions.forEach((lesion, n) => {
      if (lesion.points.length < 2) return;
      const ink = t.inks[n % t.inks.length];
      traces.push({
        type: "scatter", mode: "lines+markers", name: text(lesion.code), x: lesion.points.map((p) => p.date), y: lesion.points.map((p) => p.percent),
        customdata: lesion.points.map((p) => [text(lesion.name), p.millimetres === null ? "" : `${p.millimetres.toFixed(1)} mm`, percent(p.percent)]),
        line: { color: ink, dash: DASHES[n % DASHES.length], width: 2 }, marker: { symbol: MARKS[n % MARKS.length], size: 9, color: ink },
        hovertemplate: "%{customdata[0]}<br>%{x|%Y-%m-%d}: <b>%{customdata[2]}</b>, %{customdata[1]}<extra></extra>" });
    });
    const dates = [...new Set(data.lesions.flatMap((l) => l.points.map((p) => p.date)))].sort();
    return { traces, layout: layout(t, { xaxis: { type: "date", tickvals: dates, tickformat: "%Y-%m-%d" }, yaxis: { ticksuffix: " %", zerolinewidth: 2, title: { text: "change" } } }) };
  }

  const groups = (rows) => Object.keys(LOOKS).map((kind) => [kind, rows.filter((row) => kindOf(row.best_overall) === kind)]).filter(([, own]) => own.length);

  function waterfall(t, data) {
    const rows = data.filter((row) => row.best_percent !== null).sort((a, b) => b.best_percent - a.best_percent);
    const place = new Map(rows.map((row, n) => [row.patient_pk, n]));
    const traces = groups(rows).map(([kind, own]) => {
      const [words, shape, , ink] = LOOKS[kind];
      return { type: "bar", name: words, x: own.map((row) => place.get(row.patient_pk)), y: own.map((row) => row.best_percent),
        text: rows.length <= 60 ? own.map((row) => text(row.best_overall || "none")) : undefined, textposition: "outside", cliponaxis: false,
        customdata: own.map((row) => [text(row.patient_id), text(row.best_overall || "none"), percent(row.best_percent), row.address]),
        marker: { color: t.inks[ink], pattern: { shape, fillmode: "replace", fgcolor: t.inks[ink], bgcolor: t.card, size: 7, solidity: 0.5 }, line: { color: t.inks[ink], width: rows.length > 150 ? 0 : 1 } },
        hovertemplate: "%{customdata[0]}<br><b>%{customdata[2]}</b>, %{customdata[1]}<extra></extra>" };
    });
    const shapes = [-30, 20].map((y) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: t.soft, width: 1, dash: "dash" } }));
    return { traces, layout: layout(t, { bargap: 0.15, barmode: "overlay", shapes,
      xaxis: { showgrid: false, zeroline: false, tickvals: rows.length <= 30 ? rows.map((_, n) => n) : [], ticktext: rows.map((row) => text(row.patient_id)), tickangle: -45 },
      yaxis: { ticksuffix: " %", zerolinewidth: 2, title: { text: "best change of the sum" } } }) };
  }

  function swimmer(t, data) {
    const rows = data.filter((row) => row.verdicts.length).sort((a, b) => b.days - a.days).slice(0, LANES).reverse();
    const longest = rows.at(-1)?.days ?? 0;
    const traces = [{
      type: "bar", orientation: "h", name: "followed", showlegend: false, y: rows.map((_, n) => n), x: rows.map((row) => row.days), width: 0.55,
      customdata: rows.map((row) => [text(row.patient_id), text(row.best_overall || "none"), row.days, row.address]),
      marker: { color: t.line, line: { color: t.soft, width: 1 } }, hovertemplate: "%{customdata[0]}: %{customdata[2]} days, best %{customdata[1]}<extra></extra>" }];
    const seen = rows.flatMap((row, n) => row.verdicts.map((one) => ({ n, row, day: one.day, verdict: one.verdict })));
    for (const kind of Object.keys(LOOKS)) {
      const [words, , symbol, ink] = LOOKS[kind], own = seen.filter((one) => kindOf(one.verdict) === kind);
      if (own.length) traces.push({ type: "scatter", mode: "markers", name: words, x: own.map((one) => one.day), y: own.map((one) => one.n),
        customdata: own.map((one) => [text(one.row.patient_id), text(one.verdict), one.day, one.row.address]),
        marker: { symbol, size: 10, color: t.inks[ink], line: { color: t.ink, width: 0.6 } }, hovertemplate: "%{customdata[0]}, day %{customdata[2]}: <b>%{customdata[1]}</b><extra></extra>" });
    }
    const fresh = rows.flatMap((row, n) => row.new_days.map((day) => ({ n, row, day })));
    if (fresh.length) traces.push({ type: "scatter", mode: "markers", name: "new lesion", x: fresh.map((one) => one.day), y: fresh.map((one) => one.n + 0.36),
      customdata: fresh.map((one) => [text(one.row.patient_id), "", one.day, one.row.address]),
      marker: { symbol: "triangle-down-open", size: 9, color: t.ink, line: { width: 2 } }, hovertemplate: "%{customdata[0]}, day %{customdata[2]}: <b>new lesion</b><extra></extra>" });
    const going = rows.flatMap((row, n) => (row.progressed ? [] : [{ n, row }]));
    if (going.length) traces.push({ type: "scatter", mode: "markers", name: "no progression so far", hoverinfo: "skip", x: going.map((one) => one.row.days + longest / 40), y: going.map((one) => one.n),
      marker: { symbol: "triangle-right", size: 11, color: t.ink } });
    return { traces, height: Math.max(320, 22 * rows.length + 150), layout: layout(t, { barmode: "overlay",
      xaxis: { title: { text: "days since the baseline" }, rangemode: "tozero" },
      yaxis: { showgrid: false, zeroline: false, tickvals: rows.map((_, n) => n), ticktext: rows.map((row) => text(row.patient_id)), range: [-0.7, rows.length - 0.2] } }) };
  }

  // A chart of an evaluation: the same numbers as in its report (`training.evaluate.charts`).
  function judged(t, d) {
    const line = (x, y, name, dash, colour, more = {}) => ({ type: "scatter", mode: "lines", x, y, name, hoverinfo: "skip", line: { color: colour, dash, width: 1.6 }, ...more });
    const points = (name, symbol, size, more = {}) => ({ type: "scatter", mode: "markers", name, x: d.x, y: d.y, marker: { color: t.inks[0], symbol, size }, hovertemplate: `%{x:.3~g}: <b>%{y:.3~g}</b><extra></extra>`, ...more });
    const ends = [Math.min(...d.x), Math.max(...d.x)], traces = [];
    const xaxis = { title: { text: text(d.x_label) }, type: d.log_x ? "log" : "linear", zeroline: false }, yaxis = { title: { text: text(d.y_label) }, zeroline: false };
    if (d.log_x) {
      const ticks = [-3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((power) => [1, 2, 5].map((m) => m * 10 ** power)).filter((at) => at > ends[0] / 1.3 && at < ends[1] * 1.3);
      Object.assign(xaxis, { tickvals: ticks, ticktext: ticks.map((at) => String(Number(at.toPrecision(1)))) });
    }
    if (d.kind === "scatter") {
      traces.push(points("cases", "circle", 6, { marker: { color: t.inks[0], size: 6, opacity: 0.55 } }));
      if (d.level !== null) traces.push(line(ends, [d.level, d.level], "zero", "dot", t.soft));
      d.limits.forEach((y, n) => traces.push(line(ends, [y, y], "limits of agreement", "dash", t.inks[1], { legendgroup: "limits", showlegend: !n })));
      if (d.steps.length) traces.push(line(d.steps.flatMap((s) => [s[0], s[1], null]), d.steps.flatMap((s) => [s[2], s[2], null]), "mean", "solid", t.inks[1], { line: { color: t.inks[1], width: 3 } }));
    } else if (d.kind === "diagonal") {
      traces.push(line([0, 1], [0, 1], "diagonal", "dot", t.soft), points("model", "circle", 8, { mode: d.x.length > 30 ? "lines" : "lines+markers", line: { color: t.inks[0], width: 2.2 } }));
      Object.assign(xaxis, { range: [-0.02, 1.02] }); Object.assign(yaxis, { range: [-0.02, 1.02] });
    } else if (d.kind === "froc") {
      const x = [...d.x, 16], y = [...d.y, d.y.at(-1)], at = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16];
      traces.push(points("model", "circle", 5, { x, y, mode: "lines", line: { color: t.inks[0], width: 2.2, shape: "hv" } }));
      traces.push(points("operating points", "diamond", 11, { x: d.points.map((p) => p[0]), y: d.points.map((p) => p[1]), marker: { color: t.inks[1], symbol: "diamond", size: 11 } }));
      Object.assign(xaxis, { type: "log", range: [Math.log10(0.125), Math.log10(16.5)], tickvals: at, ticktext: at.map(String) }); Object.assign(yaxis, { range: [0, 1.02] });
    } else {
      traces.push(points("model", "circle", 9, { mode: "lines+markers", line: { color: t.inks[0], width: 2 }, error_y: { type: "data", symmetric: false, color: t.inks[0], array: d.y.map((y, n) => (d.high[n] ?? y) - y), arrayminus: d.y.map((y, n) => y - (d.low[n] ?? y)) } }));
    }
    return { traces, layout: layout(t, { xaxis, yaxis, margin: { l: 60, r: 16, t: 48, b: 48 } }) };
  }

  function progression(t, data) {
    const all = data.steps, sure = all.filter((s) => s.low !== null), left = all.filter((s) => s.censored);
    const step = (rows, of, more) => ({ type: "scatter", mode: "lines", x: rows.map((s) => s.day), y: rows.map(of), line: { shape: "hv", width: 0 }, hoverinfo: "skip", showlegend: false, ...more });
    const tint = isDark() ? "rgba(124,199,232,.18)" : "rgba(11,79,138,.14)";
    const traces = [
      step(sure, (s) => 100 * s.low), step(sure, (s) => 100 * s.high, { fill: "tonexty", fillcolor: tint, name: "95 % band", showlegend: true }),
      step(all, (s) => 100 * s.free, { name: "without progression", showlegend: true, line: { shape: "hv", width: 2.5, color: t.inks[0] }, hoverinfo: "all",
        customdata: all.map((s) => [s.at_risk, s.events, s.low === null ? "" : `, ${(100 * s.low).toFixed(0)} to ${(100 * s.high).toFixed(0)} %`]),
        hovertemplate: "day %{x}: <b>%{y:.0f} %</b>%{customdata[2]}<br>%{customdata[0]} at risk, %{customdata[1]} with progression<extra></extra>" }),
      { type: "scatter", mode: "markers", name: "censored", x: left.map((s) => s.day), y: left.map((s) => 100 * s.free), customdata: left.map((s) => [s.censored]),
        marker: { symbol: "line-ns-open", size: 11, color: t.ink, line: { width: 1.6, color: t.ink } }, hovertemplate: "day %{x}: %{customdata[0]} seen for the last time<extra></extra>" }];
    return { traces, layout: layout(t, { xaxis: { rangemode: "tozero", title: { text: "days since the baseline" } }, yaxis: { range: [0, 104], ticksuffix: " %", title: { text: "without progression" } }, margin: { l: 64, r: 20, t: 48, b: 52 } }) };
  }

  const CHARTS = { curve, spider, waterfall, swimmer, judged, progression };
  const CONFIG = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", showLink: false, scrollZoom: false, doubleClick: "reset",
                   modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud"], toImageButtonOptions: { format: "svg", filename: "nadir" } };

  const fetched = new Map();
  async function all(source) {
    const rows = [];
    let cursor = "";
    do {
      const address = new URL(source, location.href);
      if (cursor) address.searchParams.set("cursor", cursor);
      const answer = await fetch(address, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(`The node answered ${answer.status}.`);
      const page = await answer.json();
      rows.push(...page.patients);
      cursor = page.next;
    } while (cursor && rows.length < MOST_ROWS);
    return rows;
  }
  function values(box) {
    if (box.dataset.values) return Promise.resolve(JSON.parse(box.dataset.values));
    const source = box.dataset.source;
    if (!fetched.has(source)) fetched.set(source, all(source));
    return fetched.get(source);
  }

  async function draw(box) {
    let data;
    try { data = await values(box); } catch (error) { window.nadirTell?.(error.message, true); return; }
    if (!box.isConnected) return;
    const made = CHARTS[box.dataset.plot](theme(), data);
    let live = box.querySelector(".live");
    if (!made.traces.some((trace) => trace.x?.length)) { live?.remove(); box.closest(".chart").classList.remove("is-live"); return; }
    if (!live) {
      live = document.createElement("div");
      live.className = "live";
      live.setAttribute("role", "group");
      live.setAttribute("aria-label", box.dataset.words || box.querySelector("svg title")?.textContent || "Chart");
      box.append(live);
      box.closest(".chart").classList.add("is-live");
    }
    if (made.height) { made.layout.height = made.height; live.style.height = `${made.height}px`; }
    await Plotly.react(live, made.traces, made.layout, CONFIG);
    if (!live.dataset.heard) {
      live.dataset.heard = "yes";
      live.on("plotly_click", (event) => { const address = event.points[0]?.customdata?.[3]; if (address) location.assign(address); });
    }
  }
  const drawAll = () => document.querySelectorAll("[data-plot]").forEach(draw);

  document.addEventListener("nadir:theme", drawAll);
  document.addEventListener("htmx:load", ({ detail }) => { if (detail.elt !== document.body) detail.elt.querySelectorAll("[data-plot]").forEach(draw); });
  document.addEventListener("reckoned", () => { fetched.clear(); drawAll(); });
  addEventListener("beforeprint", () => { isPrinting = true; drawAll(); });
  addEventListener("afterprint", () => { isPrinting = false; drawAll(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", drawAll); else drawAll();
})();
