// What pages do beyond reloading. Every page works without this file. No string becomes markup here.
"use strict";
(() => {
  const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
  const POLL_MS = 2000, REST_MS = 10 * 60 * 1000;

  // Relative times go on while the page is open, from the age that the server saw: this machine's clock may be wrong.
  const span = (s) => s < MINUTE ? `${s} s` : s < HOUR ? `${Math.round(s / MINUTE)} min` : s < DAY ? `${Math.round(s / HOUR)} h` : `${Math.round(s / DAY)} d`;
  const relative = (element) => {
    const seconds = Math.floor(Number(element.dataset.age) + performance.now() / 1000);
    const text = element.querySelector(".rel");
    if (!text || Number.isNaN(seconds)) return;
    text.textContent = Math.abs(seconds) < 10 ? "just now" : seconds < 0 ? `in ${span(-seconds)}` : `${span(seconds)} ago`;
  };
  setInterval(() => { for (const time of document.querySelectorAll("time")) relative(time); }, 10000);
  // What begins soon counts down by the second.
  const two = (number) => String(number).padStart(2, "0");
  const countdown = (element) => {
    const left = -Math.floor(Number(element.dataset.age) + performance.now() / 1000);
    if (left > 0 && left < DAY) element.querySelector(".rel").textContent = `in ${Math.floor(left / HOUR)}:${two(Math.floor(left / MINUTE) % 60)}:${two(left % 60)}`;
  };
  setInterval(() => { for (const time of document.querySelectorAll("[data-countdown] time")) countdown(time); }, 1000);

  // A form is sent once. What cannot be taken back is asked about in a dialog, whose own button sends the form.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent) { event.preventDefault(); return; }
    // After a download the page is still there, and may be asked again.
    if (form.method === "dialog" || "download" in form.dataset) return;
    form.dataset.sent = "yes";
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
      for (const button of form.querySelectorAll("button")) button.removeAttribute("aria-busy");
    }
  });
  for (const opener of document.querySelectorAll("[data-opens]")) {
    const dialog = document.getElementById(opener.dataset.opens);
    if (!dialog || !dialog.showModal) continue;
    opener.hidden = false;
    dialog.classList.add("modal");
    dialog.open = false;
    opener.addEventListener("click", () => dialog.showModal());
    for (const closer of dialog.querySelectorAll("[data-closes]")) {
      closer.hidden = false;
      closer.addEventListener("click", () => dialog.close());
    }
  }
  // A name typed correctly unlocks the button beside it; the server checks it again.
  for (const input of document.querySelectorAll("[data-expects]")) {
    const button = input.form.querySelector("button:not([type=button])");
    const check = () => { button.disabled = input.value.trim() !== input.dataset.expects; };
    input.addEventListener("input", check);
    check();
  }

  for (const back of document.querySelectorAll("[data-back]")) {
    if (history.length < 2) continue;
    back.hidden = false;
    back.addEventListener("click", () => history.back());
  }

  for (const button of document.querySelectorAll("[data-copies]")) {
    const source = document.getElementById(button.dataset.copies);
    if (!source || !navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText((source.value ?? source.textContent).trim());
      const label = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }

  for (const button of document.querySelectorAll("[data-prints]")) {
    button.hidden = false;
    button.addEventListener("click", () => print());
  }

  // Search within a table of this page.
  for (const input of document.querySelectorAll("[data-searches]")) {
    const table = document.getElementById(input.dataset.searches);
    const shown = document.getElementById(`${input.dataset.searches}-shown`);
    if (!table) continue;
    input.closest(".field").hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.trim().toLowerCase();
      let count = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
        if (!row.hidden) count += 1;
      }
      if (shown) shown.textContent = String(count);
    });
  }

  // What changes by itself: numbers are written in place; a new state loads the page again. Asking rests while nobody
  // looks or touches, so that an open page does not keep a session alive.
  const live = document.querySelector("[data-live]");
  if (live) {
    let touched = Date.now();
    for (const kind of ["pointerdown", "keydown", "pointermove", "scroll"]) {
      addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
    }
    const poll = async () => {
      if (document.hidden || Date.now() - touched > REST_MS || document.querySelector("dialog.modal[open]")) return;
      const answer = await fetch(live.dataset.live, { headers: { accept: "application/json" }, redirect: "error" });
      if (!answer.ok) return;
      const now = await answer.json();
      if (now.state !== live.dataset.state) { location.reload(); return; }
      for (const [name, value] of Object.entries(now.fields ?? {})) {
        for (const element of live.querySelectorAll(`[data-field="${name}"]`)) {
          if (element instanceof HTMLProgressElement) element.value = Number(value);
          else if (element.textContent !== String(value)) element.textContent = String(value);
        }
      }
      for (const [name, shape] of Object.entries(now.bars ?? {})) {
        for (const element of live.querySelectorAll(`[data-bar="${name}"]`)) {
          element.setAttribute("x", String(shape[0]));
          element.setAttribute("width", String(shape[1]));
        }
      }
    };
    setInterval(() => { poll().catch(() => { /* The server is away: the next try may find it. */ }); }, POLL_MS);
  }
})();
