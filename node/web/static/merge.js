"use strict";
// hx-ext="merge" hx-swap="merge": what the node answers is merged into what is there, element by element by its id.
// What did not change stays as it is; what did keeps its focus, its selection and what was opened in it. An element with
// data-merge is gone into; every other is replaced as a whole.
(() => {
  const served = new WeakMap();

  function remember(root) {
    for (const child of root.children) if (child.hasAttribute("data-merge")) remember(child); else served.set(child, child.outerHTML);
  }

  function carry(old, fresh) {
    if (old.classList.contains("open")) open(fresh, true);
    old.querySelectorAll("[aria-selected]").forEach((row) => {
      const at = [...old.querySelectorAll("tr")].indexOf(row);
      fresh.querySelectorAll("tr")[at]?.setAttribute("aria-selected", "true");
    });
    for (const details of [old, ...old.querySelectorAll("details[id]")]) {
      if (!details.open || !details.id) continue;
      const same = fresh.id === details.id ? fresh : fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = true;
    }
  }

  function update(old, fresh, made) {
    if (fresh.hasAttribute("data-merge") && old.tagName === fresh.tagName) {
      merge(old, fresh, made);
      return old;
    }
    if (served.get(old) === fresh.outerHTML) return old;
    served.set(fresh, fresh.outerHTML);
    carry(old, fresh);
    old.replaceWith(fresh);
    made.push(fresh);
    return fresh;
  }

  function merge(old, fresh, made) {
    const known = new Map([...old.children].map((child) => [child.id, child]));
    let last = null;
    for (const next of [...fresh.children]) {
      const same = known.get(next.id);
      known.delete(next.id);
      let here = next;
      if (same) here = update(same, next, made);
      else { remember({ children: [next] }); made.push(next); }
      const place = last ? last.nextElementSibling : old.firstElementChild;
      if (place !== here) old.insertBefore(here, place);
      last = here;
    }
    known.forEach((gone) => gone.remove());
  }

  function open(row, isOpen) {
    row.classList.toggle("open", isOpen);
    row.querySelector("[data-more]")?.setAttribute("aria-expanded", String(isOpen));
  }
  window.nadirOpen = open;

  htmx.defineExtension("merge", {
    isInlineSwap: (style) => style === "merge",
    handleSwap: (style, target, fragment) => {
      if (style !== "merge") return false;
      const focused = document.activeElement?.id;
      const made = [];
      merge(target, fragment, made);
      if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
      return made.length ? made : [target];
    },
  });
  document.querySelectorAll("[hx-ext=merge]").forEach(remember);
})();
