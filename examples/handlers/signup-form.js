// SPDX-License-Identifier: Apache-2.0
//
// Behaviour of a sign-up form: what the page shows after Submit. The handler decides, the page carries out the view
// commands and publishes the events.
//
// Source form: function body. `$scope` is what the caller says about the page; here only its language.

/** @type {{email?: string, password?: string, acceptTerms?: boolean}} */
const form = $args ?? {};

/** @type {Record<string, Record<string, string>>} */
const MESSAGES = {
  en: {
    email: "Enter a valid e-mail address.",
    password: "Use at least 12 characters.",
    acceptTerms: "Please accept the terms.",
  },
  de: {
    email: "Bitte eine gültige E-Mail-Adresse eingeben.",
    password: "Mindestens 12 Zeichen.",
    acceptTerms: "Bitte die Bedingungen annehmen.",
  },
};
const messages = MESSAGES[$scope.language] ?? MESSAGES.en;

const valid = {
  email: /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(form.email ?? ""),
  password: (form.password ?? "").length >= 12,
  acceptTerms: form.acceptTerms === true,
};
const wrong = Object.entries(valid).flatMap(([field, ok]) => (ok ? [] : [field]));

// Each field is a component of its own: the grant `view:update:signup.*` covers them all, and nothing else.
for (const field of Object.keys(valid))
  $view.custom(`signup.${field}`, "setError", wrong.includes(field) ? messages[field] : null);

if (wrong.length > 0) {
  $view.scrollTo(`signup.${wrong[0]}`);
  $view.focus(`signup.${wrong[0]}`);
  return { accepted: false, wrong };
}

// Never the password: events are stored and forwarded.
$emit("signup.submitted", { email: form.email });
$view.custom("signup.form", "showConfirmation");
return { accepted: true, wrong };
