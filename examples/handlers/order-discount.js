// SPDX-License-Identifier: Apache-2.0
//
// Discounts of an order, by rules that the shop keeps in the state key `discount-rules`. Amounts are whole cents.
//
// Source form: function body. Rules are tried in their order; one marked `exclusive` applies only as the first and
// ends the search. A rule with a coupon counts its uses in `coupon-uses:CODE`. Each discount emits `discount.applied`.

/**
 * @typedef {{sku: string, category: string, unitCents: number, qty: number}} Line
 * @typedef {{customer: {tier: string}, lines: Line[], coupon?: string}} Order
 * @typedef {{minSubtotalCents?: number, tier?: string[], coupon?: string, maxUses?: number}} When
 * @typedef {{percent: number, category?: string} | {amountCents: number}
 *   | {buy: number, payFor: number, sku: string}} Then
 * @typedef {{name: string, when?: When, then: Then, exclusive?: boolean}} Rule
 */

/** @type {Order} */
const order = $args;
/** @type {Rule[]} */
const rules = $state["discount-rules"] ?? [];

/** @param {Line[]} lines */
const sum = (lines) => lines.reduce((cents, line) => cents + line.unitCents * line.qty, 0);

/** @param {string} coupon */
const usesOf = (coupon) => /** @type {number} */ ($state[`coupon-uses:${coupon}`] ?? 0);

/** @param {When} when */
function applies({ minSubtotalCents = 0, tier, coupon, maxUses = Infinity }) {
  if (subtotalCents < minSubtotalCents) return false;
  if (tier && !tier.includes(order.customer.tier)) return false;
  return !coupon || (order.coupon === coupon && usesOf(coupon) < maxUses);
}

/** @param {Then} then */
function discountCents(then) {
  if ("amountCents" in then) return then.amountCents;
  if ("percent" in then) {
    const lines = order.lines.filter((line) => !then.category || line.category === then.category);
    return Math.round((sum(lines) * then.percent) / 100);
  }
  const bought = order.lines.filter((line) => line.sku === then.sku);
  const free = (/** @type {Line} */ line) => Math.floor(line.qty / then.buy) * (then.buy - then.payFor);
  return bought.reduce((cents, line) => cents + free(line) * line.unitCents, 0);
}

for (const { sku, unitCents, qty } of order.lines)
  if (!Number.isSafeInteger(unitCents) || unitCents < 0 || !Number.isSafeInteger(qty) || qty < 1)
    throw new RangeError(`${sku}: unitCents and qty must be whole numbers that are not negative, qty at least 1`);

const subtotalCents = sum(order.lines);
let totalCents = subtotalCents;
/** @type {{rule: string, amountCents: number}[]} */
const discounts = [];

for (const { name, when = {}, then, exclusive = false } of rules) {
  if ((exclusive && discounts.length > 0) || !applies(when)) continue;
  const amountCents = Math.min(discountCents(then), totalCents); // an order never costs less than nothing
  if (amountCents <= 0) continue;
  totalCents -= amountCents;
  discounts.push({ rule: name, amountCents });
  if (when.coupon) $state[`coupon-uses:${when.coupon}`] = usesOf(when.coupon) + 1;
  $emit("discount.applied", { rule: name, amountCents });
  if (exclusive) break;
}

return { subtotalCents, discounts, totalCents };
