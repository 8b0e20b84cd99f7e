"use strict";
// Files on their way to the node: each one request, big ones in pieces, a few at a time; what breaks off goes on where it was.
(() => {
  const PARALLEL = 4, PIECE = 32 << 20, PATIENCE = [1, 2, 4, 8, 15, 30], BEAT_MS = 20000, SKIPPED_AT_ONCE = 200;
  const at = (id) => document.getElementById(id);
  const place = at("drop"), state = at("state"), trouble = at("trouble"), pauseButton = at("pause");
  const queue = [], active = new Map(), passed = [], here = new Map(), outcomes = new Map();
  const total = { files: 0, bytes: 0, done: 0, doneBytes: 0 };
  let upload = null, number = 1, isPaused = false, isFinishing = false, isOver = false, running = 0, begun = 0, reading = 0;
  let token = JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];

  const size = (bytes) => { for (const unit of ["B", "kB", "MB", "GB"]) { if (bytes < 1000) return `${bytes < 10 && unit !== "B" ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`; bytes /= 1000; } return `${bytes.toFixed(1)} TB`; };
  const wait = (seconds) => new Promise((go) => setTimeout(go, seconds * 1000));
  class Stop extends Error {}

  // One request; its answer, or an error of the network.
  function ask(method, path, body, headers = {}, progress = null, entry = null) {
    return new Promise((answered, failed) => {
      const request = new XMLHttpRequest();
      request.open(method, path);
      for (const [name, value] of Object.entries({ "X-CSRF-Token": token, Accept: "application/json", ...headers })) request.setRequestHeader(name, value);
      if (progress) request.upload.onprogress = (event) => progress(event.loaded);
      if (entry) entry.request = request;
      request.onload = () => {
        let said = {};
        try { said = JSON.parse(request.responseText); } catch { /* no JSON */ }
        answered({ status: request.status, said });
      };
      request.onerror = request.ontimeout = request.onabort = () => failed(new Error("network"));
      request.send(body);
    });
  }
  const json = (method, path, value) => ask(method, path, JSON.stringify(value), { "Content-Type": "application/json" });

  // Ask until there is an answer that another try would not change.
  async function insist(make) {
    let refused = 0;
    for (let attempt = 0; ; attempt++) {
      if (isOver) throw new Stop();
      let answer = null;
      try { answer = await make(); } catch (error) { if (error instanceof Stop) throw error; }
      if (answer && ![401, 403, 408, 429, 500, 502, 503, 504, 507].includes(answer.status)) return answer;
      if (isPaused) { await resumed(); attempt = -1; continue; }
      if (answer && answer.status === 507) { pause(`${answer.said.error || "The disk of the node is full."} Then press Go on.`); continue; }
      if (answer && (answer.status === 401 || answer.status === 403)) {
        if (!(await signedIn())) { pause("You are signed out. ", true); refused = 0; }
        else if (++refused > 2) throw new Stop(answer.said.error || "You may not do this.");
        continue;
      }
      if (attempt >= PATIENCE.length) { pause("The node does not answer. What is here is safe; press Go on to try again."); attempt = -1; continue; }
      await wait(PATIENCE[attempt]);
    }
  }
  // The token of the session may be another after signing in again: a page of it has the new one.
  async function signedIn() {
    try {
      const answer = await fetch("/upload", { headers: { Accept: "text/html" }, redirect: "manual" });
      if (!answer.ok) return false;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      token = JSON.parse(page.body.getAttribute("hx-headers"))["X-CSRF-Token"];
      return true;
    } catch { return true; }
  }
  const waiting = [];
  const resumed = () => new Promise((go) => waiting.push(go));
  function pause(text, offersSignIn = false) {
    isPaused = true;
    pauseButton.textContent = "Go on";
    trouble.replaceChildren(text);
    if (offersSignIn) trouble.append(Object.assign(document.createElement("a"), { href: "/login", target: "_blank", textContent: "Sign in again in another tab" }), ", then press Go on.");
    trouble.hidden = !text;
    for (const one of active.values()) one.request?.abort();
  }
  function goOn() {
    isPaused = false;
    pauseButton.textContent = "Pause";
    trouble.hidden = true;
    waiting.splice(0).forEach((go) => go());
    work();
  }

  // Which files there are: of a list, or of folders that were dropped.
  async function* within(entry) {
    if (entry.isFile) {
      const file = await new Promise((good, bad) => entry.file(good, bad)).catch(() => null);
      if (file) yield { file, name: entry.fullPath.replace(/^\//, "") };
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((good) => reader.readEntries(good, () => good([])));
        if (!some.length) break;
        for (const one of some) yield* within(one);
      }
    }
  }
  async function dropped(items) {
    const entries = [...items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
    let count = 0;
    reading++;
    for (const entry of entries) {
      if (!entry) continue;
      if (entry instanceof File) { add(entry, entry.name); count++; continue; }
      for await (const { file, name } of within(entry)) { add(file, name); count++; }
    }
    reading--;
    chosen(count);
  }
  function listed(files) {
    for (const file of files) add(file, file.webkitRelativePath || file.name);
    chosen(files.length);
  }
  function add(file, name) {
    queue.push({ file, name: name.slice(-255) });
    total.files++;
    total.bytes += file.size;
    if (queue.length === 1 || queue.length % 500 === 0) draw();
  }
  function chosen(count) {
    if (!count && !total.files) return window.nadirTell("There is no file in it.", true);
    state.hidden = false;
    begun ||= Date.now();
    draw();
    work();
  }

  // What is passed over without being sent: by its name, or its first bytes.
  async function reason({ file, name }) {
    const parts = name.toLowerCase().split(/[\\/]/);
    const last = parts[parts.length - 1];
    if (parts.some((part) => part.startsWith(".") || ["thumbs.db", "desktop.ini", "__macosx"].includes(part))) return "hidden";
    if (last === "dicomdir") return "dicomdir";
    if (!file.size) return "empty";
    const head = new Uint8Array(await file.slice(0, 132).arrayBuffer());
    const text = (from, to) => String.fromCharCode(...head.slice(from, to));
    if (text(128, 132) === "DICM" || ["PK\x03\x04", "PK\x05\x06"].includes(text(0, 4)) || /\.nii(\.gz)?$/.test(last)) return "";
    if (/\.(7z|rar|tar|tgz|gz|bz2|xz|zip)$/.test(last)) return "";
    return /\.(dcm|dicom|ima)$/.test(last) ? "misnamed" : "not-dicom";
  }
  const WORDS = { hidden: "hidden file", dicomdir: "DICOMDIR, a list without images", empty: "empty file", misnamed: "called DICOM, and is none", "not-dicom": "no DICOM, zip or NIfTI", unread: "could not be read on this machine" };

  let beginning = null;
  function begin() {
    return beginning ??= (async () => {
      const answer = await insist(() => json("POST", "/api/uploads", { delivered: at("delivered")?.checked ?? true }));
      if (answer.status !== 201) throw new Stop(answer.said.error);
      upload = answer.said.id;
    })();
  }
  async function adopt(pk) {
    let cursor = "";
    do {
      const { status, said } = await insist(() => ask("GET", `/api/uploads/${pk}/files?limit=1000&cursor=${cursor}`));
      if (status !== 200) return window.nadirTell(said.error || "This upload cannot be gone on with.", true);
      for (const file of said.files) {
        if (file.member) continue;
        const key = `${file.name}|${file.size_bytes}`;
        here.set(key, [...(here.get(key) ?? []), file]);
        number = Math.max(number, file.number + 1);
      }
      cursor = said.next ?? "";
    } while (cursor);
    upload = pk;
    beginning = Promise.resolve();
    document.querySelectorAll("[data-unfinished]").forEach((one) => one.remove());
    window.nadirTell(`Upload ${pk} goes on: choose the same files again. ${[...here.values()].flat().length} are here.`);
  }

  // The file of the upload that is this very one: of its name and size, and what is here of it has its bytes.
  async function found({ file, name }, code) {
    for (const one of here.get(`${name}|${file.size}`) ?? []) {
      let known = one;
      if (one.state === "skipped" && !one.sha256) { if (one.code === code) return one; continue; }
      if (one.state === "arriving") {
        const { status, said } = await insist(() => ask("GET", `/api/uploads/${upload}/files/${one.number}`));
        if (status !== 200) continue;
        known = said;
      }
      if (known.sha256 && (await window.nadirSha256(file.slice(0, known.received_bytes))) === known.sha256) return known;
    }
    return null;
  }

  async function work() {
    while (running < PARALLEL && queue.length && !isPaused && !isOver) {
      running++;
      handle(queue.shift()).catch((error) => { if (error.message && !isOver) { isOver = true; pause(error.message); } }).finally(() => { running--; work(); draw(); });
    }
    if (!running && !queue.length && !reading && !isPaused && !isOver && (isFinishing || passed.length)) await rest();
  }
  async function handle(entry) {
    const code = await reason(entry).catch(() => "unread");
    const known = await found(entry, code).catch((error) => { if (error instanceof Stop) throw error; return null; }); // unreadable by now
    entry.number = known ? known.number : number++;
    if (known && known.state !== "arriving") { ended(entry, known); return; }
    await begin();
    if (code && code !== "unread") {
      passed.push({ number: entry.number, name: entry.name, size_bytes: entry.file.size, code });
      ended(entry, { state: "skipped", code, sentence: WORDS[code] });
      if (passed.length >= SKIPPED_AT_ONCE) await tellPassed();
      return;
    }
    if (code) { ended(entry, { state: "refused", code, sentence: WORDS[code] }); return; }
    active.set(entry.number, entry);
    draw();
    try { await send(entry, known); } finally { active.delete(entry.number); }
  }
  async function send(entry, known) {
    const { file } = entry, path = `/api/uploads/${upload}/files/${entry.number}`;
    const headers = { "X-File-Name": encodeURIComponent(entry.name), "Content-Type": "application/octet-stream" };
    entry.sent = known ? known.received_bytes : 0;
    let asks = Boolean(known);
    for (;;) {
      const answer = await insist(async () => {
        if (isPaused) await resumed();
        if (asks && file.size > PIECE) { // after a break: how much of it is there?
          const found = await ask("GET", path);
          if (found.status === 200 && found.said.state !== "arriving") return found;
          if (found.status === 200) entry.sent = found.said.received_bytes;
          else if (found.status === 404) entry.sent = 0;
          else return found;
        }
        asks = true;
        const from = file.size > PIECE ? entry.sent : 0, to = Math.min(file.size, from + (file.size > PIECE ? PIECE : file.size));
        const range = file.size <= PIECE ? {} : { "Content-Range": from < file.size ? `bytes ${from}-${to - 1}/${file.size}` : `bytes */${file.size}` };
        const got = await ask("PUT", path, file.slice(from, to), { ...headers, ...range }, (loaded) => { entry.sent = Math.min(file.size, from + loaded); draw(); }, entry);
        // Its last try is still being dealt with there, or another piece comes next: ask again in a moment.
        return ["being-sent", "another-piece"].includes(got.said.code) ? { status: 503, said: got.said } : got;
      });
      if (answer.status === 200 && answer.said.state === "arriving") { entry.sent = answer.said.received_bytes; asks = false; continue; }
      if (answer.status === 200) return ended(entry, answer.said);
      if ([404, 409].includes(answer.status)) throw new Stop(answer.said.error || "This upload has ended; load the page again.");
      return ended(entry, { state: "refused", code: `http-${answer.status}`, sentence: answer.said.error || `the node answered ${answer.status}` });
    }
  }
  function ended(entry, said) {
    total.done++;
    total.doneBytes += entry.file.size;
    const key = `${said.state}|${said.code}|${said.code ? said.sentence : ""}`;
    const one = outcomes.get(key) ?? { state: said.state, sentence: said.code ? said.sentence : "", count: 0, names: [] };
    one.count++;
    if (one.names.length < 3) one.names.push(entry.name);
    outcomes.set(key, one);
    draw();
  }
  async function tellPassed() {
    const files = passed.splice(0, 500);
    if (files.length) await insist(() => json("POST", `/api/uploads/${upload}/skipped`, { files }));
  }
  let isResting = false;
  async function rest() {
    if (isResting) return;
    isResting = true;
    try {
      while (passed.length) await tellPassed();
      if (!isFinishing || queue.length || running || reading) return;
      const answer = await insist(() => json("POST", `/api/uploads/${upload}/finish`, { delivered: at("delivered")?.checked ?? true }));
      isOver = true;
      if (answer.status === 200) return window.location.assign(`/uploads/${upload}`);
      isOver = isFinishing = at("finish").disabled = false;
      pause(answer.said.error || "The upload could not be finished.");
    } catch (error) {
      if (error.message) pause(error.message);
    } finally {
      isResting = false;
    }
  }

  // What people see, at most ten times a second.
  let drawing = 0, told = 0;
  function draw() { if (!drawing) drawing = setTimeout(paint, 100); }
  const STATES = { kept: ["good", "taken"], known: ["plain", "here already"], refused: ["bad", "refused"], skipped: ["plain", "passed over"], unpacking: ["run", "to be unpacked"], unpacked: ["good", "unpacked"], waiting: ["wait", "say next what it is"], converting: ["run", "being written"] };
  function paint() {
    drawing = 0;
    const moving = [...active.values()].reduce((sum, one) => sum + (one.sent || 0), 0);
    const bytes = total.doneBytes + moving, seconds = Math.max(1, (Date.now() - begun) / 1000);
    const isDone = total.done === total.files && !running;
    at("total").value = total.bytes ? bytes / total.bytes : isDone ? 1 : 0;
    if (isDone || Date.now() - told > 900) { // so that it can be read, and read out
      told = Date.now();
      const left = bytes && !isDone ? `, about ${Math.ceil((total.bytes - bytes) / (bytes / seconds))} s left` : "";
      at("total-words").textContent = `${total.done} of ${total.files} file${total.files === 1 ? "" : "s"}, ${size(bytes)} of ${size(total.bytes)}${left}`;
    } else draw();
    const list = at("active");
    const rows = new Map([...list.children].map((row) => [row.dataset.number, row]));
    for (const [key, row] of rows) if (!active.has(Number(key))) row.remove();
    for (const [key, one] of active) {
      let row = rows.get(String(key));
      if (!row) {
        row = document.createElement("li");
        row.dataset.number = key;
        const name = Object.assign(document.createElement("span"), { textContent: one.name });
        const bar = Object.assign(document.createElement("progress"), { max: 1, value: 0 });
        bar.setAttribute("aria-label", one.name);
        row.append(name, bar);
        list.append(row);
      }
      row.lastChild.value = one.file.size ? (one.sent || 0) / one.file.size : 0;
    }
    at("outcome").replaceChildren(...[...outcomes.values()].map((one) => {
      const line = document.createElement("p"), [kind, words] = STATES[one.state] ?? ["plain", one.state];
      line.className = "small";
      const chip = Object.assign(document.createElement("span"), { className: `chip ${kind}`, textContent: `${one.count} ${words}` });
      line.append(chip, one.sentence ? ` ${one.sentence}: ${one.names.join(", ")}${one.count > one.names.length ? ", …" : ""}` : "");
      return line;
    }));
    at("finish").textContent = isFinishing && !isDone ? "Analysed when all is here" : "That is all: analyse";
    if (isDone && !isFinishing && queue.length === 0) pauseButton.hidden = true;
    else pauseButton.hidden = false;
  }

  const keep = (event) => { if (active.size || queue.length) event.preventDefault(); };
  window.addEventListener("beforeunload", keep);
  setInterval(() => { if (upload && !isOver && begun) ask("POST", `/api/uploads/${upload}/beat`, null).catch(() => {}); }, BEAT_MS);
  for (const name of ["files", "folder"]) at(name).addEventListener("change", (event) => { listed([...event.target.files]); event.target.value = ""; });
  for (const kind of ["dragover", "dragenter"]) document.addEventListener(kind, (event) => { event.preventDefault(); place.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) place.classList.remove("over"); });
  document.addEventListener("drop", (event) => { event.preventDefault(); place.classList.remove("over"); dropped(event.dataTransfer.items); });
  pauseButton.addEventListener("click", () => (isPaused ? goOn() : pause("")));
  at("finish").addEventListener("click", async () => { isFinishing = true; at("finish").disabled = true; try { await begin(); } catch (error) { return pause(error.message); } draw(); work(); });
  at("cancel").addEventListener("click", async () => {
    isOver = true;
    queue.length = 0;
    for (const one of active.values()) one.request?.abort();
    if (upload) await ask("DELETE", `/api/uploads/${upload}`, null).catch(() => {});
    window.location.assign("/upload");
  });
  document.addEventListener("click", (event) => { const button = event.target.closest("[data-go-on]"); if (button) adopt(Number(button.dataset.goOn)); });
})();
