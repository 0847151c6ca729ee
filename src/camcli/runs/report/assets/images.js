/* Where images come from: files in the page's folder, or Blobs made of text in the page itself, on first use. */

/** What is true of all images: kinds of maps, titles of columns, sizes of thumbnails. */
const FACTS = JSON.parse(document.getElementById("facts").textContent);
/** Folder of the page's files; empty if the page holds everything. */
const FOLDER = document.getElementById("facts").dataset.folder;
/** @type {Map<string, string>} */
const blobs = new Map();

/**
 * Return the address of one of the page's own images; empty if there is none, or it is not there yet.
 * @param {string} name
 */
function addressOf(name) {
  if (FOLDER) return `${FOLDER}/${name}.webp`;
  if (!blobs.has(name)) {
    const block = document.getElementById(name);
    if (!block) return "";
    const bytes = Uint8Array.from(atob(block.textContent.trim()), (one) => one.charCodeAt(0));
    blobs.set(name, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
    block.remove(); // its text is not needed twice
  }
  return blobs.get(name);
}

/**
 * Return the address of an image or of one of its maps at full size, or as large as the page has it.
 * @param {Item} item
 * @param {MapOfImage | null} map the map; null for the image
 * @param {string} format format of the map's file
 */
function addressOfFull(item, map, format) {
  const name = map ? `copy-${item.number}-${map.variant}-${format}` : `copy-${item.number}-picture`;
  if (!FOLDER) return addressOf(name);
  if (!map) return item.picture || "";
  return map.files[format].replace("*", () => encodeName(item.name));
}

/** Return an image's name as a part of an address. @param {string} name */
function encodeName(name) {
  // Bytes that are no UTF-8 are kept by Python as lone surrogates, which stand for one byte each.
  return name.replace(/[\udc80-\udcff]|[^\udc80-\udcff]+/gu, (part) =>
    /^[\udc80-\udcff]$/u.test(part)
      ? `%${(part.charCodeAt(0) - 0xdc00).toString(16).toUpperCase()}`
      : part.split("/").map(encodeURIComponent).join("/"),
  );
}

/** Return a thumbnail's size: as thumbnails.py computes it. @param {[number, number]} size */
function thumbnailSize([width, height]) {
  const scale = Math.min(1, FACTS.cell / Math.max(width, height));
  return [width, height].map((one) => Math.max(1, Math.floor(one * scale + 0.5)));
}

/** Return the address of the sheet that has a thumbnail; empty if there is none. @param {Item} item @param {string} kind */
function sheetOf(item, kind) {
  const sheets = item.sheets ?? ["picture", ...(item.maps ?? []).map((one) => String(one.variant))];
  const block = Math.floor(item.number / FACTS.side ** 2);
  return item.size && sheets.includes(kind) ? addressOf(`sheet-${block}-${kind}`) : "";
}

/**
 * Show a thumbnail in an element, as large as fits a square.
 * @param {HTMLElement} element
 * @param {Item} item
 * @param {string} kind "picture", or the number of a map
 * @param {number} side of the square, in CSS pixels
 * @param {boolean} fills the square is filled, and what is outside of it is for the frame to cut off
 */
function showThumbnail(element, item, kind, side, fills = false) {
  const address = sheetOf(item, kind);
  element.classList.toggle("blank", !address);
  element.style.width = element.style.height = "";
  element.style.backgroundImage = "";
  if (!address) return;
  const [width, height] = thumbnailSize(item.size);
  const scale = side / (fills ? Math.min(width, height) : Math.max(width, height));
  const at = item.number % FACTS.side ** 2;
  const step = FACTS.cell * scale;
  element.style.width = `${width * scale}px`;
  element.style.height = `${height * scale}px`;
  element.style.backgroundImage = `url("${address}")`;
  element.style.backgroundSize = `${step * FACTS.side}px`;
  element.style.backgroundPosition = `${-(at % FACTS.side) * step}px ${-Math.floor(at / FACTS.side) * step}px`;
}
