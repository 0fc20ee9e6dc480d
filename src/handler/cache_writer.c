/* SPDX-License-Identifier: Apache-2.0 */
#include "handler/cache_writer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"

struct waiting {
  uint8_t source_hash[NX_HASH_BYTES];
  struct nx_image *image;
};

struct nx_cache_writer {
  struct nx_cache *cache;
  pthread_t thread;      /* while `running` */
  pthread_mutex_t mutex; /* guards what follows; not held while storing */
  pthread_cond_t changed;
  struct waiting queue[NX_CACHE_WRITER_QUEUE];
  unsigned first, count;
  size_t bytes; /* of the images in the queue */
  bool running, storing, stop; /* storing: an image that is in the queue no more */
};

static size_t queued_bytes(const struct nx_image *image) { return (size_t)image->page_count * NX_PAGE_BYTES; }

/* Waits for the next image; false when there is none and there will be none. */
static bool take(struct nx_cache_writer *writer, struct waiting *out) {
  pthread_mutex_lock(&writer->mutex);
  writer->storing = false;
  while (!writer->count && !writer->stop) pthread_cond_wait(&writer->changed, &writer->mutex);
  bool any = writer->count > 0;
  if (any) {
    *out = writer->queue[writer->first];
    writer->first = (writer->first + 1) % NX_CACHE_WRITER_QUEUE;
    writer->count--;
    writer->storing = true;
    writer->bytes -= queued_bytes(out->image);
  }
  pthread_mutex_unlock(&writer->mutex);
  return any;
}

static void *run(void *argument) {
  struct nx_cache_writer *writer = argument;
  for (struct waiting next; take(writer, &next);) {
    nx_cache_store(writer->cache, next.source_hash, next.image); /* a failure is logged and counted there */
    nx_image_release(next.image);
  }
  return NULL;
}

int nx_cache_writer_create(struct nx_cache_writer **out, struct nx_cache *cache, struct nx_error *err) {
  *out = NULL;
  if (!cache) return 0;
  struct nx_cache_writer *writer = calloc(1, sizeof *writer);
  if (!writer) return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory for the cache writer");
  writer->cache = cache;
  pthread_mutex_init(&writer->mutex, NULL);
  pthread_cond_init(&writer->changed, NULL);
  *out = writer;
  return 0;
}

/* Synchronization: mutex held. */
static int start(struct nx_cache_writer *writer, struct nx_error *err) {
  if (writer->running) return 0;
  int status = nx_thread_start(&writer->thread, "cache-writer", run, writer, err);
  writer->running = !status;
  return status;
}

static bool has_room(const struct nx_cache_writer *writer, const struct nx_image *image) {
  return writer->count < NX_CACHE_WRITER_QUEUE && writer->bytes + queued_bytes(image) <= NX_CACHE_WRITER_BYTES;
}

void nx_cache_writer_put(struct nx_cache_writer *writer, const uint8_t source_hash[NX_HASH_BYTES],
                         struct nx_image *image) {
  struct nx_error err;
  if (!writer) return;
  pthread_mutex_lock(&writer->mutex);
  int status = start(writer, &err);
  if (!status && has_room(writer, image)) {
    struct waiting *slot = &writer->queue[(writer->first + writer->count) % NX_CACHE_WRITER_QUEUE];
    memcpy(slot->source_hash, source_hash, NX_HASH_BYTES);
    slot->image = nx_image_hold(image);
    writer->count++;
    writer->bytes += queued_bytes(image);
    pthread_cond_signal(&writer->changed);
  }
  pthread_mutex_unlock(&writer->mutex);
  if (status && nx_log_take())
    nx_log(NX_LOG_WARN, "an image is not stored in the compile cache", "reason", err.text, NULL);
}

unsigned nx_cache_writer_pending(struct nx_cache_writer *writer) {
  if (!writer) return 0;
  pthread_mutex_lock(&writer->mutex);
  unsigned pending = writer->count + writer->storing;
  pthread_mutex_unlock(&writer->mutex);
  return pending;
}

void nx_cache_writer_destroy(struct nx_cache_writer *writer) {
  if (!writer) return;
  pthread_mutex_lock(&writer->mutex);
  writer->stop = true;
  pthread_cond_signal(&writer->changed);
  pthread_mutex_unlock(&writer->mutex);
  if (writer->running) pthread_join(writer->thread, NULL);
  pthread_cond_destroy(&writer->changed);
  pthread_mutex_destroy(&writer->mutex);
  free(writer);
}
