/* Distributions of the images that are shown: classes as bars, probabilities as a histogram. Both filter. */

const BARS = 8;
const BINS = 20;

/**
 * Make an element with text and attributes; text is never read as markup.
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Filter the images, and give the first the focus. @param {Record<string, string | number | null>} changes */
function goToImages(changes) {
  go(changes);
  focusCard(0);
}

/** Show the distributions. @param {Item[]} shown */
function showCharts(shown) {
  showClasses(shown);
  showHistogram(shown);
}

/** @param {Item[]} shown */
function showClasses(shown) {
  const counts = count(shown.flatMap((one) => [...new Set((one.maps ?? []).map((map) => map.target))]));
  const most = counts[0]?.[1] ?? 1;
  const chosen = wanted.get("class");
  const bars = counts.slice(0, BARS).map(([name, number]) => {
    const bar = make("span", { class: "bar-fill" });
    bar.style.width = `${(100 * number) / most}%`;
    const button = make(
      "button",
      { type: "button", "aria-pressed": String(name === chosen), "aria-label": `${name}: ${countImages(number)}` },
      make("span", { class: "bar-name", title: name }, make("bdi", {}, name)),
      make("span", { class: "bar-track" }, bar),
      make("span", { class: "bar-count" }, number.toLocaleString("en")),
    );
    button.addEventListener("click", () => goToImages({ class: name === chosen ? null : name }));
    return make("li", {}, button);
  });
  document.getElementById("classes").replaceChildren(...bars);
  const more = counts.length - BARS;
  document.getElementById("classes-note").textContent = more > 0 ? `the first ${BARS} of ${counts.length}` : "";
}

/** @param {Item[]} shown */
function showHistogram(shown) {
  const box = document.getElementById("histogram");
  const bins = Array.from({ length: BINS }, () => ({ all: 0, wrong: 0 }));
  let known = 0;
  for (const item of shown) {
    const probability = item.maps?.[0]?.probability;
    if (probability === undefined) continue;
    const bin = bins[Math.min(BINS - 1, Math.floor(probability * BINS))];
    bin.all += 1;
    bin.wrong += Number(item.right === false);
    known += 1;
  }
  box.closest("figure").hidden = !known;
  const most = Math.max(1, ...bins.map((one) => one.all));
  const columns = bins.map((bin, at) => {
    const column = make("span", { class: "column", title: `${at / BINS} to ${(at + 1) / BINS}: ${countImages(bin.all)}` });
    const [right, wrong] = [make("span", { class: "right" }), make("span", { class: "wrong" })];
    right.style.height = `${(100 * (bin.all - bin.wrong)) / most}%`;
    wrong.style.height = `${(100 * bin.wrong) / most}%`;
    column.append(right, wrong);
    column.addEventListener("click", () => goToImages({ "min:probability": at / BINS, "max:probability": (at + 1) / BINS }));
    return column;
  });
  box.replaceChildren(...columns);
  const low = shown.filter((one) => (one.maps?.[0]?.probability ?? 1) < 0.5).length;
  const text = known ? `${countImages(known)}, ${low} below 0.5` : "";
  box.setAttribute("aria-label", `Histogram of probabilities: ${text}`);
  document.getElementById("histogram-note").textContent = FACTS.labelled ? "wrong in the second colour" : "";
}
