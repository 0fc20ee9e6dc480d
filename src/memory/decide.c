/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/decide.h"

#include "base/clock.h"
#include "base/number.h"

/* The line of the alert on the container's memory; below it nobody minds. */
#define RECLAIM_PERCENT 70
#define NORMAL_PERCENT 60
#define SHED_END_PERCENT 90 /* of the budget */
#define SHED_AT_LEAST_NS NX_NS_PER_S
/* PSI: tasks waited for memory in a tenth (four tenths) of the last ten seconds. */
#define PRESSURE_BP 1000u
#define PRESSURE_END_BP 500u
#define MUCH_PRESSURE_BP 4000u
#define MUCH_PRESSURE_END_BP 2000u

const char *nx_governor_state_name(enum nx_governor_state state) {
  static const char *const names[] = {
#define X(symbol, name) [NX_GOVERNOR_##symbol] = name,
    NX_GOVERNOR_STATES(X)
#undef X
  };
  return names[state];
}

static uint64_t percent(uint64_t whole, unsigned part) { return whole / 100 * part; }

/* The least of the last looks. */
static uint64_t lasting_excess(struct nx_decider *decider, uint64_t excess) {
  decider->excess_bytes[decider->next++ % NX_DECIDE_LOOKS] = excess;
  for (unsigned i = 0; i < NX_DECIDE_LOOKS; i++)
    if (decider->excess_bytes[i] < excess) excess = decider->excess_bytes[i];
  return excess;
}

static enum nx_governor_state next_state(const struct nx_decider *decider, const struct nx_view *view, uint64_t used,
                                         uint64_t pressure_bp) {
  uint64_t budget = nx_minus_u64(view->limit_bytes, view->reserve_bytes);
  if (used > budget || pressure_bp > MUCH_PRESSURE_BP) return NX_GOVERNOR_SHEDDING;
  bool still_much = used > percent(budget, SHED_END_PERCENT) || pressure_bp > MUCH_PRESSURE_END_BP ||
                    view->now_ns - decider->since_ns < SHED_AT_LEAST_NS;
  if (decider->state == NX_GOVERNOR_SHEDDING && still_much) return NX_GOVERNOR_SHEDDING;
  if (used > percent(view->limit_bytes, RECLAIM_PERCENT) || pressure_bp > PRESSURE_BP) return NX_GOVERNOR_RECLAIMING;
  bool still_some = used > percent(view->limit_bytes, NORMAL_PERCENT) || pressure_bp > PRESSURE_END_BP;
  if (decider->state != NX_GOVERNOR_NORMAL && still_some) return NX_GOVERNOR_RECLAIMING;
  return NX_GOVERNOR_NORMAL;
}

void nx_decide(struct nx_decider *decider, const struct nx_view *view, struct nx_decision *out) {
  bool known = nx_reading_is_value(view->used_bytes);
  uint64_t used = known ? view->used_bytes.value : view->accounted_bytes;
  uint64_t pressure_bp = nx_reading_is_value(view->pressure_bp) ? view->pressure_bp.value : 0;
  enum nx_governor_state state = next_state(decider, view, used, pressure_bp);
  if (state != decider->state) decider->since_ns = view->now_ns;
  decider->state = state;
  uint64_t unaccounted = lasting_excess(decider, nx_minus_u64(used, view->accounted_bytes));
  *out = (struct nx_decision){
    .state = state,
    .budget_bytes = nx_minus_u64(view->limit_bytes, view->reserve_bytes + unaccounted),
    .unaccounted_bytes = unaccounted,
  };
  if (state != NX_GOVERNOR_NORMAL) {
    /* With a large reserve the budget ends below the line of NORMAL. */
    uint64_t room = percent(nx_minus_u64(view->limit_bytes, view->reserve_bytes), SHED_END_PERCENT);
    out->give_back_bytes = nx_minus_u64(used, nx_min_u64(percent(view->limit_bytes, NORMAL_PERCENT), room));
    if (!out->give_back_bytes) out->give_back_bytes = 1; /* pressure alone: whatever there is */
  }
}
