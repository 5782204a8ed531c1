// The palette: the list of `/search`, while it is typed, in a dialog over the page. Without script `/search` is a page.
"use strict";

const WAIT_MS = 120;
const MARK = "palette";
let palette = null;
let asked = 0;
// What was pressed before the list was that of what is typed.
let isAwaited = false;

function part(name, attributes) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function links() {
  return [...palette.querySelectorAll(".results a")];
}

function select(link) {
  for (const other of links()) other.setAttribute("aria-selected", String(other === link));
  const field = palette.querySelector("input");
  if (link === undefined) return field.removeAttribute("aria-activedescendant");
  field.setAttribute("aria-activedescendant", link.id);
  link.scrollIntoView({ block: "nearest" });
}

async function look() {
  const field = palette.querySelector("input");
  const turn = ++asked;
  const said = palette.querySelector("p");
  const answer = await fetch(`/search?q=${encodeURIComponent(field.value)}`, { credentials: "same-origin" }).catch(() => null);
  if (turn !== asked) return;
  if (answer === null || !answer.ok || answer.redirected) {
    palette.querySelector(".results").replaceChildren();
    said.hidden = false;
    said.textContent = "The collector does not answer. Load the page again.";
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (turn !== asked) return;
  const found = [...page.querySelectorAll("#results > li")];
  palette.querySelector(".results").replaceChildren(...found.map((one) => document.adoptNode(one)));
  links().forEach((link, place) => {
    link.id = `${MARK}-${place}`;
    link.setAttribute("role", "option");
    link.tabIndex = -1;
    link.parentElement.setAttribute("role", "presentation");
  });
  said.hidden = found.length > 0;
  said.textContent = "Nothing is called so.";
  select(links()[0]);
  palette.dataset.shows = field.value;
  if (isAwaited) links()[0]?.click();
  isAwaited = false;
}

function keyed(event) {
  const all = links();
  const at = all.findIndex((link) => link.getAttribute("aria-selected") === "true");
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    select(all[(at + step + all.length) % all.length]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (palette.dataset.shows === event.target.value) all[at]?.click();
    else isAwaited = true;
  }
}

function build() {
  palette = part("dialog", { class: "dialog palette", "aria-label": "Search" });
  const field = part("input", {
    type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": `${MARK}-list`, "aria-autocomplete": "list",
    "aria-label": "Hosts, packages, pages, actions", placeholder: "Hosts, packages, pages, actions", autocomplete: "off", spellcheck: "false", maxlength: "256",
  });
  const list = part("ol", { class: "results", id: `${MARK}-list`, role: "listbox", "aria-label": "Found" });
  palette.append(field, list, part("p", { class: "muted", role: "status" }));
  let wait = 0;
  field.addEventListener("input", () => {
    clearTimeout(wait);
    isAwaited = false;
    // What is under way is of another text.
    asked += 1;
    wait = setTimeout(look, WAIT_MS);
  });
  field.addEventListener("keydown", keyed);
  palette.addEventListener("click", (event) => event.target === palette && palette.close());
  document.body.append(palette);
}

document.addEventListener("palette", () => {
  if (palette === null) build();
  if (palette.open) return palette.close();
  palette.showModal();
  palette.querySelector("input").select();
  isAwaited = false;
  look();
});
document.addEventListener("click", (event) => {
  const opener = event.target instanceof Element ? event.target.closest("[data-palette]") : null;
  if (opener === null || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  document.dispatchEvent(new CustomEvent("palette"));
});
