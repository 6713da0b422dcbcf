// Layer × head: the map of the token in each, small; a click chooses.

function makeHeads(film) {
  const box = byId("heads");
  box.hidden = !film.layers?.length;
  if (box.hidden) return;
  box.append(element("h2", {}, "each layer, each head"));
  const cells = film.layers.map((layer) => {
    const name = layer.address.replace(/^unet\.|_blocks?|\.transformer.*$/g, "").replace(".attentions", "");
    const buttons = range(layer.heads).map((head) => cellOf(layer, head, name));
    box.append(element("div", { class: "row" }, element("span", {}, `${name}, ${layer.grid.join("×")}`), ...buttons));
    return buttons;
  });
  painters.push((seen) => cells.forEach((row, i) => row.forEach((button, head) => {
    const one = { ...seen, layer: film.layers[i].address, head };
    const chosen = seen.layer === one.layer && (seen.head === head || film.layers[i].heads === 1);
    button.setAttribute("aria-pressed", String(chosen));
    const map = mapOf(film, one);
    if (map) fill(button.firstChild, asCanvas(imageOf(map, seen.half === "difference")), false);
  })));
}

function cellOf(layer, head, name) {
  const canvas = element("canvas", { width: 64, height: 64 });
  const label = layer.heads > 1 ? `${name}, head ${head}` : `${name}, mean over heads`;
  const button = element("button", { type: "button", title: label, "aria-label": label }, canvas);
  const choice = { layer: layer.address, head: layer.heads > 1 ? head : "mean" };
  button.addEventListener("pointerenter", () => look(choice));
  button.addEventListener("pointerleave", () => look({}));
  button.addEventListener("click", () => set(
    state.layer === choice.layer && state.head === choice.head ? { layer: "all", head: "mean" } : choice));
  return button;
}
