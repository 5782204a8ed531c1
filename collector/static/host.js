// Keeps the Host page's state as it is: the part that changes with every heartbeat is fetched again while the page is
// seen. What the reader has focused stays. Without script the page is as it was loaded.
"use strict";

const STATE_S = 10;
const state = document.getElementById("state");

async function refresh() {
  if (document.hidden || state.contains(document.activeElement)) return;
  const answer = await fetch(state.dataset.state, { credentials: "same-origin", headers: { "infratrack-unattended": "1" } });
  if (answer.redirected || !answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const part = fresh.getElementById("state");
  if (part) state.replaceChildren(...part.childNodes);
}

if (state) {
  setInterval(() => refresh().catch(() => {}), STATE_S * 1000);
}
