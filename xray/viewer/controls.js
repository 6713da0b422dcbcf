// What is chosen by hand: which of a few, the map over the picture, the step.

function makeChoice(id, options) {
  for (const [value, label] of Object.entries(options)) {
    const input = element("input", { type: "radio", name: id, value });
    input.addEventListener("change", () => set({ [id]: value }));
    byId(id).append(element("label", {}, input, ` ${label}`));
  }
  painters.push((seen) => byId(id).querySelectorAll("input").forEach((input) => { input.checked = input.value === seen[id]; }));
}

function makeOver() {
  byId("over").addEventListener("change", (event) => set({ over: event.target.checked }));
  painters.push((seen) => { byId("over").checked = seen.over; });
}

// A step alone is seen: its own map, over what was predicted there.
function makeTime(film) {
  const slider = byId("step"), last = film.steps.length - 1;
  const at = (step) => set({ step, span: "now", ...(film.arrays.x0 && state.show === "picture" ? { show: "x0" } : {}) });
  let timer = null;
  const play = () => {
    if (timer === null) {
      at(state.step >= last ? 0 : state.step);
      timer = setInterval(() => (state.step < last ? set({ step: state.step + 1 }) : play()), 160);
    } else {
      clearInterval(timer);
      timer = null;
    }
    byId("play").textContent = timer === null ? "▶" : "❚❚";
    byId("play").setAttribute("aria-label", timer === null ? "play" : "pause");
  };
  slider.max = last;
  slider.addEventListener("input", () => at(Number(slider.value)));
  byId("play").addEventListener("click", play);
  addEventListener("keydown", (event) => {
    const writes = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target !== slider;
    const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (turn && !writes) {
      event.preventDefault();
      at(Math.min(Math.max(state.step + turn, 0), last));
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
    byId("told").textContent = `step ${index} of 0 … ${(film.facts?.steps ?? film.steps.length) - 1}, t = ${t}`;
  });
}
