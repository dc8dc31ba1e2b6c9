#ifndef XD_ACCESS_H
#define XD_ACCESS_H

/*
 * Loads and stores of 1, 2, 4 or 8 aligned bytes in one machine access, so that a process that is killed, and a thread
 * that looks, find the old value or the new one. Any other number up to 8, and bytes that are not aligned, take several.
 * For C files only: cffi does not read this header. Any thread may call these.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Returns whether the access to `size` bytes at `address` is one of the machine. Called by access.h. */
static inline bool one_access(const void *address, uint32_t size)
{
    return (size == 1 || size == 2 || size == 4 || size == 8) && ((uintptr_t)address & (size - 1)) == 0;
}

/* Stores the low `size` bytes of `value` at `to`. Called by guard.c and quick.c. */
static inline void xd_store_now(void *to, uint64_t value, uint32_t size)
{
    if (!one_access(to, size))
        memcpy(to, &value, size);
    else if (size == 8)
        __atomic_store_n((uint64_t *)to, value, __ATOMIC_RELAXED);
    else if (size == 4)
        __atomic_store_n((uint32_t *)to, (uint32_t)value, __ATOMIC_RELAXED);
    else if (size == 2)
        __atomic_store_n((uint16_t *)to, (uint16_t)value, __ATOMIC_RELAXED);
    else
        __atomic_store_n((uint8_t *)to, (uint8_t)value, __ATOMIC_RELAXED);
}

/* Loads `size` bytes at `from` into *value, zero-extended. Called by guard.c and quick.c. */
static inline void xd_load_now(const void *from, uint32_t size, uint64_t *value)
{
    *value = 0;
    if (!one_access(from, size))
        memcpy(value, from, size);
    else if (size == 8)
        *value = __atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED);
    else if (size == 4)
        *value = __atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED);
    else if (size == 2)
        *value = __atomic_load_n((const uint16_t *)from, __ATOMIC_RELAXED);
    else
        *value = __atomic_load_n((const uint8_t *)from, __ATOMIC_RELAXED);
}

#endif
