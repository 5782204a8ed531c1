// Keeps a list of hosts up to date by server-sent events: rows change in place, cell by cell, so that scroll, selection,
// focus and ticked boxes stay. A page that is not looked at asks for nothing. Without script it is as it was loaded.
"use strict";

(() => {
  const AGAIN_MS = 30000;
  let source = null;
  let later = 0;
  let newest;

  const list = () => document.querySelector('[data-live^="/live/hosts"]');

  function say(word) {
    const place = document.getElementById("live-word");
    if (!place) return;
    place.hidden = false;
    place.classList.toggle("off", word !== "live");
    place.textContent = word;
  }

  // What the reader has selected or typed into stays as it is.
  function isBusy(cell) {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && selection.containsNode(cell, true);
    return selects || (cell.contains(document.activeElement) && cell.querySelector("input, select, textarea"));
  }

  function rowOf(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.querySelector("tr");
  }

  function replaceRow(data) {
    const old = document.getElementById(`host-${data.id}`);
    const fresh = rowOf(data.html);
    if (!old || !fresh) return;
    if (old.cells.length !== fresh.cells.length) return;
    old.dataset.status = fresh.dataset.status;
    old.classList.remove("gone");
    for (let place = 0; place < old.cells.length; place += 1) {
      const [was, is] = [old.cells[place], fresh.cells[place]];
      if (was.classList.contains("pick") || was.innerHTML === is.innerHTML || isBusy(was)) continue;
      const hadFocus = was.contains(document.activeElement);
      was.replaceChildren(...is.childNodes);
      if (hadFocus) was.querySelector("a")?.focus({ preventScroll: true });
    }
  }

  function tellCounts(counts) {
    for (const place of document.querySelectorAll("[data-count]")) {
      const count = counts[place.dataset.count];
      if (count !== undefined && place.textContent !== String(count)) place.textContent = count;
    }
    const shown = list();
    if (shown?.hasAttribute("data-empty")) {
      if (counts.total > 0) showAnew().catch(() => {});
    } else if (newest !== undefined && counts.newest !== newest) {
      showNew().catch(() => {});
    }
    newest = counts.newest;
  }

  async function fetchPage() {
    const answer = await fetch(list().dataset.page, { credentials: "same-origin", headers: { "infratrack-unattended": "1" } });
    if (!answer.ok || (answer.redirected && !answer.url.includes("/hosts"))) throw new Error("no page");
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // The first host: the list takes the place of what waited for it.
  async function showAnew() {
    const address = list().dataset.page;
    const fresh = await fetchPage();
    document.getElementById("main").replaceChildren(...fresh.getElementById("main").childNodes);
    document.title = fresh.title;
    history.replaceState(null, "", address);
    begin();
  }

  // Rows that were not there are put where they belong; what is there stays.
  async function showNew() {
    const shown = list();
    const body = shown.tBodies?.[0];
    if (!body) return showAnew();
    const fresh = (await fetchPage()).querySelector("table[data-live]");
    let before = null;
    let added = 0;
    for (const row of [...(fresh?.tBodies[0].rows ?? [])]) {
      const known = document.getElementById(row.id);
      if (known) {
        before = known;
        continue;
      }
      const fresher = document.importNode(row, true);
      if (before) before.after(fresher);
      else body.prepend(fresher);
      before = fresher;
      added += 1;
    }
    if (added > 0) {
      shown.dataset.live = fresh.dataset.live;
      begin();
    } else {
      const note = document.getElementById("new-hosts");
      if (note) note.hidden = false;
    }
  }

  function end() {
    clearTimeout(later);
    source?.close();
    source = null;
  }

  function begin() {
    end();
    const shown = list();
    if (!shown || document.hidden) return;
    source = new EventSource(shown.dataset.live);
    const on = (name, act) => source.addEventListener(name, (event) => act(JSON.parse(event.data)));
    source.onopen = () => say("live");
    on("row", replaceRow);
    on("counts", tellCounts);
    on("gone", (data) => document.getElementById(`host-${data.id}`)?.classList.add("gone"));
    source.addEventListener("end", (event) => {
      if (event.data !== "login") return;
      end();
      say("not live any more: load the page again");
    });
    source.onerror = () => {
      say("reconnecting");
      // The browser comes back by itself, but for a refusal.
      if (source?.readyState === EventSource.CLOSED) later = setTimeout(begin, AGAIN_MS * (0.5 + Math.random()));
    };
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  addEventListener("pagehide", end);
  addEventListener("pageshow", (event) => event.persisted && begin());
  begin();
})();
