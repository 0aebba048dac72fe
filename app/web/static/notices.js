// Short messages at the edge of the page: seen for a while, and read out by screen readers.

import { byId, element } from "./text.js";

const SHOWN_MS = 6_000;
const NOTICES_MAX = 4;

const endings = new WeakMap(); // notice -> the timer that ends it

function stay(notice) {
  clearTimeout(endings.get(notice));
  endings.set(
    notice,
    setTimeout(() => notice.remove(), SHOWN_MS),
  );
}

/** Say something. `kind` is "good", "bad" or "plain": its colour. Trouble that goes on is not said
 * again and again, but stays. */
export function notify(text, kind = "plain") {
  const list = byId("notices");
  const said = [...list.children].find((each) => each.firstElementChild.textContent === text);
  if (said && kind === "bad") return stay(said);
  const close = element("button", { type: "button", className: "quiet", textContent: "×" });
  close.setAttribute("aria-label", "Dismiss");
  const notice = element("li", { className: kind }, element("span", { textContent: text }), close);
  close.addEventListener("click", () => notice.remove());
  list.append(notice);
  while (list.children.length > NOTICES_MAX) list.firstElementChild.remove();
  stay(notice);
}
