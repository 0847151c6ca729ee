/* One image at full size: the image below, the map over it, as strong as the slider says; zoom to its own pixels. */

const viewer = /** @type {HTMLDialogElement} */ (document.getElementById("viewer"));
const stage = document.getElementById("stage");
const layers = document.getElementById("layers");
const [under, over] = ["under", "over"].map((id) => /** @type {HTMLImageElement} */ (document.getElementById(id)));
const fade = /** @type {HTMLInputElement} */ (document.getElementById("fade"));
const IMAGE = "image";
const beside = document.getElementById("beside");
const besideButton = document.getElementById("beside-button");
const view = {
  /** @type {Item | null} */ item: null,
  /** @type {MapOfImage | null} */ map: null,
  format: "",
  wish: "", // the format that was chosen last, also for the images to come
  lastMap: "", // the last but the image
  isBeside: false, // whether the maps are wanted side by side, also of the images to come
  zoom: 0, // CSS pixels for each of the image's; 0 fits the window
  x: 0,
  y: 0,
  /** @type {[number, number]} */ size: [1, 1],
};

/** Open the image that the address names, or close what is open. */
function showViewer() {
  const item = itemsById.get(wanted.get("image") ?? "");
  if (!item) {
    if (viewer.open) viewer.close();
    view.item = null;
    return;
  }
  const maps = item.maps ?? [];
  const map = maps.find((one) => String(one.variant) === wanted.get("map")) ?? maps[0] ?? null;
  const isOther = item !== view.item;
  view.item = item;
  view.map = map;
  if (!viewer.open) {
    viewer.showModal();
    document.getElementById("viewer-name").focus();
  }
  if (isOther) view.zoom = 0;
  showFacts(item, map);
  showFormats();
}

/** Return the formats that can be shown now: the image, and those of the map. */
function listFormats() {
  const { item, map } = view;
  const found = item && (FOLDER ? item.picture : addressOfFull(item, null, "")) ? [IMAGE] : [];
  const formats = FACTS.shown.filter((/** @type {string} */ one) => map?.files[one]);
  return [...found, ...formats.filter((/** @type {string} */ one) => FOLDER || addressOfFull(item, map, one))];
}

/** Show the choice of formats, and the one that is wished for. @param {string} wish */
function showFormats(wish = view.wish) {
  const formats = listFormats();
  view.wish = wish;
  const chosen = formats.includes(wish) ? wish : formats.find((one) => one !== IMAGE) ?? formats[0] ?? "";
  const buttons = formats.map((one) => {
    const button = make("button", { type: "button", role: "radio", "aria-checked": String(one === chosen) }, one);
    button.tabIndex = one === chosen ? 0 : -1;
    button.addEventListener("click", () => showFormats(one));
    return button;
  });
  document.getElementById("formats").replaceChildren(...buttons);
  view.format = chosen;
  if (chosen !== IMAGE) view.lastMap = chosen;
  showLayers(formats);
}

/** @param {string[]} formats */
function showLayers(formats) {
  const { item, map, format: chosen } = view;
  if (!item) return;
  const note = document.getElementById("stage-note");
  const blends = formats.includes(IMAGE) && chosen !== IMAGE && chosen !== "panel";
  setImage(under, formats.includes(IMAGE) && chosen !== "panel" ? addressOfFull(item, null, "") : "", item.name);
  const about = map ? `${chosen} of ${map.target} by ${map.method}` : "";
  setImage(over, chosen && chosen !== IMAGE ? addressOfFull(item, map, chosen) : "", `${about}: ${item.name}`);
  // A control that is disabled while it has the focus would keep the keys to itself.
  if (!blends && document.activeElement === fade) document.getElementById("viewer-name").focus();
  fade.disabled = !blends;
  setFade();
  if (item.size && chosen !== "panel") setSize(item.size);
  note.textContent = formats.length
    ? item.missing
      ? `The image is not shown: ${item.missing}.`
      : ""
    : item.error ?? (FOLDER ? "This run saved nothing that can be shown here." : "This file has thumbnails only.");
  note.hidden = !note.textContent;
  showBeside();
}

/** Show the maps side by side in the format that is chosen, if that is wanted and there are several. */
function showBeside() {
  const { item, map, format: chosen } = view;
  const maps = (item.maps ?? []).filter((one) => one.files[chosen] && addressOfFull(item, one, chosen));
  const isOn = view.isBeside && maps.length > 1;
  besideButton.hidden = (item.maps ?? []).length < 2;
  besideButton.setAttribute("aria-pressed", String(isOn));
  const hadFocus = beside.querySelector(":focus-visible"); // by keys: after a click, keys are the viewer's
  beside.hidden = !isOn;
  layers.hidden = isOn;
  if (isOn) fade.disabled = true;
  beside.replaceChildren(...(isOn ? maps.map((one) => makeBeside(item, one, one === map)) : []));
  place();
  if (hadFocus) (beside.querySelector("[aria-pressed=true]") ?? document.getElementById("viewer-name")).focus();
}

/** @param {Item} item @param {MapOfImage} map @param {boolean} isChosen */
function makeBeside(item, map, isChosen) {
  const name = [FACTS.variants[map.variant] || map.method, map.target].filter(Boolean).join(" · ");
  const image = make("img", { src: addressOfFull(item, map, view.format), alt: "", draggable: "false" });
  const button = make("button", { type: "button", "aria-pressed": String(isChosen) }, image, make("bdi", {}, name));
  button.addEventListener("click", () => go({ map: map.variant }));
  return button;
}

/** Give the maps side by side as many columns as make them largest. */
function placeBeside() {
  const [width, height] = view.size;
  const [room, number] = [{ width: beside.clientWidth, height: beside.clientHeight }, beside.children.length];
  const scales = Array.from(beside.children, (_, at) =>
    Math.min(room.width / (at + 1) / width, room.height / Math.ceil(number / (at + 1)) / height),
  );
  beside.style.gridTemplateColumns = `repeat(${scales.indexOf(Math.max(...scales)) + 1}, minmax(0, 1fr))`;
}

function toggleBeside() {
  view.isBeside = !view.isBeside;
  showFormats();
}

/** @param {HTMLImageElement} image @param {string} address @param {string} alt */
function setImage(image, address, alt) {
  image.hidden = !address;
  image.alt = alt;
  if (address && image.getAttribute("src") !== address) image.src = address;
  if (!address) image.removeAttribute("src");
}

function setFade() {
  over.style.opacity = fade.disabled ? "1" : String(Number(fade.value) / 100);
}

/** Set the size of what is shown, in its own pixels. @param {[number, number]} size */
function setSize(size) {
  view.size = size;
  place();
}

/** Place the layers: as zoom and position say, or fitted into the stage. */
function place() {
  if (!beside.hidden) {
    placeBeside();
    return;
  }
  const [width, height] = view.size;
  const room = { width: stage.clientWidth, height: stage.clientHeight - 64 };
  const fitted = Math.min(room.width / width, room.height / height, Math.max(1, 420 / Math.max(width, height)));
  const zoom = view.zoom || fitted;
  if (!view.zoom) view.x = view.y = 0;
  const [over_x, over_y] = [width * zoom - room.width, height * zoom - room.height].map((one) => Math.max(0, one / 2));
  view.x = Math.min(over_x, Math.max(-over_x, view.x));
  view.y = Math.min(over_y, Math.max(-over_y, view.y));
  layers.style.width = `${width * zoom}px`;
  layers.style.height = `${height * zoom}px`;
  layers.style.left = `${(room.width - width * zoom) / 2 + view.x}px`;
  layers.style.top = `${(room.height - height * zoom) / 2 + view.y}px`;
  layers.classList.toggle("pixels", zoom >= 3);
  stage.classList.toggle("zoomed", over_x > 0 || over_y > 0);
  document.getElementById("zoom-full").setAttribute("aria-pressed", String(view.zoom === 1));
  document.getElementById("zoom-fit").setAttribute("aria-pressed", String(view.zoom === 0));
}

/**
 * Zoom by a factor; the place under the pointer, or the middle, stays where it is.
 * @param {number} factor
 * @param {{x: number, y: number}} [at] in CSS pixels from the middle of the stage
 */
function zoomBy(factor, at = { x: 0, y: 0 }) {
  if (!beside.hidden) return;
  const before = layers.clientWidth / view.size[0];
  view.zoom = Math.min(32, Math.max(0.02, before * factor));
  const ratio = view.zoom / before;
  view.x = at.x - (at.x - view.x) * ratio;
  view.y = at.y - (at.y - view.y) * ratio;
  place();
}

/** @param {number} zoom */
function zoomTo(zoom) {
  if (!beside.hidden) return;
  view.zoom = zoom;
  place();
}

/** @param {Item} item @param {MapOfImage | null} map */
function showFacts(item, map) {
  const at = shown.indexOf(item);
  const text = (/** @type {string} */ id, /** @type {string} */ words) => (document.getElementById(id).textContent = words);
  text("viewer-place", at < 0 ? "not among those shown" : `${at + 1} of ${shown.length}`);
  document.getElementById("viewer-name").replaceChildren(make("bdi", {}, item.name));
  const verdict = document.getElementById("verdict");
  verdict.className = `verdict ${item.right === undefined ? "" : item.right ? "right" : "wrong"}`;
  verdict.textContent =
    item.right === undefined ? "" : item.right ? `Right: predicted ${item.predicted}` : `Wrong: predicted ${item.predicted}`;
  document.getElementById("maps").replaceChildren(...(item.maps ?? []).map((one) => makeMapChoice(item, one, one === map)));
  showRows(item, map);
  const notes = [item.error && `Failed: ${item.error}`, item.later && `A later run failed: ${item.later}`, ...(item.notes ?? [])];
  document.getElementById("notes").replaceChildren(...notes.filter(Boolean).map((one) => make("li", {}, one)));
  showLinks(item, map);
}

/** @param {Item} item @param {MapOfImage | null} map */
function showRows(item, map) {
  const range = map?.low === undefined ? "" : `${format(map.low)} to ${format(map.high)}`;
  /** @type {[string, string | undefined][]} */
  const rows = [
    ["class", map?.target],
    ["probability", format(map?.probability)],
    ["score", format(map?.score)],
    ["label", item.labels?.join(", ")],
    ["predicted", item.predicted],
    ["method", map?.method],
    ["layer", map?.layer],
    ["map", range],
    ["peak", map?.peak && `${map.peak.map((one) => Math.round(one)).join(", ")} px`],
    ["peak to edge", map?.edge === undefined ? "" : `${format(toPercent(map.edge), "%")} of the shorter side`],
    ["disagreement of maps", item.apart === undefined ? "" : `${format(toPercent(item.apart), "%")} of the diagonal`],
    ...FACTS.columns.map((/** @type {string} */ title, /** @type {number} */ one) => [title, format(item.values?.[one])]),
    ["size", item.size && `${item.size[0]} × ${item.size[1]}`],
    ["source", item.source],
  ];
  const cells = rows.filter(([, value]) => value).flatMap(([title, value]) => [
    make("dt", {}, title),
    make("dd", {}, make("bdi", {}, value ?? "")),
  ]);
  document.getElementById("facts-list").replaceChildren(...cells);
}

/** @param {Item} item @param {MapOfImage} map @param {boolean} isChosen */
function makeMapChoice(item, map, isChosen) {
  const thumb = make("span", { class: "thumb" });
  showThumbnail(thumb, item, String(map.variant), 56, true);
  const words = [FACTS.variants[map.variant] || map.method, map.target, format(map.probability)];
  const name = make("span", { class: "map-name" }, ...words.slice(0, 2).map((one) => make("bdi", {}, one)));
  const button = make("button", { type: "button", "aria-pressed": String(isChosen) });
  button.append(make("span", { class: "frame" }, thumb), name, make("span", { class: "card-number" }, words[2]));
  button.addEventListener("click", () => go({ map: map.variant }));
  return make("li", {}, button);
}

/** @param {Item} item @param {MapOfImage | null} map */
function showLinks(item, map) {
  const links = FOLDER && item.picture ? [make("a", { href: item.picture, target: "_blank", rel: "noopener" }, "image")] : [];
  for (const name of FOLDER && map ? Object.keys(map.files) : []) {
    links.push(make("a", { href: addressOfFull(item, map, name), target: "_blank", rel: "noopener" }, name));
  }
  document.getElementById("links").replaceChildren(...links);
}

/** Go to another image of those shown. @param {number} step */
function turn(step) {
  if (!view.item || !shown.length) return;
  const at = shown.indexOf(view.item);
  const next = shown[(at + step + shown.length) % shown.length];
  go({ image: next.id });
}

/** Go to another map of the image. @param {number} step */
function turnMap(step) {
  const maps = view.item?.maps ?? [];
  if (maps.length < 2 || !view.map) return;
  go({ map: maps[(maps.indexOf(view.map) + step + maps.length) % maps.length].variant });
}

function closeViewer() {
  const at = view.item ? shown.indexOf(view.item) : -1;
  go({ image: null, map: null });
  if (at >= 0) focusCard(at);
}

/** Keys while an image is open. @param {KeyboardEvent} event @returns {boolean} whether the key was one */
function handleViewerKey(event) {
  const formats = listFormats();
  const fadeBy = (/** @type {number} */ step) => {
    fade.value = String(Number(fade.value) + step);
    setFade();
  };
  /** @type {Record<string, () => void>} */
  const keys = {
    ArrowLeft: () => turn(-1),
    ArrowRight: () => turn(1),
    ArrowUp: () => turnMap(-1),
    ArrowDown: () => turnMap(1),
    " ": () => showFormats(view.format === IMAGE ? view.lastMap : IMAGE),
    "[": () => fadeBy(-10),
    "]": () => fadeBy(10),
    "+": () => zoomBy(1.25),
    "=": () => zoomBy(1.25),
    "-": () => zoomBy(0.8),
    0: () => zoomTo(1),
    f: () => zoomTo(0),
    s: toggleBeside,
  };
  const digit = Number(event.key);
  if (digit >= 1 && digit <= formats.length) showFormats(formats[digit - 1]);
  else if (keys[event.key]) keys[event.key]();
  else return false;
  return true;
}

const pointers = new Map();
stage.addEventListener("pointerdown", (event) => {
  if (/** @type {HTMLElement} */ (event.target).closest("button, input, .bar")) return;
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = { x: event.clientX, y: event.clientY };
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) zoomBy(Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y)));
  else {
    view.x += now.x - before.x;
    view.y += now.y - before.y;
    place();
  }
  pointers.set(event.pointerId, now);
});
for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => pointers.delete(/** @type {PointerEvent} */ (event).pointerId));
stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    const at = { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - (box.height - 64) / 2 };
    zoomBy(Math.exp(-event.deltaY / 400), at);
  },
  { passive: false },
);
stage.addEventListener("dblclick", () => zoomTo(view.zoom ? 0 : 1));
for (const image of [under, over]) {
  image.addEventListener("error", () => {
    image.hidden = true;
    const note = document.getElementById("stage-note");
    note.textContent = `${image === under ? "The image" : `The ${view.format}`} is not where it was when this page was made.`;
    note.hidden = false;
  });
}
over.addEventListener("load", () => {
  if (view.format === "panel" || !view.item?.size) setSize([over.naturalWidth, over.naturalHeight]);
});
fade.addEventListener("input", setFade);
viewer.addEventListener("cancel", (event) => {
  event.preventDefault();
  closeViewer();
});
// A browser may close it without asking, where two closings follow each other.
viewer.addEventListener("close", () => !viewer.open && view.item && closeViewer());
for (const [id, action] of /** @type {[string, () => void][]} */ ([
  ["previous", () => turn(-1)],
  ["next", () => turn(1)],
  ["close", closeViewer],
  ["beside-button", toggleBeside],
  ["zoom-in", () => zoomBy(1.25)],
  ["zoom-out", () => zoomBy(0.8)],
  ["zoom-fit", () => zoomTo(0)],
  ["zoom-full", () => zoomTo(1)],
])) document.getElementById(id).addEventListener("click", action);
new ResizeObserver(() => viewer.open && place()).observe(stage);
