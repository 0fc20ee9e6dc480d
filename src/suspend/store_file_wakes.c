/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "suspend/store_file_internal.h"

int nx__wakes_init(struct nx__wakes *wakes, struct nx_error *err) {
  wakes->count = 0;
  wakes->sorted = malloc(NX__WAKES_MAX * sizeof *wakes->sorted);
  if (!wakes->sorted) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for wake times");
  pthread_mutex_init(&wakes->mutex, NULL);
  return 0;
}

void nx__wakes_deinit(struct nx__wakes *wakes) {
  pthread_mutex_destroy(&wakes->mutex);
  free(wakes->sorted);
}

static int compare(const struct nx__wake *a, const struct nx__wake *b) {
  if (a->at_ms != b->at_ms) return a->at_ms < b->at_ms ? -1 : 1;
  return memcmp(a->id.bytes, b->id.bytes, sizeof a->id.bytes);
}

/* The first that is not before `wake`. */
static size_t position_of(const struct nx__wakes *wakes, const struct nx__wake *wake) {
  size_t low = 0, high = wakes->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (compare(&wakes->sorted[middle], wake) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static bool is_at(const struct nx__wakes *wakes, size_t position, const struct nx__wake *wake) {
  return position < wakes->count && !compare(&wakes->sorted[position], wake);
}

void nx__wakes_add(struct nx__wakes *wakes, struct nx__wake wake) {
  pthread_mutex_lock(&wakes->mutex);
  size_t at = position_of(wakes, &wake);
  if (!is_at(wakes, at, &wake) && at < NX__WAKES_MAX) {
    if (wakes->count == NX__WAKES_MAX) wakes->count--; /* the latest */
    memmove(&wakes->sorted[at + 1], &wakes->sorted[at], (wakes->count - at) * sizeof wake);
    wakes->sorted[at] = wake;
    wakes->count++;
  }
  pthread_mutex_unlock(&wakes->mutex);
}

void nx__wakes_remove(struct nx__wakes *wakes, struct nx__wake wake) {
  pthread_mutex_lock(&wakes->mutex);
  size_t at = position_of(wakes, &wake);
  if (is_at(wakes, at, &wake)) {
    wakes->count--;
    memmove(&wakes->sorted[at], &wakes->sorted[at + 1], (wakes->count - at) * sizeof wake);
  }
  pthread_mutex_unlock(&wakes->mutex);
}

bool nx__wakes_next(struct nx__wakes *wakes, struct nx__wake after, uint64_t now_ms, struct nx__wake *out) {
  pthread_mutex_lock(&wakes->mutex);
  size_t at = position_of(wakes, &after);
  if (is_at(wakes, at, &after)) at++;
  bool found = at < wakes->count && wakes->sorted[at].at_ms <= now_ms;
  if (found) *out = wakes->sorted[at];
  pthread_mutex_unlock(&wakes->mutex);
  return found;
}
