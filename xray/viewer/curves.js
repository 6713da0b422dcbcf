// What changes from step to step, with the cursor on the one that is shown.

const PLOT = { width: 280, height: 108, left: 50, right: 8, top: 8, bottom: 8 };

function makeCurves(film) {
  const box = byId("curves"), cursors = [];
  box.append(element("h2", {}, "from step to step"));
  const row = element("div", { class: "plots" });
  for (const [name, series] of Object.entries(film.curves)) {
    const { figure, cursor } = plotOf(name, series);
    row.append(figure);
    cursors.push(cursor);
  }
  box.append(row);
  painters.push((seen) => cursors.forEach((paint) => paint(clampStep(film, seen.step))));
}

const brief = (v) => (v && Math.abs(v) < 0.001 ? v.toExponential(1) : String(Number(v.toPrecision(3))));

function plotOf(name, series) {
  const [values] = Object.values(series), every = Object.values(series).flat();
  const low = Math.min(0, ...every), high = Math.max(...every) || 1, last = Math.max(values.length - 1, 1);
  const x = (i) => PLOT.left + (PLOT.width - PLOT.left - PLOT.right) * i / last;
  const y = (v) => PLOT.height - PLOT.bottom - (PLOT.height - PLOT.bottom - PLOT.top) * (v - low) / (high - low);
  const svg = element("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, width: PLOT.width, height: PLOT.height, role: "img", "aria-label": name });
  const lines = Object.values(series).map((some, n) => element("path", { class: `line ${n ? "other" : "first"}`,
    d: some.map((v, i) => `${i ? "L" : "M"}${x(i)} ${y(v)}`).join("") }));
  const cursor = element("line", { class: "cursor", y1: PLOT.top, y2: PLOT.height - PLOT.bottom });
  const labels = [[high, y(high) + 4], [low, y(low)]].map(([v, at]) =>
    element("text", { class: "dim", x: PLOT.left - 4, y: at, "text-anchor": "end" }, brief(v)));
  svg.append(element("line", { class: "axis", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y(low), y2: y(low) }), ...lines, cursor, ...labels);
  const said = element("figcaption");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * PLOT.width;
    look({ step: Math.min(Math.max(Math.round((at - PLOT.left) / (x(last) - PLOT.left) * last), 0), values.length - 1) });
  });
  svg.addEventListener("pointerleave", () => look({}));
  svg.addEventListener("click", () => set({ step: view().step }));
  return {
    figure: element("figure", {}, svg, said),
    cursor: (step) => {
      cursor.setAttribute("x1", x(step));
      cursor.setAttribute("x2", x(step));
      const told = Object.entries(series).map(([one, some]) => `${one} ${some[step].toPrecision(4)}`.trim());
      said.textContent = `${name}: ${told.join(", ")}`;
    },
  };
}
