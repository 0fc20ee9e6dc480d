/* SPDX-License-Identifier: Apache-2.0
 *
 * The sandbox: instances of the guest, and entering and leaving them.
 *
 * An instance is one 4 GiB window of linear memory that shows an image copy-on-write. nx_instance_show makes it show
 * a handler's image; nx_instance_compile or nx_instance_invoke enter the guest; however that ends, the memory is then
 * the guest's work and nx_instance_reset brings the clean image back. What the guest asks for in between comes through
 * struct nx_guest_call.
 *
 * Ownership: the creator owns an instance. Images shown are held by it.
 * Threads:   an instance belongs to one thread at a time, and is bound to none. A thread that enters guests must have
 *            called nx_sandbox_thread_enter.
 * Errors:    the guest's failures are a struct nx_guest_result, never an nx_error. */
#ifndef NX_SANDBOX_SANDBOX_H
#define NX_SANDBOX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "base/buf.h"
#include "base/error.h"
#include "image/image.h"

/* ---- Process ------------------------------------------------------------------------------------------------- */

enum nx_reset_method {
  NX_RESET_AUTO,         /* the best this kernel offers */
  NX_RESET_SCAN_FAULTS,  /* PAGEMAP_SCAN, skipped when the fault counter proves that no page became private */
  NX_RESET_SCAN,         /* PAGEMAP_SCAN at every reset */
  NX_RESET_REMAP,        /* drop all private pages: slower, always right */
};

/* The engine after boot, as bytes. Booting takes milliseconds and always gives the same memory, so it is done when
 * nexus is built (boot_tool.c) and linked in; NULL boots now, for the tool and for the test that both are equal. */
struct nx_boot_image {
  const uint8_t *bytes;
  size_t size;
};
struct nx_boot_image nx_boot_image_linked(void);

/* Before any thread is created: signal handlers, transparent huge pages off, the base image. */
int nx_sandbox_init(enum nx_reset_method method, const struct nx_boot_image *boot, struct nx_error *err);
/* After an init that booted: what to link in. */
void nx_sandbox_write_boot_image(struct nx_buf *out);
void nx_sandbox_deinit(void);
struct nx_image *nx_sandbox_base_image(void); /* borrowed */
enum nx_reset_method nx_sandbox_reset_method(void);
const char *nx_reset_method_name(enum nx_reset_method method);
/* hash(guest.wasm, architecture, base image), hex: what a suspended execution must find again. */
const char *nx_sandbox_guest_id(void);

/* ---- Threads --------------------------------------------------------------------------------------------------- */

/* What a configured stack size means for struct nx_guest_call: the engine keeps a little for itself. */
uint32_t nx_sandbox_usable_stack_bytes(uint32_t stack_size_bytes);
/* Native stack that JavaScript limited to `guest_stack_bytes` may need, guard page excluded. */
size_t nx_sandbox_native_stack_bytes(size_t guest_stack_bytes);
/* Gives the calling thread what it needs to enter guests (alternate signal stack, stack bounds, a kill slot), and
 * unblocks the signals by which guests are left. Not for the main thread, whose stack has no guard page. */
int nx_sandbox_thread_enter(struct nx_error *err);
void nx_sandbox_thread_leave(void);
/* Calls `run` on a thread of its own that has entered, with the stack for JavaScript limited to `guest_stack_bytes`, and
 * waits until it has left. */
int nx_sandbox_run_thread(size_t guest_stack_bytes, void (*run)(void *argument), void *argument, struct nx_error *err);
/* A number for the calling thread that is never used again; 0 when it did not enter. */
uint64_t nx_sandbox_thread_serial(void);

/* True when the calling thread's priority was lowered, for an execution that computed for long or was expected to, and
 * this process may not raise it again (setpriority(2): that takes CAP_SYS_NICE or RLIMIT_NICE). Such a thread should
 * end, and another take its place. */
bool nx_sandbox_thread_is_spent(void);

/* Called by the watchdog thread, every millisecond or so while anything runs: ends executions that are overdue, and
 * lowers the priority of threads that have been computing for 10 ms, so that short executions and probes beside them
 * need not wait for a full time slice of each. Returns the number of threads inside a guest now; `newly_slow` counts
 * executions that have just computed for `slow_after_ns`, whose results will say was_slow. */
unsigned nx_sandbox_watch(uint64_t now_ns, uint64_t slow_after_ns, unsigned *newly_slow);
/* Around work of the host for an execution that may take as long as the guest (its memory is compressed, copied, restored):
 * it is watched in the same way, but has no deadline. end returns whether nx_sandbox_watch counted it. Nothing on threads
 * that did not enter. */
void nx_sandbox_work_begin(void);
bool nx_sandbox_work_end(void);

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

/* How a stay in the guest ended. */
enum nx_guest_end {
  NX_GUEST_RETURNED,      /* `status` is the guest's enum nx_abi_status, to be believed as far as the guest is */
  NX_GUEST_TRAPPED,       /* out-of-bounds access, unreachable, bad indirect call, … */
  NX_GUEST_STACK,         /* native or guest stack exhausted */
  NX_GUEST_DEADLINE,      /* cut by the watchdog */
  NX_GUEST_STOPPED,       /* a host call answered nx_guest_stop */
};

struct nx_guest_result {
  enum nx_guest_end end;
  int32_t status;
  const char *trap;          /* static text, for NX_GUEST_TRAPPED */
  bool memory_refused;       /* a grant of memory was refused for this call's own limit */
  bool budget_refused;       /* … or by the shared budget */
  uint64_t refused_bytes;    /* how much the largest refused grant was for */
  bool was_slow;             /* nx_sandbox_watch counted it */
  uint64_t computed_ns;      /* CPU time if its priority was lowered, without what went before the watchdog looked; else 0 */
  uint32_t memory_peak_bytes;/* size of linear memory when it ended: it never shrinks within a call */
  uint32_t heap_bytes;       /* of the guest's engine when it ended; the guest's word */
  uint64_t duration_ns;
};

/* What one call may do and who answers it. Borrowed for the duration of the call. */
struct nx_guest_call {
  uint64_t deadline_ns;         /* nx_clock_ns() */
  uint32_t memory_limit_bytes;  /* size of linear memory that this call may reach */
  uint32_t stack_limit_bytes;
  uint64_t age_ns;              /* of the execution when this call begins: what performance.now() shows then */
  bool long_expected;           /* begins with the priority that nx_sandbox_watch would give it after a while, and is not
                                 * counted as slow: who asks for that has replaced the thread */
  bool frozen;                  /* clock stands at 0, randomness is a fixed sequence: an image is being made */
  void *opaque;
  /* Runs on the calling thread between guest instructions; texts lie in guest memory, checked, and live
   * until it returns. May call nx_guest_stop. */
  int32_t (*host_call)(void *opaque, uint32_t op, const char *a, uint32_t a_bytes, const char *b, uint32_t b_bytes);
  /* Asks for `bytes` more of linear memory; false refuses. Who grants keeps account of it (pool/). */
  bool (*grant)(void *budget, size_t bytes);
  void *budget;
};

/* From inside host_call only: leaves the guest at once; the call ends as NX_GUEST_STOPPED. */
void nx_guest_stop(void) __attribute__((noreturn));

/* ---- Instances ---------------------------------------------------------------------------------------------------- */

struct nx_instance;

int nx_instance_create(struct nx_instance **out, struct nx_error *err);
void nx_instance_destroy(struct nx_instance *instance);

/* The image it shows; borrowed. */
struct nx_image *nx_instance_image(const struct nx_instance *instance);
/* Only on a clean instance: makes it show `image` (the base or a delta over it). After an error the instance must be
 * destroyed: part of the old image may be gone. */
int nx_instance_show(struct nx_instance *instance, struct nx_image *image, struct nx_error *err);

struct nx_text {
  const char *data; /* NULL: absent */
  uint32_t bytes;
};

/* Compiles a handler and runs its top level. Only while the base image is shown. */
struct nx_guest_result nx_instance_compile(struct nx_instance *instance, const struct nx_guest_call *call,
                                           struct nx_text source);
/* The memory as a delta over the base image, charged to `account`; only after a compile that returned NX_STATUS_DONE. NX_ERR_TOO_LARGE past
 * NX_IMAGE_MAX_BYTES: a top level must not use handlers as a store. */
#define NX_IMAGE_MAX_BYTES (8u << 20)
int nx_instance_capture(struct nx_instance *instance, struct nx_account *account, struct nx_image **out,
                        struct nx_error *err);
/* One execution of the handler shown. All three texts are valid JSON, checked by the caller. */
struct nx_guest_result nx_instance_invoke(struct nx_instance *instance, const struct nx_guest_call *call,
                                          struct nx_text args, struct nx_text state, struct nx_text scope);

/* Goes on with an execution that waits (its last call returned NX_STATUS_WAITING), in this instance or in one that it was
 * restored into. `answers` is valid JSON, checked by the caller: an array of {"callId": number, "success": true, "value"?:
 * any} and {"callId": number, "success": false, "error": any}, in the order in which they came. Answers to calls that the guest does not wait for
 * are ignored by it. */
struct nx_guest_result nx_instance_resume(struct nx_instance *instance, const struct nx_guest_call *call,
                                          struct nx_text answers);

/* The memory of an execution that waits, as a patch (image/patch.h) over the image shown, appended to `out`. The instance must be reset
 * afterwards: what need not be kept was cleared. */
int nx_instance_suspend(struct nx_instance *instance, struct nx_buf *out, struct nx_error *err);
/* Only on a clean instance that shows the image the patch was made over: brings the memory back. `grant` is asked for growth
 * beyond the image: NX_ERR_OVERLOADED when it refuses. After an error the instance must be reset. */
int nx_instance_restore(struct nx_instance *instance, const uint8_t *patch, size_t bytes,
                        bool (*grant)(void *budget, size_t bytes), void *budget, struct nx_error *err);

/* Brings the shown image back, byte for byte, and takes growth back. Returns the bytes of linear memory that had
 * been granted beyond the image. Failure to restore a page is fatal to the
 * process: an instance that cannot be proven clean must not live. */
size_t nx_instance_reset(struct nx_instance *instance);

/* For clean, idle instances: gives all private pages back to the kernel and shows the base image, so that nothing holds a
 * handler's image either. Returns the bytes given back. */
size_t nx_instance_trim(struct nx_instance *instance);

/* Pages that were private (so: possibly changed) at the last reset. */
uint32_t nx_instance_dirty_pages(const struct nx_instance *instance);
/* Private pages held now, in bytes. */
size_t nx_instance_resident_bytes(const struct nx_instance *instance);
/* For tests: 0 when all of linear memory equals the shown image, else 1 + index of the first page that does not. */
uint32_t nx_instance_verify(const struct nx_instance *instance);

#endif
