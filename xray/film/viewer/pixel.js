// A place of the picture → the tokens that it attends to, the strongest first.

function makePixel(film) {
  const box = byId("pixel");
  box.hidden = !film.tokens;
  painters.push((seen) => {
    if (box.hidden) return;
    if (!seen.place) {
      box.replaceChildren(element("p", { class: "dim" }, "Point at the picture: which tokens does the place attend to?"));
      return;
    }
    const shares = sharesAt(film, seen, seen.place);
    const order = range(shares.length).sort((a, b) => shares[b] - shares[a]);
    const most = Math.max(...shares.map(Math.abs)) || 1;
    const rows = order.map((token) => element("li", {},
      element("span", {}, film.tokens[token].text),
      element("meter", { min: 0, max: most, value: Math.max(shares[token], 0) }),
      element("span", { "data-token": token, "data-share": shares[token] }, percent(shares[token]))));
    const where = seen.place.map((share, i) => Math.floor(share * (film.size?.[i] ?? 64))).join(", ");
    const of = seen.layer === "all" ? "the mean over layers and heads" : "this layer";
    box.replaceChildren(element("h2", {}, `attention at row, column ${where}`),
      element("p", { class: "dim" }, of), element("ol", {}, ...rows));
  });
}
