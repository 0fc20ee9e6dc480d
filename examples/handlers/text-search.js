// SPDX-License-Identifier: Apache-2.0
//
// Full-text search in a few help articles, ranked by BM25; each hit comes with the slug of its page.
//
// Source form: ES module. The index is built by top-level code: that runs once, when the handler is installed, and
// every execution starts from the finished index. Put work there that does not depend on the request.

const ARTICLES = [
  {
    title: "Reset your password",
    text: "Open the sign-in page, choose Forgot password and follow the link we send you.",
  },
  {
    title: "Change your e-mail address",
    text: "Sign in, open Settings and enter the new address. We send a link to confirm it.",
  },
  {
    title: "Delivery times & costs",
    text: "Parcels arrive in two to four days. Delivery is free for orders above 50 euros.",
  },
  {
    title: "Return a parcel",
    text: "Print the return label from your order page and hand the parcel in at any post office.",
  },
  {
    title: "Pay by invoice",
    text: "Companies may pay by invoice within 30 days. Ask us to open an account first.",
  },
  {
    title: "Crème brûlée burner: first use",
    text: "Fill the gas tank, wait a minute, then press the ignition. Keep away from children.",
  },
];

// How strongly repetition and long documents count; the usual values.
const K = 1.2;
const B = 0.75;
const STOP_WORDS = new Set("a an and at by for from in is it may of or the then to us we your you".split(" "));

/** Lower case without accents. @param {string} text */
const fold = (text) => text.normalize("NFKD").replace(/\p{Mark}/gu, "").toLowerCase();

/** @param {string} text */
const words = (text) => (fold(text).match(/[\p{Letter}\p{Number}]+/gu) ?? []).filter((word) => !STOP_WORDS.has(word));

/** @param {string} title */
const slug = (title) => (fold(title).match(/[\p{Letter}\p{Number}]+/gu) ?? []).join("-");

/**
 * Word → how often it is in each article; a word of the title counts three times.
 * @type {Map<string, Map<number, number>>}
 */
const index = new Map();
const lengths = ARTICLES.map(({ title, text }, article) => {
  const all = [...words(title), ...words(title), ...words(title), ...words(text)];
  for (const word of all) {
    const counts = index.get(word) ?? new Map();
    index.set(word, counts.set(article, (counts.get(article) ?? 0) + 1));
  }
  return all.length;
});
const averageLength = lengths.reduce((sum, length) => sum + length, 0) / lengths.length;

/** @type {Handler<{query: string, limit?: number}, {hits: {slug: string, title: string, score: number}[]}>} */
export default function search({ query, limit = 3 }) {
  if (typeof query !== "string") throw new TypeError("query must be a string");
  /** @type {Map<number, number>} */
  const scores = new Map();
  for (const word of new Set(words(query))) {
    const counts = index.get(word) ?? new Map();
    const rarity = Math.log(1 + (ARTICLES.length - counts.size + 0.5) / (counts.size + 0.5));
    for (const [article, count] of counts) {
      const weight = (count * (K + 1)) / (count + K * (1 - B + (B * lengths[article]) / averageLength));
      scores.set(article, (scores.get(article) ?? 0) + rarity * weight);
    }
  }
  const hits = [...scores]
    .map(([article, score]) => ({ ...ARTICLES[article], score: Number(score.toFixed(3)) }))
    .map(({ title, score }) => ({ slug: slug(title), title, score }))
    .toSorted((a, b) => b.score - a.score || (a.slug < b.slug ? -1 : 1))
    .slice(0, limit);
  return { hits };
}
