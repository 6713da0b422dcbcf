// What can be carried away: Python, a picture, numbers.

// The lines that read, from the film itself, what is shown.
function pythonOf(film, seen) {
  const lines = ["import xray", "", 'film = xray.Film.open("…")  # the folder of this film'];
  const step = film.steps[clampStep(film, seen.step)].index;
  if (!film.tokens || seen.token === null) {
    lines.push(`${seen.show === "x" ? "x" : "x0"} = film[${step}]["${seen.show === "x" ? "x" : "x0"}"][0]  # (h, w, channels)`);
    return lines.join("\n");
  }
  const places = film.tokens[seen.token].places;
  const token = places.length > 1 ? `${places[0]}:` : `${places[0]}`;
  const sum = places.length > 1 ? ".sum(-1)" : "";
  if (seen.layer === "all") {
    lines[0] = "import xray\nfrom xray.attention import maps";
    lines.push(`shots = ${seen.span === "all" ? "film" : `[film[${step}]]`}`);
    lines.push(`map = maps(shots, tokens=[[${places.length > 1 ? `*range(${places[0]}, 77)` : places[0]}]])[0]  # before it is held against the start token's`);
    return lines.join("\n");
  }
  const half = seen.half === "uncond" ? 0 : -1;
  const layer = film.layers.find((one) => one.address === seen.layer);
  const frame = seen.span === "all" ? `film["${seen.layer}"].mean(0)` : `film[${step}]["${seen.layer}"]`;
  lines.push(`probs = ${frame}  # (half, head, positions, 77), or without heads if they were averaged`);
  const head = seen.head === "mean" || layer.heads === 1 ? "" : `, ${seen.head}`;
  const mean = head ? "" : ".reshape(-1, *probs.shape[-2:]).mean(0)";
  lines.push(head ? `map = probs[${half}${head}, :, ${token}]${sum}.reshape(${layer.grid.join(", ")})`
    : `map = probs[${half}]${mean}[:, ${token}]${sum}.reshape(${layer.grid.join(", ")})`);
  if (seen.half === "difference") lines.push("# less the same of probs[0], the half without the prompt");
  return lines.join("\n");
}

// The numbers that are shown, as a .npy file: float32, (rows, columns).
function npyOf(map) {
  const head = `{'descr': '<f4', 'fortran_order': False, 'shape': (${map.rows}, ${map.columns}), }`;
  const padded = head.padEnd(Math.ceil((10 + head.length + 1) / 64) * 64 - 11) + "\n";
  const bytes = new Uint8Array(10 + padded.length + 4 * map.values.length);
  bytes.set([0x93, ...[..."NUMPY"].map((c) => c.charCodeAt(0)), 1, 0, padded.length & 255, padded.length >> 8]);
  bytes.set(new TextEncoder().encode(padded), 10);
  const numbers = new DataView(bytes.buffer, 10 + padded.length);
  map.values.forEach((value, i) => numbers.setFloat32(4 * i, value, true));
  return bytes;
}

function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function tell(text) {
  byId("said").textContent = text;
}

function makeHands(film) {
  const shown = () => shownMap(film, state) ?? { ...difference(film, zeroed(film), state.show === "x" ? "x" : "x0", state.step) };
  byId("python").addEventListener("click", async () => {
    byId("code").focus();
    await navigator.clipboard?.writeText(byId("code").textContent).then(() => tell("copied"), () => tell("the lines stand below"));
  });
  byId("png").addEventListener("click", () => stages[shownMap(film, state) ? 1 : 0].canvas.toBlob((blob) => save(blob, "map.png")));
  byId("npy").addEventListener("click", () => save(new Blob([npyOf(shown())]), "map.npy"));
  byId("second").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", async (event) => openSecond(await event.target.files[0].text()));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files.length) await openSecond(await event.dataTransfer.files[0].text());
  });
  painters.push((seen) => { byId("code").textContent = pythonOf(film, seen); });
}

// A film of nothing, so that the distance to it is the size of what is there.
function zeroed(film) {
  const nothing = (array) => ({ ...array, low: array.low.map(() => 0), high: array.high.map(() => 0) });
  return { ...film, arrays: { x: nothing(film.arrays.x), x0: nothing(film.arrays.x0) } };
}
