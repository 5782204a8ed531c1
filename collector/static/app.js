// What every page has: relative times that go on, buttons that copy, menus that close. Pages work without it.
"use strict";

const AGO_S = 10;

// As `web/words.rs` says it.
function ago(seconds) {
  if (seconds < 0) return "in the future";
  if (seconds < 5) return "just now";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

// The server's clock counts: the browser's may be off.
const loaded = performance.now();
const served = Date.parse(document.documentElement.dataset.now ?? "");

function tellTimes() {
  if (Number.isNaN(served)) return;
  const now = served + performance.now() - loaded;
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const text = ago(Math.floor((now - Date.parse(time.dateTime)) / 1000));
    if (time.textContent !== text) time.textContent = text;
  }
}

function offerCopy(root) {
  for (const pre of root.querySelectorAll("pre.copy:not([data-copy])")) {
    pre.dataset.copy = "";
    const text = pre.textContent;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet small copied";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text).then(() => (button.textContent = "Copied"), () => (button.textContent = "Select and copy"));
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    pre.append(button);
  }
}

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
new MutationObserver((changes) => changes.forEach((change) => change.target instanceof Element && offerCopy(change.target)))
  .observe(document.body, { childList: true, subtree: true });
offerCopy(document);
// Where a navigation is wider than the window, the place that one is at is seen.
for (const place of document.querySelectorAll("nav [aria-current]")) {
  const nav = place.parentElement;
  nav.scrollLeft = place.offsetLeft + place.offsetWidth / 2 - nav.offsetLeft - nav.offsetWidth / 2;
}
setInterval(tellTimes, AGO_S * 1000);
