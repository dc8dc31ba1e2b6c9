#include "quick.h"

#include "access.h"
#include "guest_store.h"
#include "hot.h"

#include <stdbool.h>

enum { LEFT_TO_PYTHON = -1, SUBMIT_BIT = 1 };

static uint64_t low_bytes(uint64_t value, uint32_t size)
{
    return size < 8 ? value & ((1ull << 8 * size) - 1) : value;
}

/* Returns whether an access to these bytes touches a dword whose bit is set. */
static bool is_special(const xd_registers *registers, const uint32_t *bits, uint64_t offset, uint32_t size)
{
    uint64_t last = (offset + size - 1) / 4;
    for (uint64_t dword = offset / 4; dword <= last && dword < registers->dwords; dword++)
        if (bits[dword / 32] >> dword % 32 & 1)
            return true;
    return false;
}

/* Returns whether a write does nothing but submit, and that was done. */
static bool submit(const xd_quick *quick, const xd_registers *registers, const xd_ioreq *req, uint64_t offset)
{
    uint64_t before;
    if (req->size != 4 || offset % 4 || low_bytes(req->data, 4) != SUBMIT_BIT ||
        !is_special(registers, registers->submits, offset, 4))
        return false;
    xd_load_now(registers->memory + offset, 4, &before);
    return !before && xd_submit_all(quick->submit) == XD_SUBMIT_DONE;
}

static int access_aperture(xd_quick *quick, const xd_aperture *aperture, const xd_ioreq *req, uint64_t offset,
                           uint64_t *data)
{
    bool reads = req->bits & XD_BIT_READ;
    if (xd_aperture_splits(offset, req->size))
        return LEFT_TO_PYTHON;
    int result = reads ? xd_aperture_read(aperture, offset, req->size, data)
                       : xd_aperture_write(aperture, offset, req->size, low_bytes(req->data, req->size));
    if (result != XD_GM_DONE)
        return LEFT_TO_PYTHON;
    quick->counters->mmio_traps++;
    return reads ? XD_ROUTE_REGISTER_READ : XD_ROUTE_REGISTER_WRITE;
}

static int access_registers(xd_quick *quick, const xd_registers *registers, xd_taken *taken, uint64_t offset,
                            uint64_t *data)
{
    const xd_ioreq *req = &taken->req;
    bool reads = req->bits & XD_BIT_READ;
    if (registers->aperture)
        return access_aperture(quick, registers->aperture, req, offset, data);
    if (registers->gpu) {
        registers->gpu->record = quick->journal ? &quick->journal[taken->vcpu] : NULL;
        registers->gpu->element = 0;
        int hot = reads ? xd_hot_read(registers->gpu, offset, req->size, data)
                        : xd_hot_write(registers->gpu, offset, req->size, low_bytes(req->data, req->size));
        registers->gpu->record = NULL;
        quick->counters->mmio_traps += hot != XD_HOT_OTHER;
        if (hot >= XD_HOT_RUNS)
            taken->outcome = XD_SUBMITTED + (hot - XD_HOT_RUNS);
        if (hot != XD_HOT_OTHER)
            return hot >= XD_HOT_RUNS ? LEFT_TO_PYTHON : reads ? XD_ROUTE_REGISTER_READ : XD_ROUTE_REGISTER_WRITE;
    }
    uint64_t end = offset + req->size;
    bool in_hole = offset >= registers->hole_start && end <= registers->hole_end;
    if (!in_hole && end > registers->hole_start && offset < registers->hole_end)
        return LEFT_TO_PYTHON; /* touches an end of the hole */
    if (is_special(registers, reads ? registers->reads : registers->writes, offset, req->size)) {
        if (reads || !submit(quick, registers, req, offset))
            return LEFT_TO_PYTHON;
        quick->counters->mmio_traps++;
        return XD_ROUTE_REGISTER_WRITE;
    }
    quick->counters->mmio_traps++;
    if (reads) {
        *data = 0;
        if (!in_hole)
            xd_load_now(registers->memory + offset, req->size, data);
        return XD_ROUTE_REGISTER_READ;
    }
    if (!in_hole)
        xd_store_now(registers->memory + offset, req->data, req->size);
    return XD_ROUTE_REGISTER_WRITE;
}

static int store_to_memory(xd_quick *quick, xd_taken *taken)
{
    const xd_ioreq *req = &taken->req;
    if (req->bits & XD_BIT_READ || req->size > XD_FRAME_SIZE - (req->addr & (XD_FRAME_SIZE - 1)))
        return LEFT_TO_PYTHON;
    quick->need.count = 0; /* whoever follows a store that lacks frames finds out again which */
    taken->outcome =
        xd_guest_store(quick->shadow, req->addr, low_bytes(req->data, req->size), req->size, &quick->need);
    if (taken->outcome != XD_STORE_DONE)
        return LEFT_TO_PYTHON;
    quick->counters->store_traps++;
    return XD_ROUTE_LEAF_STORE;
}

int xd_quick_serve(xd_quick *quick, xd_taken *taken, uint64_t *data)
{
    const xd_ioreq *req = &taken->req;
    uint32_t size = req->size;
    if (!quick->serves || req->type != XD_IOREQ_COPY || req->count != 1 ||
        req->bits & XD_BIT_DATA_IS_PTR || (size != 8 && size != 4 && size != 2 && size != 1))
        return LEFT_TO_PYTHON;
    for (uint32_t i = 0; i < quick->ranges->count; i++) {
        const xd_range *range = &quick->ranges->ranges[i];
        uint64_t offset = req->addr - range->first;
        if (offset < range->size && offset + size <= range->size)
            return range->registers ? access_registers(quick, range->registers, taken, offset, data) : LEFT_TO_PYTHON;
    }
    return store_to_memory(quick, taken);
}
