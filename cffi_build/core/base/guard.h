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
 * Install the handler of SIGBUS, for the whole process; a second call does nothing. A SIGBUS outside of an accessor
 * goes to the handler that was there before. Returns 0 or -errno. The process calls it before it uses an accessor.
 */
int xd_guard_install(void);

/* Copy `size` bytes from foreign memory, in pieces of no particular width. */
int xd_read(void *to, const void *from, uint64_t size);

/* Copy `size` bytes to foreign memory, in pieces of no particular width. */
int xd_write(void *to, const void *from, uint64_t size);

/*
 * Store the low `size` bytes of `value` to foreign memory: 1, 2, 4 or 8 aligned bytes in one machine access, any other
 * number up to 8 in several. Returns -EINVAL for a size above 8.
 */
int xd_store(void *to, uint64_t value, uint32_t size);

/* Load `size` bytes of foreign memory into *value, zero-extended; sizes and accesses as in xd_store. */
int xd_load(const void *from, uint32_t size, uint64_t *value);

/* Copy `count` aligned words of 8 bytes from foreign memory, each in one machine access. */
int xd_read_words(uint64_t *to, const uint64_t *from, uint64_t count);

/*
 * Call `work(address, more)`, which may touch the `size` bytes at `address`. After -EFAULT it was left in the middle,
 * so it must hold nothing that needs to be given back. It must not use another accessor.
 */
int xd_guarded(const void *address, uint64_t size, void (*work)(const void *address, void *more), void *more);

#endif
