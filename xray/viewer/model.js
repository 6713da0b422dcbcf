// The U of the model: each block coloured by how strong it is at this step, RMS of its channels.

const UNIT = { x: 80, y: 40, width: 70, height: 26 };
const KINDS = { resnets: "residual", attentions: "attention" };

function makeModel(film) {
  const box = byId("model");
  box.hidden = !film.blocks.length;
  if (box.hidden) return;
  const placed = layOut(film.blocks);
  const right = Math.max(...placed.map((one) => one.x)) + UNIT.width + 10;
  const low = Math.max(...placed.map((one) => one.y)) + UNIT.height + 10;
  const svg = element("svg", { viewBox: `0 0 ${right} ${low}`, width: right, height: low, role: "img", "aria-label": "blocks of the UNet" });
  const said = element("p", { class: "dim" }, "Each block by the RMS of its channels, at this step; a click on one with attention shows its maps.");
  placed.slice(1).forEach((one, i) => svg.append(wayBetween(placed[i], one)));
  const rects = placed.map((one) => {
    const layer = film.layers?.find((l) => l.address.startsWith(`${one.block.address}.`));
    const rect = element("rect", { x: one.x, y: one.y, width: UNIT.width, height: UNIT.height, rx: 4,
      class: layer ? "block leads" : "block", "data-address": one.block.address });
    rect.append(element("title"));
    if (layer) rect.addEventListener("click", () => set({ layer: state.layer === layer.address ? "all" : layer.address, head: "mean" }));
    svg.append(rect);
    const label = element("text", { x: one.x + UNIT.width / 2, y: one.y + 17, "text-anchor": "middle", "pointer-events": "none" }, one.label);
    svg.append(label);
    return { ...one, rect, layer, label };
  });
  box.append(element("h2", {}, "the blocks"), element("div", { class: "wide" }, svg), said);
  painters.push((seen) => paintBlocks(film, rects, seen));
}

// Down on the left, the middle below, up on the right; a row for each level.
function layOut(blocks) {
  const levels = Math.max(...blocks.map((b) => Number(/(?:down|up)_blocks\.(\d+)/.exec(b.address)?.[1] ?? 0))) + 1;
  const used = {};
  return blocks.map((block) => {
    const [, side, level = levels, kind] = /unet\.(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions)/.exec(block.address);
    const row = side === "mid" ? levels : side === "down" ? Number(level) : levels - 1 - Number(level);
    const key = `${side}${row}`;
    used[key] = (used[key] ?? -1) + 1;
    const start = { down: 0, mid: 2.4, up: 5.6 }[side];
    return { block, label: KINDS[kind],
      x: 10 + UNIT.x * (start + used[key]), y: 10 + UNIT.y * row };
  });
}

function wayBetween(one, next) {
  const [x, y] = [one.x + UNIT.width, one.y + UNIT.height / 2], end = next.y + UNIT.height / 2;
  const bend = one.y === next.y ? "" : `H${x + 5}V${end}`;
  return element("path", { class: "way", d: `M${x} ${y}${bend}L${next.x} ${end}` });
}

function paintBlocks(film, rects, seen) {
  const step = clampStep(film, seen.step);
  const most = Math.max(...film.blocks.flatMap((block) => block.size));
  for (const { rect, block, layer, label } of rects) {
    const colour = colourAt(HEAT, 0.15 + 0.8 * block.size[step] / most);
    rect.setAttribute("fill", `rgb(${colour})`);
    label.classList.toggle("dark", 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140);
    rect.classList.toggle("chosen", Boolean(layer) && seen.layer === layer.address);
    const moved = block.moved ? `, moved ${percent(block.moved[step])} by the prompt` : "";
    rect.firstChild.textContent = `${block.address}: RMS ${block.size[step].toPrecision(3)}${moved}`;
  }
}
