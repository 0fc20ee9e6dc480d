// SPDX-License-Identifier: Apache-2.0
//
// Masks personal data and secrets in a log record before it is stored: any JSON in, the same shape out.
//
// Source form: function body. Values under telling keys (password, token, …) vanish whole; e-mail addresses, payment
// card numbers, IPv4 addresses and bearer tokens are masked inside texts. `redactions` counts what was found.

const SECRET_KEY = /^(?:authorization|cookie|set-cookie|.*(?:passw(?:or)?d|secret|token|api[-_]?key))$/i;

/** The check digit of payment cards (Luhn): keeps order numbers readable. @param {string} text */
function isCardNumber(text) {
  const digits = text.replace(/\D/g, "");
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    const digit = Number(digits[digits.length - 1 - i]);
    const weighted = i % 2 === 0 ? digit : digit * 2;
    sum += weighted > 9 ? weighted - 9 : weighted;
  }
  return digits.length >= 13 && digits.length <= 19 && sum % 10 === 0;
}

/** @param {string} found */
const maskEmail = (found) => `${found[0]}***@${found.split("@")[1]}`;
/** @param {string} found */
const maskCard = (found) => (isCardNumber(found) ? `[card …${found.slice(-4)}]` : found);
/** @param {string} found */
const maskAddress = (found) => found.split(".").slice(0, 2).join(".") + ".x.x";

/** @type {{name: string, pattern: RegExp, mask: (found: string) => string}[]} */
const RULES = [
  { name: "bearer", pattern: /\bBearer [\w.~+/-]{8,}=*/g, mask: () => "Bearer [token]" },
  { name: "email", pattern: /\b[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+\b/g, mask: maskEmail },
  { name: "card", pattern: /\b\d(?:[ -]?\d){12,18}\b/g, mask: maskCard },
  { name: "ip", pattern: /\b(?:\d{1,3}\.){3}\d{1,3}\b/g, mask: maskAddress },
];

/** @type {Record<string, number>} */
const redactions = {};

/** @param {string} name */
const counted = (name) => (redactions[name] = (redactions[name] ?? 0) + 1);

/** @param {string} text */
function redactText(text) {
  for (const { name, pattern, mask } of RULES)
    text = text.replace(pattern, (found) => {
      const masked = mask(found);
      if (masked !== found) counted(name);
      return masked;
    });
  return text;
}

/**
 * @param {unknown} value
 * @returns {unknown}
 */
function redact(value) {
  if (typeof value === "string") return redactText(value);
  if (Array.isArray(value)) return value.map(redact);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => {
    if (!SECRET_KEY.test(key)) return [key, redact(inner)];
    counted("key");
    return [key, "[redacted]"];
  }));
}

if ($args === undefined) throw new TypeError("there is no record to redact");
return { record: redact($args), redactions };
