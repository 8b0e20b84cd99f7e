"use strict";
// The worklist: search as one types, stages, pages, and rows that open.
(() => {
  const words = document.getElementById("words"), stage = document.getElementById("stage"), page = document.getElementById("page");
  const refresh = () => htmx.trigger(document.body, "nadir:changed");
  let later = 0;
  words.addEventListener("input", () => {
    page.value = "0";
    clearTimeout(later);
    later = setTimeout(refresh, 250);
  });
  document.getElementById("find").addEventListener("submit", (event) => {
    event.preventDefault();
    refresh();
  });
  document.addEventListener("click", (event) => {
    const more = event.target.closest("[data-more]"), chosen = event.target.closest("[data-stage]"), turned = event.target.closest("[data-page]");
    if (more) {
      const row = more.closest("tbody");
      nadirOpen(row, !row.classList.contains("open"));
    }
    if (chosen) {
      stage.value = chosen.dataset.stage;
      page.value = "0";
      refresh();
    }
    if (turned) {
      page.value = turned.dataset.page;
      refresh();
    }
  });
})();
