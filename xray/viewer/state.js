// What is looked at. It lives in the address, after the #, so a link restores it.

const SHOWS = { x: "x_t, with its noise", x0: "x̂0, as predicted", picture: "the picture" };
const SPANS = { now: "this one", all: "all, pooled" };
const HALVES = { cond: "prompt", uncond: "empty", difference: "difference" };

const state = {
  step: 0, show: "picture", token: null, other: null, layer: "all", head: "mean", half: "cond",
  span: "all", place: null, over: true,
};
let preview = {}; // what the pointer is over, until it leaves
let films = []; // the page's own, and a second one
const painters = []; // functions of the view, each of which draws its part of the page
let asked = false;

const view = () => ({ ...state, ...preview });

function set(changes) {
  Object.assign(state, changes);
  preview = {};
  if (location.protocol !== "about:") { // a frame in a notebook has no address
    history.replaceState(null, "", `#${new URLSearchParams(written())}`);
  }
  draw();
  dispatchEvent(new Event("pinned")); // for a page around this one
}

function look(changes) {
  preview = changes;
  draw();
}

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    painters.forEach((paint) => paint(view()));
  });
}

function written() {
  const said = {};
  for (const [name, value] of Object.entries(state)) {
    if (value !== null) said[name] = Array.isArray(value) ? value.map((v) => v.toFixed(4)).join() : value;
  }
  return said;
}

// Only what this page knows is taken from an address.
function readAddress(film) {
  const said = new URLSearchParams(location.hash.slice(1));
  const whole = (name, count) => {
    const value = Number(said.get(name));
    return said.has(name) && Number.isInteger(value) && value >= 0 && value < count ? value : null;
  };
  const named = (name, known) => (known.includes(said.get(name)) ? said.get(name) : null);
  const tokens = film.tokens?.length ?? 0;
  const place = (said.get("place") ?? "").split(",").map(Number);
  const found = {
    step: whole("step", film.steps.length),
    token: whole("token", tokens),
    other: whole("other", tokens),
    head: whole("head", 64),
    show: named("show", Object.keys(SHOWS)),
    span: named("span", Object.keys(SPANS)),
    half: named("half", Object.keys(HALVES)),
    layer: named("layer", ["all", ...(film.layers ?? []).map((layer) => layer.address)]),
    place: place.length === 2 && place.every((v) => v >= 0 && v < 1) ? place : null,
    over: said.get("over") === "false" ? false : null,
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== null));
}
