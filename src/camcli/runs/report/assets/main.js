/* The page as a whole: controls, keys, theme; what the address says is what is shown. */

/** Return a control. @param {string} id */
const control = (id) => /** @type {HTMLInputElement & HTMLSelectElement} */ (document.getElementById(id));
const FILTERS = ["q", "class", "predicted", "label", "result", "reason", "note"];
let lastFilters = "";

/** Show what the address asks for. */
function show() {
  const filters = new URLSearchParams(wanted);
  for (const key of ["image", "map"]) filters.delete(key);
  if (filters.toString() !== lastFilters || !shown.length) {
    lastFilters = filters.toString();
    const chosen = select(wanted);
    showGrid(chosen);
    showCharts(chosen);
    showControls();
    showChips(chosen.length);
  }
  showViewer();
}

/** @param {string} id @param {[string, string][]} options value and text */
function fill(id, options) {
  const element = control(id);
  if (!element) return;
  element.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
}

/** Fill the controls once the images are known. */
function fillControls() {
  const named = (/** @type {[string, number][]} */ counts) =>
    counts.map(([name, number]) => /** @type {[string, string]} */ ([name, `${name} (${number})`]));
  const classes = count(items.flatMap((one) => [...new Set((one.maps ?? []).map((map) => map.target))]));
  fill("class", [["", "All classes"], ...named(classes)]);
  fill("predicted", [["", "All"], ...named(count(items.flatMap((one) => one.predicted ?? [])))]);
  const results = RESULTS.filter((one) => !one.key || items.some(one.holds));
  fill("result", results.map((one) => [one.key, one.title]));
  const numbers = NUMBERS.filter((one) => items.some((item) => one.of(item) !== undefined));
  const orders = ORDERS.filter((one) => !NUMBERS.includes(one) || numbers.includes(one));
  fill("sort", orders.map((one) => [one.key, one.title]));
  fill("number", numbers.map((one) => [one.key, one.unit ? `${one.title}, ${one.unit}` : one.title]));
}

/** Make the controls say what the address says. */
function showControls() {
  if (document.activeElement !== control("query")) control("query").value = wanted.get("q") ?? "";
  for (const id of ["class", "predicted", "result", "sort"]) {
    if (control(id)) control(id).value = wanted.get(id) ?? "";
  }
  const descending = wanted.has("desc");
  control("direction").textContent = descending ? "↓" : "↑";
  control("direction").setAttribute("aria-pressed", String(descending));
  const bound = [...wanted.keys()].find((key) => /^(min|max):/.test(key));
  if (bound) control("number").value = bound.slice(4);
  showBounds();
}

function showBounds() {
  const key = control("number").value;
  control("least").value = wanted.get(`min:${key}`) ?? "";
  control("most").value = wanted.get(`max:${key}`) ?? "";
}

/** Show the filters, each of which can be taken away. @param {number} number images that are left */
function showChips(number) {
  document.getElementById("status").textContent =
    number === items.length ? countImages(number) : `${number.toLocaleString("en")} of ${countImages(items.length)}`;
  const chips = [];
  for (const [key, value] of wanted) {
    const bound = /^(min|max):(.*)$/.exec(key);
    if (!FILTERS.includes(key) && !bound) continue;
    const number = NUMBERS.find((one) => one.key === bound?.[2]);
    const title = bound ? number?.title ?? bound[2] : key === "q" ? "name" : key;
    const sign = bound ? (bound[1] === "min" ? "from" : "to") : "";
    const text = [title, sign, value, number?.unit].filter(Boolean).join(" ");
    const button = make("button", { type: "button", "aria-label": `Remove the filter: ${text}` }, make("bdi", {}, text), " ✕");
    button.addEventListener("click", () => go({ [key]: null }));
    chips.push(make("li", {}, button));
  }
  document.getElementById("chips").replaceChildren(...chips);
}

/** Show thumbnails of the findings' first images. */
function showStrips() {
  for (const strip of document.querySelectorAll(".strip")) {
    const numbers = /** @type {HTMLElement} */ (strip).dataset.images.split(" ").filter(Boolean).map(Number);
    const frames = numbers.filter((one) => items[one]).map((one) => {
      const thumb = make("span", { class: "thumb" });
      showThumbnail(thumb, items[one], String(firstKind(items[one])), 42, true);
      return make("span", { class: "frame", title: items[one].name, "data-id": items[one].id }, thumb);
    });
    strip.replaceChildren(...frames);
  }
}

/** @param {string} theme */
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme-button").textContent = theme === "dark" ? "Light" : "Dark";
  try {
    localStorage.setItem("camcli-theme", theme);
  } catch {
    // a page from disk may have no storage; the theme then lasts as long as the page
  }
}

function toggleTheme() {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function readTheme() {
  let kept = "";
  try {
    kept = localStorage.getItem("camcli-theme") ?? "";
  } catch {
    kept = "";
  }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.theme = ["dark", "light"].includes(kept) ? kept : system;
  document.getElementById("theme-button").textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
}

function toggleImages() {
  grids.imagesOnly = !grids.imagesOnly;
  control("show-images").setAttribute("aria-pressed", String(grids.imagesOnly));
  layOut();
}

/** Give the first image in view the focus, from where the arrow keys go on. */
function toImages() {
  focusCard(firstInView());
}

/** Show what a finding is about, with the image open that was clicked. @param {MouseEvent} event */
function openFinding(event) {
  const finding = /** @type {HTMLAnchorElement} */ (event.currentTarget);
  if (isForBrowser(event)) return;
  event.preventDefault();
  const frame = /** @type {HTMLElement} */ (event.target).closest("[data-id]");
  location.hash = finding.hash;
  readAddress();
  document.querySelector("main").scrollIntoView();
  focusCard(0);
  if (frame instanceof HTMLElement) go({ image: frame.dataset.id }, true);
}

/** @param {KeyboardEvent} event */
function handleKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const types = target.matches("input:not([type=range]), select, textarea");
  if (types || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  if (event.key === " " && target.matches("button, summary, a:not(.card)")) return;
  /** @type {Record<string, () => void>} */
  const keys = {
    "/": () => control("query").focus(),
    i: toggleImages,
    d: toggleTheme,
    "?": () => help.showModal(),
    ...(target.closest(".card") ? {} : { ArrowLeft: toImages, ArrowRight: toImages }),
  };
  if (viewer.open && handleViewerKey(event)) event.preventDefault();
  else if (keys[event.key] && (!viewer.open || event.key === "d" || event.key === "?")) {
    event.preventDefault();
    keys[event.key]();
  }
}

async function copyProvenance() {
  const button = document.getElementById("copy-provenance");
  const text = document.getElementById("provenance-text");
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    text.hidden = false; // where pages may not write to the clipboard, the text is there to be selected
    getSelection()?.selectAllChildren(text);
    button.textContent = "Selected";
  }
}

const help = /** @type {HTMLDialogElement} */ (document.getElementById("help"));
readTheme();
for (const id of ["class", "predicted", "result", "sort"]) {
  control(id)?.addEventListener("change", () => go({ [id]: control(id).value }));
}
control("query").addEventListener("input", () => go({ q: control("query").value.trim() }));
control("direction").addEventListener("click", () => go({ desc: wanted.has("desc") ? null : 1 }));
control("number").addEventListener("change", showBounds);
for (const [id, side] of [["least", "min"], ["most", "max"]]) {
  control(id).addEventListener("change", () => go({ [`${side}:${control("number").value}`]: control(id).value }));
}
document.getElementById("show-images").addEventListener("click", toggleImages);
document.getElementById("theme-button").addEventListener("click", toggleTheme);
document.getElementById("help-button").addEventListener("click", () => help.showModal());
document.getElementById("copy-provenance").addEventListener("click", copyProvenance);
document.getElementById("skip").addEventListener("click", () => {
  grid.scrollIntoView();
  focusCard(0);
});
for (const finding of document.querySelectorAll(".finding")) {
  finding.addEventListener("click", openFinding);
}
addEventListener("keydown", handleKey);
onAddress = show;

/** Show what has come so far; data of many images come in several files. */
let isPlanned = false;
function plan() {
  if (isPlanned) return;
  isPlanned = true;
  requestAnimationFrame(() => {
    isPlanned = false;
    fillControls();
    showStrips();
    lastFilters = "?"; // what is shown is no longer all
    show();
  });
}
onItems = plan;
for (const block of document.querySelectorAll("script.data")) addItems(block.textContent);
// The images of a single file come after this script.
document.addEventListener("DOMContentLoaded", plan);
