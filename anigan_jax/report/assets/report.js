"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const number = new Intl.NumberFormat("en");
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const make = (tag, fields, ...inside) => {
    const node = Object.assign(document.createElement(tag), fields);
    node.append(...inside);
    return node;
  };
  const told = (v) => {
    if (v == null) return "-";
    const size = Math.abs(v);
    if (size >= 1e5 || (size > 0 && size < 1e-3)) return v.toExponential(2).replace("e+", "e");
    return String(Number(v.toPrecision(4)));
  };

  /* Runs of the same data and batches have the same epochs, and share an axis with them. */
  const [shared] = data.runs.map((run) => run.epochs);
  const alike = (e) => e && shared && e.images === shared.images && e.batch_size === shared.batch_size;
  const common = data.runs.every((run) => alike(run.epochs)) ? shared : null;
  const epoch = (step, of) => {
    const whole = Math.floor(of.images / of.batch_size);
    return `epoch ${step % whole ? (step / whole).toFixed(2) : step / whole}`;
  };
  const below = (step) => (common ? `${number.format(step)}\n${epoch(step, common)}` : number.format(step));
  const named = (step, of) => `step ${number.format(step)}${of ? ` (${epoch(step, of)})` : ""}`;

  /* Charts. A curve is three series: the running mean, and the lowest and highest logged values. */
  const charts = [];
  const faint = (color, share) => color + Math.round(share * 255).toString(16).padStart(2, "0");
  const colorOf = (spec, i) => css(`--c${(data.runs.length > 1 ? spec.series[i].run : i) % 8}`);

  function table(spec) {
    const parts = spec.series.map(({ run, key }) => {
      const held = data.runs[run][spec.section];
      const series = held.series[key];
      if (spec.section === "scores") return [held.x, series];
      return [held.x, series.mean, series.low, series.high || series.low];
    });
    return parts.length > 1 ? uPlot.join(parts) : parts[0];
  }

  function marksOf(spec) {
    if (spec.section !== "scores") return [];
    return spec.series.map(({ run, key }) => {
      const { floor, best, x, series } = data.runs[run].scores;
      const at = best && /(^|\/)kid-/.test(key) ? x.indexOf(best.step) : -1;
      return { floor: floor[key] ?? null, step: at < 0 ? null : x[at], value: at < 0 ? null : series[key][at] };
    });
  }

  function quantiles(values, low, high) {
    values.sort((a, b) => a - b);
    const at = (q) => values[Math.round(q * (values.length - 1))];
    return [at(low), at(high)];
  }

  const moved = (type) => type === "mousemove" || type === "mouseleave";

  function chart(spec) {
    const card = document.getElementById(`chart-${spec.id}`);
    const box = card.querySelector(".plot");
    const tools = card.querySelector(".tools");
    const legend = card.querySelector(".legend");
    const each = spec.section === "scores" ? 1 : 3;
    const values = table(spec);
    const marks = marksOf(spec);
    const state = { log: false, all: false, shown: spec.series.map(() => true) };
    const flat = values.slice(1).flatMap((row) => row.filter((v) => v != null));
    const positive = flat.length > 0 && flat.every((v) => v > 0);
    const [least, most] = flat.length ? quantiles([...flat], 0.01, 0.99) : [0, 1];
    /* Scores of D and shares are read on a linear scale, however close to 0 they come. */
    const spread = spec.series.every((s) => /^(loss|gradient)\//.test(s.key));
    if (positive && spread && each === 3 && most / least > 60) state.log = true;
    let plot = null, cut = false;

    function limits(u) {
      const [from, to] = u.series[0].idxs || [0, values[0].length - 1];
      const seen = [], always = [];
      state.shown.forEach((on, i) => {
        if (!on) return;
        for (let k = 0; k < each; k++) {
          const row = values[1 + i * each + k];
          for (let j = from; j <= to; j++) if (row[j] != null) seen.push(row[j]);
        }
        if (marks[i] && marks[i].floor != null && !(state.log && marks[i].floor <= 0)) always.push(marks[i].floor);
      });
      if (!seen.length) return state.log ? [0.1, 1] : [0, 1];
      const [low, high] = quantiles(seen, 0, 1);
      const [near, far] = quantiles(seen, 0.005, 0.995);
      let [a, b] = [low, high];
      cut = each === 3 && !state.log && high - low > 2.5 * (far - near) && far > near;
      if (cut && !state.all) [a, b] = [near, far];
      a = Math.min(a, ...always);
      b = Math.max(b, ...always);
      if (state.log) return [a / 1.15, b * 1.15];
      const pad = (b - a) * 0.06 || Math.abs(a) * 0.1 || 1;
      return [a >= 0 && a - pad < 0 ? Math.min(0, a) : a - pad, b + pad];
    }

    function nearest(u, series, at) {
      const row = u.data[series];
      if (row[at] != null) return at;
      for (let d = 1; d < row.length; d++) {
        if (row[at - d] != null) return at - d;
        if (row[at + d] != null) return at + d;
      }
      return at;
    }

    function drawMarks(u) {
      const { ctx, bbox } = u, ratio = devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      for (const run of new Set(spec.series.map((s) => s.run))) {
        ctx.fillStyle = data.runs.length > 1 ? css(`--c${run % 8}`) : css("--warn");
        /* Many are told by ticks alone. */
        const many = data.runs[run].warnings.length > 20;
        for (const { step } of data.runs[run].warnings) {
          const x = u.valToPos(step, "x", true), y = bbox.top, size = (many ? 0 : 5) * ratio;
          ctx.beginPath();
          ctx.moveTo(x - size, y);
          ctx.lineTo(x + size, y);
          ctx.lineTo(x, y + 1.6 * size);
          ctx.fill();
          ctx.globalAlpha = 0.4;
          ctx.fillRect(x - ratio / 2, y, ratio, many ? 7 * ratio : bbox.height);
          ctx.globalAlpha = 1;
        }
      }
      marks.forEach((mark, i) => {
        if (!state.shown[i]) return;
        const color = colorOf(spec, i);
        ctx.strokeStyle = ctx.fillStyle = color;
        ctx.lineWidth = 1.5 * ratio;
        if (mark.floor != null && !(state.log && mark.floor <= 0)) {
          const y = u.valToPos(mark.floor, "y", true);
          ctx.setLineDash([6 * ratio, 5 * ratio]);
          ctx.beginPath();
          ctx.moveTo(bbox.left, y);
          ctx.lineTo(bbox.left + bbox.width, y);
          ctx.stroke();
          ctx.setLineDash([]);
          ctx.font = `${12 * ratio}px system-ui, sans-serif`;
          ctx.textAlign = "right";
          const above = y - bbox.top > 18 * ratio, text = `floor ${told(mark.floor)}`;
          const place = [bbox.left + bbox.width - 4 * ratio, y + (above ? -3 : 3) * ratio];
          ctx.textBaseline = above ? "bottom" : "top";
          ctx.lineWidth = 4 * ratio;
          ctx.strokeStyle = css("--card");
          ctx.strokeText(text, ...place);
          ctx.fillText(text, ...place);
        }
        if (mark.value != null) {
          ctx.lineWidth = 1.5 * ratio;
          ctx.strokeStyle = color;
          ctx.beginPath();
          ctx.arc(u.valToPos(mark.step, "x", true), u.valToPos(mark.value, "y", true), 7 * ratio, 0, 7);
          ctx.stroke();
        }
      });
      ctx.restore();
    }

    function update(u) {
      const at = u ? u.cursor.idx : null;
      outputs.forEach((output, i) => {
        const row = values[1 + i * each];
        let value = null;
        if (at != null) value = row[nearest(u, 1 + i * each, at)];
        else for (let j = row.length - 1; j >= 0 && value == null; j--) value = row[j];
        output.textContent = told(value);
      });
      place.textContent = named(values[0][at ?? values[0].length - 1], common);
    }

    const outputs = [];
    const place = card.querySelector(".at");
    spec.series.forEach((series, i) => {
      const output = make("output", {});
      const dot = make("i", { className: "dot" });
      const button = make("button", { type: "button", title: "Show or hide" }, dot, series.label, output);
      dot.style.setProperty("--c", `var(--c${(data.runs.length > 1 ? series.run : i) % 8})`);
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        state.shown[i] = !state.shown[i];
        button.setAttribute("aria-pressed", String(state.shown[i]));
        plot.batch(() => {
          for (let k = 0; k < each; k++) plot.setSeries(1 + i * each + k, { show: state.shown[i] });
        });
      });
      outputs.push(output);
      legend.append(button);
    });

    const tool = (label, title, press) => {
      const button = make("button", { type: "button", textContent: label, title, hidden: true });
      button.addEventListener("click", () => press(button));
      tools.append(button);
      return button;
    };
    const zoom = tool("Reset zoom", "Show all steps", () => plot.setScale("x", whole));
    const outliers = tool("All values", "Also show the few values far from the others", (button) => {
      state.all = !state.all;
      button.setAttribute("aria-pressed", String(state.all));
      plot.setScale("x", { min: plot.scales.x.min, max: plot.scales.x.max });
    });
    const log = tool("Log", "Logarithmic scale", (button) => {
      state.log = !state.log;
      button.setAttribute("aria-pressed", String(state.log));
      build();
    });
    log.hidden = !positive;
    log.setAttribute("aria-pressed", String(state.log));
    outliers.setAttribute("aria-pressed", "false");
    const steps = values[0];
    const whole = { min: steps[0], max: steps[steps.length - 1] };
    if (whole.min === whole.max) whole.max = whole.min + 1;
    if (each === 1) {
      /* Room for the points at the ends and the ring around the best. */
      const room = 0.03 * (whole.max - whole.min);
      whole.min -= room;
      whole.max += room;
    }

    /* A value without neighbors has no line: the first one, or those of players that take turns. */
    const alone = (u, i) => u.data[i].flatMap((y, k, all) => (y != null && all[k - 1] == null && all[k + 1] == null ? [k] : []));

    function options() {
      const axis = {
        stroke: () => css("--soft"),
        font: "12px system-ui, sans-serif",
        grid: { stroke: () => css("--grid"), width: 1 },
        ticks: { show: false },
      };
      const bands = [], series = [{}];
      spec.series.forEach((_, i) => {
        const color = () => colorOf(spec, i);
        const points = spec.section === "scores" && values[0].length <= 80;
        const shown = { show: state.shown[i], spanGaps: false };
        /* There are eight colors. */
        const dash = data.runs.length > 1 && spec.series[i].run >= 8 ? [7, 4] : undefined;
        const marks = points ? { show: true, size: 6, fill: color } : { show: true, size: 4, fill: color, filter: alone };
        series.push({ ...shown, stroke: color, dash, width: 2, points: marks });
        if (each === 1) return;
        const edge = { ...shown, stroke: () => faint(color(), 0.28), width: 0.7, points: { show: false } };
        series.push(edge, edge);
        bands.push({ series: [3 + i * 3, 2 + i * 3], fill: () => faint(color(), 0.16) });
      });
      return {
        width: box.clientWidth,
        height: 210,
        legend: { show: false },
        padding: [10, common ? 40 : 24, 0, 0],
        scales: { x: { time: false, range: (u, a, b) => (a == null || a === b || (a === steps[0] && b === steps[steps.length - 1])
            ? [whole.min, whole.max] : [a, b]) },
          y: { distr: state.log ? 3 : 1, range: limits } },
        axes: [
          { ...axis, values: (u, splits) => splits.map(below), space: 80, size: common ? 48 : 32 },
          { ...axis, size: (u, words) => 14 + 7 * Math.max(2, ...(words || []).map((w) => (w || "").length)), gap: 4,
            values: (u, splits) => splits.map((v) => (v == null ? "" : told(v))),
            ...(state.log ? { filter: (u, splits) => sparse(u, splits) } : {}) },
        ],
        cursor: {
          y: false,
          drag: { x: true, y: false },
          points: { size: (u, i) => ((i - 1) % each ? 0 : 7) },
          dataIdx: nearest,
          sync: { key: "steps", filters: { pub: moved, sub: moved } },
        },
        series,
        bands,
        hooks: {
          setCursor: [update],
          draw: [drawMarks],
          setScale: [(u, key) => {
            if (key !== "x") return;
            zoom.hidden = u.scales.x.min <= whole.min && u.scales.x.max >= whole.max;
            outliers.hidden = !cut;
          }],
        },
      };
    }

    /* A logarithmic axis names as many of its splits as fit, decades first. */
    function sparse(u, splits) {
      const decade = (v) => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9;
      const decades = splits.filter(decade).length;
      const keep = (v) => decade(v) || (decades < 3 && [2, 5].includes(Math.round(v / 10 ** Math.floor(Math.log10(v) + 1e-9))));
      const narrow = splits.filter(keep).length < 2;
      return splits.map((v) => (narrow || keep(v) ? v : null));
    }

    function build() {
      if (plot) plot.destroy();
      plot = new uPlot(options(), values, box);
      outliers.hidden = !cut;
      update(null);
    }
    build();
    new ResizeObserver(() => {
      const width = box.clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: 210 });
    }).observe(box);
    charts.push(() => plot.redraw(false));
  }
  data.charts.forEach(chart);
  dark.addEventListener("change", () => charts.forEach((redraw) => redraw()));

  /* Previews over the training: one slider for all runs, by the nearest step that each has. */
  function player() {
    const box = document.getElementById("player");
    if (!box) return;
    const slider = document.getElementById("step");
    const play = document.getElementById("play");
    const place = document.getElementById("step-told");
    const steps = [...new Set(data.runs.flatMap((run) => run.slides.steps))].sort((a, b) => a - b);
    const names = new Map(data.runs.flatMap((run) => run.slides.panels.map((p) => [p.name, p.title])));
    let panel = [...names.keys()][0], timer = null;
    slider.max = steps.length - 1;
    slider.value = steps.length - 1;

    function show() {
      const step = steps[slider.value];
      const last = steps[steps.length - 1];
      place.textContent = named(step, common);
      slider.setAttribute("aria-valuetext", `step ${number.format(step)} of ${number.format(last)}`);
      /* Beside a translation the real images of its target. */
      const target = /_to_b$/.test(panel) ? "real_b" : "real";
      const real = [...document.querySelectorAll("[data-real]")];
      const known = real.some((figure) => figure.dataset.real === target);
      for (const figure of real) figure.hidden = known && figure.dataset.real !== target;
      for (const figure of document.querySelectorAll("[data-slide]")) {
        const run = data.runs[figure.dataset.slide];
        const found = run.slides.panels.find((p) => p.name === panel);
        const image = figure.querySelector("img"), caption = figure.querySelector("figcaption");
        image.hidden = !found;
        if (!found) {
          caption.textContent = `no pictures ${names.get(panel)}`;
          continue;
        }
        const have = Object.keys(found.at).map(Number);
        const near = have.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a));
        if (image.src !== found.at[near]) image.src = found.at[near];
        image.width = found.width * Math.max(1, Math.floor(530 / found.width));
        image.alt = `${found.title} of ${run.label} at step ${number.format(near)}`;
        caption.textContent = `${found.title}, ${named(near, run.epochs)}`;
      }
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
      play.setAttribute("aria-label", "Play the training");
    }
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(slider.value) === steps.length - 1) slider.value = 0;
      show();
      play.textContent = "Pause";
      play.setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (Number(slider.value) === steps.length - 1) stop();
      }, 600);
    });
    slider.addEventListener("input", () => { stop(); show(); });
    const choice = document.getElementById("panels");
    choice.hidden = names.size < 2;
    for (const [name, title] of names) {
      const input = make("input", { type: "radio", name: "panel", value: name, checked: name === panel });
      input.addEventListener("change", () => { panel = name; show(); });
      choice.append(make("label", {}, input, make("span", { textContent: title })));
    }
    box.hidden = false;
    show();
  }
  player();

  /* On a narrow screen one run is shown at a time. */
  const radios = [...document.querySelectorAll(".switch input")];
  function chosen() {
    const on = radios.find((radio) => radio.checked);
    if (!on) return;
    root.classList.add("tabs");
    for (const article of document.querySelectorAll(".runs > article")) {
      article.classList.toggle("on", article.dataset.run === on.value);
    }
  }
  radios.forEach((radio) => radio.addEventListener("change", chosen));
  chosen();

  const all = document.getElementById("all-settings");
  if (all) all.addEventListener("change", () => document.getElementById("settings").classList.toggle("only-differs", !all.checked));

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  /* Enlarged pictures keep their pixels, reduced ones are smoothed. */
  function sharpen(image) {
    image.classList.toggle("pixels", image.naturalWidth > 0 && image.clientWidth >= image.naturalWidth);
  }
  for (const image of document.querySelectorAll(".art")) {
    new ResizeObserver(() => sharpen(image)).observe(image);
    image.addEventListener("load", () => sharpen(image));
  }
})();
