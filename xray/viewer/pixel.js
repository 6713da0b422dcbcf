// A place of the picture → the tokens that it attends to, the strongest first.

function makePixel(film) {
  const box = byId("pixel");
  box.hidden = !film.tokens;
  const things = film.layers ? "tokens" : "words", told = film.layers ? percent : (share) => share.toPrecision(3);
  painters.push((seen) => {
    if (box.hidden) return;
    if (!seen.place) {
      box.replaceChildren(element("p", { class: "dim hint" }, `Point at the picture: which ${things} does the place attend to?`));
      return;
    }
    const shares = sharesAt(film, seen, seen.place);
    const alike = range(shares.length).filter((token) => film.layers || !film.tokens[token].special);
    const order = alike.sort((a, b) => shares[b] - shares[a]); // of words alone where the scales differ
    const most = Math.max(...order.map((token) => Math.abs(shares[token]))) || 1;
    const rows = order.map((token) => element("li", {},
      element("span", {}, film.tokens[token].text),
      element("meter", { min: 0, max: most, value: Math.max(shares[token], 0) }),
      element("span", { "data-token": token, "data-share": shares[token] }, told(shares[token]))));
    const where = seen.place.map((share, i) => Math.floor(share * (film.size?.[i] ?? 64))).join(", ");
    const of = !film.layers ? "what the map of each word has there" : seen.layer === "all" ? "the mean over layers and heads" : "this layer";
    box.replaceChildren(element("h2", {}, `attention at row, column ${where}`),
      element("p", { class: "dim" }, of), element("ol", {}, ...rows));
  });
}
