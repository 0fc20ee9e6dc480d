/* SPDX-License-Identifier: Apache-2.0
 * The governor's decision: a table of looks with literal figures, and invariants of random walks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "memory/decide.h"

/* ---- Looks in a row ------------------------------------------------------------------------------------------------- */

#define N NX_GOVERNOR_NORMAL
#define R NX_GOVERNOR_RECLAIMING
#define S NX_GOVERNOR_SHEDDING
#define IS(v) {NX_READING_VALUE, v}
#define NONE {NX_READING_UNLIMITED, 0}
#define UNKNOWN {NX_READING_UNKNOWN, 0}

struct look {
  unsigned ms;
  uint64_t limit, reserve, accounted;
  struct nx_reading used, pressure;
  enum nx_governor_state state;
  uint64_t budget, unaccounted, give_back;
};

static void decide_in_turn(const char *name, const struct look *looks, size_t count) {
  struct nx_decider decider = {0};
  for (size_t i = 0; i < count; i++) {
    const struct look *l = &looks[i];
    const struct nx_view view = {
      .now_ns = 5 * NX_NS_PER_S + l->ms * NX_NS_PER_MS,
      .limit_bytes = l->limit,
      .reserve_bytes = l->reserve,
      .accounted_bytes = l->accounted,
      .used_bytes = l->used,
      .pressure_bp = l->pressure,
    };
    struct nx_decision d;
    nx_decide(&decider, &view, &d);
    if (d.state != l->state || d.budget_bytes != l->budget || d.unaccounted_bytes != l->unaccounted ||
        d.give_back_bytes != l->give_back)
      fail_msg("%s, look %zu: %s, budget %llu, unaccounted %llu, give back %llu", name, i,
               nx_governor_state_name(d.state), (unsigned long long)d.budget_bytes,
               (unsigned long long)d.unaccounted_bytes, (unsigned long long)d.give_back_bytes);
  }
}
#define LOOKS(name, ...) \
  decide_in_turn(name, (const struct look[]){__VA_ARGS__}, sizeof((const struct look[]){__VA_ARGS__}) / sizeof(struct look))

/* Limit 1000, reserve 100: reclaiming from 701 on, normal again at 600, shedding from 901 on, no more at 810. */
static void states_change_at_their_thresholds(void **state) {
  (void)state;
  LOOKS("use, up", {0, 1000, 100, 700, IS(700), IS(0), N, 900, 0, 0}, {1, 1000, 100, 701, IS(701), IS(0), R, 900, 0, 101},
        {2, 1000, 100, 900, IS(900), IS(0), R, 900, 0, 300}, {3, 1000, 100, 901, IS(901), IS(0), S, 900, 0, 301});
  LOOKS("both steps at once", {0, 1000, 100, 1000, IS(1000), IS(0), S, 900, 0, 400});
  LOOKS("more than the limit", {0, 1000, 100, 1500, IS(1500), IS(0), S, 900, 0, 900});
  LOOKS("pressure, up", {0, 1000, 100, 10, IS(10), IS(1000), N, 900, 0, 0}, {1, 1000, 100, 10, IS(10), IS(1001), R, 900, 0, 1},
        {2, 1000, 100, 10, IS(10), IS(4000), R, 900, 0, 1}, {3, 1000, 100, 10, IS(10), IS(4001), S, 900, 0, 1});
}

static void states_stay_until_there_is_room_again(void **state) {
  (void)state;
  LOOKS("reclaiming", {0, 1000, 100, 701, IS(701), IS(0), R, 900, 0, 101}, {1, 1000, 100, 601, IS(601), IS(0), R, 900, 0, 1},
        {2, 1000, 100, 600, IS(600), IS(0), N, 900, 0, 0}, {3, 1000, 100, 700, IS(700), IS(0), N, 900, 0, 0});
  LOOKS("reclaiming for pressure", {0, 1000, 100, 10, IS(10), IS(1001), R, 900, 0, 1},
        {1, 1000, 100, 10, IS(10), IS(501), R, 900, 0, 1}, {2, 1000, 100, 10, IS(10), IS(500), N, 900, 0, 0},
        {3, 1000, 100, 10, IS(10), IS(1000), N, 900, 0, 0});
  LOOKS("shedding ends after a second", {0, 1000, 100, 901, IS(901), IS(0), S, 900, 0, 301},
        {999, 1000, 100, 800, IS(800), IS(0), S, 900, 0, 200}, {1000, 1000, 100, 800, IS(800), IS(0), R, 900, 0, 200});
  LOOKS("and at nine tenths of the budget", {0, 1000, 100, 901, IS(901), IS(0), S, 900, 0, 301},
        {5000, 1000, 100, 811, IS(811), IS(0), S, 900, 0, 211}, {5001, 1000, 100, 810, IS(810), IS(0), R, 900, 0, 210});
  LOOKS("and with little pressure", {0, 1000, 100, 10, IS(10), IS(4001), S, 900, 0, 1},
        {5000, 1000, 100, 10, IS(10), IS(2001), S, 900, 0, 1}, {5001, 1000, 100, 10, IS(10), IS(2000), R, 900, 0, 1},
        {5002, 1000, 100, 10, IS(10), IS(500), N, 900, 0, 0});
  LOOKS("straight to normal", {0, 1000, 100, 901, IS(901), IS(0), S, 900, 0, 301},
        {1000, 1000, 100, 100, IS(100), IS(0), N, 900, 0, 0});
  LOOKS("the second begins with the state", {0, 1000, 100, 950, IS(950), IS(0), S, 900, 0, 350},
        {900, 1000, 100, 950, IS(950), IS(0), S, 900, 0, 350}, {1000, 1000, 100, 700, IS(700), IS(0), R, 900, 0, 100});
}

/* Without a figure of the kernel's the ledger's own is what is used; no pressure is known, so there is none. */
static void unknown_readings_are_not_zero(void **state) {
  (void)state;
  LOOKS("use", {0, 1000, 100, 701, UNKNOWN, UNKNOWN, R, 900, 0, 101}, {1, 1000, 100, 600, UNKNOWN, UNKNOWN, N, 900, 0, 0},
        {2, 1000, 100, 901, NONE, NONE, S, 900, 0, 301});
  LOOKS("pressure goes away", {0, 1000, 100, 10, IS(10), IS(1001), R, 900, 0, 1},
        {1, 1000, 100, 10, IS(10), UNKNOWN, N, 900, 0, 0});
  LOOKS("zero is a value", {0, 1000, 100, 950, IS(0), IS(0), N, 900, 0, 0});
}

static void only_an_excess_that_lasts_lowers_the_budget(void **state) {
  (void)state;
  assert_int_equal(NX_DECIDE_LOOKS, 4);
  LOOKS("lasting", {0, 1000, 100, 200, IS(300), IS(0), N, 900, 0, 0}, {1, 1000, 100, 200, IS(320), IS(0), N, 900, 0, 0},
        {2, 1000, 100, 200, IS(310), IS(0), N, 900, 0, 0}, {3, 1000, 100, 200, IS(330), IS(0), N, 800, 100, 0},
        {4, 1000, 100, 200, IS(330), IS(0), N, 790, 110, 0}, {5, 1000, 100, 200, IS(230), IS(0), N, 870, 30, 0},
        {6, 1000, 100, 200, IS(200), IS(0), N, 900, 0, 0}, {7, 1000, 100, 200, IS(400), IS(0), N, 900, 0, 0});
  LOOKS("a race", {0, 1000, 100, 200, IS(300), IS(0), N, 900, 0, 0}, {1, 1000, 100, 200, IS(300), IS(0), N, 900, 0, 0},
        {2, 1000, 100, 200, IS(300), IS(0), N, 900, 0, 0}, {3, 1000, 100, 300, IS(300), IS(0), N, 900, 0, 0},
        {4, 1000, 100, 200, IS(300), IS(0), N, 900, 0, 0});
  LOOKS("more than there is", {0, 1000, 100, 0, IS(5000), IS(0), S, 900, 0, 4400},
        {1, 1000, 100, 0, IS(5000), IS(0), S, 900, 0, 4400}, {2, 1000, 100, 0, IS(5000), IS(0), S, 900, 0, 4400},
        {3, 1000, 100, 0, IS(5000), IS(0), S, 0, 5000, 4400});
}

static void a_limit_that_was_lowered_counts_at_once(void **state) {
  (void)state;
  LOOKS("below use", {0, 1000, 100, 600, IS(600), IS(0), N, 900, 0, 0}, {1, 500, 50, 600, IS(600), IS(0), S, 450, 0, 300},
        {2, 1000, 100, 600, IS(600), IS(0), S, 900, 0, 1}, {1001, 1000, 100, 600, IS(600), IS(0), N, 900, 0, 0});
  LOOKS("to nothing", {0, 0, 0, 0, IS(0), IS(0), N, 0, 0, 0}, {1, 0, 0, 1, IS(1), IS(0), S, 0, 0, 1},
        {2, 0, 0, 77, UNKNOWN, UNKNOWN, S, 0, 0, 77});
  LOOKS("a reserve above the limit", {0, 100, 200, 1, IS(1), IS(0), S, 0, 0, 1});
}

/* With a large reserve the budget's end comes before 70 % of the limit: what is wanted must bring the use below it. */
static void shedding_wants_enough_back_to_end(void **state) {
  (void)state;
  LOOKS("half in reserve", {0, 1000, 500, 550, IS(550), IS(0), S, 500, 0, 100},
        {2000, 1000, 500, 451, IS(451), IS(0), S, 500, 0, 1}, {2001, 1000, 500, 450, IS(450), IS(0), N, 500, 0, 0});
}

static void states_have_names(void **state) {
  (void)state;
  assert_int_equal(NX_GOVERNOR_STATE_COUNT, 3);
  assert_string_equal(nx_governor_state_name(N), "normal");
  assert_string_equal(nx_governor_state_name(R), "reclaiming");
  assert_string_equal(nx_governor_state_name(S), "shedding");
}

/* ---- Random walks ----------------------------------------------------------------------------------------------------- */

struct walk {
  unsigned seed;
  struct nx_view view;
  enum nx_governor_state state;
  uint64_t since_ns, excess[NX_DECIDE_LOOKS];
  unsigned looks;
};

static uint64_t below(struct walk *w, uint64_t n) {
  return n ? ((uint64_t)rand_r(&w->seed) << 31 | (uint64_t)rand_r(&w->seed)) % n : 0;
}

static void step(struct walk *w) {
  struct nx_view *v = &w->view;
  v->now_ns += below(w, 400 * NX_NS_PER_MS);
  if (!below(w, 20)) {
    v->limit_bytes = below(w, 3) ? below(w, UINT64_C(1) << 34) : below(w, 300);
    v->reserve_bytes = v->limit_bytes / 100 * below(w, 51);
  }
  uint64_t around = v->limit_bytes + v->limit_bytes / 8;
  if (below(w, 4)) v->accounted_bytes = below(w, around);
  switch (below(w, 4)) {
  case 0: v->used_bytes = nx_reading_of(below(w, around)); break;
  case 1: v->used_bytes = nx_reading_of(v->accounted_bytes + below(w, v->limit_bytes / 16 + 1)); break;
  case 2: v->used_bytes = below(w, 2) ? nx_reading_unknown() : nx_reading_unlimited(); break;
  default: break;
  }
  if (!below(w, 3)) v->pressure_bp = below(w, 4) ? nx_reading_of(below(w, 2) ? 0 : below(w, 6000)) : nx_reading_unknown();
}

/* The diagram of decide.h, written as what must hold of each step. */
static void check_transition(const struct walk *w, enum nx_governor_state to, uint64_t used, uint64_t pressure) {
  const struct nx_view *v = &w->view;
  uint64_t hundredth = v->limit_bytes / 100;
  uint64_t most = v->limit_bytes > v->reserve_bytes ? v->limit_bytes - v->reserve_bytes : 0;
  bool over = used > most || pressure > 4000;
  if (over) assert_int_equal(to, S);
  if (to == S && w->state != S) assert_true(over);
  if (w->state == S && to != S)
    assert_true(used <= most / 100 * 90 && pressure <= 2000 && v->now_ns - w->since_ns >= NX_NS_PER_S);
  if (w->state == N && to == R) assert_true(used > 70 * hundredth || pressure > 1000);
  if (w->state != N && to == N) assert_true(used <= 60 * hundredth && pressure <= 500);
  if (to == N) assert_true(used <= 70 * hundredth && pressure <= 1000);
}

static void check_budget(struct walk *w, const struct nx_decision *d, uint64_t used) {
  const struct nx_view *v = &w->view;
  uint64_t most = v->limit_bytes > v->reserve_bytes ? v->limit_bytes - v->reserve_bytes : 0, least = UINT64_MAX;
  w->excess[w->looks++ % NX_DECIDE_LOOKS] = used > v->accounted_bytes ? used - v->accounted_bytes : 0;
  for (int i = 0; i < NX_DECIDE_LOOKS; i++) least = w->excess[i] < least ? w->excess[i] : least;
  assert_true(d->budget_bytes <= most);
  assert_int_equal(d->unaccounted_bytes, least);
  assert_int_equal(d->budget_bytes, most > least ? most - least : 0);
  assert_true((d->give_back_bytes == 0) == (d->state == N));
  assert_true(d->give_back_bytes <= used || d->give_back_bytes == 1);
  uint64_t left = used > d->give_back_bytes ? used - d->give_back_bytes : 0;
  if (d->state != N) assert_true(left <= v->limit_bytes / 100 * 60 && left <= most / 100 * 90);
}

static void random_walks_keep_to_the_diagram(void **state) {
  (void)state;
  unsigned seen[NX_GOVERNOR_STATE_COUNT][NX_GOVERNOR_STATE_COUNT] = {0};
  for (unsigned seed = 1; seed <= 50; seed++) {
    struct walk w = {.seed = seed, .view = {.limit_bytes = 1000, .reserve_bytes = 100}};
    struct nx_decider decider = {0};
    for (int i = 0; i < 4000; i++) {
      step(&w);
      struct nx_decision d;
      nx_decide(&decider, &w.view, &d);
      bool known = nx_reading_is_value(w.view.used_bytes);
      uint64_t used = known ? w.view.used_bytes.value : w.view.accounted_bytes;
      uint64_t pressure = nx_reading_is_value(w.view.pressure_bp) ? w.view.pressure_bp.value : 0;
      check_transition(&w, d.state, used, pressure);
      check_budget(&w, &d, used);
      seen[w.state][d.state]++;
      if (d.state != w.state) w.since_ns = w.view.now_ns;
      w.state = d.state;
    }
  }
  for (int from = 0; from < NX_GOVERNOR_STATE_COUNT; from++)
    for (int to = 0; to < NX_GOVERNOR_STATE_COUNT; to++) assert_true(seen[from][to] > 100);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(states_change_at_their_thresholds),
    cmocka_unit_test(states_stay_until_there_is_room_again),
    cmocka_unit_test(unknown_readings_are_not_zero),
    cmocka_unit_test(only_an_excess_that_lasts_lowers_the_budget),
    cmocka_unit_test(a_limit_that_was_lowered_counts_at_once),
    cmocka_unit_test(shedding_wants_enough_back_to_end),
    cmocka_unit_test(states_have_names),
    cmocka_unit_test(random_walks_keep_to_the_diagram),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
