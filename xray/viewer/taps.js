// The table of taps: every value of a model, narrowed by what is typed.

function main() {
  const { columns } = JSON.parse(byId("taps").textContent);
  const taps = columns.address.map((_, i) => Object.fromEntries(
    Object.entries(columns).map(([name, column]) => [name, column[i]])));
  const rows = taps.map(rowOf);
  byId("table").querySelector("tbody").append(...rows);
  const narrow = () => {
    const wanted = wantedBy(byId("typed").value);
    const there = taps.filter((tap, i) => {
      const said = `${tap.address} ${tap.shape} ${tap.dims} ${tap.dtype} ${tap.meaning}`.toLowerCase();
      rows[i].hidden = !wanted.every((pattern) => pattern.test(said));
      return !rows[i].hidden;
    });
    const bytes = there.reduce((sum, tap) => sum + tap.bytes, 0);
    byId("facts").textContent = `${there.length} of ${taps.length} values, ${megabytes(bytes)} MB`;
  };
  byId("typed").addEventListener("input", narrow);
  narrow();
  document.body.dataset.ready = "yes"; // for who waits for it
}

function rowOf({ address, shape, dims, dtype, bytes, meaning }) {
  const cell = (text, ...more) => element("td", {}, text, ...more);
  const broken = address.split(/(?<=\.)/).flatMap((name) => [element("wbr"), name]); // after its dots
  return element("tr", {}, cell(...broken), cell(shape, element("span", { class: "dim" }, dims)),
    cell(dtype), cell(megabytes(bytes)), cell(meaning));
}

// Each word that is typed as a pattern, with * for anything.
function wantedBy(typed) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  return words.map((word) => new RegExp(word.split("*").map(escaped).join(".*")));
}

const escaped = (text) => text.replace(/[.+?^${}()|[\]\\]/g, "\\$&");
const megabytes = (bytes) => (bytes / 1e6).toFixed(3);

main();
