// Passkeys: asks the browser for one and puts what it answers into the form, which is then sent like any other. Nothing
// else of the console needs a script.
"use strict";
(() => {
  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
  const WAIT_MS = 120000;

  const listed = (form) => (form.dataset.credentials ?? "").split(" ").filter((id) => id !== "")
    .map((id) => ({ type: "public-key", id: bytes(id) }));

  const make = async (form) => {
    const name = form.querySelector("[name=name]").value.trim();
    const made = await navigator.credentials.create({ publicKey: {
      rp: { id: form.dataset.party, name: "Muster" },
      user: { id: bytes(form.dataset.user), name: form.dataset.account, displayName: name },
      challenge: bytes(form.dataset.challenge),
      pubKeyCredParams: [{ type: "public-key", alg: -7 }],
      authenticatorSelection: { userVerification: "required", residentKey: "preferred" },
      attestation: "none",
      excludeCredentials: listed(form),
      timeout: WAIT_MS,
    } });
    return {
      authenticator_data: text(made.response.getAuthenticatorData()),
      client_data_json: text(made.response.clientDataJSON),
    };
  };

  const use = async (form) => {
    const answer = await navigator.credentials.get({ publicKey: {
      rpId: form.dataset.party,
      challenge: bytes(form.dataset.challenge),
      allowCredentials: listed(form),
      userVerification: "required",
      timeout: WAIT_MS,
    } });
    return {
      credential: text(answer.rawId),
      authenticator_data: text(answer.response.authenticatorData),
      client_data_json: text(answer.response.clientDataJSON),
      signature: text(answer.response.signature),
    };
  };

  for (const form of document.querySelectorAll("[data-passkey]")) {
    const button = form.querySelector("[data-passkey-go]");
    const says = form.querySelector("[data-passkey-says]");
    const say = (sentence) => { says.textContent = sentence; says.hidden = sentence === ""; };
    if (!window.PublicKeyCredential) { say("This browser has no passkeys, or the page did not come over TLS."); continue; }
    if (location.origin !== form.dataset.origin) { say(`Passkeys of this console belong to ${form.dataset.origin}. Open it there.`); continue; }
    button.hidden = false;
    button.addEventListener("click", async () => {
      if (!form.reportValidity()) return;
      say("");
      button.disabled = true;
      try {
        const answer = await (form.dataset.passkey === "make" ? make(form) : use(form));
        for (const [name, value] of Object.entries(answer)) form.querySelector(`[name=${name}]`).value = value;
        form.requestSubmit();
      } catch (error) {
        say(error.name === "NotAllowedError" ? "No passkey answered. It was cancelled, took too long, or is not on this device."
          : error.name === "InvalidStateError" ? "This device has a passkey of yours already."
          : `The browser refused: ${error.message}`);
      }
      button.disabled = false;
    });
  }
})();
