// Puts the page of a film together.

function makeSelects(film) {
  const option = (value, label) => element("option", { value }, label);
  byId("layer").append(option("all", "all"), ...(film.layers ?? []).map((layer) =>
    option(layer.address, layer.address.replace(/^unet\.|\.transformer_blocks\.\d+\.attn2\.probs$/g, ""))));
  byId("layer").addEventListener("change", (event) => set({ layer: event.target.value, head: "mean" }));
  byId("head").addEventListener("change", (event) => set({ head: event.target.value === "mean" ? "mean" : Number(event.target.value) }));
  painters.push((seen) => {
    byId("layer").value = seen.layer;
    const heads = film.layers?.find((layer) => layer.address === seen.layer)?.heads ?? 1;
    const wanted = ["mean", ...(heads > 1 ? range(heads).map(String) : [])];
    if (byId("head").options.length !== wanted.length) {
      byId("head").replaceChildren(...wanted.map((name) => option(name, name)));
    }
    byId("head").value = String(seen.head);
    byId("head").disabled = byId("half").disabled = seen.layer === "all";
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
  makeOver();
  byId("choices").hidden = false;
  makeTime(film);
  [makePixel, makeTruth, makeHeads, makeModel, makeCurves, makeHands, makeSheet].forEach((make) => make(film));
  painters.push((seen) => stages.forEach((stage) => stage.paint(stage, seen)));
  addEventListener("hashchange", () => { Object.assign(state, readAddress(film)); draw(); });
  draw();
  window.viewer = { film, state, set, openSecond, shownMap: () => shownMap(film, state) };
  document.body.dataset.ready = "yes"; // for who waits for it
}

main();
