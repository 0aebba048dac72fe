// How numbers, times and elements are written. Text only; nothing here computes with money.

const ROUGH_DIGITS = 6;
const THOUSANDS = /\B(?=(\d{3})+(?!\d))/g;

/** A plain decimal with its thousands apart: 64,990.00. */
export function grouped(decimal) {
  const [whole, fraction] = decimal.split(".");
  const apart = whole.replace(THOUSANDS, ",");
  return fraction === undefined ? apart : `${apart}.${fraction}`;
}

/** A plain decimal without the zeros that end its fraction. */
export function trimmed(decimal) {
  return decimal.includes(".") ? decimal.replace(/\.?0+$/, "") : decimal;
}

/** A sum for the eye: cut to so many digits that count, but never within its whole part. */
export function roughly(decimal) {
  const [whole, fraction = ""] = trimmed(decimal) === "0" ? ["0"] : decimal.split(".");
  const zeros = whole === "0" ? /^0*/.exec(fraction)[0].length : -whole.length;
  const places = Math.max(0, ROUGH_DIGITS + zeros);
  return grouped(places > 0 && fraction ? `${whole}.${fraction.slice(0, places)}` : whole);
}

/** A decimal as two parts: what counts, and the zeros at its end, which are shown dimmer. */
export function parted(decimal) {
  const head = trimmed(decimal);
  return [grouped(head), decimal.slice(head.length)];
}

/** 15:04:05 of an RFC 3339 time in UTC, as it is written. */
export function clock(timestamp) {
  return timestamp.slice(11, 19);
}

/** A time of today as 15:04:05, an earlier one with its day. */
export function moment(timestamp) {
  const today = new Date().toISOString().slice(0, 10);
  return timestamp.startsWith(today) ? clock(timestamp) : timestamp.slice(5, 16).replace("T", " ");
}

/** A change with its sign, and the sign that screens and colour-blind people read. */
export function signed(decimal) {
  return decimal.startsWith("-") || /^[0.]*$/.test(decimal) ? decimal : `+${decimal}`;
}

/** "up", "down" or "" of a signed decimal: the class of its colour. */
export function direction(decimal) {
  if (!decimal || /^-?[0.]*$/.test(decimal)) return "";
  return decimal.startsWith("-") ? "down" : "up";
}

/** A name of the API in words: stop_limit becomes "Stop limit". */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** A new element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Write a text only where it is another one. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
