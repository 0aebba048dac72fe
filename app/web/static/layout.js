// Which part of the page is shown: the tabs below the chart, and on a phone the views.

import { byId } from "./text.js";

const VIEWS = ["chart", "trade", "orders"];

/** `shown` is called with the name of a tab that was opened. */
export function startTabs(shown) {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const open = (tab) => {
    for (const each of tabs) {
      const isOpen = each === tab;
      each.setAttribute("aria-selected", String(isOpen));
      each.tabIndex = isOpen ? 0 : -1;
      byId(each.getAttribute("aria-controls")).hidden = !isOpen;
    }
    shown(tab.id);
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (!step) return;
      const next = tabs[(i + step + tabs.length) % tabs.length];
      open(next);
      next.focus();
    });
  });
}

export function startViews() {
  for (const view of VIEWS) {
    byId(`view-${view}`).addEventListener("click", () => showView(view));
  }
  showView("trade");
}

export function showView(view) {
  document.body.dataset.view = view;
  for (const each of VIEWS) {
    byId(`view-${each}`).setAttribute("aria-current", each === view ? "page" : "false");
  }
}
