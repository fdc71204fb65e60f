"use strict";
// The page of the assignment lab. Data stands in script elements: "data" (all images in numbers), "image-0" and so on.
// All text from the data goes through textContent, never through innerHTML.

const KINDS = { positive: "w pos", negative: "w neg", regression: "w reg" };
const NONE = 65535, DECADES = 3, STEPS = 65534, RANGE = Math.log(1e6);
const COLORS = [[13, 8, 60], [106, 0, 168], [203, 70, 121], [248, 149, 64], [240, 249, 33]]; // dark to bright
const METHOD_COLORS = ["#0b8fd6", "#e2711d", "#3a9b4b", "#b04ac4", "#c9a100", "#d6455b", "#6a7bd9", "#7a8a8a"];

const data = JSON.parse(document.getElementById("data").textContent);
const state = { image: 0, object: -1, stage: "", level: 0, method: "", scale: "linear", place: null, row: -1 };
let scene = null; // the image chosen: {size, objects, picture, methods: {name: {stage: {levels, places, lists}}}}
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
const className = (label) => data.names[label] || String(label);

// ---- data

class Table {
  constructor(source, words) {
    this.length = source.length;
    this.greatest = source.greatest;
    this.planes = Object.fromEntries(source.names.map((name, i) => [name, words.subarray(i * source.length, (i + 1) * source.length)]));
  }
  whole(name, i) { const value = this.planes[name][i]; return value === NONE ? -1 : value; }
  number(name, i) {
    const code = this.planes[name][i];
    return code ? this.greatest[name] * Math.exp(((code - 1) / STEPS - 1) * RANGE) : 0;
  }
  box(name, i) { return [0, 1, 2, 3].map((k) => ((this.planes[name + k][i] << 16) >> 16) / 8); }
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
      stage.places = await table(stage.places);
      stage.lists = Object.assign(await table(stage.lists), { lengths: stage.lists.lengths, positives: stage.lists.positives });
      stage.starts = [];
      stage.lists.lengths.reduce((sum, length) => (stage.starts.push(sum), sum + length), 0);
    }
  }
  scenes.set(number, found);
  if (scenes.size > 4) scenes.delete(scenes.keys().next().value);
  return found;
}

// ---- what is chosen

const methods = () => data.methods.filter((name) => (!state.method || name === state.method) && stageOf(name));
const stageOf = (method) => scene.methods[method] && scene.methods[method][state.stage];
const objectRow = () => scene.objects.findIndex((object) => object[0] === state.object);
function strides() {
  const all = Object.values(scene.methods).flatMap((stages) => (stages[state.stage] ? stages[state.stage].levels.map((level) => level.stride) : []));
  return [...new Set(all)].sort((a, b) => a - b);
}

// Places of a stage at a level (0: all) that the chosen object sees: {table, rows: [[place, row of table]]}.
function chosenPlaces(stage, chosen = state.level) {
  const ranges = stage.levels.filter((level) => !chosen || level.stride === chosen).map((level) => [level.start, level.start + level.places]);
  const within = (place) => ranges.some(([low, high]) => place >= low && place < high);
  const rows = [], object = objectRow();
  if (object >= 0) {
    const start = stage.starts[object];
    for (let i = start; i < start + stage.lists.lengths[object]; i++) {
      const place = stage.lists.planes.place[i] + 65536 * stage.lists.planes.high[i];
      if (within(place)) rows.push([place, i]);
    }
    return { table: stage.lists, rows };
  }
  for (const [low, high] of ranges) for (let i = low; i < high; i++) rows.push([i, i]);
  return { table: stage.places, rows };
}

// ---- heat maps

function color(share) {
  const position = Math.min(share, 0.9999) * (COLORS.length - 1), i = Math.floor(position), part = position - i;
  const [r, g, b] = COLORS[i].map((value, k) => Math.round(value + part * (COLORS[i + 1][k] - value)));
  return `rgba(${r},${g},${b},${(0.35 + 0.5 * share).toFixed(2)})`;
}
const share = (value, greatest) => (state.scale === "linear" ? value / greatest : Math.max(0, 1 + Math.log10(value / greatest) / DECADES));

// Weights of a kind at a level, the least first: [[value, place]].
function weights(stage, kind, level) {
  const { table, rows } = chosenPlaces(stage, level);
  return rows.map(([place, at]) => [table.number(kind, at), place]).filter(([value]) => value > 0).sort((a, b) => a[0] - b[0]);
}
const last = (values) => (values.length ? values[values.length - 1][0] : 0);

// Paint weights over the photograph; where cells of several levels overlap, the greatest weight is seen.
function paintHeat(canvas, stage, values, greatest, kind) {
  const context = canvas.getContext("2d"), zoom = canvas.width / scene.size[0];
  context.resetTransform();
  const layer = new OffscreenCanvas(canvas.width, canvas.height), pen = layer.getContext("2d");
  context.filter = "grayscale(1) brightness(.62)";
  context.drawImage(scene.picture, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  for (const [value, place] of values) {
    const part = share(value, greatest);
    if (part <= 0.004) continue;
    const [x1, y1, x2, y2] = stage.places.box("cell", place).map((v) => Math.round(v * zoom));
    if (stage.queries) {
      paintQuery(pen, stage, place, part, kind, zoom, pixel(context) * zoom);
    } else if (stage.regions) {
      pen.globalAlpha = Math.max(0.25, Math.min(1, 30 / values.length)); // many boxes would hide the photograph
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

// A query is a dot at its reference; of those that are taught an object also the predicted box and a line to its middle.
function paintQuery(pen, stage, place, part, kind, zoom, thin) {
  const [x, y] = middle(stage.places.box("cell", place)).map((v) => v * zoom);
  pen.lineWidth = (1 + part) * thin;
  pen.strokeStyle = pen.fillStyle = color(part);
  if (kind !== "negative") {
    const [x1, y1, x2, y2] = stage.places.box("box", place).map((v) => v * zoom);
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
  const whole = pane.levels.size ? last(weights(stage, kind, 0)) : 0; // levels beside one another share one scale
  for (const [stride, canvas] of pane.levels) paintHeat(canvas, stage, weights(stage, kind, stride), whole, kind);
  pane.count.textContent = counted(values.length, stage) + (unclear.length ? `, ○ ${unclear.length} ambiguous` : "");
  pane.count.title = unclear.length ? "○: the centre lies in several objects" : "";
  pane.low.textContent = !greatest ? "no weight here" : state.scale === "linear" ? "0" : digits(greatest * 10 ** -DECADES);
  pane.high.textContent = greatest ? digits(greatest) : "";
}

const noun = (stage) => (stage.queries ? "query" : stage.regions ? "region" : "place");
const nouns = (stage) => (stage.queries ? "queries" : noun(stage) + "s");
const counted = (count, stage) => `${count} ${count === 1 ? noun(stage) : nouns(stage)}`;

// Places whose centre lies in several objects: someone had to decide whom they answer to.
// Traces of a weight (of soft assignments) are left out.
const ambiguous = (stage, values) =>
  values.filter(([value]) => value > 0.02 * last(values)).map(([, place]) => place).filter((place) => stage.places.whole("within", place) > 1);

function drawRings(context, stage, places) {
  for (const place of places) ring(context, ...middle(stage.places.box("cell", place)), 3, "#fff");
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

// One pixel of the screen in pixels of the picture: lines keep their width whatever the resolution.
const pixel = (context) => scene.size[0] / Math.max(1, context.canvas.clientWidth);

// Coordinates of the picture on a canvas of any resolution.
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
    make("h3", root, method);
    const row = make("div", root, null, { class: "row" });
    for (const kind of Object.keys(KINDS)) {
      const figure = make("figure", row), caption = make("figcaption", figure, KINDS[kind]);
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
  if (!panes.size) make("p", root, "No method has such a stage.", { class: "quiet" });
}

// A small heat map of each level, which choose the level; none of regions, which have no levels.
function buildLevels(figure, stage) {
  const strip = make("div", figure, null, { class: "levels" }), found = new Map();
  if (stage.regions || stage.levels.length < 2) return found;
  const width = 96, height = Math.max(1, Math.round((width * scene.size[1]) / scene.size[0]));
  for (const { stride } of stage.levels) {
    const chosen = state.level === stride;
    const button = make("button", strip, null, { title: `level of stride ${stride}`, "aria-pressed": chosen });
    found.set(stride, make("canvas", button, null, { width, height }));
    make("span", button, `1/${stride}`); // of the image's resolution
    button.addEventListener("click", () => choose({ level: chosen ? 0 : stride }));
  }
  return found;
}

function draw() {
  for (const method of methods()) for (const kind of Object.keys(KINDS)) drawHeat(panes.get(`${method} ${kind}`), stageOf(method), kind);
  mark();
}

// ---- one place

function point(event, method, kind, canvas) {
  const stage = stageOf(method), frame = canvas.getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * scene.size[0], y = ((event.clientY - frame.top) / frame.height) * scene.size[1];
  const { table, rows } = chosenPlaces(stage), near = (14 * scene.size[0]) / frame.width;
  let best = null;
  for (const [place, at] of rows) {
    const [x1, y1, x2, y2] = stage.places.box("cell", place);
    if (stage.queries) { // the nearest dot within reach of a finger
      const away = Math.hypot(x - (x1 + x2) / 2, y - (y1 + y2) / 2);
      if (away < near && (!best || away < best.size)) best = { place, size: away };
      continue;
    }
    if (x < x1 || x >= x2 || y < y1 || y >= y2) continue;
    const value = table.number(kind, at), size = (x2 - x1) * (y2 - y1);
    if (!best || value > best.value || (value === best.value && size < best.size)) best = { place, value, size };
  }
  select(best ? { method, place: best.place } : null);
}

function select(place, row = -1) {
  state.place = place;
  state.row = row;
  mark();
}

function mark() {
  for (const [key, pane] of panes) {
    const context = inPicture(pane.marks);
    context.clearRect(0, 0, ...scene.size);
    if (!state.place || !key.startsWith(state.place.method + " ")) continue;
    const stage = stageOf(state.place.method);
    if (!stage) continue;
    const cell = stage.places.box("cell", state.place.place);
    outline(context, cell, "#7df", 1.5);
    if (stage.queries) ring(context, ...middle(cell), 6, "#7df");
    outline(context, stage.places.box("box", state.place.place), "#ffe14d", 2, [6, 4]);
  }
  describe();
  for (const line of document.querySelectorAll("#list tr.pick")) {
    const mine = state.place && line.dataset.method === state.place.method && Number(line.dataset.place) === state.place.place;
    line.setAttribute("aria-selected", String(Boolean(mine)));
  }
}

function describe() {
  const root = $("place");
  root.replaceChildren();
  const stage = state.place && stageOf(state.place.method);
  document.body.classList.toggle("told", Boolean(stage));
  if (!stage) return make("p", root, "Point at a heat map, touch it, or choose a row of the list.", { class: "quiet" });
  const close = make("button", root, "×", { class: "close", title: "close (a narrow screen shows this above the page)", "aria-label": "close" });
  close.addEventListener("click", () => select(null));
  const places = stage.places, i = state.place.place, list = make("dl", root);
  const say = (name, value) => (make("dt", list, name), make("dd", list, value));
  const level = stage.levels.find((one) => i >= one.start && i < one.start + one.places);
  const objectName = (number) => {
    const found = scene.objects.find((object) => object[0] === number);
    return number < 0 ? "none" : `#${number} ${found ? className(found[1]) : ""}`;
  };
  const box = places.box("box", i).map((value) => Math.round((value * scene.original[0]) / scene.size[0]));
  if (data.methods.length > 1) say("method", state.place.method);
  say(noun(stage), stage.regions ? i : `${i}, stride ${level.stride}`);
  say("answers to", objectName(places.whole("owner", i)));
  say("objects it lies in", places.whole("within", i));
  say("best class", /(^|\/)rpn$/.test(state.stage) ? "any object" : className(places.whole("label", i)));
  say("score of it", digits(places.number("score", i)));
  say("box nearest to", objectName(places.whole("nearest", i)));
  say("IoU with that", digits(places.number("iou", i)));
  say("box, image pixels", box.join(", "));
  const whole = { ...KINDS, negative: "w neg, all classes" };
  for (const kind of Object.keys(KINDS)) say(whole[kind], digits(places.number(kind, i)));
  if (!places.whole("weighed", i)) make("p", root, "Not sampled, or ignored: no loss sees this place.", { class: "quiet" });
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
    for (const name of ["#", stage.regions ? noun(stage) : "stride", "score", "IoU", ...Object.values(KINDS)]) make("th", head, name);
    const body = make("tbody", lines), start = stage.starts[object];
    for (let k = 0; k < stage.lists.lengths[object]; k++) {
      const at = start + k, place = stage.lists.planes.place[at] + 65536 * stage.lists.planes.high[at];
      const level = stage.levels.find((one) => place >= one.start && place < one.start + one.places);
      if (state.level && level.stride !== state.level) continue;
      const line = make("tr", body, null, { class: "pick" + (stage.lists.planes.chosen[at] ? " positive" : ""), tabindex: -1, "data-place": place, "data-method": method });
      const numbers = ["score", "iou", ...Object.keys(KINDS)].map((name) => digits(stage.lists.number(name, at)));
      for (const value of [k + 1, stage.regions ? place : level.stride, ...numbers]) make("td", line, value);
      line.addEventListener("click", () => select({ method, place }));
      line.addEventListener("pointerenter", () => select({ method, place }));
    }
    if (!body.children.length) make("p", root, "No place matters to this object here.", { class: "quiet" });
  }
}

function listObjects(root) {
  $("list-title").textContent = scene.objects.length ? "Objects and their positives" : "This image has no objects: every place is a negative";
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
  if (scene.hidden) make("p", root, `${scene.hidden} smaller objects are not listed.`, { class: "quiet" });
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
  const regions = methods().every((method) => stageOf(method).regions);
  options($("level"), [[0, regions ? "all" : "all, the greatest"], ...(regions ? [] : strides().map((stride) => [stride, `stride ${stride}`]))], state.level);
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
  if (!("place" in changes)) state.place = null;
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
  select({ method: line.dataset.method, place: Number(line.dataset.place) }, next);
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

// ---- all images in numbers

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

function card(title, stages, wide, place = $("charts")) {
  const root = make("div", place, null, { class: wide ? "chart wide" : "chart" });
  make("h3", root, title);
  if (stages && data.methods.length > 1) {
    legend(root, stages.map((stage) => [paint(stage.method), stage.method]));
  }
  return root;
}

// Lines or points over a frame with three marks an axis; series: [{color, points: [[x, y]], line}], x and y in 0..1.
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
    "positives an object": (s) => digits(s.positives_per_object), "effective": (s) => digits(s.effective_positives_per_object),
    "ambiguous positives": (s) => `${s.ambiguous} (${((100 * s.ambiguous) / Math.max(1, s.positives)).toFixed(1)} %)`,
    "positives of several objects": (s) => s.contested,
    "score–IoU correlation": (s) => (s.score_iou_correlation === null ? "-" : s.score_iou_correlation.toFixed(3)),
  };
  for (const name of Object.keys(columns)) make("th", head, name);
  for (const stage of stages) { const line = make("tr", body); for (const value of Object.values(columns)) make("td", line, value(stage)); }
}

function agreement(pairs) {
  if (data.methods.length < 2) return;
  if (!pairs.length) return make("p", card("Agreement", null, true), "No two methods predict at the same places in this stage, so their positives cannot be compared.", { class: "quiet" });
  const lines = make("table", card("Agreement", null, true)), head = make("tr", make("thead", lines)), body = make("tbody", lines);
  for (const name of ["methods", "positives shared of those of either", "the same of their weights"]) make("th", head, name);
  const percent = (value) => (value === null ? "-" : `${(100 * value).toFixed(1)} %`);
  for (const pair of pairs) { const line = make("tr", body); for (const text of [pair.methods.join(" – "), percent(pair.shared_positives), percent(pair.shared_weight)]) make("td", line, text); }
}

function statistics() {
  const stages = data.stages.filter((stage) => stage.stage === state.stage);
  $("charts").replaceChildren();
  if (!stages.length) return;
  summary(stages);
  agreement(data.agreement[state.stage] || []);
  const most = Math.max(1, ...stages.flatMap((stage) => stage.points.map((p) => p[1])));
  const sizeOf = (size) => Math.min(1, Math.log2(Math.max(size, 4) / 4) / 8), high = (count) => Math.log1p(count) / Math.log1p(most);
  plot(card("Positives of an object by its size", stages), stages.map((s) => ({ color: paint(s.method), points: s.points.map(([size, count]) => [sizeOf(size), high(count)]) })),
    [4, 16, 64, 256, 1024].map((v) => [sizeOf(v), v]), [0, 1, 3, 10, 30, 100, 300].filter((v) => v <= most).map((v) => [high(v), v]), "side of the object, pixels");
  for (const kind of Object.keys(KINDS)) {
    const edges = stages[0].log10_weight_edges, tallest = Math.max(1, ...stages.flatMap((s) => s.weights[kind]));
    const tall = (v) => Math.log1p(v) / Math.log1p(tallest);
    plot(card(`Distribution of ${KINDS[kind]} (places, zero left out)`, stages), stages.map((s) => ({ line: true, color: paint(s.method), points: s.weights[kind].map((v, i) => [i / (edges.length - 2), tall(v)]) })),
      [-9, -6, -3, 0].map((v) => [(v + 9) / 10, `1e${v}`]), [0, 10, 1000, 100000].filter((v) => v <= tallest).map((v) => [tall(v), v]), "weight");
  }
  bars(card("Share of the positive weight by size", stages), ["small", "medium", "large"], stages, (s, g) => s.by_size[g].share_of_supervision);
  bars(card("Objects without a positive by size", stages), ["small", "medium", "large"], stages, (s, g) => s.by_size[g].without_positive / Math.max(1, s.by_size[g].objects));
  const classes = Object.entries(stages[0].by_class).sort((a, b) => b[1].share_of_supervision - a[1].share_of_supervision).slice(0, 12).map(([name]) => name);
  if (classes.length) bars(card("Share of the positive weight by class", stages), classes, stages, (s, g) => (s.by_class[g] || {}).share_of_supervision);
  const tenths = [...Array(10).keys()].map((i) => `${i / 10}–${(i + 1) / 10}`);
  const total = (s) => Math.max(1e-30, s.negatives_by_iou.weight.reduce((a, b) => a + b, 0));
  bars(card(methods().some((name) => stageOf(name).regions) ? "Share of the negatives' weight by IoU of their region or reference" : "Share of the negatives' weight by IoU of their box", stages), tenths, stages, (s, g) => s.negatives_by_iou.weight[tenths.indexOf(g)] / total(s));
}

// ---- start

async function start() {
  $("title").textContent = data.title;
  for (const note of data.notes) make("li", $("notes"), note);
  options($("image"), [...Array(data.images).keys()].map((i) => [i, `${i + 1}. ${data.pictures[i]}`]), 0);
  listen();
  await choose({});
  statistics();
  encoders();
  $("stage").addEventListener("change", statistics);
}
