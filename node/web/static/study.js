"use strict";
// The findings of a study: slices by slider, wheel and keys, grey scale, outlines, and what a person decides of the one at hand.
(() => {
  const cards = () => [...document.querySelectorAll(".finding")];
  let current = null;

  function address(image, slice) {
    const url = new URL(image.getAttribute("src") || image.dataset.src, location.href);
    if (slice !== undefined) url.searchParams.set("slice", slice);
    url.searchParams.set("window", document.getElementById("window").value);
    url.searchParams.set("outline", document.getElementById("outline").getAttribute("aria-pressed"));
    return url.pathname + url.search;
  }
  function show(card, slice) {
    for (const image of card.querySelectorAll("img")) {
      const wanted = address(image, slice);
      if (image.getAttribute("src") !== wanted) image.src = wanted;
    }
  }
  // A series may be long: a card learns which slices it has when somebody comes near it.
  async function learn(card) {
    if (card.dataset.known) return;
    card.dataset.known = "1";
    const answer = await fetch(`/api/findings/${card.dataset.finding}/slices`, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const range = await answer.json(), slider = card.querySelector("input[type=range]");
    slider.min = range.first; slider.max = range.last; slider.value = range.key;
    slider.disabled = range.first === range.last;
    slider.setAttribute("aria-valuetext", `slice ${range.key + 1} of ${range.count}`);
    card.dataset.count = range.count;
  }
  function turn(card, by) {
    const slider = card.querySelector("input[type=range]");
    if (slider.disabled) return;
    slider.value = Number(slider.value) + by;
    turned(card, slider);
  }
  function turned(card, slider) {
    slider.setAttribute("aria-valuetext", `slice ${Number(slider.value) + 1} of ${card.dataset.count}`);
    show(card, slider.value);
  }
  async function explain(image) {
    const figure = image.closest("figure");
    if (figure.querySelector("[role=alert]")) return;
    let sentence = "the picture cannot be shown";
    try { sentence = (await (await fetch(image.src)).json()).error; } catch { /* no answer: the sentence above */ }
    const line = document.createElement("p");
    line.setAttribute("role", "alert");
    line.className = "note small";
    line.textContent = `No picture: ${sentence}.`.replace("..", ".");
    image.hidden = true;
    figure.append(line);
  }
  function act(name) {
    const card = current && document.contains(current) ? current : cards()[0];
    card?.querySelector(`[data-act="${name}"]`)?.click();
  }

  document.addEventListener("error", (event) => { if (event.target.matches?.(".finding img")) explain(event.target); }, true);
  document.addEventListener("input", (event) => {
    const card = event.target.closest(".finding");
    if (card && event.target.type === "range") turned(card, event.target);
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "window") cards().forEach((card) => show(card));
  });
  document.addEventListener("click", (event) => {
    const card = event.target.closest(".finding");
    if (card) current = card;
    // Forms of another finding must not be seen under this one's name while its own are on their way.
    if (event.target.closest("[data-act=choose]")) document.getElementById("chooser").replaceChildren("…");
    const step = event.target.closest("[data-step]");
    if (step) turn(card, Number(step.dataset.step));
    if (event.target.closest("#outline")) {
      const button = event.target.closest("#outline");
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      cards().forEach((one) => show(one));
    }
  });
  document.addEventListener("focusin", (event) => { current = event.target.closest(".finding") || current; });
  window.addEventListener("hashchange", () => {
    const card = document.querySelector(":target.finding");
    if (card) { current = card; card.focus({ preventScroll: true }); }
  });
  // What is told at the edge of the page lies behind an open dialog.
  document.addEventListener("htmx:responseError", (event) => {
    const form = event.target.closest?.("#choose form");
    if (!form) return;
    let sentence = "The node did not take it.";
    try { sentence = JSON.parse(event.detail.xhr.responseText).error || sentence; } catch { /* no JSON */ }
    form.querySelector("[role=alert]")?.remove();
    const line = document.createElement("p");
    line.setAttribute("role", "alert");
    line.className = "alert";
    line.textContent = sentence;
    form.append(line);
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && event.target.matches?.("[data-anew]")) location.reload();
  });
  document.addEventListener("nadir:chosen", () => document.getElementById("choose").close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
    if (event.key === "a") act("accept");
    else if (event.key === "x") act("choose");
    else if (event.key === "v") act("viewer");
    else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && current) turn(current, event.key === "ArrowLeft" ? -1 : 1);
    else return;
    event.preventDefault();
  });
  const near = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting).forEach((one) => learn(one.target)), { rootMargin: "200px" });
  cards().forEach((card) => {
    near.observe(card);
    card.querySelector(".near img").addEventListener("wheel", (event) => {
      if (!event.shiftKey) return;
      event.preventDefault();
      turn(card, Math.sign(event.deltaY || event.deltaX));
    }, { passive: false });
  });
})();
