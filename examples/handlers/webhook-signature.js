// SPDX-License-Identifier: Apache-2.0
//
// Is this webhook from who it claims to be from? Checks an `X-Hub-Signature-256` header (GitHub's form) over the body.
//
// Source form: function body with `await`. The secrets live in $state, where only grants make them readable:
// `webhook.secret`, and while a secret is being rotated also `webhook.secret.previous`.

/** @type {{payload: string, signature?: string}} payload: the body exactly as received; signature: the header. */
const { payload, signature } = $args;

/** @type {(string | undefined)[]} */
const secrets = [$state["webhook.secret"], $state["webhook.secret.previous"]];
if (!secrets[0]) throw new Error("no secret is configured: set the state key webhook.secret");

/** @param {string} hex */
function bytesOfHex(hex) {
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

const digest = /^sha256=([0-9a-f]{64})$/.exec(signature ?? "")?.[1];
if (!digest) return { valid: false, reason: "the signature is missing or malformed" };

const encoder = new TextEncoder();
const HMAC_SHA256 = /** @type {const} */ ({ name: "HMAC", hash: "SHA-256" });
for (const secret of secrets) {
  if (!secret) continue;
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), HMAC_SHA256, false, ["verify"]);
  // verify() compares in constant time; comparing two hex strings with === would not.
  const valid = await crypto.subtle.verify("HMAC", key, bytesOfHex(digest), encoder.encode(payload));
  if (valid) return { valid: true };
}

$log.warn("webhook with a wrong signature,", payload.length, "characters");
$emit("webhook.rejected", { length: payload.length });
return { valid: false, reason: "the signature does not match" };
