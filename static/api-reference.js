// The reference of the REST API: opens what an address names, filters while one types, opens all to print.
(() => {
  "use strict";

  // On the page of all they are lines that lead to their own page; there they open.
  const operations = [...document.querySelectorAll(".operation")];
  const rooms = [...document.querySelectorAll("[data-room]")];
  const contents = document.querySelector(".contents");
  const field = document.getElementById("filter");
  const told = document.getElementById("filtered");
  const nothing = document.querySelector("[data-nothing]");
  const intro = document.querySelector(".reference-intro");
  const opener = document.querySelector("[data-open-all]");
  for (const each of document.querySelectorAll(".scripted-only")) each.hidden = false;

  // Beside the text the contents stand open; above it, on a phone, they are opened when wanted.
  const wide = matchMedia("(min-width: 62rem)");
  const place = () => { contents.open = wide.matches; };
  wide.addEventListener("change", place);
  place();

  // What is looked through: method, path and summary, and the names of parameters and attributes.
  const names = (each) => [...each.querySelectorAll("th[scope=row] code")].map((code) => code.textContent).join(" ");
  const words = new Map(operations.map((each) => {
    const line = (each.querySelector("summary") || each).textContent;
    return [each, `${line} ${each.dataset.words ?? names(each)}`.toLowerCase()];
  }));
  const filter = () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = new Set(operations.filter((each) => wanted.every((word) => words.get(each).includes(word))));
    for (const each of operations) each.hidden = !shown.has(each);
    for (const room of rooms) {
      room.hidden = wanted.length > 0 && !room.querySelector(".operation:not([hidden])");
    }
    if (intro) intro.hidden = wanted.length > 0;
    nothing.hidden = shown.size > 0;
    told.textContent = wanted.length ? `${shown.size} of ${operations.length}` : "";
  };
  const clear = () => { field.value = ""; filter(); };
  field.addEventListener("input", filter);
  field.form.addEventListener("submit", (event) => event.preventDefault());
  document.querySelector("[data-clear]").addEventListener("click", () => { clear(); field.focus(); });

  // An address that names an operation opens it, whatever is filtered.
  const visit = () => {
    const named = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!named) return;
    const operation = named.closest(".operation");
    const elsewhere = operation?.querySelector(":scope > a");
    if (elsewhere) return location.replace(elsewhere.href); // an address from when all stood on one page
    if (operation?.hidden || named.closest("[data-room]")?.hidden) clear();
    if (operation) operation.open = true;
    if (!wide.matches) contents.open = false;
    (operation || named).scrollIntoView();
  };
  addEventListener("hashchange", visit);
  // The same link once more changes no address, and yet is to lead there.
  addEventListener("click", (event) => {
    const link = event.target.closest("a[href*='#']");
    if (link && link.href === location.href) visit();
  });
  visit();

  if (!opener) return;
  const openAll = (open) => { for (const each of operations) each.open = open; };
  opener.addEventListener("click", () => {
    const open = opener.textContent === "Open all";
    openAll(open);
    opener.textContent = open ? "Close all" : "Open all";
  });
  let before = [];
  addEventListener("beforeprint", () => { before = operations.filter((each) => !each.open); openAll(true); });
  addEventListener("afterprint", () => { for (const each of before) each.open = false; });
})();
