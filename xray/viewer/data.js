// The film as the page holds it: names, numbers, and arrays of whole numbers with their ranges.

const WIDTHS = { 1: Uint8Array, 2: Uint16Array };

async function readFilm(page, kind = "film") {
  const film = JSON.parse(page.getElementById(kind).textContent);
  for (const [name, array] of Object.entries(film.arrays)) {
    const bytes = await inflate(page.getElementById(`array-${name}`).textContent);
    array.values = new WIDTHS[array.bytes](bytes.buffer);
    array.most = 256 ** array.bytes - 1;
  }
  return film;
}

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// One map of an array: the part at these indices, in the film's own numbers.
function partOf(array, ...index) {
  let row = 0;
  index.forEach((i, axis) => { row = row * array.shape[axis] + i; });
  const size = array.shape.slice(index.length).reduce((a, b) => a * b, 1);
  const low = array.low[row], span = (array.high[row] - low) / array.most;
  return Float32Array.from(array.values.subarray(row * size, (row + 1) * size),
    (value) => low + span * value);
}

function meanOf(maps) {
  const mean = new Float32Array(maps[0].length);
  for (const map of maps) map.forEach((value, i) => { mean[i] += value / maps.length; });
  return mean;
}

const range = (count) => [...Array(count).keys()];

// What a view shows of a token: {values, rows, columns}; null where the film has no such map.
function mapOf(film, view, token = view.token) {
  if (!film.tokens || token === null || token >= film.tokens.length) return null;
  if (view.layer === "all") {
    const array = film.arrays[view.span === "all" ? "pooled" : "now"];
    const [rows, columns] = array.shape.slice(-2);
    const index = view.span === "all" ? [token] : [clampStep(film, view.step), token];
    return { values: partOf(array, ...index), rows, columns };
  }
  const layer = film.layers.findIndex((one) => one.address === view.layer);
  if (layer < 0) return null;
  const [rows, columns] = film.layers[layer].grid;
  return { values: layerMap(film, layer, view, token), rows, columns };
}

// A layer's own attention to a token, the mean over what the view does not choose.
function layerMap(film, layer, view, token) {
  const array = film.arrays[`layer${layer}`];
  const [steps, halves, heads] = array.shape;
  const some = view.span === "all" || steps === 1 ? range(steps) : [clampStep(film, view.step)];
  const chosen = view.head === "mean" || view.head >= heads ? range(heads) : [view.head];
  const ofHalf = (half) => meanOf(some.flatMap((step) =>
    chosen.map((head) => partOf(array, step, half, head, token))));
  if (view.half !== "difference" || halves === 1) {
    return ofHalf(view.half === "uncond" ? 0 : halves - 1);
  }
  const [uncond, cond] = [ofHalf(0), ofHalf(1)];
  return cond.map((value, i) => value - uncond[i]);
}

const clampStep = (film, step) => Math.min(step, film.steps.length - 1);

// What each token gets of the attention of a place, (row, column) as shares of the picture: the
// mean over layers, or the chosen layer's; where there are only pooled maps, what these have there.
function sharesAt(film, view, place) {
  const at = (rows, columns) => Math.floor(place[0] * rows) * columns + Math.floor(place[1] * columns);
  if (!film.layers) {
    return range(film.tokens.length).map((token) => mapOf(film, view, token)).map(
      ({ values, rows, columns }) => values[at(rows, columns)]);
  }
  const layers = view.layer === "all"
    ? range(film.layers.length)
    : [film.layers.findIndex((one) => one.address === view.layer)];
  return film.tokens.map((_, token) => meanOf(layers.map((layer) => {
    return [layerMap(film, layer, view, token)[at(...film.layers[layer].grid)]];
  }))[0]);
}

// A latent in colours, by the linear map that fits this film's picture: RGBA bytes.
function coloursOf(film, name, step) {
  const array = film.arrays[name], [, channels, rows, columns] = array.shape;
  const planes = range(channels).map((c) => partOf(array, clampStep(film, step), c));
  const made = new ImageData(columns, rows);
  range(rows * columns).forEach((i) => {
    range(3).forEach((c) => {
      const value = film.colours
        ? planes.reduce((sum, plane, k) => sum + plane[i] * film.colours.matrix[k][c],
          film.colours.bias[c])
        : planes[0][i] / 3;
      made.data[4 * i + c] = 127.5 * (value + 1);
    });
    made.data[4 * i + 3] = 255;
  });
  return made;
}
