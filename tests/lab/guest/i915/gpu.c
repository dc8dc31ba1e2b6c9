#include "gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* What is below is for addresses of a check's own choice, and for the kernel's. */
#define FIRST_ADDRESS 0x100000000u
#define NODE "/dev/dri/renderD128"

const struct engine engines[ENGINES] = {
    {"rcs0", I915_EXEC_RENDER, 0x2000},
    {"bcs0", I915_EXEC_BLT, 0x22000},
    {"vcs0", I915_EXEC_BSD, 0x12000},
    {"vecs0", I915_EXEC_VEBOX, 0x1a000},
};
unsigned failures;
static uint64_t next_address = FIRST_ADDRESS;

bool check(uint64_t expected, uint64_t got, const char *name, ...)
{
    char text[160];
    va_list list;
    va_start(list, name);
    vsnprintf(text, sizeof text, name, list);
    va_end(list);
    bool ok = expected == got;
    if (ok)
        printf("ok %s\n", text);
    else
        printf("FAIL %s: expected %#llx, got %#llx\n", text, (unsigned long long)expected, (unsigned long long)got);
    fflush(stdout);
    failures += !ok;
    return ok;
}

void die(const char *what, int error)
{
    printf("FAIL %s: %s\n", what, strerror(error));
    fflush(stdout);
    exit(1);
}

int call(int file, unsigned long request, void *argument)
{
    int result;
    do
        result = ioctl(file, request, argument);
    while (result != 0 && (errno == EINTR || errno == EAGAIN));
    return result != 0 ? -errno : 0;
}

static void must(int result, const char *what)
{
    if (result != 0)
        die(what, -result);
}

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void sleep_ms(unsigned milliseconds)
{
    struct timespec time = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&time, &time) != 0)
        ;
}

int gpu_open(void)
{
    int file = open(NODE, O_RDWR | O_CLOEXEC);
    if (file < 0)
        die("opening " NODE, errno);
    return file;
}

int gpu_parameter(int file, int parameter)
{
    int value = 0;
    struct drm_i915_getparam get = {.param = parameter, .value = &value};
    must(call(file, DRM_IOCTL_I915_GETPARAM, &get), "I915_GETPARAM");
    return value;
}

uint32_t context_new(int file)
{
    struct drm_i915_gem_context_create create = {0};
    must(call(file, DRM_IOCTL_I915_GEM_CONTEXT_CREATE, &create), "GEM_CONTEXT_CREATE");
    return create.ctx_id;
}

uint32_t context_in(int file, uint32_t space)
{
    struct drm_i915_gem_context_create_ext_setparam with = {
        .base = {.name = I915_CONTEXT_CREATE_EXT_SETPARAM},
        .param = {.param = I915_CONTEXT_PARAM_VM, .value = space},
    };
    struct drm_i915_gem_context_create_ext create = {
        .flags = I915_CONTEXT_CREATE_FLAGS_USE_EXTENSIONS,
        .extensions = (uintptr_t)&with,
    };
    must(call(file, DRM_IOCTL_I915_GEM_CONTEXT_CREATE_EXT, &create), "GEM_CONTEXT_CREATE_EXT");
    return create.ctx_id;
}

void context_end(int file, uint32_t context)
{
    struct drm_i915_gem_context_destroy end = {.ctx_id = context};
    must(call(file, DRM_IOCTL_I915_GEM_CONTEXT_DESTROY, &end), "GEM_CONTEXT_DESTROY");
}

uint32_t space_new(int file)
{
    struct drm_i915_gem_vm_control create = {0};
    must(call(file, DRM_IOCTL_I915_GEM_VM_CREATE, &create), "GEM_VM_CREATE");
    return create.vm_id;
}

void space_end(int file, uint32_t space)
{
    struct drm_i915_gem_vm_control end = {.vm_id = space};
    must(call(file, DRM_IOCTL_I915_GEM_VM_DESTROY, &end), "GEM_VM_DESTROY");
}

uint64_t address_for(uint64_t size)
{
    uint64_t address = next_address;
    next_address += (size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE + PAGE_SIZE; /* a hole after each */
    return address;
}

struct object object_at(int file, uint64_t size, uint64_t address)
{
    struct drm_i915_gem_create create = {.size = size};
    must(call(file, DRM_IOCTL_I915_GEM_CREATE, &create), "GEM_CREATE");
    struct drm_i915_gem_mmap_offset offset = {.handle = create.handle, .flags = I915_MMAP_OFFSET_WB};
    must(call(file, DRM_IOCTL_I915_GEM_MMAP_OFFSET, &offset), "GEM_MMAP_OFFSET");
    void *pages = mmap(NULL, create.size, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)offset.offset);
    if (pages == MAP_FAILED)
        die("mapping an object", errno);
    return (struct object){file, create.handle, create.size, address, pages};
}

struct object object_new(int file, uint64_t size)
{
    return object_at(file, size, address_for(size));
}

void object_end(struct object *object)
{
    struct drm_gem_close end = {.handle = object->handle};
    if (object->dwords != NULL)
        munmap(object->dwords, object->size);
    must(call(object->file, DRM_IOCTL_GEM_CLOSE, &end), "GEM_CLOSE");
    object->dwords = NULL;
}

int object_wait(const struct object *object, double limit)
{
    struct drm_i915_gem_wait wait = {.bo_handle = object->handle, .timeout_ns = (int64_t)(limit * 1e9)};
    int result = call(object->file, DRM_IOCTL_I915_GEM_WAIT, &wait);
    if (result != 0 && result != -ETIME)
        must(result, "GEM_WAIT");
    return result;
}

bool object_busy(const struct object *object)
{
    struct drm_i915_gem_busy busy = {.handle = object->handle};
    must(call(object->file, DRM_IOCTL_I915_GEM_BUSY, &busy), "GEM_BUSY");
    return busy.busy != 0;
}
