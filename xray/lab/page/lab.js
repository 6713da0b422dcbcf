"use strict";
// The lab: what is typed becomes a run, its steps come as they are computed, and its film opens below.

const byId = (id) => document.getElementById(id);
const frame = byId("film");
let model = null, changes = [], running = null, shown = null;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

async function asked(path, said) {
  const how = said === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) };
  const answer = await fetch(path, how), told = await answer.json();
  if (!answer.ok) throw new Error(told.said);
  return told;
}

// --- the prompt ----------------------------------------------------------------------------------

let typed = 0;

async function readPrompt() {
  const mine = ++typed;
  const told = await asked("/check", { prompt: byId("prompt").value });
  if (mine !== typed) return;
  const words = told.words.map((word) => element("span", word.unknown ? { class: "unknown" } : {}, `${word.text} `));
  const near = Object.entries(told.near).map(([word, some]) => `never saw “${word}”${some.length ? `; it knows ${some.join(", ")}` : ""}`);
  byId("reading").replaceChildren(...words, element("span", { class: "dim" }, near.join(" · ")));
}

// Chips of which no sentence can be made that the phantom was not taught.
function makeWorld(world) {
  const select = (options, label) => element("select", { "aria-label": label, change: write }, ...options.map((o) => element("option", { value: o }, o || "—")));
  const sizes = ["", ...world.sizes.filter(Boolean)];
  const [size, thing, side, size2, thing2, ground] = [
    select(sizes, "size"), select(world.things, "thing"), select(["", ...world.sides, "and"], "side"),
    select(sizes.filter((s) => s !== "big"), "size of the second"), select(world.things, "second thing"), select(world.colours, "background"),
  ];
  thing2.selectedIndex = 1;
  const noun = (text) => `${/^[aeiou]/.test(text) ? "an" : "a"} ${text}`;
  function write() {
    const two = side.value !== "";
    size2.hidden = thing2.hidden = !two;
    const first = noun(`${size.value} ${thing.value}`.trim()), second = noun(`${size2.value} ${thing2.value}`.trim());
    byId("prompt").value = `${first}${two ? ` ${side.value} ${second}` : ""} on a ${ground.value} background`;
    readPrompt();
  }
  const a = `an? (?:(${sizes.filter(Boolean).join("|")}) )?(.+?)`;
  const sentence = new RegExp(`^${a}(?: (${world.sides.join("|")}|and) ${a})? on a (\\w+) background$`);
  // What is typed, where it is such a sentence, shows in the chips.
  byId("prompt").addEventListener("input", () => {
    const said = sentence.exec(byId("prompt").value);
    if (!said || !world.things.includes(said[2]) || !world.colours.includes(said[6])) return;
    [[size, said[1]], [thing, said[2]], [side, said[3]], [size2, said[4]], [thing2, said[5] ?? thing2.value], [ground, said[6]]]
      .forEach(([chip, value]) => { chip.value = value ?? ""; });
    size2.hidden = thing2.hidden = !side.value;
  });
  byId("world").append(size, thing, side, size2, thing2, element("span", {}, "on"), ground);
  byId("world").hidden = false;
  write();
}

// --- a run ---------------------------------------------------------------------------------------

async function draw() {
  const number = (id) => Number(byId(id).value);
  const ask = { prompt: byId("prompt").value, negative: byId("negative").value, steps: number("steps"),
    guidance: number("guidance"), eta: number("eta"), seed: number("seed"), weights: byId("weights").value,
    changes: changes.map(({ said, ...change }) => change) };
  await send(ask);
}

async function send(ask) {
  try {
    follow((await asked("/runs", ask)).run);
  } catch (error) {
    tell(error.message);
  }
}

function follow(run) {
  running?.source.close();
  const source = new EventSource(`/runs/${run}/events`);
  running = { run, source };
  byId("live").hidden = false;
  byId("stop").disabled = false;
  tell("waiting for its turn");
  source.onmessage = ({ data }) => HEARD[JSON.parse(data).kind](JSON.parse(data));
  source.onerror = async () => {
    try {
      await asked("/films"); // it answers: the source connects again, and hears all from the first on
    } catch {
      over("the lab is closed; what was finished lies on the disk");
    }
  };
}

const HEARD = {
  begun: ({ notes, python }) => { tell(notes.join(" · ") || "begun"); byId("python").textContent = python; },
  step: ({ index, of, t, seconds, picture }) => {
    byId("preview").src = picture;
    const left = (seconds / (index + 1)) * (of - index - 1);
    tell(`step ${index + 1} of ${of}, t = ${t}${left > 2 ? `, about ${Math.round(left)} s left` : ""}`);
  },
  done: ({ film, seconds, picture, found }) => {
    byId("preview").src = picture;
    over(`done in ${seconds} s`);
    byId("found").textContent = Object.entries(found).map(([name, value]) =>
      typeof value === "boolean" ? `${name} ${value ? "as asked" : "not as asked"}` : `${value} of 255 ${name}`).join(" · ");
    byId("guessing").checked ? guessFor(film) : show(film, shown);
    listFilms();
    tour?.films.push(film);
  },
  stopped: () => { over("stopped"); listFilms(); },
  failed: ({ said }) => over(said),
};

function over(said) {
  running?.source.close();
  running = null;
  byId("stop").disabled = true;
  tell(said);
}

function tell(said) {
  byId("live").hidden = false;
  byId("progress").textContent = said;
}

// --- films ---------------------------------------------------------------------------------------

// Open a film below; where another is named, that stands beside it.
function show(film, other = null, then = () => {}) {
  frame.hidden = byId("changes").hidden = false;
  frame.onload = async () => {
    await ready();
    new ResizeObserver(fit).observe(frame.contentDocument.body);
    frame.contentWindow.addEventListener("pinned", makeActs);
    if (other && other !== film) await frame.contentWindow.viewer.openSecond(await (await fetch(`/films/${other}`)).text());
    makeActs();
    then();
    document.body.dataset.shown = film;
  };
  shown = film;
  frame.src = `/films/${film}`;
}

// As high as the film's page, whatever it shows.
function fit() {
  frame.style.height = `${frame.contentDocument.body.offsetHeight + 2}px`;
}

async function ready() {
  while (!frame.contentWindow.viewer) await new Promise((done) => setTimeout(done, 20));
}

async function listFilms() {
  const films = await asked("/films");
  byId("shelf").hidden = !films.length;
  byId("films").replaceChildren(...films.map(({ film, prompt, seed }) => element("li", {},
    element("button", { type: "button", class: "open", title: prompt, click: () => show(film) }, `seed ${seed} · ${prompt}`),
    element("button", { type: "button", title: "beside the one that is shown", click: () => shown && show(shown, film) }, "beside"),
    element("a", { href: `/films/${film}`, download: `${film}.html` }, "save"))));
}

// --- changes -------------------------------------------------------------------------------------

function add(change, said) {
  changes.push({ ...change, said });
  listChanges();
}

function listChanges() {
  byId("list").replaceChildren(...changes.map((change, i) => element("li", {}, `${change.said} `,
    element("button", { type: "button", "aria-label": `without: ${change.said}`, click: () => { changes.splice(i, 1); listChanges(); } }, "×"))));
}

// What can be done to what is pinned.
function makeActs() {
  const { film, state } = frame.contentWindow.viewer;
  const acts = [], button = (label, act) => acts.push(element("button", { type: "button", click: act }, label));
  const token = film.tokens && state.token !== null ? film.tokens[state.token] : null;
  if (token) {
    const weight = element("input", { type: "number", step: "0.5", value: "2", "aria-label": "weight" });
    button(`silence “${token.text}”`, () => add({ kind: "weigh", tokens: token.places, factor: 0 }, `“${token.text}” silenced`));
    button(`weigh “${token.text}” by`, () => add({ kind: "weigh", tokens: token.places, factor: Number(weight.value) }, `“${token.text}” × ${weight.value}`));
    acts.push(weight);
    if (!token.special) {
      const word = element("input", { placeholder: "another word", "aria-label": "another word" });
      button(`go from “${token.text}” to`, () => add({ kind: "direction", old: token.text, new: word.value, factor: 1 }, `the direction from “${token.text}” to “${word.value}”`));
      acts.push(word);
    }
  }
  if (state.layer !== "all") {
    const block = model.blocks.find((one) => state.layer.startsWith(`${one}.`));
    if (state.head !== "mean") button(`head ${state.head} off`, () => add({ kind: "head", address: state.layer, head: state.head }, `head ${state.head} of ${block} off`));
    button(`${block} off`, () => add({ kind: "off", address: block }, `${block} off`));
    if (shown) button(`patch ${block} from this run`, () => add({ kind: "patch", address: block, film: shown }, `${block} from ${shown}`));
  }
  byId("acts").replaceChildren(...acts);
}

// --- a guess -------------------------------------------------------------------------------------

// The picture alone, to paint on; its film opens when the guess is made.
async function guessFor(film) {
  const { words } = await asked("/check", { prompt: byId("prompt").value });
  byId("guessed").replaceChildren(...words.map((word) => element("option", { value: word.tokens[0] }, word.text)));
  byId("guessed").selectedIndex = Math.min(1, words.length - 1);
  const pen = byId("guess").getContext("2d");
  pen.clearRect(0, 0, 16, 16);
  byId("guess").hidden = byId("hold").hidden = false;
  frame.hidden = true;
  byId("held").onclick = () => holdGuess(film);
}

function paintGuess(event) {
  if (!event.buttons) return;
  const box = byId("guess").getBoundingClientRect(), pen = byId("guess").getContext("2d");
  pen.fillStyle = "#ffb000";
  pen.fillRect(Math.floor(16 * (event.clientX - box.left) / box.width), Math.floor(16 * (event.clientY - box.top) / box.height), 1, 1);
}

function holdGuess(film) {
  const painted = byId("guess").getContext("2d").getImageData(0, 0, 16, 16).data.filter((_, i) => i % 4 === 3);
  const token = Number(byId("guessed").value), word = byId("guessed").selectedOptions[0].textContent;
  byId("guess").hidden = byId("hold").hidden = true;
  show(film, null, () => {
    const { viewer } = frame.contentWindow;
    viewer.set({ token, other: null, layer: "all", span: "all" });
    const { values, rows, columns } = viewer.shownMap();
    const low = Math.min(...values), edge = low + viewer.film.inside * (Math.max(...values) - low);
    let both = 0, either = 0;
    values.forEach((value, i) => {
      const [row, column] = [Math.floor(Math.floor(i / columns) * 16 / rows), Math.floor((i % columns) * 16 / columns)];
      const [map, guess] = [value >= edge, painted[16 * row + column] > 0];
      both += map && guess;
      either += map || guess;
    });
    tell(`your guess and the map of “${word}” meet with an IoU of ${(both / Math.max(either, 1)).toFixed(2)}`);
  });
}

// --- tours ---------------------------------------------------------------------------------------

let tour = null; // { stops, at, films }

function makeTours(tours) {
  byId("tours").hidden = !tours.length;
  byId("tour").append(...tours.map(({ title }, i) => element("option", { value: i }, title)));
  byId("tour").addEventListener("change", ({ target }) => {
    tour = target.value === "" ? null : { stops: tours[target.value].stops, at: -1, films: [] };
    byId("guide").hidden = !tour;
    changes = [];
    listChanges();
    if (tour) step(1);
  });
  byId("next").addEventListener("click", () => step(1));
  byId("back").addEventListener("click", () => step(-1));
}

function step(way) {
  tour.at = Math.min(Math.max(tour.at + way, 0), tour.stops.length - 1);
  const { say, ask, view } = tour.stops[tour.at];
  byId("say").textContent = say;
  byId("stop-of").textContent = `${tour.at + 1} of ${tour.stops.length}`;
  byId("back").disabled = tour.at === 0;
  byId("next").disabled = tour.at === tour.stops.length - 1;
  if (ask && way > 0) {
    const { back, weights, ...rest } = ask;
    const films = { "the last": tour.films.at(-1), "the first": tour.films[0] };
    for (const name of ["prompt", "negative", "steps", "guidance", "eta", "seed"]) {
      byId(name).value = rest[name] ?? byId(name).defaultValue;
    }
    byId("prompt").dispatchEvent(new Event("input")); // to who reads it
    send({ ...rest, ...(back && films[back] ? { back: films[back] } : {}),
      ...(model.models.includes(weights) ? { weights } : {}) });
  }
  if (view && !frame.hidden) frame.contentWindow.location.hash = view;
}

// --- the beginning -------------------------------------------------------------------------------

async function main() {
  model = await asked("/model");
  document.title = `The lab: ${model.name}`;
  byId("prompt").maxLength = model.longest;
  byId("prompt").value = "a photograph of an astronaut riding a horse";
  if (model.world) makeWorld(model.world);
  else readPrompt();
  byId("weights").append(...model.models.map((name) => element("option", { value: name }, name)));
  byId("which").hidden = model.models.length < 2;
  makeTours(model.tours);
  byId("guess").addEventListener("pointermove", paintGuess);
  byId("guess").addEventListener("pointerdown", paintGuess);
  byId("prompt").addEventListener("input", readPrompt);
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  byId("stop").addEventListener("click", () => running && asked(`/runs/${running.run}/stop`, {}));
  history.replaceState(null, "", "/"); // the token need not stay in the address
  await listFilms();
  byId("draw").disabled = false; // pressed before, the form would leave the page
  document.body.dataset.ready = "yes";
}

main();
