// The stages: the picture or a latent of each film, with the map over it; and where two films differ.

const SIDE = 512;
const stages = []; // each with its canvas, what is said below it, and how it is painted

async function prepared(film) {
  if (film.picture) {
    film.image = new Image();
    film.image.src = film.picture;
    await film.image.decode();
  }
  return film;
}

// The map that is shown: a token's, or, of two that are pinned, the first less the second.
function shownMap(film, seen) {
  const map = mapOf(film, seen);
  const second = seen.other === null ? null : mapOf(film, seen, seen.other);
  if (!map || !second) return map && { ...map, signed: seen.layer !== "all" && seen.half === "difference" };
  return { ...map, signed: true, values: map.values.map((value, i) => value - second.values[i]) };
}

function baseOf(film, seen) {
  if (seen.show === "picture" && film.image) return [film.image, true];
  const name = seen.show === "x" ? "x" : "x0";
  return [asCanvas(coloursOf(film, name, seen.show === "picture" ? film.steps.length - 1 : seen.step)), false];
}

function stageOf(label) {
  const canvas = element("canvas", { width: SIDE, height: SIDE, tabindex: 0, "aria-label": label });
  const said = element("figcaption");
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width]
      .map((share) => Number(Math.min(Math.max(share, 0), 0.9999).toFixed(4))); // as an address has it
  };
  canvas.addEventListener("pointermove", (event) => look({ place: place(event) }));
  canvas.addEventListener("pointerleave", () => look({}));
  canvas.addEventListener("click", (event) => set({ place: place(event) }));
  const figure = element("figure", {}, canvas, said);
  byId("stages").append(figure);
  return { figure, canvas, said };
}

// A film as it is, and, where the map of a token is shown, once more in grey under the map.
function stagesOf(film, label) {
  const plain = { ...stageOf(label), paint: (stage, seen) => paintPlain(stage, film, seen) };
  if (!film.tokens) return [plain];
  return [plain, { ...stageOf(`${label}, with the map`), paint: (stage, seen) => paintMap(stage, film, seen) }];
}

function paintPlain({ canvas, said }, film, seen) {
  const step = film.steps[clampStep(film, seen.step)];
  fill(canvas, ...baseOf(film, seen));
  if (seen.place) cross(canvas, seen.place);
  said.textContent = (seen.show === "picture" && film.image ? SHOWS.picture
    : `${SHOWS[seen.show === "x" ? "x" : "x0"]}, step ${step.index}`) + whose(film);
}

const whose = (film) => (film === films[0] ? "" : " of the second film");

function paintMap({ figure, canvas, said }, film, seen) {
  const map = shownMap(film, seen), pen = canvas.getContext("2d");
  figure.hidden = !map;
  if (!map) return;
  pen.filter = "grayscale(1)";
  if (seen.over) fill(canvas, ...baseOf(film, seen));
  pen.filter = "none";
  fill(canvas, asCanvas(imageOf(map, map.signed)), seen.over, seen.over ? 0.6 : 1);
  if (seen.over) outline(canvas, film, seen);
  if (seen.place) cross(canvas, seen.place);
  said.textContent = captionOf(film, seen, map);
}

function captionOf(film, seen, map) {
  const step = film.steps[clampStep(film, seen.step)];
  const token = film.tokens[seen.token].text;
  const name = seen.other === null ? `“${token}”` : `“${token}” less “${film.tokens[seen.other].text}”`;
  const layer = seen.layer === "all" ? "all layers" : seen.layer.replace(/^unet\.|\.transformer.*$/g, "");
  const head = seen.layer === "all" || seen.head === "mean" ? "" : `, head ${seen.head}`;
  const when = seen.span === "all" ? "all steps" : `step ${step.index}`;
  const low = Math.min(...map.values), high = Math.max(...map.values);
  return `the map of ${name}${whose(film)}: ${layer}${head}, ${when}, from ${low.toPrecision(3)} to ${high.toPrecision(3)}`;
}

// The edge of the exact mask, where it is known.
function outline(canvas, film, seen) {
  const known = film.known?.find((one) => one.token === seen.token);
  if (!known) return;
  const pen = canvas.getContext("2d"), rows = known.rows;
  const size = [canvas.height / rows.length, canvas.width / rows[0].length];
  const at = (row, column) => rows[row]?.[column] === "1";
  pen.strokeStyle = "#fff";
  pen.lineWidth = 2;
  pen.beginPath();
  rows.forEach((line, row) => [...line].forEach((cell, column) => {
    if (cell !== "1") return;
    const [y, x] = [row * size[0], column * size[1]];
    const edge = (there, ...ends) => { if (!there) { pen.moveTo(ends[0], ends[1]); pen.lineTo(ends[2], ends[3]); } };
    edge(at(row - 1, column), x, y, x + size[1], y);
    edge(at(row + 1, column), x, y + size[0], x + size[1], y + size[0]);
    edge(at(row, column - 1), x, y, x, y + size[0]);
    edge(at(row, column + 1), x + size[1], y, x + size[1], y + size[0]);
  }));
  pen.stroke();
}

function cross(canvas, [row, column]) {
  const pen = canvas.getContext("2d"), [y, x] = [row * canvas.height, column * canvas.width];
  pen.lineWidth = 1.5;
  for (const [colour, shift] of [["#000", 1], ["#fff", 0]]) {
    pen.strokeStyle = colour;
    pen.beginPath();
    pen.moveTo(x - 9 + shift, y + shift); pen.lineTo(x + 9 + shift, y + shift);
    pen.moveTo(x + shift, y - 9 + shift); pen.lineTo(x + shift, y + 9 + shift);
    pen.stroke();
  }
}
