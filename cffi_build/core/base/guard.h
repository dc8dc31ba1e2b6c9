#ifndef XD_GUARD_H
#define XD_GUARD_H
#include <stdint.h>

/*
 * Guarded access to memory that may vanish: a guest page, mapped from another domain, is gone from one instruction to
 * the next when the guest gives it back, and touching it then raises SIGBUS.
 *
 * xd_guard_install puts the handler in place, once a process; 0 or -errno. The accessors return 0, or -EFAULT if the
 * page was not there. An access of 1, 2, 4 or 8 bytes is one machine access if it is aligned; xd_read_words reads
 * aligned words, each of them in one. xd_guarded does `work` with these bytes announced; after -EFAULT, that was left
 * in the middle.
 */
int xd_guard_install(void);
int xd_read(void *to, const void *from, uint64_t size);
int xd_write(void *to, const void *from, uint64_t size);
int xd_store(void *to, uint64_t value, uint32_t size);
int xd_read_words(uint64_t *to, const uint64_t *from, uint64_t count);
int xd_load(const void *from, uint32_t size, uint64_t *value);
int xd_guarded(const void *address, uint64_t size, void (*work)(const void *address, void *more), void *more);

#endif
