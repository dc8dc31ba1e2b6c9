#ifndef XD_GUARD_H
#define XD_GUARD_H
#include <stdint.h>

/*
 * Guarded access to memory that may vanish. A guest page that is mapped from another domain goes when the guest gives
 * it back, from one instruction to the next; touching it then raises SIGBUS.
 *
 * Any thread may call the accessors, after xd_guard_install. They return 0, or -EFAULT if some of the memory was not
 * there; what was copied until then stays copied. "from" or "to" is the memory that may vanish, as the name of each
 * function says; the other side is our own.
 */

/*
 * Installs the handler of SIGBUS, for the whole process; a second call does nothing. A SIGBUS outside of an accessor
 * goes to the handler that was there before. Returns 0 or -errno. Called by ppgtt/guest_frames.py, ppgtt/space.py,
 * state/file.py, stats/page.py and traps/protected.py, before they use an accessor.
 */
int xd_guard_install(void);

/*
 * Copies `size` bytes from foreign memory, in pieces of no particular width. Returns 0 or -EFAULT. Called by
 * state/file.py, frames.c and gpu_memory.c.
 */
int xd_read(void *to, const void *from, uint64_t size);

/*
 * Copies `size` bytes to foreign memory, in pieces of no particular width. Returns 0 or -EFAULT. Called by gpu_memory.c
 * and tests.
 */
int xd_write(void *to, const void *from, uint64_t size);

/*
 * Stores the low `size` bytes of `value` to foreign memory: 1, 2, 4 or 8 aligned bytes in one machine access, any
 * other number up to 8 in several. Returns 0, -EFAULT, or -EINVAL for a size above 8. Called by frames.c and
 * gpu_memory.c.
 */
int xd_store(void *to, uint64_t value, uint32_t size);

/*
 * Loads `size` bytes of foreign memory into *value, zero-extended; sizes and accesses as in xd_store. Returns 0,
 * -EFAULT, or -EINVAL for a size above 8. Called by frames.c and gpu_memory.c.
 */
int xd_load(const void *from, uint32_t size, uint64_t *value);

/*
 * Copies `count` aligned words of 8 bytes from foreign memory, each in one machine access. Returns 0 or -EFAULT. Called
 * by ppgtt/space.py and stats/page.py.
 */
int xd_read_words(uint64_t *to, const uint64_t *from, uint64_t count);

/*
 * Calls `work(address, more)`, which may touch the `size` bytes at `address`. Returns 0; or -EFAULT, and then `work`
 * was left in the middle, so it must hold nothing that needs to be given back. It must not use another accessor. Called
 * by frames.c, gpu_memory.c and protected_bits.c.
 */
int xd_guarded(const void *address, uint64_t size, void (*work)(const void *address, void *more), void *more);

#endif
