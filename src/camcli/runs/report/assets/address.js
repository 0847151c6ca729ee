/* The page's address behind #: filters, order, and the image that is open; every view of the page is a link. */

/** What the address asks for. */
let wanted = new URLSearchParams(location.hash.slice(1));
/** @type {() => void} */
let onAddress = () => {};

/**
 * Return an address with some values changed; empty values are left out.
 * @param {Record<string, string | number | null>} changes
 */
function addressWith(changes) {
  const next = new URLSearchParams(wanted);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "") next.delete(key);
    else next.set(key, String(value));
  }
  return `#${next}`;
}

/**
 * Change the address, and the page with it.
 * @param {Record<string, string | number | null>} changes
 * @param {boolean} keeps whether the way back leads over what was before
 */
function go(changes, keeps = false) {
  const next = addressWith(changes);
  if (next === location.hash || (next === "#" && !location.hash)) return;
  // A page from disk may not change its address by history alone in every browser.
  if (keeps) location.hash = next;
  else {
    try {
      history.replaceState(null, "", next);
    } catch {
      location.hash = next;
      return;
    }
    readAddress();
  }
}

function readAddress() {
  wanted = new URLSearchParams(location.hash.slice(1));
  onAddress();
}
window.addEventListener("hashchange", readAddress);
