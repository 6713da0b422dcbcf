// Puts the page of heat maps together: a picture, and where it attends to each word.

async function main() {
  const film = await prepared(await readFilm(document, "words"));
  films = [film];
  Object.assign(state, { step: film.steps.length - 1, token: firstWord(film) });
  stages.push(...stagesOf(film, "the picture"));
  makeTokens(film);
  makePixel(film);
  makeOver();
  byId("span").hidden = byId("time").hidden = !film.steps.length;
  if (film.steps.length) {
    makeChoice("span", SPANS);
    makeTime(film);
  }
  painters.push((seen) => stages.forEach((stage) => stage.paint(stage, seen)));
  draw();
  document.body.dataset.ready = "yes"; // for who waits for it
}

main();
