"use strict";
// What every page does: the theme, what the node told, and the keys.
(() => {
  const root = document.documentElement;

  function tell(text, isBad) {
    const line = document.createElement("p");
    line.textContent = text;
    if (isBad) line.className = "bad";
    document.getElementById("told").append(line);
    setTimeout(() => line.remove(), isBad ? 12000 : 5000);
  }
  window.nadirTell = tell;

  function switchTheme() {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = isDark ? "light" : "dark";
    root.dataset.theme = theme;
    document.cookie = `nadir_theme=${theme}; path=/; max-age=31536000; samesite=strict`;
    document.dispatchEvent(new CustomEvent("nadir:theme", { detail: theme }));
  }

  // A change answers with the header HX-Trigger: {"told": "one sentence"}; a refusal with {"error": "one sentence"}.
  document.addEventListener("told", (event) => tell(event.detail.value ?? String(event.detail)));
  document.addEventListener("htmx:responseError", (event) => {
    const request = event.detail.xhr;
    if (request.status === 401) return;
    let sentence = `The node answered ${request.status}.`;
    try { sentence = JSON.parse(request.responseText).error || sentence; } catch { /* no JSON */ }
    tell(sentence, true);
  });
  document.addEventListener("htmx:sendError", () => tell("The node does not answer. This page tries again.", true));

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme-switch]")) switchTheme();
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
    if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  });

  const rows = () => [...document.querySelectorAll("tr[data-row]")].filter((row) => row.offsetParent);
  function step(by) {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const to = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
    all.forEach((row) => row.removeAttribute("aria-selected"));
    to.setAttribute("aria-selected", "true");
    to.scrollIntoView({ block: "nearest" });
    to.querySelector("a, button")?.focus({ preventScroll: true });
  }
  function help() {
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-label", "Keys");
    const list = document.createElement("dl");
    list.className = "facts";
    const known = [["j, k", "next, previous row"], ["Enter", "open the row"], ["/", "search"], ["t", "dark or light"]];
    document.querySelectorAll(".bar nav a").forEach((a) => known.push([`g ${a.dataset.key}`, a.textContent.trim()]));
    document.querySelectorAll("[data-hotkey]").forEach((b) => known.push([b.dataset.hotkey, b.title || b.textContent.trim()]));
    for (const [keys, words] of known) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      for (const part of keys.split(/(, | )/)) dt.append(/^[, ]+$/.test(part) ? part : Object.assign(document.createElement("kbd"), { textContent: part }));
      dd.textContent = words;
      list.append(dt, dd);
    }
    dialog.append(Object.assign(document.createElement("h2"), { textContent: "Keys" }), list);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  let isGoing = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
    const key = event.key;
    if (isGoing) {
      isGoing = false;
      document.querySelector(`.bar nav a[data-key="${CSS.escape(key)}"]`)?.click();
    } else if (key === "g") {
      isGoing = true;
      setTimeout(() => { isGoing = false; }, 1500);
    } else if (key === "j" || key === "k") step(key === "j" ? 1 : -1);
    else if (key === "/") document.querySelector("input[type=search]")?.focus();
    else if (key === "t") switchTheme();
    else if (key === "?") help();
    else {
      const hot = document.querySelector(`[data-hotkey="${CSS.escape(key)}"]`);
      if (!hot) return;
      hot.click();
    }
    event.preventDefault();
  });
})();
