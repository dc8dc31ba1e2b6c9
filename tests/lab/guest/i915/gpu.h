/*
 * The kernel's interface to a GPU of Intel's (drm/i915_drm.h), for programs of one thread, and the checks' output.
 * What cannot fail unless something is broken ends the program with a FAIL line.
 */
#ifndef GPU_H
#define GPU_H

#include <stdbool.h>
#include <stdint.h>

#include <drm/i915_drm.h>

#define PAGE_SIZE 4096u

struct engine {
    const char *name;
    uint64_t flag;    /* I915_EXEC_* */
    uint32_t base;    /* of its registers */
};
#define ENGINES 4u
extern const struct engine engines[ENGINES]; /* rcs0, bcs0, vcs0, vecs0 */
enum { RCS0, BCS0, VCS0, VECS0 };

/* Where batches go: a context of a file, and one of its engines. Context 0 is the file's own. */
struct queue {
    int file;
    uint32_t context;
    const struct engine *engine;
};

/* A buffer object at a fixed address of the contexts' address spaces, and its pages as the CPU sees them. */
struct object {
    int file;
    uint32_t handle;
    uint64_t size;
    uint64_t address; /* 48 bits */
    uint32_t *dwords;
};

/* The number of checks that have failed. */
extern unsigned failures;

/* Print `ok name`, or `FAIL name: expected, got`, and count. `name` is as for printf. Returns whether it is ok. */
__attribute__((format(printf, 3, 4))) bool check(uint64_t expected, uint64_t got, const char *name, ...);

/* End the program: `what` gave an error (errno). */
__attribute__((noreturn)) void die(const char *what, int error);

/* ioctl until it is not interrupted: 0, or a negative errno. */
int call(int file, unsigned long request, void *argument);

/* Seconds of the guest's monotonic clock. */
double seconds(void);
void sleep_ms(unsigned milliseconds);

/* A new client of the render node. */
int gpu_open(void);
int gpu_parameter(int file, int parameter);

uint32_t context_new(int file);
/* A context in an address space of its own. */
uint32_t context_in(int file, uint32_t space);
void context_end(int file, uint32_t context);
uint32_t space_new(int file);
void space_end(int file, uint32_t space);

/* A new object, full of zeros, at an address that no other object of this program has had; or at a given one. */
struct object object_new(int file, uint64_t size);
struct object object_at(int file, uint64_t size, uint64_t address);
void object_end(struct object *object);

/* The next free address for an object of a size. */
uint64_t address_for(uint64_t size);

/* DRM_IOCTL_I915_GEM_WAIT: 0, or -ETIME. */
int object_wait(const struct object *object, double limit);
bool object_busy(const struct object *object);

#endif
