// SPDX-License-Identifier: Apache-2.0
//
// Rate limit as a token bucket: a client may do `limit` requests at once and gets `limit` new ones per `windowMs`.
//
// Source form: function body. One state key per client, `rate:CLIENT`; the caller keeps the state and applies
// `stateMutations`. When a client is refused, the event `rate.limited` says so.

/** @type {{client: string, limit?: number, windowMs?: number, cost?: number, now?: number}} */
const { client, limit = 10, windowMs = 60_000, cost = 1, now = Date.now() } = $args;
if (!client) throw new TypeError("client is missing");
if (!(limit > 0 && windowMs > 0 && cost > 0)) throw new RangeError("limit, windowMs and cost must be above 0");
if (cost > limit) throw new RangeError(`a cost of ${cost} can never be met by a limit of ${limit}`);

const key = `rate:${client}`;
/** @type {{tokens: number, at: number}} */
const bucket = $state[key] ?? { tokens: limit, at: now };

// Clocks of two callers may differ a little: time never runs backwards here.
const elapsedMs = Math.max(0, now - bucket.at);
const tokens = Math.min(limit, bucket.tokens + (elapsedMs * limit) / windowMs);
const allowed = tokens >= cost;
const left = allowed ? tokens - cost : tokens;

// A new object: changing `bucket` in place would not be seen, only assignments to $state are recorded.
$state[key] = { tokens: left, at: Math.max(now, bucket.at) };

if (allowed) return { allowed, remaining: Math.floor(left) };

const retryAfterMs = Math.ceil(((cost - left) * windowMs) / limit);
$emit("rate.limited", { client, retryAfterMs });
return { allowed, remaining: Math.floor(left), retryAfterMs };
