/*
 * A guest that does whatever harms, and a hypervisor that sends whatever fits into a slot: the fast half of the hostile
 * campaign (campaign.py). It is no part of the project's extension modules, and shares none of their code: the layouts
 * below are written out once more, and hostile.py compares them.
 */
typedef struct hostile_op { /* xd_emb_op */
    uint64_t gpa, value, other, count;
    uint32_t size;
    uint16_t kind;
    uint8_t down, stored;
    uint64_t result;
} hostile_op;

typedef struct hostile_slot { /* xd_ioreq */
    uint64_t addr, data;
    uint32_t count, size, port;
    uint16_t padding;
    uint8_t bits, type;
} hostile_slot;

/* What the guest may do in a round. */
enum {
    HOSTILE_BALLOON = 1,  /* give frames back, and take them again */
    HOSTILE_STRADDLE = 2, /* store over a page's end, for which Xen may crash the domain */
    HOSTILE_EXACT = 4     /* one vCPU, and only what has one possible outcome: `model` must be the memory afterwards */
};

/* Whether the guest owns a frame. Only the vCPU whose turn a frame is (frame % vcpus) changes that. */
enum { HOSTILE_LOST = 0, HOSTILE_OWNED = 1, HOSTILE_CHANGING = 2 };

typedef struct hostile_write { /* a write to a register of the device */
    uint32_t offset, size;
    uint64_t value;
} hostile_write;

typedef struct hostile_guest {
    int (*run)(void *, uint32_t, void *, int, int *); /* xd_emb_run */
    void *domain;
    uint64_t frames, bar0;
    uint32_t vcpus, tables; /* frames 1 to `tables` are what entries mostly name */
    uint32_t may;           /* HOSTILE_* */
    uint32_t roots;         /* frames 1 to `roots` are announced */
    uint64_t first_foreign; /* the frames from here on were never the guest's, and it does not ask for them */
    uint8_t *owned;         /* HOSTILE_LOST ..., by frame */
    uint8_t *model;         /* HOSTILE_EXACT: what guest memory must be */
    uint32_t stop;          /* atomic: vCPUs end before their next instruction */
    uint32_t writes;        /* of vCPU 0, in `log` */
    uint32_t log_size;
    hostile_write *log;
} hostile_guest;

typedef struct hostile_vcpu {
    uint64_t seed, id;
    uint64_t stores, loads, registers, balloons, misread, faults; /* done so far */
} hostile_vcpu;

/*
 * Have a vCPU make at least `stores` stores, or until `stop`, or until the log is full. Returns what xd_emb_run returns,
 * but for faults of the guest, which are counted.
 */
int hostile_run(hostile_guest *guest, uint32_t vcpu, hostile_vcpu *state, uint64_t stores);

/*
 * Write hostile requests into `count` slots. `posted` receives the state of each. Returns how many are READY. The
 * device model does not look meanwhile.
 */
uint32_t hostile_fill(hostile_guest *guest, hostile_slot *slots, uint32_t count, uint64_t *seed, uint8_t *posted);

/* Change fields that only Xen writes, but for the states, until `stop`. */
void hostile_scribble(hostile_guest *guest, hostile_slot *slots, uint32_t count, uint64_t seed);

/*
 * What Xen does while jobs go on: take the answers. Who protects a page waits for the stores over its beginning, so jobs
 * might not end otherwise. Slots that were posted as INPROCESS become free as well, since nobody has begun them and
 * nobody ends them. `posted` follows.
 */
void hostile_take(hostile_slot *slots, uint32_t count, uint8_t *posted);

/*
 * Compare the states with what hostile_fill posted: READY must have become RESP_READY, and nothing else may have
 * changed. All become NONE. Returns the first slot that is wrong, or -1.
 */
int hostile_answered(hostile_slot *slots, uint32_t count, const uint8_t *posted);
