/* SPDX-License-Identifier: Apache-2.0
 *
 * Format:
 *
 *   version 2 bytes | size of linear memory in WebAssembly pages 2 bytes | Zstandard frames, one after the other
 *
 * Each frame holds at most BLOCK_BYTES of runs, in ascending order of address over all frames:
 *
 *   equal words skipped since the run before, varint | changed words, varint, not 0 | those words, 4 bytes each
 *
 * Words are those of a 32-bit guest, and written as they are, not as a difference: pointers and object headers repeat
 * each other, their differences do not. Integers are little-endian, as on every machine that nexus builds for. What was
 * measured before this form and compressor were chosen: docs/suspend.md. */
#include "image/patch.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#define VERSION 1u
#define HEADER_BYTES 4u
#define WASM_PAGE_BYTES (16u * NX_PAGE_BYTES)
#define WORD_BYTES 4u
#define PAGE_WORDS (NX_PAGE_BYTES / WORD_BYTES)
#define VARINT_MAX_BYTES 5u

#define COMPRESSION_LEVEL 1
/* Larger blocks compress little better; the compressor's memory grows with them. */
#define BLOCK_BYTES 65536u
/* A page never takes more: every run but the first leaves out at least one word, which is as long as what it adds. */
#define PAGE_RUNS_MAX_BYTES (NX_PAGE_BYTES + 2 * VARINT_MAX_BYTES)

static int no_memory(struct nx_error *err) {
  return nx_error_set(err, NX_ERR_NO_MEMORY, "no memory to keep a suspended execution");
}

/* ---- Workspace ---------------------------------------------------------------------------------------------------- */

/* What one call needs beside its output. */
struct workspace {
  ZSTD_CCtx *compressor;
  ZSTD_DCtx *decompressor;
  uint8_t runs[BLOCK_BYTES];
};

/* One is kept for the next call, so that calls that do not overlap allocate nothing. */
static struct workspace *_Atomic kept;

static void destroy_workspace(struct workspace *work) {
  if (!work) return;
  ZSTD_freeCCtx(work->compressor);
  ZSTD_freeDCtx(work->decompressor);
  free(work);
}

static struct workspace *create_workspace(void) {
  struct workspace *work = malloc(sizeof *work);
  if (!work) return NULL;
  work->compressor = ZSTD_createCCtx();
  work->decompressor = ZSTD_createDCtx();
  if (work->compressor && work->decompressor &&
      !ZSTD_isError(ZSTD_CCtx_setParameter(work->compressor, ZSTD_c_compressionLevel, COMPRESSION_LEVEL)))
    return work;
  destroy_workspace(work);
  return NULL;
}

static struct workspace *take_workspace(struct nx_error *err) {
  struct workspace *work = atomic_exchange(&kept, NULL);
  if (!work) work = create_workspace();
  if (!work) no_memory(err);
  return work;
}

static void give_workspace(struct workspace *work) { destroy_workspace(atomic_exchange(&kept, work)); }

/* ---- Encoding ----------------------------------------------------------------------------------------------------- */

struct encoder {
  struct nx_buf *out;
  struct workspace *work;
  uint32_t runs_bytes; /* in work->runs */
  uint32_t reached;    /* index of the word behind the last run */
};

static uint8_t *put_varint(uint8_t *at, uint32_t value) {
  for (; value >= 0x80; value >>= 7) *at++ = (uint8_t)(value | 0x80);
  *at++ = (uint8_t)value;
  return at;
}

static bool word_differs(const uint8_t *page, const uint8_t *clean, uint32_t word) {
  return memcmp(page + word * WORD_BYTES, clean + word * WORD_BYTES, WORD_BYTES) != 0;
}

static bool pair_differs(const uint8_t *page, const uint8_t *clean, uint32_t word) {
  return memcmp(page + word * WORD_BYTES, clean + word * WORD_BYTES, 2 * WORD_BYTES) != 0;
}

/* The first word from `word` on that differs, or PAGE_WORDS. An odd `word` must be one that is equal. */
static uint32_t skip_equal(const uint8_t *page, const uint8_t *clean, uint32_t word) {
  for (word += word % 2; word < PAGE_WORDS; word += 2)
    if (pair_differs(page, clean, word)) return word + !word_differs(page, clean, word);
  return word;
}

static uint32_t skip_different(const uint8_t *page, const uint8_t *clean, uint32_t word) {
  while (word < PAGE_WORDS && word_differs(page, clean, word)) word++;
  return word;
}

static void encode_page(struct encoder *encoder, uint32_t index, const uint8_t *page, const uint8_t *clean) {
  uint8_t *at = encoder->work->runs + encoder->runs_bytes;
  uint32_t first = index * PAGE_WORDS;
  for (uint32_t begin = 0, end; (begin = skip_equal(page, clean, begin)) < PAGE_WORDS; begin = end) {
    end = skip_different(page, clean, begin);
    at = put_varint(at, first + begin - encoder->reached);
    at = put_varint(at, end - begin);
    memcpy(at, page + begin * WORD_BYTES, (end - begin) * WORD_BYTES);
    at += (end - begin) * WORD_BYTES;
    encoder->reached = first + end;
  }
  encoder->runs_bytes = (uint32_t)(at - encoder->work->runs);
}

/* Compresses the runs so far into a frame of their own. */
static int flush(struct encoder *encoder, struct nx_error *err) {
  if (!encoder->runs_bytes) return 0;
  size_t bound = ZSTD_compressBound(encoder->runs_bytes);
  char *room = nx_buf_reserve(encoder->out, bound);
  if (!room) return no_memory(err);
  size_t bytes = ZSTD_compress2(encoder->work->compressor, room, bound, encoder->work->runs, encoder->runs_bytes);
  if (ZSTD_isError(bytes)) return no_memory(err); /* of its own: in `room` there is enough for any frame */
  encoder->out->len += bytes;
  encoder->runs_bytes = 0;
  return 0;
}

static int encode_pages(struct encoder *encoder, const struct nx_image *image, const uint8_t *memory,
                        const uint32_t *candidates, uint32_t candidate_count, struct nx_error *err) {
  for (uint32_t i = 0; i < candidate_count; i++) {
    const uint8_t *page = memory + (size_t)candidates[i] * NX_PAGE_BYTES;
    const uint8_t *clean = nx_image_page(image, candidates[i]);
    if (!memcmp(page, clean, NX_PAGE_BYTES)) continue;
    if (encoder->runs_bytes + PAGE_RUNS_MAX_BYTES > BLOCK_BYTES) {
      int status = flush(encoder, err);
      if (status) return status;
    }
    encode_page(encoder, candidates[i], page, clean);
  }
  return flush(encoder, err);
}

int nx_patch_encode(struct nx_buf *out, const struct nx_image *image, const uint8_t *memory, uint32_t memory_bytes,
                    const uint32_t *candidates, uint32_t candidate_count, struct nx_error *err) {
  struct encoder encoder = {.out = out, .work = take_workspace(err)};
  if (!encoder.work) return -NX_ERR_NO_MEMORY;
  size_t before = out->len;
  const uint16_t header[2] = {VERSION, (uint16_t)(memory_bytes / WASM_PAGE_BYTES)};
  nx_buf_add(out, header, HEADER_BYTES);
  int status = out->failed ? no_memory(err) : encode_pages(&encoder, image, memory, candidates, candidate_count, err);
  give_workspace(encoder.work);
  if (status) out->len = before;
  nx_buf_shrink(out);
  return status;
}

/* ---- Applying ----------------------------------------------------------------------------------------------------- */

static int damaged(struct nx_error *err, const char *what) {
  return nx_error_set(err, NX_ERR_INVALID, "a suspended execution is damaged: %s", what);
}

int nx_patch_memory_bytes(const uint8_t *patch, size_t bytes, const struct nx_image *image, uint32_t *out,
                          struct nx_error *err) {
  uint16_t header[2];
  if (bytes < HEADER_BYTES) return damaged(err, "it is cut short");
  memcpy(header, patch, HEADER_BYTES);
  if (header[0] != VERSION) return damaged(err, "unknown version");
  uint32_t memory_bytes = header[1] * WASM_PAGE_BYTES;
  if (memory_bytes < image->memory_bytes) return damaged(err, "less memory than its handler has");
  *out = memory_bytes;
  return 0;
}

struct reader {
  const uint8_t *at, *end;
};

/* False at the end, and for a number of more than 32 bits. */
static bool get_varint(struct reader *reader, uint32_t *out) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 7 * VARINT_MAX_BYTES && reader->at < reader->end; shift += 7) {
    uint8_t byte = *reader->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte & 0x80) continue;
    *out = (uint32_t)value;
    return value <= UINT32_MAX;
  }
  return false;
}

/* Linear memory while runs are written to it. */
struct target {
  uint8_t *memory;
  uint32_t words;
  uint32_t reached; /* as in struct encoder */
};

static bool apply_runs(struct target *target, const uint8_t *runs, size_t bytes) {
  struct reader reader = {runs, runs + bytes};
  while (reader.at < reader.end) {
    uint32_t skipped, count;
    if (!get_varint(&reader, &skipped) || !get_varint(&reader, &count) || !count) return false;
    if (skipped > target->words - target->reached) return false;
    target->reached += skipped;
    if (count > target->words - target->reached) return false;
    if (count > (size_t)(reader.end - reader.at) / WORD_BYTES) return false;
    memcpy(target->memory + (size_t)target->reached * WORD_BYTES, reader.at, (size_t)count * WORD_BYTES);
    reader.at += (size_t)count * WORD_BYTES;
    target->reached += count;
  }
  return true;
}

static int apply_frames(struct workspace *work, struct target *target, const uint8_t *frames, size_t bytes,
                        struct nx_error *err) {
  while (bytes) {
    size_t frame_bytes = ZSTD_findFrameCompressedSize(frames, bytes);
    if (ZSTD_isError(frame_bytes)) return damaged(err, ZSTD_getErrorName(frame_bytes));
    size_t runs_bytes = ZSTD_decompressDCtx(work->decompressor, work->runs, BLOCK_BYTES, frames, frame_bytes);
    if (ZSTD_isError(runs_bytes)) return damaged(err, ZSTD_getErrorName(runs_bytes));
    if (!apply_runs(target, work->runs, runs_bytes)) return damaged(err, "it leaves its memory");
    frames += frame_bytes;
    bytes -= frame_bytes;
  }
  return 0;
}

int nx_patch_apply(const uint8_t *patch, size_t bytes, uint8_t *memory, uint32_t memory_bytes, struct nx_error *err) {
  if (bytes < HEADER_BYTES) return damaged(err, "it is cut short");
  struct target target = {.memory = memory, .words = memory_bytes / WORD_BYTES};
  struct workspace *work = take_workspace(err);
  if (!work) return -NX_ERR_NO_MEMORY;
  int status = apply_frames(work, &target, patch + HEADER_BYTES, bytes - HEADER_BYTES, err);
  give_workspace(work);
  return status;
}
