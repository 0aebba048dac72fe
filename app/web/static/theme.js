// Light, dark, or as the system has it.

import { kept } from "./session.js";
import { byId } from "./text.js";

const KEY = "crossbook.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const system = matchMedia("(prefers-color-scheme: dark)");

function chosen() {
  return document.documentElement.dataset.theme ?? "system";
}

function choose(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  kept.set(KEY, theme);
}

/** `changed` is called when colours are other ones. */
export function startTheme(changed) {
  const button = byId("theme");
  const tell = () => {
    button.dataset.shown = chosen();
    button.setAttribute("aria-label", `Theme: ${chosen()}. Change to ${NEXT[chosen()]}`);
    button.title = `Theme: ${chosen()}`;
  };
  button.addEventListener("click", () => {
    choose(NEXT[chosen()]);
    tell();
    changed();
  });
  system.addEventListener("change", changed);
  tell();
}

/** A colour of the style sheet as the browser computes it now. */
export function colour(name) {
  const probe = byId("colour-probe");
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
