"use strict";
// The page of poise lab. The data is in script elements: "data" (statistics over all images), "image-0" and so on.
// All text from the data is set as textContent, never as innerHTML.

const KINDS = { positive: "w pos", negative: "w neg", regression: "w reg" };
const TITLES = { positive: "w pos: positive weight", negative: "w neg: negative weight", regression: "w reg: box weight" };
const NONE = 65535, DECADES = 3, STEPS = 65534, RANGE = Math.log(1e6);
const COLORS = [[13, 8, 60], [106, 0, 168], [203, 70, 121], [248, 149, 64], [240, 249, 33]]; // dark to bright
const METHOD_COLORS = ["#0b8fd6", "#e2711d", "#3a9b4b", "#b04ac4", "#c9a100", "#d6455b", "#6a7bd9", "#7a8a8a"];

const data = JSON.parse(document.getElementById("data").textContent);
const state = { image: 0, object: -1, stage: "", level: 0, method: "", scale: "linear", prior: null, row: -1 };
let scene = null; // the selected image: {size, objects, picture, methods: {name: {stage: {levels, priors, lists}}}}
const scenes = new Map();

const $ = (id) => document.getElementById(id);
function make(tag, parent, text, attributes) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  if (parent) parent.append(element);
  return element;
}
const digits = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 ? value.toExponential(1) : value.toPrecision(3));
const className = (label) => data.class_names[label] || String(label);

// ---- data

class Table {
  constructor(source, words) {
    this.length = source.length;
    this.max = source.max;
    this.columns = Object.fromEntries(source.names.map((name, i) => [name, words.subarray(i * source.length, (i + 1) * source.length)]));
  }
  integer(name, i) { const value = this.columns[name][i]; return value === NONE ? -1 : value; }
  number(name, i) {
    const code = this.columns[name][i];
    return code ? this.max[name] * Math.exp(((code - 1) / STEPS - 1) * RANGE) : 0;
  }
  box(name, i) { return [0, 1, 2, 3].map((k) => ((this.columns[name + k][i] << 16) >> 16) / 8); }
}

async function table(source) {
  const bytes = Uint8Array.from(atob(source.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Table(source, new Uint16Array(await new Response(stream).arrayBuffer()));
}

async function load(number) {
  if (scenes.has(number)) return scenes.get(number);
  const found = JSON.parse($(`image-${number}`).textContent);
  found.picture = new Image();
  found.picture.src = "data:image/jpeg;base64," + found.jpeg;
  await found.picture.decode();
  for (const stages of Object.values(found.methods)) {
    for (const stage of Object.values(stages)) {
      stage.priors = await table(stage.priors);
      stage.lists = Object.assign(await table(stage.lists), { lengths: stage.lists.lengths, positives: stage.lists.positives });
      stage.starts = [];
      stage.lists.lengths.reduce((sum, length) => (stage.starts.push(sum), sum + length), 0);
    }
  }
  scenes.set(number, found);
  if (scenes.size > 4) scenes.delete(scenes.keys().next().value);
  return found;
}

// ---- selection

const methods = () => data.methods.filter((name) => (!state.method || name === state.method) && stageOf(name));
const stageOf = (method) => scene.methods[method] && scene.methods[method][state.stage];
const objectRow = () => scene.objects.findIndex((object) => object[0] === state.object);
function strides() {
  const all = Object.values(scene.methods).flatMap((stages) => (stages[state.stage] ? stages[state.stage].levels.map((level) => level.stride) : []));
  return [...new Set(all)].sort((a, b) => a - b);
}

// Priors of a stage on a level (0: all), of an object those in its list: {table, rows: [[prior, row of table]]}.
function selectedPriors(stage, stride = state.level) {
  const ranges = stage.levels.filter((level) => !stride || level.stride === stride).map((level) => [level.start, level.start + level.count]);
  const within = (prior) => ranges.some(([low, high]) => prior >= low && prior < high);
  const rows = [], object = objectRow();
  if (object >= 0) {
    const start = stage.starts[object];
    for (let i = start; i < start + stage.lists.lengths[object]; i++) {
      const prior = stage.lists.columns.prior_low[i] + 65536 * stage.lists.columns.prior_high[i];
      if (within(prior)) rows.push([prior, i]);
    }
    return { table: stage.lists, rows };
  }
  for (const [low, high] of ranges) for (let i = low; i < high; i++) rows.push([i, i]);
  return { table: stage.priors, rows };
}

// ---- heat maps

function color(share) {
  const position = Math.min(share, 0.9999) * (COLORS.length - 1), i = Math.floor(position), part = position - i;
  const [r, g, b] = COLORS[i].map((value, k) => Math.round(value + part * (COLORS[i + 1][k] - value)));
  return `rgba(${r},${g},${b},${(0.35 + 0.5 * share).toFixed(2)})`;
}
const share = (value, greatest) => (state.scale === "linear" ? value / greatest : Math.max(0, 1 + Math.log10(value / greatest) / DECADES));

// Weights of a kind on a level in ascending order: [[value, prior]].
function weights(stage, kind, level) {
  const { table, rows } = selectedPriors(stage, level);
  return rows.map(([prior, at]) => [table.number(kind, at), prior]).filter(([value]) => value > 0).sort((a, b) => a[0] - b[0]);
}
const last = (values) => (values.length ? values[values.length - 1][0] : 0);

// Paint weights over the image; where cells of several levels overlap, the maximum weight is visible.
function paintHeat(canvas, stage, values, greatest, kind) {
  const context = canvas.getContext("2d"), zoom = canvas.width / scene.size[0];
  context.resetTransform();
  const layer = new OffscreenCanvas(canvas.width, canvas.height), pen = layer.getContext("2d");
  context.filter = "grayscale(1) brightness(.62)";
  context.drawImage(scene.picture, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  for (const [value, prior] of values) {
    const part = share(value, greatest);
    if (part <= 0.004) continue;
    const [x1, y1, x2, y2] = stage.priors.box("cell", prior).map((v) => Math.round(v * zoom));
    if (stage.queries) {
      paintQuery(pen, stage, prior, part, kind, zoom, pixel(context) * zoom);
    } else if (!stage.on_grid) {
      pen.globalAlpha = Math.max(0.25, Math.min(1, 30 / values.length)); // many boxes would hide the image
      pen.strokeStyle = color(part);
      pen.lineWidth = 1 + 2 * part;
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    } else {
      pen.fillStyle = color(part);
      pen.clearRect(x1, y1, x2 - x1, y2 - y1);
      pen.fillRect(x1, y1, x2 - x1, y2 - y1);
    }
  }
  context.drawImage(layer, 0, 0);
}

// A query is a dot at its reference point; positive queries also have the predicted box and a line to its center.
function paintQuery(pen, stage, prior, part, kind, zoom, thin) {
  const [x, y] = middle(stage.priors.box("cell", prior)).map((v) => v * zoom);
  pen.lineWidth = (1 + part) * thin;
  pen.strokeStyle = pen.fillStyle = color(part);
  if (kind !== "negative") {
    const [x1, y1, x2, y2] = stage.priors.box("box", prior).map((v) => v * zoom);
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    pen.beginPath();
    pen.moveTo(x, y);
    pen.lineTo((x1 + x2) / 2, (y1 + y2) / 2);
    pen.stroke();
  }
  pen.beginPath();
  pen.arc(x, y, (kind === "negative" ? 2 + 1.5 * part : 3.5) * thin, 0, 7);
  pen.fill();
}
const middle = ([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2];

function drawHeat(pane, stage, kind) {
  const values = weights(stage, kind, state.level), greatest = last(values);
  paintHeat(pane.heat, stage, values, greatest, kind);
  const context = inPicture(pane.heat), unclear = kind === "positive" ? ambiguous(stage, values) : [];
  drawObjects(context);
  drawRings(context, stage, unclear);
  const whole = pane.levels.size ? last(weights(stage, kind, 0)) : 0; // the small maps of the levels have one scale
  for (const [stride, canvas] of pane.levels) paintHeat(canvas, stage, weights(stage, kind, stride), whole, kind);
  pane.count.textContent = counted(values.length, stage) + (unclear.length ? `, ○ ${unclear.length}` : "");
  pane.count.title = unclear.length ? "○: ambiguous, the center lies in several objects" : "";
  pane.low.textContent = !greatest ? "no weight here" : state.scale === "linear" ? "0" : digits(greatest * 10 ** -DECADES);
  pane.high.textContent = greatest ? digits(greatest) : "";
}

const noun = (stage) => (stage.queries ? "query" : stage.on_grid ? "prior" : "region");
const nouns = (stage) => (stage.queries ? "queries" : noun(stage) + "s");
const counted = (count, stage) => `${count} ${count === 1 ? noun(stage) : nouns(stage)}`;

// Priors whose center lies in several objects. Weights below 2 % of the maximum (of soft assignments) are left out.
const ambiguous = (stage, values) =>
  values.filter(([value]) => value > 0.02 * last(values)).map(([, prior]) => prior).filter((prior) => stage.priors.integer("objects_at_center", prior) > 1);

function drawRings(context, stage, priors) {
  for (const prior of priors) ring(context, ...middle(stage.priors.box("cell", prior)), 3, "#fff");
}

function ring(context, x, y, radius, paint) {
  const thin = pixel(context);
  for (const [style, width] of [["rgba(0,0,0,.7)", 3], [paint, 1.3]]) {
    context.beginPath();
    context.arc(x, y, radius * thin, 0, 7);
    context.strokeStyle = style;
    context.lineWidth = width * thin;
    context.stroke();
  }
}

// One pixel of the screen in pixels of the image: lines have the same width at every resolution.
const pixel = (context) => scene.size[0] / Math.max(1, context.canvas.clientWidth);

// Use coordinates of the image on a canvas of any resolution.
function inPicture(canvas) {
  const context = canvas.getContext("2d"), zoom = canvas.width / scene.size[0];
  context.setTransform(zoom, 0, 0, zoom, 0, 0);
  return context;
}

function drawObjects(context) {
  for (const [number, , x1, y1, x2, y2] of scene.objects) {
    const mine = number === state.object;
    if (state.object >= 0 && !mine) continue;
    outline(context, [x1, y1, x2, y2], mine ? "#fff" : "rgba(255,255,255,.75)", mine ? 2.5 : 1.2);
  }
}

function outline(context, [x1, y1, x2, y2], paint, width, dash) {
  const thin = pixel(context);
  context.setLineDash((dash || []).map((length) => length * thin));
  for (const [style, extra] of [["rgba(0,0,0,.7)", 2], [paint, 0]]) {
    context.strokeStyle = style;
    context.lineWidth = (width + extra) * thin;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  context.setLineDash([]);
}

const panes = new Map(); // "method kind" -> {heat, marks, ...}
function buildPanels() {
  const root = $("panels");
  root.replaceChildren();
  panes.clear();
  for (const method of methods()) {
    make("h3", root, data.descriptions[method] || method);
    const row = make("div", root, null, { class: "row" });
    for (const kind of Object.keys(KINDS)) {
      const figure = make("figure", row), caption = make("figcaption", figure, TITLES[kind]);
      const frame = make("div", figure, null, { class: "pane" });
      const [width, height] = scene.size.map((side) => side * Math.max(1, Math.round(800 / scene.size[0])));
      const heat = make("canvas", frame, null, { width, height });
      const marks = make("canvas", frame, null, { width, height, tabindex: 0, role: "img", "aria-label": `${KINDS[kind]} of ${method}` });
      const pane = { heat, marks, count: make("span", caption, "", { class: "quiet" }) };
      make("div", figure, null, { class: "legend", style: `background:linear-gradient(90deg,${COLORS.map((c) => `rgb(${c})`)})` });
      const ends = make("div", figure, null, { class: "ends" });
      pane.low = make("span", ends); pane.high = make("span", ends);
      pane.levels = buildLevels(figure, stageOf(method));
      for (const event of ["pointermove", "pointerdown"]) marks.addEventListener(event, (e) => point(e, method, kind, marks));
      panes.set(`${method} ${kind}`, pane);
    }
  }
  $("key-query").hidden = !methods().some((method) => stageOf(method).queries);
  if (!panes.size) make("p", root, "No method has this stage.", { class: "quiet" });
}

// A small heat map of each level as a button that selects it; regions and queries have no levels.
function buildLevels(figure, stage) {
  const strip = make("div", figure, null, { class: "levels" }), found = new Map();
  if (!stage.on_grid || stage.levels.length < 2) return found;
  const width = 96, height = Math.max(1, Math.round((width * scene.size[1]) / scene.size[0]));
  for (const { stride } of stage.levels) {
    const pressed = state.level === stride;
    const button = make("button", strip, null, { title: `level of stride ${stride}`, "aria-pressed": pressed });
    found.set(stride, make("canvas", button, null, { width, height }));
    make("span", button, `1/${stride}`); // of the image's resolution
    button.addEventListener("click", () => choose({ level: pressed ? 0 : stride }));
  }
  return found;
}

function draw() {
  for (const method of methods()) for (const kind of Object.keys(KINDS)) drawHeat(panes.get(`${method} ${kind}`), stageOf(method), kind);
  mark();
}

// ---- one prior

function point(event, method, kind, canvas) {
  const stage = stageOf(method), frame = canvas.getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * scene.size[0], y = ((event.clientY - frame.top) / frame.height) * scene.size[1];
  const { table, rows } = selectedPriors(stage), near = (14 * scene.size[0]) / frame.width;
  let best = null;
  for (const [prior, at] of rows) {
    const [x1, y1, x2, y2] = stage.priors.box("cell", prior);
    if (stage.queries) { // the nearest dot within 14 pixels of the screen
      const away = Math.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2);
      if (away < near && (!best || away < best.size)) best = { index: prior, size: away };
      continue;
    }
    if (x < x1 || x >= x2 || y < y1 || y >= y2) continue;
    const value = table.number(kind, at), size = (x2 - x1) * (y2 - y1);
    if (!best || value > best.value || (value === best.value && size < best.size)) best = { index: prior, value, size };
  }
  select(best ? { method, index: best.index } : null);
}

function select(prior, row = -1) {
  state.prior = prior;
  state.row = row;
  mark();
}

function mark() {
  for (const [key, pane] of panes) {
    const context = inPicture(pane.marks);
    context.clearRect(0, 0, ...scene.size);
    if (!state.prior || !key.startsWith(state.prior.method + " ")) continue;
    const stage = stageOf(state.prior.method);
    if (!stage) continue;
    const cell = stage.priors.box("cell", state.prior.index);
    outline(context, cell, "#7df", 1.5);
    if (stage.queries) ring(context, ...middle(cell), 6, "#7df");
    outline(context, stage.priors.box("box", state.prior.index), "#ffe14d", 2, [6, 4]);
  }
  describe();
  for (const line of document.querySelectorAll("#list tr.pick")) {
    const mine = state.prior && line.dataset.method === state.prior.method && Number(line.dataset.prior) === state.prior.index;
    line.setAttribute("aria-selected", String(Boolean(mine)));
  }
}

function describe() {
  const root = $("prior");
  root.replaceChildren();
  const stage = state.prior && stageOf(state.prior.method);
  document.body.classList.toggle("prior-selected", Boolean(stage));
  if (!stage) return make("p", root, "Point at a heat map, touch it, or select a row of the list.", { class: "quiet" });
  const close = make("button", root, "×", { class: "close", title: "close (on a narrow screen this lies over the page)", "aria-label": "close" });
  close.addEventListener("click", () => select(null));
  const priors = stage.priors, i = state.prior.index, list = make("dl", root);
  const entry = (name, value) => (make("dt", list, name), make("dd", list, value));
  const level = stage.levels.find((one) => i >= one.start && i < one.start + one.count);
  const objectName = (number) => {
    const found = scene.objects.find((object) => object[0] === number);
    return number < 0 ? "none" : `#${number} ${found ? className(found[1]) : ""}`;
  };
  const box = priors.box("box", i).map((value) => Math.round((value * scene.original[0]) / scene.size[0]));
  if (data.methods.length > 1) entry("method", state.prior.method);
  entry(noun(stage), stage.on_grid ? `${i}, stride ${level.stride}` : i);
  entry("assigned to", objectName(priors.integer("object", i)));
  entry("objects at its center", priors.integer("objects_at_center", i));
  entry("class with highest score", /(^|\/)rpn$/.test(state.stage) ? "any object" : className(priors.integer("label", i)));
  entry("score", digits(priors.number("score", i)));
  entry("object with highest IoU", objectName(priors.integer("best_object", i)));
  entry("IoU", digits(priors.number("iou", i)));
  entry("predicted box, image pixels", box.join(", "));
  const whole = { ...KINDS, negative: "w neg, sum over classes" };
  for (const kind of Object.keys(KINDS)) entry(whole[kind], digits(priors.number(kind, i)));
  if (!priors.integer("in_loss", i)) make("p", root, "Ignored or not sampled: this prior does not enter the loss.", { class: "quiet" });
}

// ---- lists

function fillList() {
  const root = $("list");
  root.replaceChildren();
  if (state.object < 0) return listObjects(root);
  $("list-title").textContent = `Its ${nouns(stageOf(methods()[0]))}, ranked by w pos`;
  const object = objectRow();
  for (const method of methods()) {
    const stage = stageOf(method), lines = make("table", root), head = make("tr", make("thead", lines));
    if (data.methods.length > 1) make("caption", lines, method);
    for (const name of ["#", stage.on_grid ? "stride" : noun(stage), "score", "IoU", ...Object.values(KINDS)]) make("th", head, name);
    const body = make("tbody", lines), start = stage.starts[object];
    for (let k = 0; k < stage.lists.lengths[object]; k++) {
      const at = start + k, prior = stage.lists.columns.prior_low[at] + 65536 * stage.lists.columns.prior_high[at];
      const level = stage.levels.find((one) => prior >= one.start && prior < one.start + one.count);
      if (state.level && level.stride !== state.level) continue;
      const line = make("tr", body, null, { class: "pick" + (stage.lists.columns.assigned[at] ? " positive" : ""), tabindex: -1, "data-prior": prior, "data-method": method });
      const numbers = ["score", "iou", ...Object.keys(KINDS)].map((name) => digits(stage.lists.number(name, at)));
      for (const value of [k + 1, stage.on_grid ? level.stride : prior, ...numbers]) make("td", line, value);
      line.addEventListener("click", () => select({ method, index: prior }));
      line.addEventListener("pointerenter", () => select({ method, index: prior }));
    }
    if (!body.children.length) make("p", root, "No prior of this level is listed for this object.", { class: "quiet" });
  }
}

function listObjects(root) {
  $("list-title").textContent = scene.objects.length ? "Objects and their positives" : "This image has no objects: all priors are negatives";
  if (!scene.objects.length) return;
  const lines = make("table", root), head = make("tr", make("thead", lines)), body = make("tbody", lines);
  for (const name of ["object", "size", ...methods()]) make("th", head, name.replaceAll("_", "_\u200b"), { class: "long" });
  scene.objects.forEach(([number, label, x1, y1, x2, y2], k) => {
    const counts = methods().map((method) => stageOf(method).lists.positives[k]);
    const line = make("tr", body, null, { class: "pick" + (counts.includes(0) ? " warn" : ""), tabindex: 0 });
    const scale = scene.original[0] / scene.size[0];
    make("td", line, `#${number} ${className(label)}`);
    make("td", line, `${Math.round((x2 - x1) * scale)} × ${Math.round((y2 - y1) * scale)}`);
    for (const count of counts) make("td", line, count);
    line.addEventListener("click", () => choose({ object: number }));
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") choose({ object: number }); });
  });
  if (scene.hidden_objects) make("p", root, `Not listed: ${scene.hidden_objects} smaller objects.`, { class: "quiet" });
}

// ---- controls

function options(select, entries, value) {
  select.replaceChildren();
  for (const [key, text] of entries) make("option", select, text, { value: key });
  select.value = String(value);
}

function fillControls() {
  const stages = [...new Set(Object.values(scene.methods).flatMap((found) => Object.keys(found)))];
  if (!stages.includes(state.stage)) state.stage = ["dense", "queries"].find((name) => stages.includes(name)) || stages[stages.length - 1];
  options($("stage"), stages.map((name) => [name, name]), state.stage);
  if (!strides().includes(state.level)) state.level = 0;
  const gridless = methods().every((method) => !stageOf(method).on_grid);
  options($("level"), [[0, gridless ? "all" : "all (maximum)"], ...(gridless ? [] : strides().map((stride) => [stride, `stride ${stride}`]))], state.level);
  options($("method"), [["", data.methods.length > 1 ? "all, side by side" : data.methods[0]], ...(data.methods.length > 1 ? data.methods.map((name) => [name, name]) : [])], state.method);
  if (objectRow() < 0) state.object = -1;
  options($("object"), [[-1, "all objects"], ...scene.objects.map(([number, label]) => [number, `#${number} ${className(label)}`])], state.object);
  $("image").value = String(state.image);
  $("scale").value = state.scale;
}

async function choose(changes) {
  const image = changes.image !== undefined && changes.image !== state.image;
  Object.assign(state, changes);
  if (image || !scene) {
    const wanted = state.image, loaded = await load(wanted);
    if (wanted !== state.image) return;
    scene = loaded;
    if (image && changes.object === undefined) state.object = -1;
  }
  if (!("prior" in changes)) state.prior = null;
  state.row = -1;
  fillControls();
  buildPanels();
  fillList();
  draw();
  drawEncoders();
  document.body.dataset.ready = `${state.image} ${state.object}`;
}

const turn = (list, value, by) => list[(list.indexOf(value) + by + list.length) % list.length];
function step(by) {
  const lines = [...document.querySelectorAll("#list tr.pick")];
  if (!lines.length || state.object < 0) return;
  const next = Math.max(0, Math.min(lines.length - 1, state.row + by)), line = lines[next];
  select({ method: line.dataset.method, index: Number(line.dataset.prior) }, next);
  line.scrollIntoView({ block: "nearest" });
}

const objectNumbers = () => [-1, ...scene.objects.map((object) => object[0])];
const KEYS = {
  ArrowLeft: () => choose({ image: (state.image + data.images - 1) % data.images }),
  ArrowRight: () => choose({ image: (state.image + 1) % data.images }),
  ArrowUp: () => choose({ object: turn(objectNumbers(), state.object, -1) }),
  ArrowDown: () => choose({ object: turn(objectNumbers(), state.object, 1) }),
  "[": () => choose({ level: turn([0, ...strides()], state.level, -1) }),
  "]": () => choose({ level: turn([0, ...strides()], state.level, 1) }),
  s: () => choose({ stage: turn([...$("stage").options].map((option) => option.value), state.stage, 1) }).then(statistics),
  m: () => choose({ method: turn([...$("method").options].map((option) => option.value), state.method, 1) }),
  c: () => choose({ scale: state.scale === "log" ? "linear" : "log" }),
  j: () => step(1),
  k: () => step(-1),
  Escape: () => choose({ object: -1 }),
};

function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  $("previous").addEventListener("click", KEYS.ArrowLeft);
  $("next").addEventListener("click", KEYS.ArrowRight);
  const read = { image: Number, object: Number, stage: String, level: Number, method: String, scale: String };
  for (const [name, kind] of Object.entries(read)) $(name).addEventListener("change", () => choose({ [name]: kind($(name).value) }));
}

// ---- statistics of all images

function svg(parent, width, height) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  element.setAttribute("viewBox", `0 0 ${width} ${height}`);
  parent.append(element);
  return (tag, attributes, text) => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
    if (text !== undefined) part.textContent = text;
    element.append(part);
    return part;
  };
}
const paint = (method) => METHOD_COLORS[data.methods.indexOf(method) % METHOD_COLORS.length];
function legend(root, entries) {
  const keys = make("div", root, null, { class: "keys quiet" });
  for (const [background, text] of entries) {
    const one = make("span", keys);
    make("span", one, null, { class: "key", style: `background:${background}` });
    one.append(text);
  }
}

function card(title, stages, wide, parent = $("charts")) {
  const root = make("div", parent, null, { class: wide ? "chart wide" : "chart" });
  make("h3", root, title);
  if (stages && data.methods.length > 1) {
    legend(root, stages.map((stage) => [paint(stage.method), stage.method]));
  }
  return root;
}

// Lines or points with axis marks; series: [{color, points: [[x, y]], line}], x and y in 0..1.
function plot(root, series, xMarks, yMarks, xTitle) {
  const [width, height, left, bottom] = [330, 190, 40, 30], add = svg(root, width, height);
  const x = (v) => left + v * (width - left - 8), y = (v) => height - bottom - v * (height - bottom - 8);
  for (const [value, text] of xMarks) add("text", { x: x(value), y: height - 15, "text-anchor": value > 0.97 ? "end" : "middle" }, text);
  for (const [value, text] of yMarks) {
    add("line", { x1: left, x2: width - 8, y1: y(value), y2: y(value), stroke: "currentColor", "stroke-opacity": 0.15 });
    add("text", { x: left - 4, y: y(value) + 3, "text-anchor": "end" }, text);
  }
  add("text", { x: (left + width) / 2, y: height - 2, "text-anchor": "middle" }, xTitle);
  for (const { color, points, line, dash } of series) {
    if (line) add("polyline", { points: points.map(([a, b]) => `${x(a)},${y(b)}`).join(" "), fill: "none", stroke: color, "stroke-width": 1.8, "stroke-dasharray": dash || "none" });
    else for (const [a, b] of points) add("circle", { cx: x(a), cy: y(b), r: 2.2, fill: color, "fill-opacity": 0.5 });
  }
}

function bars(root, groups, stages, valueOf) {
  const most = Math.max(1e-9, ...groups.flatMap((group) => stages.map((stage) => valueOf(stage, group) || 0)));
  const step = 11 * stages.length + 7, add = svg(root, 330, groups.length * step + 4);
  groups.forEach((group, g) => {
    add("text", { x: 92, y: g * step + step / 2 + 2, "text-anchor": "end" }, group.length > 15 ? group.slice(0, 14) + "…" : group);
    stages.forEach((stage, k) => {
      const value = valueOf(stage, group) || 0;
      add("rect", { x: 98, y: g * step + 4 + 11 * k, width: (value / most) * 180, height: 9, fill: paint(stage.method), rx: 2 });
      add("text", { x: 102 + (value / most) * 180, y: g * step + 12 + 11 * k }, `${(100 * value).toFixed(1)} %`);
    });
  });
}

function summary(stages) {
  const lines = make("table", card("Summary", null, true)), head = make("tr", make("thead", lines)), body = make("tbody", lines);
  const columns = {
    method: (s) => s.method, images: (s) => s.images, objects: (s) => s.objects, "without positive": (s) => s.without_positive,
    "positives per object": (s) => digits(s.positives_per_object), "effective positives": (s) => digits(s.effective_positives_per_object),
    "ambiguous positives": (s) => `${s.ambiguous} (${((100 * s.ambiguous) / Math.max(1, s.positives)).toFixed(1)} %)`,
    "positives of several objects": (s) => s.multi_object,
    "score–IoU correlation": (s) => (s.score_iou_correlation === null ? "-" : s.score_iou_correlation.toFixed(3)),
  };
  for (const name of Object.keys(columns)) make("th", head, name);
  for (const stage of stages) { const line = make("tr", body); for (const value of Object.values(columns)) make("td", line, value(stage)); }
}

// A row for each class of each method; the statistics of losses for rare classes are columns of their own.
function classTable(stages) {
  const MOST = 200, all = Object.entries(stages[0].by_class).sort((a, b) => b[1].objects - a[1].objects).map(([name]) => name);
  const own = ["objects", "positives", "positives_per_object", "without_positive", "positive_weight", "negative_weight"];
  const rows = all.slice(0, MOST).flatMap((name) => stages.map((stage) => [name, stage.method, stage.by_class[name] || {}]));
  const others = [...new Set(rows.flatMap(([, , row]) => Object.keys(row)))].filter((name) => ![...own, "weight_fraction"].includes(name));
  const root = card("Classes", null, true), box = make("div", root, null, { class: "scroll", style: "max-height: 24rem; overflow-y: auto" });
  const lines = make("table", box), head = make("tr", make("thead", lines)), body = make("tbody", lines);
  for (const name of ["class", "method", ...own, "negative / positive weight", ...others]) make("th", head, name.replaceAll("_", " "));
  for (const [name, method, row] of rows) {
    const line = make("tr", body), cell = (value) => make("td", line, value === undefined || !isFinite(value) ? "-" : Number.isInteger(value) ? value : digits(value));
    make("td", line, name);
    make("td", line, method);
    for (const column of own) cell(row[column]);
    cell(row.negative_weight / row.positive_weight);
    for (const column of others) cell(row[column]);
  }
  if (all.length > MOST) make("p", root, `The ${MOST} classes with the most objects of ${all.length}; poise lab stats writes all.`, { class: "quiet" });
}

function agreement(pairs) {
  if (data.methods.length < 2) return;
  if (!pairs.length) return make("p", card("Agreement", null, true), "No two methods have the same priors in this stage, so their positives cannot be compared.", { class: "quiet" });
  const lines = make("table", card("Agreement", null, true)), head = make("tr", make("thead", lines)), body = make("tbody", lines);
  for (const name of ["methods", "positives: intersection / union", "weights: intersection / union"]) make("th", head, name);
  const percent = (value) => (value === null ? "-" : `${(100 * value).toFixed(1)} %`);
  for (const pair of pairs) { const line = make("tr", body); for (const text of [pair.methods.join(" – "), percent(pair.positive_jaccard), percent(pair.weight_jaccard)]) make("td", line, text); }
}

function statistics() {
  const stages = data.stages.filter((stage) => stage.stage === state.stage);
  $("charts").replaceChildren();
  if (!stages.length) return;
  summary(stages);
  classTable(stages);
  agreement(data.agreement[state.stage] || []);
  const most = Math.max(1, ...stages.flatMap((stage) => stage.points.map((p) => p[1])));
  const sizeOf = (size) => Math.min(1, Math.log2(Math.max(size, 4) / 4) / 8), high = (count) => Math.log1p(count) / Math.log1p(most);
  plot(card("Positives per object by its size", stages), stages.map((s) => ({ color: paint(s.method), points: s.points.map(([size, count]) => [sizeOf(size), high(count)]) })),
    [4, 16, 64, 256, 1024].map((v) => [sizeOf(v), v]), [0, 1, 3, 10, 30, 100, 300].filter((v) => v <= most).map((v) => [high(v), v]), "square root of the area, pixels");
  for (const kind of Object.keys(KINDS)) {
    const edges = stages[0].log10_weight_edges, tallest = Math.max(1, ...stages.flatMap((s) => s.weight_histograms[kind]));
    const tall = (v) => Math.log1p(v) / Math.log1p(tallest);
    plot(card(`Distribution of ${KINDS[kind]} (priors with a weight > 0)`, stages), stages.map((s) => ({ line: true, color: paint(s.method), points: s.weight_histograms[kind].map((v, i) => [i / (edges.length - 2), tall(v)]) })),
      [-9, -6, -3, 0].map((v) => [(v + 9) / 10, `1e${v}`]), [0, 10, 1000, 100000].filter((v) => v <= tallest).map((v) => [tall(v), v]), "weight");
  }
  bars(card("Fraction of the positive weight by object size", stages), ["small", "medium", "large"], stages, (s, g) => s.by_size[g].weight_fraction);
  bars(card("Weight of an object by its size (100 %: mean of its image)", stages), ["small", "medium", "large"], stages, (s, g) => s.by_size[g].relative_weight);
  bars(card("Objects without a positive by object size", stages), ["small", "medium", "large"], stages, (s, g) => s.by_size[g].without_positive / Math.max(1, s.by_size[g].objects));
  const classes = Object.entries(stages[0].by_class).sort((a, b) => b[1].weight_fraction - a[1].weight_fraction).slice(0, 12).map(([name]) => name);
  if (classes.length) bars(card("Fraction of the positive weight by class", stages), classes, stages, (s, g) => (s.by_class[g] || {}).weight_fraction);
  const tenths = [...Array(10).keys()].map((i) => `${i / 10}–${(i + 1) / 10}`);
  const total = (s) => Math.max(1e-30, s.negatives_by_iou.weight.reduce((a, b) => a + b, 0));
  bars(card(`Fraction of the negative weight by highest IoU of ${methods().some((name) => !stageOf(name).on_grid) ? "the prior" : "the predicted box"} with an object`, stages), tenths, stages, (s, g) => s.negatives_by_iou.weight[tenths.indexOf(g)] / total(s));
}

// ---- start

async function start() {
  $("title").textContent = data.title;
  for (const note of data.notes) make("li", $("notes"), note);
  options($("image"), [...Array(data.images).keys()].map((i) => [i, `${i + 1}. ${data.image_names[i]}`]), 0);
  listen();
  await choose({});
  statistics();
  encoders();
  $("stage").addEventListener("change", statistics);
}
