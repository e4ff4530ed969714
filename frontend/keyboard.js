// Shortcuts: the same table of actions that the buttons use, listed in the help.

import { make } from "./elements.js";

const typing = "input:not([type=range], [type=checkbox]), select, textarea";

/** @param actions table {name: {key, label, run}}  @param {HTMLDialogElement} dialog */
export function listen(actions, dialog) {
  const byKey = new Map();
  for (const [name, { key, label }] of Object.entries(actions)) {
    if (!key) continue;
    byKey.set(key, name);
    dialog.querySelector("dl").append(make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, label)));
    for (const button of document.querySelectorAll(`[data-action=${name}]`)) {
      button.setAttribute("aria-keyshortcuts", key);
      if (button.closest(".bar")) button.append(make("kbd", { ariaHidden: "true" }, key));
    }
  }
  const box = dialog.querySelector("#single-keys");
  // A browser may forbid a page to keep anything.
  const kept = (work) => {
    try {
      return work(localStorage);
    } catch {
      return null;
    }
  };
  box.checked = kept((store) => store.getItem("single-keys")) !== "off";
  box.addEventListener("change", () => kept((store) => store.setItem("single-keys", box.checked ? "on" : "off")));
  document.addEventListener("keydown", (event) => {
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.isComposing;
    const isFree = box.checked && !dialog.open && !event.target.closest(typing);
    const name = byKey.get(event.key.toLowerCase());
    if (!isPlain || !isFree || !name) return;
    event.preventDefault();
    actions[name].run();
  });
}
