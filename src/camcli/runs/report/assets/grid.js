/* The grid: only the cards near the window exist, whatever the number of images. */

const GAP = 16;
/** Heights of a card's texts, in CSS pixels; the style sheet has the same. */
const CAPTION = 52;
const MAP_CAPTION = 20;
/** Cards on paper, and the width that paper has for them. */
const PRINTED = 48;
const PAPER = 640;

/** @type {Item[]} */
let shown = [];
/** Sheets that are kept for paper. @type {HTMLImageElement[]} */
let printed = [];
/** Cards by place among those shown. @type {Map<number, HTMLElement>} */
const cards = new Map();
const grid = document.getElementById("grid");
const columnsOfMaps = FACTS.variants.slice(0, FACTS.maxColumns);
const grids = { side: 0, perLine: 1, cells: 1, cellsPerLine: 1, width: 0, line: 0, imagesOnly: false };

/** Show images, in this order. @param {Item[]} chosen */
function showGrid(chosen) {
  shown = chosen;
  layOut();
  (window.requestIdleCallback ?? setTimeout)(loadForPrint);
}

/** Lay the cards out anew, and show those near the window. */
function layOut() {
  measure(grid.clientWidth);
  grid.style.height = `${Math.max(0, Math.ceil(shown.length / grids.perLine) * grids.line - GAP)}px`;
  removeCards();
  renderGrid();
}

function removeCards() {
  for (const card of cards.values()) card.remove();
  cards.clear();
}

/** Compute how many cards fit in a line, and how large they are. @param {number} room width in CSS pixels */
function measure(room) {
  const several = columnsOfMaps.length > 1 && !grids.imagesOnly;
  const wish = Number(sizeInput.value);
  grids.cells = several ? columnsOfMaps.length + 1 : 1;
  grids.cellsPerLine = Math.max(1, Math.min(grids.cells, Math.floor((room + 6) / (Math.min(wish, 120) + 6))));
  const inner = (/** @type {number} */ side) => grids.cellsPerLine * side + (grids.cellsPerLine - 1) * 6 + 2;
  const least = Math.min(room, inner(wish));
  grids.perLine = Math.max(1, Math.round((room + GAP) / (least + GAP)));
  grids.width = Math.floor((room - (grids.perLine - 1) * GAP) / grids.perLine);
  grids.width = Math.min(grids.width, inner(Math.ceil(1.3 * wish))); // one card need not fill a wide window
  grids.side = Math.floor((grids.width - 2 - (grids.cellsPerLine - 1) * 6) / grids.cellsPerLine);
  const rows = Math.ceil(grids.cells / grids.cellsPerLine);
  grids.line = rows * (grids.side + (several ? MAP_CAPTION : 0)) + (rows - 1) * 6 + CAPTION + GAP;
}

/** Make the cards near the window, and remove others. */
function renderGrid() {
  const top = grid.getBoundingClientRect().top;
  const margin = innerHeight / 2;
  const first = Math.max(0, Math.floor((-top - margin) / grids.line)) * grids.perLine;
  const last = Math.min(shown.length, Math.ceil((innerHeight - top + margin) / grids.line) * grids.perLine);
  for (const [at, card] of cards) {
    if ((at < first || at >= last) && !card.contains(document.activeElement)) {
      card.remove();
      cards.delete(at);
    }
  }
  const added = [];
  for (let at = first; at < last; at += 1) if (!cards.has(at)) added.push(makeCard(at));
  grid.append(...added);
}

/** Make the card of an image. @param {number} at place among those shown */
function makeCard(at) {
  const item = shown[at];
  const slot = make("div", { class: "slot", role: "listitem" });
  slot.setAttribute("aria-posinset", String(at + 1));
  slot.setAttribute("aria-setsize", String(shown.length));
  slot.style.width = `${grids.width}px`;
  slot.style.height = `${grids.line - GAP}px`;
  const column = at % grids.perLine;
  slot.style.transform = `translate(${column * (grids.width + GAP)}px, ${Math.floor(at / grids.perLine) * grids.line}px)`;
  const link = make("a", { class: "card", href: addressWith({ image: item.id, map: null }), "aria-label": describe(item) });
  link.dataset.at = String(at);
  link.append(makeThumbnails(item), makeCaption(item));
  slot.append(link);
  cards.set(at, slot);
  return slot;
}

/** @param {Item} item */
function makeThumbnails(item) {
  const box = make("span", { class: "thumbs" });
  box.style.gridTemplateColumns = `repeat(${grids.cellsPerLine}, ${grids.side}px)`;
  const maps = new Map((item.maps ?? []).map((one) => [one.variant, one]));
  const several = grids.cells > 1;
  const kinds = several ? ["picture", ...columnsOfMaps.keys()] : [grids.imagesOnly ? "picture" : firstKind(item)];
  for (const kind of kinds) {
    const map = typeof kind === "number" ? maps.get(kind) : undefined;
    const frame = make("span", { class: "frame" });
    frame.style.height = `${grids.side}px`;
    const thumb = make("span", { class: "thumb" });
    showThumbnail(thumb, item, String(kind), grids.side);
    if (thumb.classList.contains("blank")) thumb.textContent = explainBlank(item, kind === "picture", map);
    frame.append(thumb);
    const cell = make("span", { class: "cell" }, frame);
    if (map) cell.dataset.map = String(map.variant);
    if (several) cell.append(make("span", { class: "cell-name" }, nameCell(kind, map)));
    box.append(cell);
  }
  return box;
}

/** Return what a card shows of an image: its first map, or the image if that has no file to show. @param {Item} item */
function firstKind(item) {
  const first = item.maps?.[0];
  if (!first) return "picture";
  return (item.sheets ?? [String(first.variant)]).includes(String(first.variant)) ? first.variant : "picture";
}

/**
 * @param {Item} item
 * @param {boolean} isPicture
 * @param {MapOfImage | undefined} map
 */
function explainBlank(item, isPicture, map) {
  if (isPicture) return item.missing ? `Not shown: ${item.missing}` : item.error ? "Failed" : "Not shown";
  if (!map) return "";
  return `No file to show: ${Object.keys(map.files).join(", ") || "none saved"}`;
}

/** @param {string | number} kind @param {MapOfImage | undefined} map */
function nameCell(kind, map) {
  if (typeof kind === "string") return "image";
  const target = FACTS.ranked ? map?.target ?? "" : "";
  return [columnsOfMaps[kind], target].filter(Boolean).join(" · ") || "map";
}

/** @param {Item} item */
function makeCaption(item) {
  const first = item.maps?.[0];
  const name = make("span", { class: "card-name", title: item.name }, make("bdi", {}, item.name.split("/").pop() ?? ""));
  const about = make("span", { class: "card-about" });
  if (first) about.append(make("bdi", { class: "card-class", title: first.target }, first.target));
  else if (item.error) about.append(make("span", { class: "card-class bad", title: item.error }, "failed"));
  if (item.right === false) about.append(make("span", { class: "mark wrong", title: `predicted: ${item.predicted}` }, "wrong"));
  if (item.right === true) about.append(make("span", { class: "mark right" }, "right"));
  const sorted = NUMBERS.find((one) => one.key === wanted.get("sort"));
  const value = format(sorted?.of(item), sorted?.unit) || format(first?.probability);
  if (value) about.append(make("span", { class: "card-number" }, value));
  return make("span", { class: "caption" }, name, about);
}

/** Describe an image for those who do not see it. @param {Item} item */
function describe(item) {
  const first = item.maps?.[0];
  const parts = [item.name];
  if (first) parts.push(first.target);
  if (first?.probability !== undefined) parts.push(`probability ${format(first.probability)}`);
  if (item.right !== undefined) parts.push(item.right ? "right" : `wrong, predicted ${item.predicted}`);
  if (item.error) parts.push(`failed: ${item.error}`);
  return parts.join(", ");
}

/** Open the map that was clicked; what a key opens is the card's first. @param {MouseEvent} event */
function openMap(event) {
  const cell = /** @type {HTMLElement} */ (event.target).closest("[data-map]");
  if (!(cell instanceof HTMLElement) || isForBrowser(event)) return;
  event.preventDefault();
  const at = Number(/** @type {HTMLElement} */ (cell.closest(".card")).dataset.at);
  go({ image: shown[at].id, map: cell.dataset.map }, true);
}

/** Return whether a click is for another tab or window. @param {MouseEvent} event */
function isForBrowser(event) {
  return event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
}

/** Move the focus between cards by the arrow keys. @param {KeyboardEvent} event */
function moveFocus(event) {
  const at = Number(/** @type {HTMLElement} */ (event.target).dataset.at);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grids.perLine, ArrowDown: grids.perLine };
  const step = steps[/** @type {keyof typeof steps} */ (event.key)];
  if (Number.isNaN(at) || !step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  focusCard(Math.min(shown.length - 1, Math.max(0, at + step)));
}

/** Bring an image into view and give it the focus. @param {number} at place among those shown */
function focusCard(at) {
  const top = grid.getBoundingClientRect().top + Math.floor(at / grids.perLine) * grids.line;
  const bar = document.getElementById("toolbar").getBoundingClientRect().bottom;
  if (top < bar || top + grids.line > innerHeight) scrollBy(0, top - innerHeight / 3);
  renderGrid();
  cards.get(at)?.querySelector("a")?.focus({ preventScroll: true });
}

/** Return the place of the first image in view. */
function firstInView() {
  const bar = Math.max(0, document.getElementById("toolbar").getBoundingClientRect().bottom);
  const lines = Math.max(0, Math.ceil((bar - grid.getBoundingClientRect().top) / grids.line));
  return Math.min(shown.length - 1, lines * grids.perLine);
}

/** Load the sheets of the cards that would be printed: a browser does not wait for them then. */
function loadForPrint() {
  const kinds = ["picture", ...columnsOfMaps.keys()];
  const names = shown.slice(0, PRINTED).flatMap((item) => kinds.map((kind) => sheetOf(item, String(kind))));
  printed = [...new Set(names)].filter(Boolean).map((address) => {
    const image = new Image();
    image.src = address;
    return image;
  });
}

/** Show a fixed number of cards for paper, which has no window. */
function layOutForPrint() {
  document.getElementById("print-note").textContent =
    shown.length > PRINTED ? `The first ${PRINTED} of ${shown.length} images.` : "";
  removeCards();
  measure(PAPER);
  for (let at = 0; at < Math.min(PRINTED, shown.length); at += 1) grid.append(makeCard(at));
}

const sizeInput = /** @type {HTMLInputElement} */ (document.getElementById("size"));
sizeInput.value = innerWidth < 600 ? "136" : "176";
sizeInput.addEventListener("input", layOut);
grid.addEventListener("keydown", moveFocus);
grid.addEventListener("click", openMap);
let isWaiting = false;
addEventListener(
  "scroll",
  () => {
    if (isWaiting) return;
    isWaiting = true;
    requestAnimationFrame(() => {
      isWaiting = false;
      renderGrid();
    });
  },
  { passive: true },
);
new ResizeObserver(() => {
  if (grid.clientWidth !== grids.room) layOut();
  grids.room = grid.clientWidth;
}).observe(grid);
addEventListener("beforeprint", layOutForPrint);
addEventListener("afterprint", layOut);
