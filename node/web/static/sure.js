"use strict";
// A button with data-do="/api/..." asks for a confirmation (data-sure), sends the change, and tells what came of it.
// data-typed: what has to be typed first. data-body: JSON that goes with it. The page hears nadir:changed on its body.
(() => {
  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  async function send(path, body) {
    const headers = { ...JSON.parse(document.body.getAttribute("hx-headers")), "Content-Type": "application/json", Accept: "application/json" };
    try {
      const answer = await fetch(path, { method: "POST", headers, body: body || "{}" });
      if (answer.status === 401) { location.assign("/login"); return; }
      const told = await answer.json();
      if (answer.ok) nadirTell(told.said);
      else nadirTell(told.error || `The node answered ${answer.status}.`, true);
    } catch {
      nadirTell("The node does not answer.", true);
    }
    htmx.trigger(document.body, "nadir:changed");
  }

  function ask(button) {
    const yes = element("button", { className: "primary", type: "submit", textContent: button.dataset.word || "Yes" });
    const form = element("form", { method: "dialog", className: "stack" }, element("p", { id: "sure-text", textContent: button.dataset.sure }));
    const typed = button.dataset.typed;
    if (typed) {
      const field = element("input", { autocomplete: "off", spellcheck: false, size: 40 });
      field.addEventListener("input", () => { yes.disabled = field.value.trim() !== typed; });
      form.append(element("label", {}, `Type ${typed}`, field));
      yes.disabled = true;
      yes.className = "danger";
    }
    const no = element("button", { type: "button", textContent: "Cancel" });
    form.append(element("div", { className: "row" }, yes, no));
    const dialog = element("dialog", {}, form);
    dialog.setAttribute("aria-labelledby", "sure-text");
    const { do: path, body } = button.dataset;
    const back = button.id;
    no.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", () => send(path, body));
    dialog.addEventListener("close", () => { dialog.remove(); (button.isConnected ? button : document.getElementById(back))?.focus(); });
    document.body.append(dialog);
    dialog.showModal();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) ask(button);
  });
})();
