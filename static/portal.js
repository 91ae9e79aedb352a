// What the pages can do without: copy buttons, relative times, a path proposed from a name, one sending of a form.
(() => {
  "use strict";

  document.documentElement.classList.add("scripted");

  // Copy buttons stand hidden in the page; they appear where copying works.
  const select = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  const copy = async (element) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(element.textContent);
    // Plain http on another host has no clipboard API; a selection and the old command still work there.
    select(element);
    if (!document.execCommand("copy")) throw new Error("not copied");
  };
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    const words = button.firstChild;
    const before = words.textContent;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await copy(source);
        words.textContent = "Copied";
      } catch {
        select(source);
        words.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => { words.textContent = before; }, 2000);
    });
  }

  // A secret does not stay behind in a page that the browser keeps for its back button.
  addEventListener("pagehide", () => {
    for (const place of document.querySelectorAll("[data-secret]")) {
      place.replaceChildren(Object.assign(document.createElement("p"), {
        textContent: `This was shown once and is not shown again. If it is lost, ${place.dataset.secret || "reset it"}.`,
      }));
    }
  });

  // The answer to a sending has no address of its own: reload and back lead to the thing it made, not to a
  // browser's question whether to send again.
  const made = document.querySelector("[data-address]");
  if (made) history.replaceState(null, "", made.dataset.address);

  // A second click sends nothing again while the first is on its way.
  for (const form of document.querySelectorAll("form[data-once]")) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
  }
  addEventListener("pageshow", (event) => {
    if (event.persisted) document.querySelectorAll("form[data-once]").forEach((form) => delete form.dataset.sent);
  });

  // A box that stands for all boxes of a name ticks them, and is no longer ticked when one of them is not.
  addEventListener("change", ({ target }) => {
    const boxes = target.dataset?.chooses && document.querySelectorAll(`input[type=checkbox][name="${target.dataset.chooses}"]`);
    if (boxes) for (const box of boxes) box.checked = target.checked;
    else if (target.type === "checkbox" && !target.checked) {
      const all = document.querySelector(`[data-chooses="${CSS.escape(target.name)}"]`);
      if (all) all.checked = false;
    }
  });

  // A path proposed from the name, until somebody writes one.
  for (const form of document.querySelectorAll("form[data-path-from-name]")) {
    const [name, path] = [form.elements.name, form.elements.path];
    let touched = path.value !== "";
    path.addEventListener("input", () => { touched = path.value !== ""; });
    name.addEventListener("input", () => {
      if (!touched) path.value = name.value.toLowerCase().replace(/[^a-z0-9_.]+/g, "-").replace(/^[-.]+|[-.]+$/g, "");
    });
  }

  // The room one is in stands in sight, also where the tabs are wider than the screen.
  const tab = document.querySelector(".tabs [aria-current]");
  if (tab) tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 16;

  // Relative times go on.
  const steps = [[60, 1, "second"], [3600, 60, "minute"], [86400, 3600, "hour"], [86400 * 60, 86400, "day"]];
  const retell = () => {
    for (const time of document.querySelectorAll("time[datetime]:not([data-still])")) {
      const seconds = Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000);
      const step = steps.find(([limit]) => seconds < limit);
      if (!step) continue;
      const count = Math.floor(seconds / step[1]);
      const words = seconds < 2 ? "just now" : `${count} ${step[2]}${count === 1 ? "" : "s"} ago`;
      if (time.textContent !== words) time.textContent = words;
    }
  };
  setInterval(retell, 5000);

  // What a reader has opened or folded stays so when the part of the page that it is in refreshes itself.
  const folded = new Map();
  addEventListener("click", ({ target }) => {
    const details = target.closest?.("summary")?.parentElement;
    if (details?.id) folded.set(details.id, !details.open);
  });
  addEventListener("htmx:afterSwap", () => {
    for (const [id, open] of folded) {
      const details = document.getElementById(id);
      if (details) details.open = open;
    }
  });

  document.querySelector("[data-focus]")?.focus();
  addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
  });
})();
