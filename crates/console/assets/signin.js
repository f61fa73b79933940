// Reads the one-time secret behind the # and removes it from the address bar and the history.
"use strict";
(() => {
  const form = document.querySelector("[data-signin]");
  const secret = location.hash.slice(1);
  if (!form || !secret) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.querySelector("[name=secret]").value = secret;
  form.querySelector("[data-signin-paste]").hidden = true;
  form.querySelector("[data-signin-ready]").hidden = false;
  form.querySelector("button").focus();
})();
