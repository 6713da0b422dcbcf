// Puts the page together.

const stages = [];

async function prepared(film) {
  if (film.picture) {
    film.image = new Image();
    film.image.src = film.picture;
    await film.image.decode();
  }
  return film;
}

function makeChoice(id, options) {
  for (const [value, label] of Object.entries(options)) {
    const input = element("input", { type: "radio", name: id, value });
    input.addEventListener("change", () => set({ [id]: value }));
    byId(id).append(element("label", {}, input, ` ${label}`));
  }
  painters.push((seen) => byId(id).querySelectorAll("input").forEach((input) => { input.checked = input.value === seen[id]; }));
}

function makeSelects(film) {
  const option = (value, label) => element("option", { value }, label);
  byId("layer").append(option("all", "all"), ...(film.layers ?? []).map((layer) =>
    option(layer.address, layer.address.replace(/^unet\.|\.transformer_blocks\.\d+\.attn2\.probs$/g, ""))));
  byId("layer").addEventListener("change", (event) => set({ layer: event.target.value, head: "mean" }));
  byId("head").addEventListener("change", (event) => set({ head: event.target.value === "mean" ? "mean" : Number(event.target.value) }));
  byId("over").addEventListener("change", (event) => set({ over: event.target.checked }));
  painters.push((seen) => {
    byId("layer").value = seen.layer;
    const heads = film.layers?.find((layer) => layer.address === seen.layer)?.heads ?? 1;
    const wanted = ["mean", ...(heads > 1 ? range(heads).map(String) : [])];
    if (byId("head").options.length !== wanted.length) {
      byId("head").replaceChildren(...wanted.map((name) => option(name, name)));
    }
    byId("head").value = String(seen.head);
    byId("head").disabled = byId("half").disabled = seen.layer === "all";
    byId("over").checked = seen.over;
  });
}

function makeTime(film) {
  const slider = byId("step"), last = film.steps.length - 1;
  let timer = null;
  const play = () => {
    if (timer === null) {
      const start = state.step >= last ? 0 : state.step;
      set({ step: start, show: state.show === "picture" ? "x0" : state.show });
      timer = setInterval(() => (state.step < last ? set({ step: state.step + 1 }) : play()), 160);
    } else {
      clearInterval(timer);
      timer = null;
    }
    byId("play").textContent = timer === null ? "▶" : "❚❚";
    byId("play").setAttribute("aria-label", timer === null ? "play" : "pause");
  };
  slider.max = last;
  slider.addEventListener("input", () => set({ step: Number(slider.value), ...(state.show === "picture" ? { show: "x0" } : {}), span: "now" }));
  byId("play").addEventListener("click", play);
  addEventListener("keydown", (event) => {
    const writes = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target !== slider;
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (turn && !writes) {
      event.preventDefault();
      const step = Math.min(Math.max(state.step + turn, 0), last);
      set({ step, ...(state.show === "picture" ? { show: "x0" } : {}), span: "now" });
    } else if (event.key === " " && !writes && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      play();
    } else if (event.key === "Escape") {
      set({ token: null, other: null, place: null });
    }
  });
  painters.push((seen) => {
    const { index, t } = film.steps[clampStep(film, seen.step)];
    slider.value = seen.step;
    slider.setAttribute("aria-valuetext", `step ${index}, timestep ${t}`);
    byId("told").textContent = `step ${index} of ${film.facts.steps ?? film.steps.length}, t = ${t}`;
  });
}

function makeSheet(film) {
  addEventListener("beforeprint", () => byId("sheet").replaceChildren(...film.steps.map(({ index }, step) => {
    const canvas = element("canvas", { width: 128, height: 128 });
    fill(canvas, asCanvas(coloursOf(film, "x0", step)), false);
    return element("figure", {}, canvas, element("figcaption", {}, `x̂0, step ${index}`));
  })));
}

async function main() {
  const film = await prepared(await readFilm(document));
  films = [film];
  const { prompt, negative, seed, steps, guidance, eta, weights, precision, backend } = film.facts;
  document.title = prompt || "A film of a run";
  byId("prompt").textContent = prompt || "(no prompt)";
  byId("facts").textContent = [negative && `without: ${negative}`, `seed ${seed}`, `${steps} steps`, `guidance ${guidance}`,
    eta ? `η ${eta}` : "", film.saved?.length ? `not in this page: ${film.saved.join(", ")}` : "", weights, `${precision} on ${backend}`].filter(Boolean).join(" · ");
  Object.assign(state, { step: film.steps.length - 1, show: film.image ? "picture" : "x0",
    token: film.tokens ? firstWord(film) : null });
  Object.assign(state, readAddress(film));
  stages.push(...stagesOf(film, "the film"));
  makeTokens(film);
  makeChoice("show", film.image ? SHOWS : { x: SHOWS.x, x0: SHOWS.x0 });
  makeChoice("span", SPANS);
  makeChoice("half", HALVES);
  makeSelects(film);
  byId("choices").hidden = false;
  makeTime(film);
  [makePixel, makeTruth, makeHeads, makeModel, makeCurves, makeHands, makeSheet].forEach((make) => make(film));
  painters.push((seen) => stages.forEach((stage) => stage.paint(stage, seen)));
  addEventListener("hashchange", () => { Object.assign(state, readAddress(film)); draw(); });
  draw();
  window.viewer = { film, state, set, openSecond, shownMap: () => shownMap(film, state) };
  document.body.dataset.ready = "yes"; // for who waits for it
}

// A word that is most likely a thing: the longest of the first few.
function firstWord(film) {
  const words = range(film.tokens.length).filter((i) => !film.tokens[i].special);
  return words.slice(0, 3).sort((a, b) => film.tokens[b].text.length - film.tokens[a].text.length)[0] ?? 0;
}

main();
