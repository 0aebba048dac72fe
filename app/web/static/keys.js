// Single-key shortcuts, which can be turned off, and the dialog that lists them.

import { kept } from "./session.js";
import { byId } from "./text.js";

const KEY = "crossbook.shortcuts";

/** `actions` maps a key to what it does. */
export function startKeys(actions) {
  const dialog = byId("help");
  const enabled = byId("shortcuts");
  enabled.checked = kept.get(KEY) !== "off";
  enabled.addEventListener("change", () => kept.set(KEY, enabled.checked ? "on" : "off"));
  byId("help-open").addEventListener("click", () => dialog.showModal());
  byId("help-close").addEventListener("click", () => dialog.close());
  const all = { ...actions, "?": () => dialog.showModal() };
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, select, textarea, dialog[open]");
    const isChord = event.ctrlKey || event.metaKey || event.altKey;
    const action = all[event.key.toLowerCase()];
    if (!enabled.checked || isTyping || isChord || !action) return;
    event.preventDefault();
    action();
  });
}
