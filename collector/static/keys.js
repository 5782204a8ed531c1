// The keys, as the dialog that shows them has them (`web/keys.rs`): a key presses its link or button there, or the part of
// the page that has it as `data-key`. While something is typed, and with modifiers, they do nothing.
"use strict";

const PAUSE_MS = 1200;
const SHIFTED = ["?", "*"];
const dialog = document.getElementById("keys");
const table = new Map([...(dialog?.querySelectorAll("[data-keys]") ?? [])].map((part) => [part.dataset.keys, part]));

function isTyped(target) {
  return target instanceof Element && target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]") !== null;
}

function rows() {
  return [...document.querySelectorAll("main table tbody tr")].filter((row) => row.offsetParent !== null);
}

function current() {
  return document.activeElement?.closest("main table tbody tr") ?? null;
}

function move(step) {
  const all = rows();
  if (all.length === 0) return;
  const at = all.indexOf(current());
  const next = all[at === -1 ? (step > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + step, 0), all.length - 1)];
  next.tabIndex = -1;
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function offered(key) {
  const part = document.querySelector(`main [data-key="${CSS.escape(key)}"]`);
  return part !== null && !part.disabled ? part : null;
}

const DO = {
  down: () => move(1),
  up: () => move(-1),
  select: () => current()?.querySelector("input[type=checkbox]")?.click(),
  all: () => {
    const boxes = rows().map((row) => row.querySelector("input[type=checkbox]")).filter((box) => box !== null);
    const wanted = boxes.some((box) => !box.checked);
    boxes.filter((box) => box.checked !== wanted).forEach((box) => box.click());
  },
  search: () => {
    const field = document.querySelector("main input[type=search]");
    if (field === null) return document.dispatchEvent(new CustomEvent("palette"));
    field.focus();
    field.select();
  },
  palette: () => document.dispatchEvent(new CustomEvent("palette")),
  keys: () => dialog.togglePopover(),
};

function press(keys) {
  const part = offered(keys);
  if (part !== null) return part.click();
  const known = table.get(keys);
  if (known?.dataset.do) DO[known.dataset.do]?.();
  else known?.click();
}

dialog?.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button === null) return;
  dialog.hidePopover();
  if (button.dataset.do !== "keys") press(button.dataset.keys);
});

let begun = "";
let begunAt = 0;
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    return DO.palette();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || isTyped(event.target)) return;
  if (event.shiftKey && !SHIFTED.includes(event.key)) return;
  if (event.key === "Enter" && event.target instanceof Element && event.target.matches("main table tbody tr")) {
    return event.target.querySelector("a[href]")?.click();
  }
  const both = event.timeStamp - begunAt < PAUSE_MS && begun !== "" ? `${begun} ${event.key}` : event.key;
  begun = "";
  const keys = table.has(both) ? both : event.key;
  if (table.has(keys)) {
    event.preventDefault();
    return press(keys);
  }
  if ([...table.keys()].some((other) => other.startsWith(`${event.key} `))) {
    begun = event.key;
    begunAt = event.timeStamp;
  }
});
