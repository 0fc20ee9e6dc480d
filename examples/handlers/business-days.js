// SPDX-License-Identifier: Apache-2.0
//
// The date that lies a number of business days after a date: when is an order that comes in on Friday delivered?
//
// Source form: ES module. Dates are texts, YYYY-MM-DD, and are computed in UTC, so no time zone can shift them.
// Holidays are dates, or MM-DD for those that come every year; `closed` names other days of the week than the usual.

const DAY_MS = 24 * 60 * 60 * 1000;
const WEEKDAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const WEEKEND = ["saturday", "sunday"];
/** Ends a search that could last for ever, such as one where every date is a holiday. */
const MAX_DAYS = 3660;

/** @param {string} text */
function parseDate(text) {
  const time = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : NaN;
  // Date.parse may turn 2025-02-30 into a day of March.
  if (Number.isNaN(time) || format(time) !== text) throw new RangeError(`${text} is no date of the form YYYY-MM-DD`);
  return time;
}

/** @param {number} time */
const format = (time) => new Date(time).toISOString().slice(0, 10);

/**
 * @typedef {{from?: string, days?: number, holidays?: string[], closed?: string[]}} Args
 * @type {Handler<Args, {date: string, weekday: string, skipped: string[]}>}
 */
export default function businessDay({ from = format(Date.now()), days = 1, holidays = [], closed = WEEKEND }) {
  if (!Number.isInteger(days) || days < 0 || days > 1000)
    throw new RangeError("days must be a whole number from 0 to 1000");
  if (!closed.every((day) => WEEKDAYS.includes(day))) throw new RangeError(`closed may hold ${WEEKDAYS.join(", ")}`);
  const start = parseDate(from);

  /** @param {number} time */
  const weekday = (time) => WEEKDAYS[new Date(time).getUTCDay()];
  /** @param {number} time */
  const isHoliday = (time) => holidays.includes(format(time)) || holidays.includes(format(time).slice(5));
  /** @param {number} time */
  const isOpen = (time) => !closed.includes(weekday(time)) && !isHoliday(time);

  /** @type {string[]} */
  const skipped = []; // holidays passed over, not weekends
  let left = days;
  let time = start;
  // With days = 0: the date itself if it is a business day, else the next one.
  while (left > 0 || !isOpen(time)) {
    time += DAY_MS;
    if (isOpen(time)) left = Math.max(0, left - 1);
    else if (!closed.includes(weekday(time))) skipped.push(format(time));
    if (time - start > MAX_DAYS * DAY_MS) throw new RangeError(`no business day within ${MAX_DAYS} days`);
  }
  return { date: format(time), weekday: weekday(time), skipped };
}
