// Fetches the page again while it is visible and puts its main part in place of the old one.
// What the reader has open or focused stays so. Without script the page is as it was loaded.
"use strict";

const main = document.getElementById("main");
const seconds = Number(main?.dataset.live ?? 0);

function summary(details) {
  return details.querySelector("summary")?.firstChild?.textContent ?? "";
}

async function refresh() {
  const focused = document.activeElement;
  if (document.hidden || (focused && main.contains(focused) && focused.matches("input, select, textarea"))) {
    return;
  }
  const answer = await fetch(location.href, { credentials: "same-origin", headers: { "infratrack-unattended": "1" } });
  if (answer.redirected || !answer.ok) {
    return;
  }
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
  const open = new Set([...main.querySelectorAll("details[open]")].map(summary));
  for (const details of fresh.querySelectorAll("details")) {
    details.open = open.has(summary(details));
  }
  main.replaceChildren(...fresh.childNodes);
}

if (seconds > 0) {
  setInterval(() => refresh().catch(() => {}), seconds * 1000);
}
