// A tool that weighs much is loaded when somebody asks for it. The address then says so: a reload or a bookmark opens it.
(() => {
  "use strict";

  const OPENED = "#open";
  const offer = document.querySelector("[data-tool]");
  const parts = [...offer.querySelector("template").content.children];
  const button = offer.querySelector("button");
  const told = offer.querySelector("[role=status]");

  const loaded = (part) => new Promise((done, failed) => {
    const fresh = document.createElement(part.localName);
    for (const { name, value } of part.attributes) fresh.setAttribute(name, value);
    fresh.async = false; // scripts run in their order
    fresh.addEventListener("load", done);
    fresh.addEventListener("error", failed);
    document.head.append(fresh);
  });
  const all = (name) => Promise.all(parts.filter((part) => part.localName === name).map(loaded));

  const open = async () => {
    history.replaceState(null, "", OPENED);
    button.disabled = true;
    told.textContent = "Loading …";
    try {
      await all("link"); // a tool measures itself by its styles when it starts
      await all("script");
      offer.remove();
    } catch {
      told.textContent = "A part of it could not be loaded. Try again.";
      button.disabled = false;
    }
  };
  button.addEventListener("click", open);
  offer.hidden = false;
  if (location.hash === OPENED) open();
})();
