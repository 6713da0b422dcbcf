// The chips: each token, the padding as one. A click pins, a second pin gives the difference.

function makeTokens(film) {
  const box = byId("tokens");
  box.hidden = !film.tokens;
  (film.tokens ?? []).forEach((token, index) => {
    const count = token.places.length > 1 ? ` × ${token.places.length}` : "";
    const chip = element("button", { type: "button", class: token.special ? "special" : "" }, token.text + count);
    chip.addEventListener("pointerenter", () => look({ token: index, other: null }));
    chip.addEventListener("pointerleave", () => look({}));
    chip.addEventListener("click", () => set(pinned(index)));
    box.append(chip);
  });
  painters.push((seen) => [...box.children].forEach((chip, index) => {
    chip.setAttribute("aria-pressed", String(index === seen.token || index === seen.other));
    chip.classList.toggle("second", index === seen.other);
  }));
}

// What a click on a token does to the pins.
function pinned(index) {
  if (index === state.token) return { token: state.other, other: null };
  if (index === state.other) return { other: null };
  return state.token === null ? { token: index } : { other: index };
}

// The IoU with the exact mask, where it is known, and that of a map that is the same for every word.
function makeTruth(film) {
  const box = byId("truth");
  painters.push((seen) => {
    const known = film.known?.find((one) => one.token === seen.token);
    box.hidden = !known || seen.layer !== "all" || seen.other !== null;
    if (box.hidden) return;
    const index = seen.span === "all" ? 0 : 1 + clampStep(film, seen.step);
    const row = (name, value) => element("tr", {}, element("th", {}, name),
      element("td", {}, value[index].toFixed(3)));
    box.replaceChildren(
      element("h2", {}, `IoU with the exact mask, at ${film.inside} of the range`),
      element("table", {}, row("this map", known.own), row("where the start token gets least", known.blind)),
    );
  });
}

// A word that is most likely a thing: the longest of the first few.
function firstWord(film) {
  const words = range(film.tokens.length).filter((i) => !film.tokens[i].special);
  return words.slice(0, 3).sort((a, b) => film.tokens[b].text.length - film.tokens[a].text.length)[0] ?? 0;
}
