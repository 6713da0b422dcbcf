// A second film beside the first: one cursor for both, where they differ, and from which step on.

const PARTS = 1e-3; // of the RMS of x: from there on two films have parted

async function openSecond(text) {
  const bare = text.replace(/<style>[^]*?<\/style>/, ""); // another version's is not of this page's policy
  const page = new DOMParser().parseFromString(bare, "text/html");
  if (!page.getElementById("film")) return tell("That file is no film's page.");
  const film = await prepared(await readFilm(page));
  films = [films[0], film];
  const label = film.facts.prompt ?? "the second film";
  const own = films[0].arrays.x.shape.join(), theirs = film.arrays.x.shape.join();
  tell(own === theirs ? `“${label}” stands beside. ${parting(films[0], film)}` : `“${label}” stands beside; its latents are of another shape (${theirs}, here ${own}), so no difference is shown.`);
  secondStages(own === theirs);
  draw();
}

function secondStages(comparable) {
  const own = films[0].tokens ? 2 : 1;
  stages.slice(own).forEach((stage) => stage.figure.remove());
  stages.length = own;
  stages.push(...stagesOf(films[1], "the second film"));
  if (comparable) stages.push({ ...stageOf("where they differ"), paint: paintDifference });
}

function paintDifference({ canvas, said }, seen) {
  const name = seen.show === "x" ? "x" : "x0";
  const map = difference(...films, name, seen.show === "picture" ? Infinity : seen.step);
  fill(canvas, asCanvas(imageOf(map)), false);
  said.textContent = `the distance of the two in ${name === "x" ? "x_t" : "x̂0"}, over channels: at most ${Math.max(...map.values).toPrecision(3)}`;
}

function difference(one, other, name, step) {
  const [, channels, rows, columns] = one.arrays[name].shape;
  const at = Math.min(step, one.steps.length - 1, other.steps.length - 1);
  const values = new Float32Array(rows * columns);
  for (const c of range(channels)) {
    const [a, b] = [one, other].map((film) => partOf(film.arrays[name], at, c));
    a.forEach((value, i) => { values[i] += (value - b[i]) ** 2; });
  }
  return { values: values.map(Math.sqrt), rows, columns };
}

// "They part at step 3": the first where x differs by more than PARTS of its RMS.
function parting(one, other) {
  const steps = Math.min(one.steps.length, other.steps.length);
  for (const step of range(steps)) {
    const { values } = difference(one, other, "x", step);
    const size = one.curves["RMS of x"][""][step];
    const channels = one.arrays.x.shape[1];
    const far = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / (values.length * channels));
    if (far > PARTS * size) {
      return step ? `They part at step ${step}: x differs by ${percent(far / size)} there.` : `They begin from other noise: x differs by ${percent(far / size)} at step 0.`;
    }
  }
  return "They are the same at every step, as far as this page's numbers tell.";
}
