"use strict";
(() => {
  const PAGE = 24, STOPS = 8;
  const byId = (id) => document.getElementById(id);
  const text = (id) => byId(id).textContent;
  const make = (tag, fields, ...inside) => {
    const node = Object.assign(document.createElement(tag), fields);
    node.append(...inside);
    return node;
  };
  const data = JSON.parse(text("data"));
  const stage = byId("stage");
  const size = data.size;
  const root = document.documentElement;

  const problem = (words) => {
    byId("problem").textContent = words;
    byId("problem").hidden = false;
    /* A page that makes images goes on to say so. */
    if (!ready) byId("status").textContent = "";
  };
  const array = (id) => {
    const raw = atob(text(id));
    return new Float32Array(Uint8Array.from(raw, (sign) => sign.charCodeAt(0)).buffer);
  };
  const paint = (canvas, { rgba, width, height }) => {
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  };
  const picture = (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    return image.decode().then(() => image);
  };
  const reading = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

  /* The worker: one job at a time, what is looked at first; a newer wish replaces an older one. */
  const queue = new Map();
  let worker, busy = false, ready = false, number = 0, done;
  const send = (job, told) => {
    busy = true;
    done = told;
    worker.postMessage({ id: ++number, ...job });
  };
  const next = () => {
    root.dataset.idle = ready && !busy && !queue.size;
    if (busy || !ready || !queue.size) return;
    const key = queue.has("stage") ? "stage" : queue.keys().next().value;
    const { job, told } = queue.get(key);
    queue.delete(key);
    send(job, told);
  };
  const ask = (key, model, inputs, told) => {
    queue.set(key, { job: { model, inputs }, told });
    next();
  };
  const unzipped = async (id) => {
    const bytes = Uint8Array.from(atob(text(id)), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const start = async () => {
    const url = URL.createObjectURL(new Blob([await unzipped("worker")], { type: "text/javascript" }));
    worker = new Worker(url);
    worker.onerror = (event) => problem(`This page cannot run here: ${event.message || "this browser starts no worker"}.`);
    worker.onmessage = ({ data: made }) => {
      busy = false;
      if (made.error) problem(`Something went wrong: ${made.error}`);
      else done(made);
      next();
    };
    byId("status").textContent = "Opening the model …";
    const models = Object.fromEntries(data.models.map((name) => [name, text(`model-${name}`)]));
    const began = performance.now();
    send({ wasm: text("wasm"), models }, () => {
      ready = true;
      root.dataset.opened = Math.round(performance.now() - began);
      byId("status").textContent = "Ready.";
      Promise.resolve(begin()).then(check);
    });
  };

  /* What is shown large. */
  const shown = ({ ms, ...made }) => {
    paint(stage, made);
    /* Of the first image the browser is still compiling. */
    if (root.dataset.shown) byId("time").textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
    byId("save").disabled = false;
    root.dataset.shown ??= Math.round(performance.now());
    root.dataset.ms = ms.toFixed(2);
  };

  /* This browser against the training library, on one image that the page brings along. */
  const check = () => {
    ask("check", data.models[0], sample(), async (made) => {
      const wanted = await picture(data.check);
      const canvas = make("canvas", { width: made.width, height: made.height });
      const context = reading(canvas);
      context.drawImage(wanted, 0, 0);
      const real = context.getImageData(0, 0, made.width, made.height).data;
      const apart = made.rgba.reduce((sum, v, i) => sum + Math.abs(v - real[i]), 0) / ((made.rgba.length * 3) / 4);
      root.dataset.apart = apart.toFixed(3);
      byId("status").textContent = apart < 2
        ? "Ready. A test image came out as the training library makes it."
        : "Ready, but this browser makes other images than the training library does.";
    });
  };

  const saved = { name: data.name, what: () => "image" };
  for (const times of [1, 4, 8, 16].filter((n) => n === 1 || n * size <= 1024)) {
    const side = `${times * size} px`;
    byId("save-size").append(make("option", { value: times, textContent: side }));
  }
  byId("save").onclick = () => {
    const times = Number(byId("save-size").value);
    const canvas = make("canvas", { width: stage.width * times, height: stage.height * times });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(stage, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => {
      const link = make("a", { href: URL.createObjectURL(blob) });
      link.download = `${data.name.replace(/[^\w.-]+/g, "_")}_${saved.what()}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
    }, "image/png");
  };

  let sample, begin;
  if (data.kind === "photos") photos();
  else faces();
  if (!("DecompressionStream" in window) || !("WebAssembly" in window)) {
    problem("This browser is too old for this page: it takes Chrome 105, Firefox 121, Safari 16.4, or newer.");
  } else {
    start().catch((error) => problem(`This page cannot run here: ${error.message}`));
  }

  /* From noise and from words: seeds, a walk between them, and what is asked for. */
  function faces() {
    const z = array("array-z");
    const texts = data.prompts.length ? array("array-text") : null;
    const seeds = data.seeds, dim = z.length / seeds, text_dim = texts && texts.length / data.prompts.length;
    const latent = (seed) => z.subarray(seed * dim, (seed + 1) * dim);
    const walk = byId("walk");
    let first = 0, stops = [0, 1], playing = 0;

    const asked = (chosen) => {
      if (texts) return { text: { type: "float32", data: texts.subarray(chosen * text_dim, (chosen + 1) * text_dim), dims: [1, text_dim] } };
      return chosen.length ? { label: { type: "int64", data: chosen, dims: [1, chosen.length] } } : {};
    };
    const chosen = () => {
      if (texts) return Number(byId("prompt").value);
      return data.attributes.map((_, i) => {
        const name = `attribute-${i}`;
        return Number(document.querySelector(`input[name=${name}]:checked, select[name=${name}]`).value);
      });
    };
    const inputs = (row, wish = chosen()) => ({ z: { type: "float32", data: row, dims: [1, dim] }, ...asked(wish) });
    sample = () => inputs(latent(0), texts ? 0 : data.attributes.map((a) => a.start));

    /* As `anigan interpolate`: the great circle, on which lengths stay those of normal draws. */
    const between = (a, b, t) => {
      const dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
      const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)))));
      if (angle < 1e-6) return a;
      const [p, q] = [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
      return a.map((v, i) => p * v + q * b[i]);
    };
    const place = () => {
      const leg = Math.min(Math.floor(walk.value), stops.length - 2);
      return stops.length < 2 ? [stops[0], stops[0], 0] : [stops[leg], stops[leg + 1], walk.value - leg];
    };
    const said = () => {
      const [a, b, t] = place();
      if (t < 0.005) return `Seed ${a}`;
      return t > 0.995 ? `Seed ${b}` : `Seed ${a} to ${b}, ${Math.round(100 * t)}%`;
    };
    saved.what = () => said().toLowerCase().replace("%", "").replace(/[ ,]+/g, "_");
    const draw = () => {
      const [a, b, t] = place();
      byId("caption").textContent = said();
      walk.setAttribute("aria-valuetext", said());
      ask("stage", data.models[0], inputs(between(latent(a), latent(b), t)), shown);
    };

    const tile = (seed, fields) => {
      const canvas = make("canvas", { width: size, height: size });
      const button = make("button", { type: "button", ...fields }, canvas);
      button.dataset.seed = seed;
      return button;
    };
    const known = new Map();
    /* Of images that were asked for before other words. */
    let words = 0;
    const fill = (button) => {
      const seed = Number(button.dataset.seed), canvas = button.firstChild;
      if (known.has(seed)) return paint(canvas, known.get(seed));
      const asked = words;
      ask(`seed-${seed}`, data.models[0], inputs(latent(seed)), (made) => {
        if (asked !== words) return;
        known.set(seed, made);
        for (const one of document.querySelectorAll(`[data-seed="${seed}"] canvas`)) paint(one, made);
      });
    };
    const mark = () => {
      for (const button of byId("grid").children) {
        const at = stops.indexOf(Number(button.dataset.seed));
        button.setAttribute("aria-pressed", at >= 0);
        button.dataset.place = at >= 0 ? at + 1 : "";
      }
      const focused = document.activeElement?.closest("#stops") && document.activeElement.dataset.seed;
      byId("stops").replaceChildren(...stops.map((seed) => {
        const button = tile(seed, { title: `Seed ${seed}: take it out`, onclick: () => toggle(seed) });
        button.setAttribute("aria-label", `Take seed ${seed} out`);
        button.disabled = stops.length === 1;
        return button;
      }));
      [...byId("stops").children].forEach(fill);
      if (focused) byId("stops").lastChild.focus();
      walk.max = Math.max(1, stops.length - 1);
      walk.disabled = byId("play").disabled = stops.length < 2;
    };
    const toggle = (seed) => {
      stop();
      if (!stops.includes(seed)) stops = [...stops, seed].slice(-STOPS);
      else if (stops.length > 1) stops = stops.filter((one) => one !== seed);
      mark();
      walk.value = stops.length < 2 ? 0 : stops.length - 1;
      draw();
    };
    const list = () => {
      for (const key of [...queue.keys()]) if (key.startsWith("seed-")) queue.delete(key);
      const last = Math.min(first + PAGE, seeds);
      byId("range").textContent = `${first} to ${last - 1}`;
      byId("back").disabled = first === 0;
      byId("on").disabled = last === seeds;
      const tiles = [];
      for (let seed = first; seed < last; seed++) {
        const button = tile(seed, { onclick: () => toggle(seed) });
        button.append(make("span", { textContent: seed }));
        button.setAttribute("aria-label", `Seed ${seed}`);
        tiles.push(button);
      }
      byId("grid").replaceChildren(...tiles);
      mark();
      tiles.forEach(fill);
    };
    const stop = () => {
      cancelAnimationFrame(playing);
      playing = 0;
      byId("play").textContent = "▶";
      byId("play").setAttribute("aria-label", "Play the walk");
    };
    byId("play").onclick = () => {
      if (playing) return stop();
      byId("play").textContent = "❚❚";
      byId("play").setAttribute("aria-label", "Pause the walk");
      const legs = stops.length - 1, from = Number(walk.value) % legs;
      let began;
      /* There and back, two seconds from face to face. */
      const frame = (now) => {
        began ??= now;
        const at = (from + (now - began) / 2000) % (2 * legs);
        walk.value = at > legs ? 2 * legs - at : at;
        draw();
        playing = requestAnimationFrame(frame);
      };
      playing = requestAnimationFrame(frame);
    };
    walk.oninput = () => {
      stop();
      draw();
    };
    byId("back").onclick = () => { first -= PAGE; list(); };
    byId("on").onclick = () => { first += PAGE; list(); };
    for (const input of document.querySelectorAll("[name^=attribute-], #prompt")) {
      input.onchange = () => {
        words += 1;
        known.clear();
        draw();
        list();
      };
    }
    for (const dot of document.querySelectorAll("[data-color]")) {
      const color = { blonde: "#f0d080" }[dot.dataset.color] ?? dot.dataset.color;
      dot.hidden = !CSS.supports("color", color);
      dot.style.background = color;
    }
    picture(data.check).then((image) => {
      if (ready) return;
      stage.width = stage.height = size;
      stage.getContext("2d").drawImage(image, 0, 0);
    });
    begin = draw;
    list();
    byId("caption").textContent = said();
  }

  /* Translations: a square of a picture, and what becomes of it. */
  function photos() {
    const source = byId("source"), zoom = byId("zoom");
    const view = { image: null, x: 0.5, y: 0.5, name: "" };
    const way = () => document.querySelector("input[name=way]:checked")?.value ?? data.models[0];
    source.width = source.height = stage.width = stage.height = size;
    saved.what = () => `${way()}_${view.name}`;

    const square = () => {
      const { naturalWidth: w = view.image.width, naturalHeight: h = view.image.height } = view.image;
      const side = Math.min(w, h) / zoom.value;
      const at = (center, whole) => Math.min(Math.max(center * whole - side / 2, 0), whole - side);
      const [x, y] = [at(view.x, w), at(view.y, h)];
      Object.assign(view, { x: (x + side / 2) / w, y: (y + side / 2) / h });
      return [x, y, side, w, h];
    };
    /* Halved while it is more than twice as large: one step of smoothing would alias. */
    const reduced = (image, x, y, side) => {
      let from = image, now = side;
      while (now > 2 * size) {
        const half = Math.max(size, Math.round(now / 2));
        const canvas = make("canvas", { width: half, height: half });
        const context = canvas.getContext("2d");
        context.imageSmoothingQuality = "high";
        context.drawImage(from, x, y, now, now, 0, 0, half, half);
        /* Phones have little room for canvases, and free it late. */
        if (from !== image) from.width = 0;
        [from, x, y, now] = [canvas, 0, 0, half];
      }
      return [from, x, y, now, now];
    };
    const planes = (rgba) => {
      const area = size * size;
      return Float32Array.from({ length: 3 * area }, (_, i) => rgba[4 * (i % area) + Math.floor(i / area)] / 127.5 - 1);
    };
    const inputs = (rgba) => ({ source: { type: "float32", data: planes(rgba), dims: [1, 3, size, size] } });
    const draw = () => {
      if (!view.image) return;
      const context = reading(source);
      const [x, y, side] = square();
      context.imageSmoothingQuality = "high";
      /* Behind what is transparent. */
      context.fillStyle = "#fff";
      context.fillRect(0, 0, size, size);
      context.drawImage(...reduced(view.image, x, y, side), 0, 0, size, size);
      ask("stage", way(), inputs(context.getImageData(0, 0, size, size).data), shown);
    };
    const show = (image, name) => {
      Object.assign(view, { image, name, x: 0.5, y: 0.5 });
      zoom.value = 1;
      draw();
    };
    const take = async (file) => {
      if (!file) return;
      try {
        /* Chrome before 112 knows the word not, and turns pictures upright all the same. */
        const image = await createImageBitmap(file, { imageOrientation: "from-image" })
          .catch(() => createImageBitmap(file));
        byId("problem").hidden = true;
        show(image, file.name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "picture");
        for (const one of byId("examples").children) one.setAttribute("aria-pressed", false);
      } catch {
        problem(`${file.name || "That"} is not a picture that this browser can read.`);
      }
    };
    let examples = [];
    const list = async (pick = true) => {
      examples = await Promise.all(data.examples[way()].map(picture));
      const choose = (at) => {
        [...byId("examples").children].forEach((one, i) => one.setAttribute("aria-pressed", i === at));
        show(examples[at], `example_${at}`);
      };
      byId("examples").replaceChildren(...examples.map((image, i) => {
        const button = make("button", { type: "button", onclick: () => choose(i) }, image);
        button.setAttribute("aria-label", `Example ${i + 1}`);
        image.alt = "";
        return button;
      }));
      if (pick) choose(0);
      else draw();
      return examples;
    };
    const move = (dx, dy) => {
      if (!view.image) return;
      const [, , side, w, h] = square();
      view.x += (dx * side) / w;
      view.y += (dy * side) / h;
      draw();
    };
    const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    source.onkeydown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const way = KEYS[event.key], nearer = { "+": 1.1, "=": 1.1, "-": 1 / 1.1 }[event.key];
      if (!way && !nearer) return;
      event.preventDefault();
      if (way) return move(way[0] / 20, way[1] / 20);
      zoom.value *= nearer;
      draw();
    };
    source.onpointerdown = (event) => {
      source.setPointerCapture(event.pointerId);
      /* Not movementX, which Safari before 17 has not, and others count in units of their own. */
      let { clientX: x, clientY: y } = event;
      source.onpointermove = ({ clientX, clientY }) => {
        move((x - clientX) / source.clientWidth, (y - clientY) / source.clientHeight);
        [x, y] = [clientX, clientY];
      };
    };
    source.onpointerup = source.onpointercancel = () => { source.onpointermove = null; };
    source.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom.value *= Math.exp(-event.deltaY / 500);
      draw();
    }, { passive: false });
    zoom.oninput = draw;
    byId("file").onchange = ({ target }) => take(target.files[0]).then(() => { target.value = ""; });
    addEventListener("paste", (event) => take(event.clipboardData.files[0]));
    addEventListener("dragover", (event) => {
      event.preventDefault();
      byId("drop").classList.add("over");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) byId("drop").classList.remove("over");
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      byId("drop").classList.remove("over");
      take(event.dataTransfer.files[0]);
    });
    for (const input of document.querySelectorAll("input[name=way]")) {
      /* The picture stays; only what becomes of it is another. */
      input.onchange = () => list(examples.includes(view.image));
    }
    sample = () => {
      const canvas = make("canvas", { width: size, height: size });
      const context = reading(canvas);
      context.drawImage(first, 0, 0, size, size);
      return inputs(context.getImageData(0, 0, size, size).data);
    };
    /* Of the first direction, whose image the page has: it may be another one by then. */
    let first;
    const listed = list().then((found) => { first = found[0]; });
    begin = () => listed.then(draw);
  }
})();
