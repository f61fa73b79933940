// Sets the remembered theme before anything is drawn.
"use strict";
(() => {
  document.documentElement.classList.add("js");
  const stored = () => { try { return localStorage.getItem("muster-theme"); } catch { return null; } };
  const apply = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    const order = ["system", "light", "dark"];
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      const name = button.querySelector("[data-theme-name]");
      const show = () => { name.textContent = stored() ?? "system"; };
      show();
      button.hidden = false;
      button.addEventListener("click", () => {
        const next = order[(order.indexOf(stored() ?? "system") + 1) % order.length];
        try {
          if (next === "system") localStorage.removeItem("muster-theme");
          else localStorage.setItem("muster-theme", next);
        } catch { /* A browser that stores nothing still changes this page. */ }
        apply(next);
        show();
        if (name.textContent !== next) name.textContent = next;
      });
    }
  });
})();
