// SPDX-License-Identifier: Apache-2.0
//
// Which features are on for this user? Rules target users by attribute; a rollout turns a feature on for a share of
// the rest. The same user always gets the same answer, and raising a rollout only ever adds users.
//
// Source form: ES module. The flags come from the state key `flags`; `args` is the user.

/**
 * @typedef {string | number | boolean} Attribute
 * @typedef {{attribute: string, in?: Attribute[], startsWith?: string, atLeast?: number, serve: boolean}} Rule
 * @typedef {{name: string, enabled: boolean, rules?: Rule[], rolloutPercent?: number}} Flag
 * @typedef {{id: string} & Record<string, Attribute>} User
 * @typedef {Record<string, {on: boolean, reason: "disabled" | "rule" | "rollout"}>} Decisions
 */

/**
 * 0 ≤ bucket < 100, evenly spread. FNV-1a over the UTF-8 bytes, then the finishing steps of MurmurHash3, because
 * FNV alone spreads short texts badly. The flag's name is part of the text, or the same users would always be first.
 * @param {string} flag
 * @param {string} user
 */
function bucket(flag, user) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(`${flag}\0${user}`)) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (((hash ^ (hash >>> 16)) >>> 0) % 10_000) / 100;
}

/**
 * @param {Rule} rule
 * @param {User} user
 */
function matches(rule, user) {
  if (!Object.hasOwn(user, rule.attribute)) return false;
  const value = user[rule.attribute];
  if (rule.in) return rule.in.includes(value);
  if (rule.startsWith !== undefined) return typeof value === "string" && value.startsWith(rule.startsWith);
  if (rule.atLeast !== undefined) return typeof value === "number" && value >= rule.atLeast;
  throw new TypeError(`a rule on ${rule.attribute} has no condition`);
}

/** @type {Handler<User, Decisions>} */
export default function decide(user, { state }) {
  if (!user?.id) throw new TypeError("the user has no id");
  /** @type {Decisions} */
  const decisions = {};
  for (const flag of /** @type {Flag[]} */ (state.flags ?? [])) {
    const rule = flag.rules?.find((candidate) => matches(candidate, user));
    if (!flag.enabled) decisions[flag.name] = { on: false, reason: "disabled" };
    else if (rule) decisions[flag.name] = { on: rule.serve, reason: "rule" };
    else decisions[flag.name] = { on: bucket(flag.name, user.id) < (flag.rolloutPercent ?? 100), reason: "rollout" };
  }
  return decisions;
}
