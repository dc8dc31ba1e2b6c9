/*
 * Sources: hvm_hap_nested_page_fault and __hvm_copy in xen/arch/x86/hvm/hvm.c, linear_write,
 * hvmemul_linear_mmio_access, hvmemul_phys_mmio_access and hvmemul_do_io in xen/arch/x86/hvm/emulate.c, Xen 4.17.
 *
 * An emulated access is first split at the page's end, and each part, if it is no memory that the emulator can copy to,
 * into chunks: the largest power of two of what is left, at most 8. Each chunk is one request. When its answer is there
 * the instruction is emulated again from its start: chunks that are done are skipped, memory that was copied is copied
 * again.
 *
 * Facts: since Xen 4.9 (d909cb9999) the first pass runs under the p2m lock that the hardware's look was made under, so
 * no type can change between that look and the first chunk. Every later pass looks without a lock. What follows: a page
 * may become plain RAM while a chunk is being served. Then the owner of the type does not see the rest of that store:
 * it goes to the server with a range there, or is dropped, or is performed in memory by the emulator, see mapped() and
 * look_again(). We do as Xen does, because a device model must be safe against this.
 */
#include "vcpu_insn.h"

#include "claim.h"
#include "memory.h"
#include "p2m.h"
#include "phases.h"
#include "requests.h"
#include "shadow_paging.h"
#include "wait.h"

#include <string.h>

void emb_split(emb_access *a, uint64_t gpa, uint32_t size)
{
    uint32_t left = EMB_FRAME - (uint32_t)(gpa & (EMB_FRAME - 1));
    uint32_t first = size < left ? size : left;
    a->parts[0] = (emb_part){ .gpa = gpa, .size = first };
    a->nr_parts = 1;
    a->chunk = 0;
    if (first == size)
        return;
    a->parts[a->nr_parts++] = (emb_part){ .gpa = emb_up(gpa, first), .offset = first, .size = size - first };
    if (a->v->domain->rules.straddle == XD_STRADDLE_ALIGNED)
        for (a->chunk = 8; a->chunk > size || (gpa & (a->chunk - 1)); a->chunk >>= 1)
            ;
}

/* The hardware's look at all pages of an access: DIRECT if none of them is in its way. */
static uint32_t hardware_look(emb_access *a, const uint8_t *table)
{
    for (uint32_t i = 0; i < a->nr_parts; i++) {
        uint32_t look = emb_look(a->v->domain, table, a->parts[i].gpa);
        a->fault_part = i;
        if (look != XD_LOOK_DIRECT)
            return look;
    }
    return XD_LOOK_DIRECT;
}

static void memory(emb_access *a, emb_part *p)
{
    if (a->write)
        emb_ram_store(a->v->domain, p->gpa, a->bytes + p->offset, p->size);
    else
        emb_ram_load(a->v->domain, p->gpa, a->bytes + p->offset, p->size);
    p->copied = true;
}

/* One chunk that no memory takes: hvmemul_do_io. */
static int issue(emb_access *a, const emb_part *p, uint32_t size)
{
    emb_vcpu *v = a->v;
    xd_emb *d = v->domain;
    uint64_t gpa = p->gpa + p->done;
    uint8_t *bytes = a->bytes + p->offset + p->done;
    int server;
    /*
     * The first page was RAM in the pass before, and traps in this one: hvmemul_do_io has another request in hand. A domain
     * in which no other change of a type during a store is fatal is spared this one, too.
     */
    bool fatal = d->rules.rep_stores || d->rules.looks_again != XD_AGAIN_NEVER;
    if (a->lying || (a->answered && fatal)) {
        xd_emb_crash(d, "a request met the answer to another");
        return emb_why_stopped(d);
    }
    switch (emb_look(d, a->write ? d->rules.io_store : d->rules.io_load, gpa)) {
    case XD_LOOK_OWNER:
        server = xd_emb_owner(d);
        if (server < 0)
            return EMB_RETRY;
        break;
    case XD_LOOK_DIRECT: /* the read half of a read-modify-write */
        emb_ram_load(d, gpa, bytes, size);
        return EMB_DONE;
    default:
        server = emb_select(d, XD_RANGE_MEMORY, gpa, gpa + size - 1);
        break;
    }
    if (server < 0) {
        if (!a->write) {
            emb_count(d, XD_EMB_ALL_ONES_LOADS);
            memset(bytes, 0xff, size);
        } else if (!p->copied) {
            v->dropped = true;
        }
        return EMB_DONE;
    }
    xd_ioreq request = { .addr = gpa, .size = size, .count = 1, .type = XD_IOREQ_COPY };
    if (a->write)
        memcpy(&request.data, bytes, size);
    else
        request.bits = XD_BIT_READ;
    int rc = emb_post(v, (uint32_t)server, &request);
    return rc ? rc : EMB_PENDING;
}

static uint32_t chunk_of(const emb_access *a, uint32_t left)
{
    uint32_t chunk = a->chunk ? a->chunk : 8;
    while (chunk > left)
        chunk >>= 1;
    return chunk;
}

enum { NEEDS_IO = 3 };

/* A part as memory: __hvm_copy. */
static int copy_part(emb_access *a, emb_part *p)
{
    const xd_emb_rules *rules = &a->v->domain->rules;
    switch (emb_look(a->v->domain, a->write ? rules->copy_store : rules->copy_load, p->gpa)) {
    case XD_LOOK_DIRECT:
        if (!a->locked)
            emb_point(a->v, XD_POINT_COPY);
        memory(a, p);
        return EMB_DONE;
    case XD_LOOK_DISCARD:
        a->v->discarded = true;
        return EMB_DONE;
    case XD_LOOK_RETRY:
        return EMB_RETRY;
    case XD_LOOK_PAGE_FAULT:
        return -EFAULT;
    default:
        return NEEDS_IO;
    }
}

/* A part as requests: hvmemul_phys_mmio_access. `*chunk` is the size of the one that is pending. */
static int io_part(emb_access *a, emb_part *p, uint32_t *chunk)
{
    while (p->done < p->size) {
        *chunk = chunk_of(a, p->size - p->done);
        if (!a->locked)
            emb_point(a->v, XD_POINT_BETWEEN_LOOKS);
        int rc = issue(a, p, *chunk);
        if (rc != EMB_DONE)
            return rc;
        p->done += *chunk;
    }
    return EMB_DONE;
}

uint32_t emb_mapping_look(const emb_access *a)
{
    const xd_emb *d = a->v->domain;
    uint32_t look = d->rules.straddle == XD_STRADDLE_SPLIT ? XD_LOOK_DIRECT : XD_LOOK_DEVICE;
    for (uint32_t i = 0; i < a->nr_parts && look == XD_LOOK_DIRECT; i++)
        look = emb_look(d, d->rules.copy_store, a->parts[i].gpa);
    return look;
}

/*
 * A store over the page's end is tried in each pass as one mapping of both pages (hvmemul_map_linear_addr, 8cbd4fb0b7).
 * Read-only memory in it, found before any page that is none, swallows all of it; and where both pages have become
 * memory by the second pass, all of it is stored, whatever the device models have been asked already.
 */
static bool mapped(emb_access *a)
{
    uint32_t look = a->write && a->nr_parts > 1 ? emb_mapping_look(a) : XD_LOOK_DEVICE;
    for (uint32_t i = 0; i < a->nr_parts && look == XD_LOOK_DIRECT; i++)
        memory(a, &a->parts[i]);
    if (look == XD_LOOK_DISCARD)
        a->v->discarded = true;
    return look == XD_LOOK_DIRECT || look == XD_LOOK_DISCARD;
}

/*
 * Before 4.12 (3bdec530a5) the page at fault was not tried as memory again. If it is the access' first, requests begin
 * there at once, and go on over the page's end whatever lies behind it; in the 2014 tree what is behind is tried as
 * memory. If it is the second, the copy of the first page has been made by the time that the second says no, and all of
 * the access, the first page again, becomes requests.
 */
static int old_first_pass(emb_access *a)
{
    bool aligned = a->v->domain->rules.straddle == XD_STRADDLE_ALIGNED;
    if (a->fault_part == 0 && !a->memory_first) {
        a->parts[0].io = true;
        a->parts[1].io = !aligned;
        return EMB_DONE;
    }
    int rc = EMB_DONE;
    for (uint32_t i = 0; i < a->nr_parts && rc == EMB_DONE; i++)
        rc = copy_part(a, &a->parts[i]);
    if (rc == NEEDS_IO)
        a->parts[0].io = a->parts[1].io = true;
    return rc;
}

/*
 * hvmemul_rep_stos and hvmemul_rep_movs look at the type first: to plain memory they copy, and leave an answer that is
 * there. Xen crashes the domain at the vCPU's next request, which does not match the answer; here that is done at once.
 * An element over the page's end is a store like others.
 */
static bool rep_store_lost_its_page(emb_access *a)
{
    const xd_emb_rules *rules = &a->v->domain->rules;
    const emb_part *p = &a->parts[0];
    if (!rules->rep_stores || !a->write || a->nr_parts > 1 || p->size > 8 || !p->done)
        return false;
    emb_point(a->v, XD_POINT_BETWEEN_LOOKS);
    return emb_look(a->v->domain, rules->copy_store, p->gpa) == XD_LOOK_DIRECT;
}

static int emulate_pass(emb_access *a, emb_part **waiting, uint32_t *chunk)
{
    emb_count(a->v->domain, XD_EMB_PASSES);
    if (rep_store_lost_its_page(a)) {
        xd_emb_crash(a->v->domain, "a page became plain memory while a rep store to it was being answered");
        return emb_why_stopped(a->v->domain);
    }
    if (a->v->domain->rules.straddle != XD_STRADDLE_SPLIT && !a->parts[0].io) {
        int rc = old_first_pass(a);
        if (rc != NEEDS_IO && (rc != EMB_DONE || !a->parts[0].io))
            return rc;
    } else if (mapped(a)) {
        return EMB_DONE;
    }
    for (uint32_t i = 0; i < a->nr_parts; i++) {
        emb_part *p = *waiting = &a->parts[i];
        if (a->answered == i + 1)
            a->answered = 0;
        int rc = p->io ? NEEDS_IO : copy_part(a, p);
        if (rc == NEEDS_IO) {
            p->io = true;
            rc = io_part(a, p, chunk);
        }
        if (rc != EMB_DONE)
            return rc;
    }
    return EMB_DONE;
}

void emb_unlock(emb_access *a)
{
    if (a->locked)
        pthread_mutex_unlock(&a->v->domain->p2m);
    a->locked = false;
}

/*
 * Facts: an access that was begun by request must be ended so, or its answer is left lying (522a2f3c5c, Xen 4.13).
 * Since 672894a11f (4.20, 4.19.2, 4.18.5) Xen judges that by the chunks that it has recorded as done, and the one that
 * was just answered is not yet one of them. What follows: a page that became memory while the first chunk was being
 * served is stored to by the emulator, and the answer is left lying. On Xen the vCPU's next request meets it, and the
 * domain crashes, unless Xen has scheduled the vCPU anew before. We do as Xen does within one instruction, where
 * nothing comes between; after it the answer is gone. Cost: a device model that crashes a domain only by its next
 * instruction does not show here.
 */
static void look_again(emb_access *a, const emb_part *answered)
{
    const xd_emb_rules *rules = &a->v->domain->rules;
    for (uint32_t i = 0; i < a->nr_parts && rules->looks_again != XD_AGAIN_NEVER && !a->no_copy; i++) {
        emb_part *p = &a->parts[i];
        uint32_t look = emb_look(a->v->domain, a->write ? rules->copy_store : rules->copy_load, p->gpa);
        if ((look == XD_LOOK_DIRECT || look == XD_LOOK_DISCARD) && (rules->looks_again == XD_AGAIN_ALWAYS || !p->done))
            p->io = false;
    }
    a->lying = !answered->io;
}

int emb_emulate(emb_access *a)
{
    for (;;) {
        emb_part *waiting = NULL;
        uint32_t chunk = 0;
        int rc = emulate_pass(a, &waiting, &chunk);
        emb_unlock(a);
        if (rc != EMB_PENDING)
            return rc;
        uint64_t data = 0;
        rc = emb_wait_for_answers(a->v, &data);
        if (!rc && a->after_input) {
            xd_emb_crash(a->v->domain, "a port is asked again, and meets the answer to the store of what it gave");
            rc = emb_why_stopped(a->v->domain);
        }
        if (rc)
            return rc;
        if (!a->write)
            memcpy(a->bytes + waiting->offset + waiting->done, &data, chunk);
        look_again(a, waiting);
        a->answered = 1 + (uint32_t)(waiting - a->parts);
        waiting->done += chunk;
    }
}

int emb_begin(emb_access *a, uint64_t gpa, uint32_t size, uint32_t *generation)
{
    emb_vcpu *v = a->v;
    xd_emb *d = v->domain;
    const uint8_t *table = a->write ? d->rules.store : d->rules.load;
    for (;;) {
        emb_split(a, gpa, size);
        *generation = __atomic_load_n(&d->generation, __ATOMIC_SEQ_CST);
        int rc = emb_enter(v, XD_PHASE_GUEST);
        if (rc)
            return rc;
        uint32_t look = hardware_look(a, table);
        if (look == XD_LOOK_DIRECT)
            return EMB_BY_GUEST;
        emb_leave(v, XD_PHASE_XEN);
        if (look == XD_LOOK_SETTLE) {
            emb_settle(d, a->parts[a->fault_part].gpa >> EMB_SHIFT);
        } else if (look == XD_LOOK_RETRY) {
            emb_sleep_until_bumped(v, *generation);
        } else if (look == XD_LOOK_PAGE_FAULT) {
            return -EFAULT;
        } else if (look == XD_LOOK_DISCARD && d->rules.shadow_paging && !a->after_input) {
            return EMB_BY_SHADOW;
        } else if (look == XD_LOOK_CRASH) {
            xd_emb_crash(d, "an access to a frame that has no place in the guest");
            return emb_why_stopped(d);
        } else if (d->rules.unlocked_looks) {
            return EMB_BY_EMULATOR;
        } else {
            pthread_mutex_lock(&d->p2m);
            a->locked = true;
            if (hardware_look(a, table) == look)
                return EMB_BY_EMULATOR;
            /* The type changed before the lock was had: the fault was spurious, the guest tries again. */
            emb_unlock(a);
        }
    }
}

/* Inlined in each caller: a call more is a tenth of what a store to plain memory takes. */
__attribute__((always_inline)) static inline int run_access(emb_access *a, uint64_t gpa, uint32_t size)
{
    emb_vcpu *v = a->v;
    emb_point(v, XD_POINT_FETCH);
    for (;;) {
        uint32_t generation;
        int rc = emb_begin(a, gpa, size, &generation);
        if (rc < 0)
            return rc;
        if (rc == EMB_BY_GUEST) {
            for (uint32_t i = 0; i < a->nr_parts; i++)
                memory(a, &a->parts[i]);
            return 0;
        }
        rc = rc == EMB_BY_SHADOW ? emb_shadow_store(a) : emb_emulate(a);
        if (rc != EMB_RETRY)
            return rc;
        emb_sleep_until_bumped(v, generation);
    }
}

int emb_store(emb_vcpu *v, uint64_t gpa, const uint8_t *from, uint32_t size)
{
    uint8_t bytes[64];
    memcpy(bytes, from, size);
    emb_access a = { .v = v, .bytes = bytes, .write = true };
    return run_access(&a, gpa, size);
}

int emb_load(emb_vcpu *v, uint64_t gpa, uint8_t *to, uint32_t size)
{
    emb_access a = { .v = v, .bytes = to };
    return run_access(&a, gpa, size);
}

int emb_store_input(emb_vcpu *v, uint64_t gpa, const uint8_t *from, uint32_t size)
{
    uint8_t bytes[8];
    memcpy(bytes, from, size);
    emb_access a = { .v = v, .bytes = bytes, .write = true, .after_input = true };
    return run_access(&a, gpa, size);
}
