// SPDX-License-Identifier: Apache-2.0
//
// Total of a shopping cart: the sum of price × qty, 10 % off with the coupon SAVE10, rounded to cents.
//
// Source form: function body. `$args` is the request's JSON, `return` gives the answer. Needs no capability.

/** @type {{items: {price: number, qty: number}[], coupon?: string}} */
const cart = $args;

let total = 0;
for (const { price, qty } of cart.items) {
  // Written so that NaN, undefined and strings are refused too.
  if (!(price >= 0 && qty >= 0)) throw new RangeError("price and qty must be numbers that are not negative");
  total += price * qty;
}
if (cart.coupon === "SAVE10") total *= 0.9;

return { total: Math.round(total * 100) / 100, count: cart.items.length };
