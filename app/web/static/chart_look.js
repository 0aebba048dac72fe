// How the chart looks: the page's own colours and letters, in the library's words.

import { colour } from "./theme.js";

/** Of the chart's height. */
export const VOLUME_HEIGHT = 0.18;
const LETTERS_PX = 11;

export function chartLook() {
  const [line, muted] = [colour("line"), colour("muted")];
  return {
    layout: {
      background: { color: colour("panel") },
      textColor: muted,
      fontFamily: getComputedStyle(document.body).fontFamily,
      fontSize: LETTERS_PX,
      attributionLogo: false, // it needs inline styles; the page itself has the notice
    },
    grid: { vertLines: { color: line }, horzLines: { color: line } },
    rightPriceScale: {
      borderColor: line,
      scaleMargins: { top: 0.08, bottom: VOLUME_HEIGHT + 0.04 },
    },
    timeScale: {
      borderColor: line,
      timeVisible: true,
      secondsVisible: false,
      rightOffset: 4,
      barSpacing: 9,
    },
    crosshair: { mode: 0, vertLine: { color: muted }, horzLine: { color: muted } },
  };
}

/** `price` tells the steps of an instrument's prices, once it is known. */
export function candleLook({ decimals, stepText } = { decimals: 2, stepText: "0.01" }) {
  const [up, down] = [colour("up"), colour("down")];
  return {
    upColor: up,
    borderUpColor: up,
    wickUpColor: up,
    downColor: down,
    borderDownColor: down,
    wickDownColor: down,
    priceFormat: { type: "price", precision: decimals, minMove: Number(stepText) },
  };
}

export function volumeTints() {
  return { up: colour("up-soft"), down: colour("down-soft") };
}
