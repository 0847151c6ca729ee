/* The images, and which of them are shown in which order. */

/**
 * @typedef {{variant: number, target: string, method: string, layer: string, score?: number, probability?: number,
 *   peak?: [number, number], edge?: number, low?: number, high?: number, error?: string,
 *   files: Record<string, string>}} MapOfImage
 * @typedef {{number: number, id: string, name: string, source: string, size?: [number, number], picture?: string,
 *   missing?: string, error?: string, reason?: string, later?: string, notes?: string[], values?: (number | null)[],
 *   labels?: string[], predicted?: string, right?: boolean, apart?: number, sheets?: string[], maps?: MapOfImage[],
 *   search: string}} Item
 */

/** @type {Item[]} */
const items = [];
/** @type {Map<string, Item>} */
const itemsById = new Map();
/** @type {() => void} */
let onItems = () => {};

/** Take images of a file of data. @param {string} text */
function addItems(text) {
  for (const item of JSON.parse(text)) {
    item.number = items.length;
    item.search = `${item.name}\n${item.source}`.toLowerCase();
    items.push(item);
    itemsById.set(item.id, item);
  }
  onItems();
}
const camcli = { add: addItems };

/** Numbers of an image: key in the address, title, unit, and how it is read. */
const NUMBERS = [
  { key: "probability", title: "Probability", of: (/** @type {Item} */ one) => one.maps?.[0]?.probability },
  { key: "score", title: "Score", of: (/** @type {Item} */ one) => one.maps?.[0]?.score },
  { key: "edge", title: "Peak to edge", unit: "%", of: (/** @type {Item} */ one) => toPercent(leastEdge(one)) },
  { key: "apart", title: "Disagreement of maps", unit: "%", of: (/** @type {Item} */ one) => toPercent(one.apart) },
  ...FACTS.columns.map((/** @type {string} */ title, /** @type {number} */ at) => ({
    key: `column:${title}`,
    title,
    of: (/** @type {Item} */ one) => one.values?.[at] ?? undefined,
  })),
];
const ORDERS = [
  { key: "", title: "Run order", of: (/** @type {Item} */ one) => one.number },
  { key: "name", title: "Name", of: (/** @type {Item} */ one) => one.name },
  { key: "class", title: "Class", of: (/** @type {Item} */ one) => one.maps?.[0]?.target },
  ...NUMBERS,
];
const RESULTS = [
  { key: "", title: "All", holds: () => true },
  { key: "right", title: "Right", holds: (/** @type {Item} */ one) => one.right === true },
  { key: "wrong", title: "Wrong", holds: (/** @type {Item} */ one) => one.right === false },
  { key: "done", title: "Done", holds: (/** @type {Item} */ one) => !one.error },
  { key: "failed", title: "Failed", holds: (/** @type {Item} */ one) => Boolean(one.error) },
];

/** Return how near to an edge a map of the image is strongest. @param {Item} item */
function leastEdge(item) {
  const edges = (item.maps ?? []).map((one) => one.edge).filter((one) => one !== undefined);
  return edges.length ? Math.min(...edges) : undefined;
}

/** @param {number | undefined} share */
function toPercent(share) {
  return share === undefined ? undefined : 100 * share;
}

/** Return the images that an address asks for, in its order. @param {URLSearchParams} wanted */
function select(wanted) {
  const tests = listTests(wanted);
  const chosen = items.filter((one) => tests.every((test) => test(one)));
  const order = ORDERS.find((one) => one.key === (wanted.get("sort") ?? ""));
  return order ? sortBy(chosen, order.of, wanted.has("desc")) : chosen;
}

/** @param {URLSearchParams} wanted @returns {((item: Item) => boolean)[]} */
function listTests(wanted) {
  /** @type {((item: Item) => boolean)[]} */
  const tests = [];
  for (const [key, value] of wanted) {
    const bound = NUMBERS.find((one) => key === `min:${one.key}` || key === `max:${one.key}`);
    const limit = Number(value);
    if (key === "q") for (const word of value.toLowerCase().split(/\s+/)) tests.push((one) => one.search.includes(word));
    else if (key === "class") tests.push((one) => (one.maps ?? []).some((map) => map.target === value));
    else if (key === "label") tests.push((one) => (one.labels ?? []).includes(value));
    else if (key === "predicted") tests.push((one) => one.predicted === value);
    else if (key === "reason") tests.push((one) => one.reason === value);
    else if (key === "note") tests.push((one) => (one.notes ?? []).includes(value));
    else if (key === "result") tests.push(RESULTS.find((one) => one.key === value)?.holds ?? (() => true));
    else if (bound && key.startsWith("min:")) tests.push((one) => Number(bound.of(one) ?? NaN) >= limit);
    else if (bound) tests.push((one) => Number(bound.of(one) ?? NaN) <= limit);
  }
  return tests;
}

/**
 * Sort images; those without a value come last either way, and equal ones keep their order.
 * @param {Item[]} chosen
 * @param {(item: Item) => number | string | undefined} of
 * @param {boolean} descending
 */
function sortBy(chosen, of, descending) {
  const keyed = chosen.map((item) => ({ item, key: of(item) }));
  const sign = descending ? -1 : 1;
  keyed.sort((a, b) => {
    if (a.key === undefined || b.key === undefined) return Number(a.key === undefined) - Number(b.key === undefined);
    return a.key < b.key ? -sign : a.key > b.key ? sign : 0;
  });
  return keyed.map((one) => one.item);
}

/** Count values, the most frequent first. @param {Iterable<string>} values @returns {[string, number][]} */
function count(values) {
  const counts = new Map();
  for (const one of values) counts.set(one, (counts.get(one) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

/** Write a number of images for people. @param {number} number */
function countImages(number) {
  return `${number.toLocaleString("en")} image${number === 1 ? "" : "s"}`;
}

/** Write a number for people. @param {number | null | undefined} number @param {string} [unit] */
function format(number, unit) {
  if (number === null || number === undefined) return "";
  if (unit) return `${Number(number.toPrecision(2))}\u00a0${unit}`;
  const size = Math.abs(number);
  if (size && (size < 0.001 || size >= 1e6)) return number.toExponential(2);
  return Number.isInteger(number) ? String(number) : String(Number(number.toPrecision(size < 1 ? 2 : 4)));
}
