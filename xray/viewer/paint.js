// Numbers → pixels.

const HEAT = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
const BOTH = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]];

// A share from 0 to 1 → a colour of the palette.
function colourAt(palette, share) {
  const at = Math.min(Math.max(share, 0), 1) * (palette.length - 1);
  const i = Math.min(Math.floor(at), palette.length - 2), part = at - i;
  return palette[i].map((value, c) => value + part * (palette[i + 1][c] - value));
}

// A map as an image: from its least to its most, or, where both signs count, around zero.
function imageOf(map, signed = false) {
  const made = new ImageData(map.columns, map.rows);
  let low = Math.min(...map.values), high = Math.max(...map.values);
  if (signed) {
    high = Math.max(high, -low) || 1;
    low = -high;
  }
  const span = high - low || 1;
  map.values.forEach((value, i) => {
    made.data.set([...colourAt(signed ? BOTH : HEAT, (value - low) / span), 255], 4 * i);
  });
  return made;
}

function asCanvas(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Over the whole of a canvas; smooth only where the source is finer than a latent.
function fill(canvas, source, smooth, alpha = 1) {
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = smooth;
  pen.globalAlpha = alpha;
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  pen.globalAlpha = 1;
}

function element(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "line", "text", "title"].includes(name);
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
