// The form of a job can do without: tags by a click, and more rows without a round to the server.
(() => {
  "use strict";

  const split = (field) => field.value.split(",").map((word) => word.trim()).filter(Boolean);
  for (const button of document.querySelectorAll("button[data-tag]")) {
    const field = document.getElementById(button.dataset.into);
    const show = () => button.setAttribute("aria-pressed", String(split(field).includes(button.dataset.tag)));
    button.hidden = false;
    button.addEventListener("click", () => {
      const words = split(field);
      const others = words.filter((word) => word !== button.dataset.tag);
      field.value = (others.length < words.length ? others : [...words, button.dataset.tag]).join(", ");
      field.dispatchEvent(new Event("input"));
    });
    field.addEventListener("input", show);
    show();
  }

  for (const button of document.querySelectorAll("[data-more-rows]")) {
    button.addEventListener("click", (event) => {
      event.preventDefault();
      const rows = button.parentElement.querySelector(".variables");
      const number = rows.children.length;
      const row = rows.lastElementChild.cloneNode(true);
      for (const field of row.querySelectorAll("input, textarea")) {
        const label = field.getAttribute("aria-label");
        if (label) field.setAttribute("aria-label", label.replace(/\d+$/, number + 1));
        if (field.type === "checkbox") Object.assign(field, { checked: false, value: String(number) });
        else field.value = "";
        field.removeAttribute("placeholder");
      }
      for (const said of row.querySelectorAll(".hidden")) said.textContent = ` variable ${number + 1}`;
      rows.append(row);
      row.querySelector("input").placeholder = "KEY";
      row.querySelector("input").focus();
    });
  }
})();
