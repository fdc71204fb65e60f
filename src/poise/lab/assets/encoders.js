// ---- encoder and queries of DETRs: maps and places of the image chosen, curves and conflict over all images

const QUERY_COLORS = { negative: "#8b97a6", positive: "#0b8fd6" };
const LENT_COLORS = ["#e2711d", "#3a9b4b", "#b04ac4", "#c9a100"];
const encoderNames = () => Object.keys(data.encoders).filter((name) => !state.method || name === state.method);

async function drawEncoders() {
  const root = $("encoder-panels"), names = encoderNames().filter((name) => scene.encoders[name]), shown = scene;
  $("encoders").hidden = !Object.keys(data.encoders).length;
  root.replaceChildren();
  for (const name of names) {
    if (names.length > 1 || data.methods.length > 1) make("h3", root, name);
    const pair = make("div", root, null, { class: "pair" }), found = scene.encoders[name];
    const map = encoderPane(pair, "strength of the encoder's features", `strength of the features of ${name}`);
    const places = encoderPane(pair, "queries before the first decoder layer", `queries of ${name}`);
    paintPhotograph(places, true);
    paintPlaces(places, found.places);
    legendOfPlaces(places.canvas.parentElement.parentElement, found.places);
    const strip = map.canvas.parentElement.parentElement;
    make("div", strip, null, { class: "legend", style: `background:linear-gradient(90deg,${COLORS.map((c) => `rgb(${c})`)})` });
    const ends = make("div", strip, null, { class: "ends" });
    for (const value of found.strength.ends) make("span", ends, String(Number(value.toPrecision(5))));
    const plane = (await table(found.strength)).planes.strength;
    if (scene !== shown) return;
    paintStrength(map, found.strength.size, plane);
  }
}

function encoderPane(parent, caption, label) {
  const figure = make("figure", parent), frame = (make("figcaption", figure, caption), make("div", figure, null, { class: "pane" }));
  const [width, height] = scene.size.map((side) => side * Math.max(1, Math.round(800 / scene.size[0])));
  return inPicture(make("canvas", frame, null, { width, height, role: "img", "aria-label": label }));
}

function paintPhotograph(context, dim) {
  context.filter = dim ? "grayscale(1) brightness(.62)" : "none";
  context.drawImage(scene.picture, 0, 0, ...scene.size);
  context.filter = "none";
}

// The map's colours over the grey photograph.
function paintStrength(context, [width, height], plane) {
  const small = new OffscreenCanvas(width, height), pen = small.getContext("2d"), picture = pen.createImageData(width, height);
  plane.forEach((value, i) => {
    const position = Math.min(value / 255, 0.9999) * (COLORS.length - 1), k = Math.floor(position);
    const rgb = COLORS[k].map((start, c) => start + (position - k) * (COLORS[k + 1][c] - start));
    picture.data.set([...rgb, 205], 4 * i);
  });
  pen.putImageData(picture, 0, 0);
  paintPhotograph(context, true);
  context.drawImage(small, 0, 0, ...scene.size);
  drawObjects(context);
}

function paintPlaces(context, places) {
  const thin = pixel(context), [width, height] = scene.size;
  drawObjects(context);
  const dots = (rows, paint, radius) => {
    for (const [x, y, object] of rows) {
      if (state.object >= 0 && object >= 0 && object !== state.object) continue;
      context.beginPath();
      context.arc(x * width, y * height, radius * thin, 0, 7);
      context.fillStyle = paint;
      context.fill();
      if (radius < 3) continue;
      context.lineWidth = thin;
      context.strokeStyle = "#fff";
      context.stroke();
    }
  };
  dots(places.negative, QUERY_COLORS.negative, 2);
  Object.values(places.lent).forEach((rows, i) => dots(rows, LENT_COLORS[i % LENT_COLORS.length], 3));
  dots(places.positive, QUERY_COLORS.positive, 5);
}

function legendOfPlaces(figure, places) {
  const lent = Object.entries(places.lent).map(([head, rows], i) => [LENT_COLORS[i % LENT_COLORS.length], `lent by ${head} (${rows.length})`]);
  legend(figure, [[QUERY_COLORS.positive, `matched (${places.positive.length})`], [QUERY_COLORS.negative, `others (${places.negative.length})`], ...lent]);
}

function encoders() {
  const found = Object.entries(data.encoders), root = $("encoder-charts");
  root.replaceChildren();
  if (!found.length) return;
  const methods = found.map(([method]) => ({ method }));
  separationCurves(found, methods, root);
  separationTable(found, root);
  for (const [method, { conflict }] of found) if (conflict) conflictTable(method, conflict, root);
  distanceTable(found, root);
}

// IoF falls with the threshold, IoB rises: the further both stay up, the better objects stand out from background.
function separationCurves(found, methods, root) {
  const known = found.filter(([, one]) => one.separation.curves);
  if (!known.length) return;
  const lines = (kind, dash) => known.map(([method, { separation }]) => ({
    line: true, dash, color: paint(method), points: separation.curves.pooled[kind].map((v, i) => [separation.thresholds[i], v]) }));
  const tenths = [0, 0.25, 0.5, 0.75, 1].map((v) => [v, String(v)]);
  const [low, high] = moving(known.map(([, one]) => one.separation)), at = (v) => Math.min(1, Math.max(0, (v - low) / (high - low)));
  const frame = card("IoF (full line) and IoB (broken) over the threshold", methods, false, root);
  const zoomed = [...lines("iof"), ...lines("iob", "4 3")].map((one) => ({ ...one, points: one.points.filter(([v]) => v >= low && v <= high).map(([v, share]) => [at(v), share]) }));
  plot(frame, zoomed, [0, 0.5, 1].map((v) => [v, String(Number((low + v * (high - low)).toFixed(3)))]), tenths, "threshold on the strength of the features");
  const both = card("IoF over IoB", methods, false, root);
  plot(both, known.map(([method, { separation }]) => ({
    line: true, color: paint(method), points: separation.curves.pooled.iob.map((v, i) => [v, separation.curves.pooled.iof[i]]) })), tenths, tenths, "IoB: share of the background below the threshold");
}

// The thresholds between which a curve moves.
function moving(separations) {
  const still = (s, i) => s.curves.pooled.iof[i] > 0.999 && s.curves.pooled.iob[i] < 0.001;
  const steps = separations[0].thresholds, first = steps.findIndex((_, i) => separations.some((s) => !still(s, i)));
  return [steps[Math.max(0, first - 1)], 1];
}

function rows(root, heads, lines) {
  const body = make("table", make("div", root, null, { class: "scroll" })), head = make("tr", make("thead", body)), rest = make("tbody", body);
  for (const name of heads) make("th", head, name, { class: "long" });
  for (const line of lines) { const tr = make("tr", rest); for (const text of line) make("td", tr, text); }
}
const short = (value) => (value === null || value === undefined ? "-" : digits(value));

function separationTable(found, root) {
  const frame = card("Objects against background", null, false, root);
  rows(frame, ["method", "inside", "outside", "contrast"], found.map(([method, { separation: s }]) => [method, short(s.inside), short(s.outside), short(s.contrast)]));
  make("p", frame, "Mean strength inside objects' boxes and outside; contrast: how often a pixel of an object is stronger than one of the background (0.5: by chance).", { class: "quiet" });
}

function conflictTable(method, conflict, root) {
  const frame = card(`Conflict of heads: ${method}`, null, false, root);
  const most = Math.max(1e-9, ...conflict.matrix.flat().filter((value) => value !== null));
  const body = make("table", make("div", frame, null, { class: "scroll" })), head = make("tr", make("thead", body)), rest = make("tbody", body);
  for (const name of ["head", ...conflict.heads, "distance"]) make("th", head, name, { class: "long" });
  conflict.heads.forEach((name, i) => {
    const line = make("tr", rest);
    make("td", line, name);
    conflict.matrix[i].forEach((value) => make("td", line, short(value), { class: "cell", style: `background:color-mix(in srgb, var(--mark) ${Math.round((55 * (value || 0)) / most)}%, transparent)` }));
    make("td", line, short(conflict.distance[name]));
  });
  make("p", frame, "KL divergence of the row's activation map from the column's over the shared features; distance: the mean to and from the others.", { class: "quiet" });
}

function distanceTable(found, root) {
  const lines = found.flatMap(([method, { distances }]) => Object.entries(distances.distance).map(([head, d]) =>
    [data.methods.length > 1 ? `${method}: ${head}` : head, short(d.to_positive.same_object), short(d.to_positive.nearest), short(d.to_negative.nearest)]));
  if (!lines.length) return;
  const frame = card("Lent queries to the decoder's own", null, false, root);
  rows(frame, ["lent by", "matched, same object", "nearest matched", "nearest other"], lines);
  make("p", frame, "Mean distances of query centres; 1 is the image's diagonal.", { class: "quiet" });
}
