// Ticking hosts: the box above all, how many are ticked, and which of the two choices is meant.
"use strict";

(() => {
  const boxes = () => [...document.querySelectorAll('#hosts tbody input[name="id"]')];

  function tell() {
    const all = boxes();
    const ticked = all.filter((box) => box.checked).length;
    const place = document.getElementById("ticked");
    if (place) place.textContent = ticked > 0 ? `(${ticked})` : "(none)";
    const head = document.getElementById("tick-all");
    if (!head) return;
    head.hidden = false;
    head.checked = ticked > 0 && ticked === all.length;
    head.indeterminate = ticked > 0 && ticked < all.length;
  }

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement)) return;
    if (box.id === "tick-all") {
      for (const each of boxes()) each.checked = box.checked;
    } else if (box.name !== "id") {
      return;
    }
    const which = document.querySelector('#bulk input[name="which"][value="ticked"]');
    if (which && boxes().some((each) => each.checked)) which.checked = true;
    tell();
  });
  new MutationObserver(tell).observe(document.getElementById("main"), { childList: true });
  tell();
})();
