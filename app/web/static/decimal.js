// Exact decimals: a number is a BigInt of units, a unit being 10^-decimals. No float touches a
// price, a quantity or money; only what is drawn (bars, candles) becomes a Number.

const DECIMAL = /^(-?)(\d*)(?:\.(\d*))?$/;
const MAX_CHARACTERS = 40;

/** Units of a plain decimal; null where it is none, or finer than `decimals`. */
export function toUnits(text, decimals) {
  const match = text.length <= MAX_CHARACTERS ? DECIMAL.exec(text) : null;
  if (!match || !(match[2] || match[3])) return null;
  const fraction = (match[3] ?? "").replace(/0+$/, "");
  if (fraction.length > decimals) return null;
  const units = BigInt(match[2] + fraction.padEnd(decimals, "0"));
  return match[1] ? -units : units;
}

/** Plain decimal of `units` with exactly `decimals` places. */
export function toText(units, decimals) {
  const sign = units < 0n ? "-" : "";
  const digits = (units < 0n ? -units : units).toString().padStart(decimals + 1, "0");
  if (decimals === 0) return sign + digits;
  return `${sign}${digits.slice(0, -decimals)}.${digits.slice(-decimals)}`;
}

/** Places of a step such as a tick size: 2 for "0.01", 0 for "5". */
export function decimalsOf(step) {
  return (step.split(".")[1] ?? "").replace(/0+$/, "").length;
}

/** numerator / denominator, rounded half to even; for numbers that are shown as rounded ones. */
export function divideRounded(numerator, denominator) {
  const isNegative = numerator < 0n !== denominator < 0n;
  const top = numerator < 0n ? -numerator : numerator;
  const bottom = denominator < 0n ? -denominator : denominator;
  let whole = top / bottom;
  const twice = (top % bottom) * 2n;
  if (twice > bottom || (twice === bottom && whole % 2n === 1n)) whole += 1n;
  return isNegative ? -whole : whole;
}

/** The same number with another number of decimals, rounded half to even where that is fewer. */
export function rescale(units, from, to) {
  if (to >= from) return units * 10n ** BigInt(to - from);
  return divideRounded(units, 10n ** BigInt(from - to));
}

const BAR_STEPS = 1000n;

/** part / whole as a Number from 0 to 1, for the length of a bar. */
export function share(part, whole) {
  return whole > 0n ? Number((part * BAR_STEPS) / whole) / Number(BAR_STEPS) : 0;
}
