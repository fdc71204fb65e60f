// ---- encoder and queries of DETRs: score map and queries of the selected image, curves and conflict over all images

const QUERY_COLORS = { negative: "#8b97a6", positive: "#0b8fd6" };
const AUXILIARY_COLORS = ["#e2711d", "#3a9b4b", "#b04ac4", "#c9a100"];
const encoderNames = () => Object.keys(data.encoders).filter((name) => !state.method || name === state.method);

async function drawEncoders() {
  const root = $("encoder-panels"), names = encoderNames().filter((name) => scene.encoders[name]), shown = scene;
  $("encoders").hidden = !Object.keys(data.encoders).length;
  root.replaceChildren();
  for (const name of names) {
    if (names.length > 1 || data.methods.length > 1) make("h3", root, name);
    const pair = make("div", root, null, { class: "pair" }), found = scene.encoders[name];
    const map = encoderPane(pair, "discriminability of the encoder's features", `discriminability of the features of ${name}`);
    const queries = encoderPane(pair, "references of the queries before the first decoder layer", `queries of ${name}`);
    paintImage(queries, true);
    paintQueries(queries, found.queries);
    queryLegend(queries.canvas.parentElement.parentElement, found.queries);
    const strip = map.canvas.parentElement.parentElement;
    make("div", strip, null, { class: "legend", style: `background:linear-gradient(90deg,${COLORS.map((c) => `rgb(${c})`)})` });
    const ends = make("div", strip, null, { class: "ends" });
    for (const value of found.score_map.range) make("span", ends, String(Number(value.toPrecision(5))));
    const scores = (await table(found.score_map)).columns.score;
    if (scene !== shown) return;
    paintScores(map, found.score_map.size, scores);
  }
}

function encoderPane(parent, caption, label) {
  const figure = make("figure", parent), frame = (make("figcaption", figure, caption), make("div", figure, null, { class: "pane" }));
  const [width, height] = scene.size.map((side) => side * Math.max(1, Math.round(800 / scene.size[0])));
  return inPicture(make("canvas", frame, null, { width, height, role: "img", "aria-label": label }));
}

function paintImage(context, dim) {
  context.filter = dim ? "grayscale(1) brightness(.62)" : "none";
  context.drawImage(scene.picture, 0, 0, ...scene.size);
  context.filter = "none";
}

// The colors of the map over the gray image.
function paintScores(context, [width, height], scores) {
  const small = new OffscreenCanvas(width, height), pen = small.getContext("2d"), picture = pen.createImageData(width, height);
  scores.forEach((value, i) => {
    const position = Math.min(value / 255, 0.9999) * (COLORS.length - 1), k = Math.floor(position);
    const rgb = COLORS[k].map((start, c) => start + (position - k) * (COLORS[k + 1][c] - start));
    picture.data.set([...rgb, 205], 4 * i);
  });
  pen.putImageData(picture, 0, 0);
  paintImage(context, true);
  context.drawImage(small, 0, 0, ...scene.size);
  drawObjects(context);
}

function paintQueries(context, queries) {
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
  dots(queries.negative, QUERY_COLORS.negative, 2);
  Object.values(queries.auxiliary).forEach((rows, i) => dots(rows, AUXILIARY_COLORS[i % AUXILIARY_COLORS.length], 3));
  dots(queries.positive, QUERY_COLORS.positive, 5);
}

function queryLegend(figure, queries) {
  const lent = Object.entries(queries.auxiliary).map(([head, rows], i) => [AUXILIARY_COLORS[i % AUXILIARY_COLORS.length], `auxiliary, ${head} (${rows.length})`]);
  legend(figure, [[QUERY_COLORS.positive, `positive (${queries.positive.length})`], [QUERY_COLORS.negative, `negative (${queries.negative.length})`], ...lent]);
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

// IoF decreases with the threshold and IoB increases; better features keep both high.
function separationCurves(found, methods, root) {
  const known = found.filter(([, one]) => one.separation.curves);
  if (!known.length) return;
  const lines = (kind, dash) => known.map(([method, { separation }]) => ({
    line: true, dash, color: paint(method), points: separation.curves.pooled[kind].map((v, i) => [separation.thresholds[i], v]) }));
  const tenths = [0, 0.25, 0.5, 0.75, 1].map((v) => [v, String(v)]);
  const [low, high] = changingRange(known.map(([, one]) => one.separation)), at = (v) => Math.min(1, Math.max(0, (v - low) / (high - low)));
  const frame = card("IoF (solid) and IoB (dashed) over the threshold", methods, false, root);
  const zoomed = [...lines("iof"), ...lines("iob", "4 3")].map((one) => ({ ...one, points: one.points.filter(([v]) => v >= low && v <= high).map(([v, share]) => [at(v), share]) }));
  plot(frame, zoomed, [0, 0.5, 1].map((v) => [v, String(Number((low + v * (high - low)).toFixed(3)))]), tenths, "threshold on the discriminability score");
  const both = card("IoF over IoB", methods, false, root);
  plot(both, known.map(([method, { separation }]) => ({
    line: true, color: paint(method), points: separation.curves.pooled.iob.map((v, i) => [v, separation.curves.pooled.iof[i]]) })), tenths, tenths, "IoB: fraction of the background below the threshold");
}

// The range of thresholds over which a curve changes.
function changingRange(separations) {
  const constant = (s, i) => s.curves.pooled.iof[i] > 0.999 && s.curves.pooled.iob[i] < 0.001;
  const steps = separations[0].thresholds, first = steps.findIndex((_, i) => separations.some((s) => !constant(s, i)));
  return [steps[Math.max(0, first - 1)], 1];
}

function rows(root, heads, lines) {
  const body = make("table", make("div", root, null, { class: "scroll" })), head = make("tr", make("thead", body)), rest = make("tbody", body);
  for (const name of heads) make("th", head, name, { class: "long" });
  for (const line of lines) { const tr = make("tr", rest); for (const text of line) make("td", tr, text); }
}
const short = (value) => (value === null || value === undefined ? "-" : digits(value));

function separationTable(found, root) {
  const frame = card("Separation of objects and background", null, false, root);
  rows(frame, ["method", "inside", "outside", "contrast"], found.map(([method, { separation: s }]) => [method, short(s.inside), short(s.outside), short(s.contrast)]));
  make("p", frame, "Mean score inside and outside the boxes of objects; contrast: probability that a pixel of an object has a higher score than one of the background (0.5: chance).", { class: "quiet" });
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
  make("p", frame, "KL(row || column) of the class activation maps on the shared features; distance: mean over both directions and the other heads.", { class: "quiet" });
}

function distanceTable(found, root) {
  const lines = found.flatMap(([method, { distances }]) => Object.entries(distances.distance).map(([head, d]) =>
    [data.methods.length > 1 ? `${method}: ${head}` : head, short(d.to_positive.same_object), short(d.to_positive.nearest), short(d.to_negative.nearest)]));
  if (!lines.length) return;
  const frame = card("Distance of auxiliary queries to the decoder's queries", null, false, root);
  rows(frame, ["head", "positive, same object", "nearest positive", "nearest negative"], lines);
  make("p", frame, "Mean distances of query centers; 1 is the diagonal of the image.", { class: "quiet" });
}
