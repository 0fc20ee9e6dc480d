// SPDX-License-Identifier: Apache-2.0
//
// Approval of a purchase: people say yes or no, which takes them minutes or days. Written as if they answered at once.
//
// Source form: ES module. `approval.ask` is a call that the caller of nexus serves: it tells the person whose turn it is,
// and brings the answer to /v1/resume when there is one. README.md walks through it.

/** Above these amounts somebody in that role must agree, in this order. */
const ROLES = [
  { above: 100, role: "manager" },
  { above: 1_000, role: "finance" },
];
const DEADLINE_MS = 5 * 24 * 3_600_000;

/** @param {Promise<any>} promise @param {number} ms @param {any} otherwise */
const inTime = (promise, ms, otherwise) =>
  Promise.race([promise, $ext.time.sleep(ms).then(() => otherwise)]);

/** @param {{item: string, amount: number, requester: string}} args @param {HandlerContext} ctx */
export default async function ({ item, amount, requester }, { ext, log }) {
  if (!(amount > 0)) throw new RangeError("amount must be above 0");
  const decisions = [];
  for (const { role } of ROLES.filter((entry) => amount > entry.above)) {
    log(`asking ${role} about ${item}`);
    const question = ext.approval.ask({ role, item, amount, requester, decisions });
    const answer = await inTime(question, DEADLINE_MS, { approved: false, by: "deadline" });
    // Nothing but a plain true is a yes.
    decisions.push({ role, approved: answer?.approved === true, by: answer?.by });
    if (answer?.approved !== true) break;
  }
  return { item, approved: decisions.every((decision) => decision.approved), decisions };
}
