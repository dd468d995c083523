/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What guest_memfd_conversion_stress knows about its files: of each 4K page whether
 * it is private, what it holds, and who has it pinned.
 *
 * Worker threads use the files all at once.  What a worker does to a range of pages,
 * and the model of these, is protected by a lock of just that range: no matter which
 * folios the kernel has there, neighbours are used, pinned and converted by others at
 * the same time.  Peeks at pages, which others may have locked, take no lock; they
 * know less about what they must find.
 */
#ifndef SELFTEST_KVM_GMEM_STRESS_MODEL_H
#define SELFTEST_KVM_GMEM_STRESS_MODEL_H

#include <pthread.h>
#include <string.h>

#include "gmem_conversion.h"

#define MAX_WORKERS	8
#define NR_FILES	3

#define MAX_PINS	4
#define MAX_PIN_PAGES	4

enum op {
	OP_TO_PRIVATE,
	OP_TO_SHARED,
	OP_HOST_ACCESS,
	OP_HOST_WRITE,
	OP_GUEST_ACCESS,
	OP_HOST_PEEK,
	OP_GUEST_PEEK,
	OP_PIN,
	OP_UNPIN,
	OP_PUNCH_HOLE,
	OP_ALLOCATE,
	OP_FDINFO,
	OP_CHECK,
	OP_RECREATE,
	NR_OPS,
};

enum result {
	DONE,
	/* The page was private: SIGBUS, or EFAULT of a system call. */
	DENIED,
	/* The page was pinned: EAGAIN. */
	REFUSED,
	/* EINVAL. */
	INVALID,
	/* There was nothing to do. */
	IDLE,
	NR_RESULTS,
};

struct range {
	u64 first, end;
};

struct range_lock {
	pthread_mutex_t mutex;
	u64 nr_tickets;
	/* Of each worker; no range, no ticket. */
	struct range ranges[MAX_WORKERS];
	u64 tickets[MAX_WORKERS];
};

/* A pin of a worker, which changes with the range locked, and pins_mutex held. */
struct pin {
	/* Zero: none. */
	int fd;
	struct range range;
	/* Of which file, as these come and go. */
	u64 serial;
	/* A bit for each page that has left the file, with that content. */
	u64 gone;
	u64 vals[MAX_PIN_PAGES];
};

struct stress_file {
	const char *name;
	size_t page_size;
	u64 page_size_flag;
	u64 nr_pages;

	/* The same for all files one after the other. */
	int id;
	gpa_t gpa;
	u8 *mem;
	bool is_usable;

	int fd;
	u64 serial;
	/* Held for writing while there is no file, or no mapping of it. */
	pthread_rwlock_t life;
	struct range_lock range_lock;

	/* For each 4K page; the guest knows gens by gens_gva. */
	u32 *gens;
	gva_t gens_gva;
	u8 *is_private;
	u8 *nr_pins;
	/* For each page of page_size: has, or may have, memory. */
	u8 *is_present;
	u8 *was_peeked;

	pthread_mutex_t pins_mutex;
	struct pin pins[MAX_WORKERS][MAX_PINS];
};

struct worker {
	int id;
	struct stress *stress;
	struct kvm_vcpu *vcpu;
	/* The guest's instance. */
	struct visit *guest_visit;
	pthread_t thread;

	/* Renewed for each operation, so that none depends on the last one's luck. */
	struct kvm_random_state rng;
	u64 nr_ops;
	enum op op;
	u64 counts[NR_OPS][NR_RESULTS];
	u64 nr_retries[NR_OPS];
	/* While there was no memslot, or no file. */
	u64 nr_missing;
};

struct stress {
	struct kvm_vm *vm;
	struct stress_file files[NR_FILES];
	struct worker workers[MAX_WORKERS];
	int nr_workers;
	u32 seed, round;
	/* What is written differs from all that was written before. */
	u32 gen;
	bool can_pin, stop;
	/* What the kernel counts, in words, with pins or without, when there is no file. */
	char counters[2][1024];
};

/* A failure is replayed with the seed of the test. */
#define CHECK(w, f, cond, fmt, ...)						\
	TEST_ASSERT(cond, "Seed 0x%x, round %u, worker %d, operation %ld (%s), %s file: " fmt, \
		    (w)->stress->seed, (w)->stress->round, (w)->id, (long)(w)->nr_ops, \
		    op_names[(w)->op], (f)->name, ##__VA_ARGS__)

static const char * const op_names[NR_OPS] = {
	[OP_TO_PRIVATE]		= "to private",
	[OP_TO_SHARED]		= "to shared",
	[OP_HOST_ACCESS]	= "host access",
	[OP_HOST_WRITE]		= "host write",
	[OP_GUEST_ACCESS]	= "guest access",
	[OP_HOST_PEEK]		= "host peek",
	[OP_GUEST_PEEK]		= "guest peek",
	[OP_PIN]		= "pin",
	[OP_UNPIN]		= "unpin",
	[OP_PUNCH_HOLE]		= "punch hole",
	[OP_ALLOCATE]		= "allocate",
	[OP_FDINFO]		= "fdinfo",
	[OP_CHECK]		= "check",
	[OP_RECREATE]		= "recreate",
};

static const char * const result_names[NR_RESULTS] = {
	[DONE]		= "done",
	[DENIED]	= "private",
	[REFUSED]	= "pinned",
	[INVALID]	= "invalid",
	[IDLE]		= "idle",
};

static inline u64 nr_ops(struct stress *s)
{
	u64 nr = 0;
	int i, op, result;

	for (i = 0; i < s->nr_workers; i++)
		for (op = 0; op < NR_OPS; op++)
			for (result = 0; result < NR_RESULTS; result++)
				nr += s->workers[i].counts[op][result];
	return nr;
}

static inline bool is_hugetlb(struct stress_file *f)
{
	return f->page_size > PAGE_SIZE;
}

/* In 4K pages. */
static inline u64 page_nr(struct stress_file *f)
{
	return f->page_size / PAGE_SIZE;
}

static inline u64 range_nr(struct range r)
{
	return r.end - r.first;
}

static inline struct range whole_file(struct stress_file *f)
{
	return (struct range) { 0, f->nr_pages };
}

static inline bool ranges_overlap(struct range a, struct range b)
{
	return a.first < b.end && b.first < a.end;
}

static inline bool is_blocked(struct range_lock *l, int id)
{
	int i;

	for (i = 0; i < MAX_WORKERS; i++)
		if (l->tickets[i] && l->tickets[i] < l->tickets[id] &&
		    ranges_overlap(l->ranges[i], l->ranges[id]))
			return true;
	return false;
}

/*
 * First come, first served, as large ranges would starve otherwise.  Polls: condition
 * variables of glibc before 2.41 can lose a wakeup.
 */
static inline void lock_range(struct worker *w, struct stress_file *f, struct range r)
{
	struct range_lock *l = &f->range_lock;

	pthread_mutex_lock(&l->mutex);
	TEST_ASSERT(!l->tickets[w->id], "A worker has one range at a time");
	l->ranges[w->id] = r;
	l->tickets[w->id] = ++l->nr_tickets;
	while (is_blocked(l, w->id)) {
		pthread_mutex_unlock(&l->mutex);
		usleep(50);
		pthread_mutex_lock(&l->mutex);
	}
	pthread_mutex_unlock(&l->mutex);
}

static inline void unlock_range(struct worker *w, struct stress_file *f)
{
	struct range_lock *l = &f->range_lock;

	pthread_mutex_lock(&l->mutex);
	l->tickets[w->id] = 0;
	pthread_mutex_unlock(&l->mutex);
}

/* What a page holds: whose it is, and what was written last; 0 if nothing was. */
static inline u64 page_tag(struct stress_file *f, u64 pgoff)
{
	return (u64)(f->id + 1) << 24 | pgoff;
}

static inline u64 stamp(u64 tag, u32 gen)
{
	return gen ? tag << 32 | gen : 0;
}

static inline u32 next_gen(struct worker *w)
{
	return __atomic_add_fetch(&w->stress->gen, 1, __ATOMIC_RELAXED);
}

/* The first page of the range, or its end. */
static inline u64 first_private(struct stress_file *f, struct range r)
{
	u8 *p = memchr(f->is_private + r.first, true, range_nr(r));

	return p ? p - f->is_private : r.end;
}

static inline u64 first_pinned(struct stress_file *f, struct range r)
{
	while (r.first < r.end && !f->nr_pins[r.first])
		r.first++;
	return r.first;
}

static inline u64 nr_private(struct stress_file *f, struct range r)
{
	u64 nr = 0;

	for (; r.first < r.end; r.first++)
		nr += f->is_private[r.first];
	return nr;
}

/* For each huge page that has a page in the range. */
static inline void set_huge(struct stress_file *f, u8 *flags, struct range r, bool val)
{
	u64 i;

	for (i = r.first / page_nr(f); i < DIV_ROUND_UP(r.end, page_nr(f)); i++)
		WRITE_ONCE(flags[i], val);
}

/* In 4K pages: what is allocated, or with @peeked, may be. */
static inline u64 nr_present(struct stress_file *f, bool peeked)
{
	u64 i, nr = 0;

	for (i = 0; i < f->nr_pages / page_nr(f); i++)
		nr += f->is_present[i] || (peeked && f->was_peeked[i]);
	return nr * page_nr(f);
}

static inline struct pin *next_pin(struct stress_file *f, struct pin *pin)
{
	while (pin < f->pins[MAX_WORKERS] && !pin->fd)
		pin++;
	return pin;
}

#define for_each_pin(pin, f)							\
	for (pin = next_pin(f, (f)->pins[0]); pin < (f)->pins[MAX_WORKERS];	\
	     pin = next_pin(f, pin + 1))

/* The range leaves the file, but what is pinned stays where it is. */
static inline void model_truncate(struct stress_file *f, struct range r)
{
	struct pin *pin;
	u64 i;

	pthread_mutex_lock(&f->pins_mutex);
	for_each_pin(pin, f) {
		for (i = pin->range.first; i < pin->range.end; i++) {
			u64 nr = i - pin->range.first;

			if (i < r.first || i >= r.end || pin->gone & BIT_ULL(nr))
				continue;
			pin->vals[nr] = stamp(page_tag(f, i), f->gens[i]);
			pin->gone |= BIT_ULL(nr);
		}
	}
	pthread_mutex_unlock(&f->pins_mutex);

	memset(f->nr_pins + r.first, 0, range_nr(r));
	memset(f->gens + r.first, 0, range_nr(r) * sizeof(*f->gens));
	set_huge(f, f->is_present, r, false);
}

/*
 * Huge pages that are in no file any more, but that pins keep, and of how many files
 * these are: what a file had reserved lasts until the last page of it has come back.
 */
struct orphans {
	long nr_pages, nr_files;
};

static inline bool is_orphan(struct stress_file *f, struct pin *pin, u64 serial, u64 huge)
{
	u64 first = huge * page_nr(f);

	return pin->serial == serial &&
	       ranges_overlap(pin->range, (struct range) { first, first + page_nr(f) });
}

static inline struct orphans count_orphans(struct stress_file *f)
{
	struct orphans orphans = {};
	u64 serial, huge, nr;
	struct pin *pin;

	for (serial = 0; serial < f->serial; serial++) {
		for (huge = nr = 0; huge < f->nr_pages / page_nr(f); huge++) {
			for_each_pin(pin, f) {
				if (!is_orphan(f, pin, serial, huge))
					continue;
				nr++;
				break;
			}
		}
		orphans.nr_pages += nr;
		orphans.nr_files += !!nr;
	}
	return orphans;
}

#endif /* SELFTEST_KVM_GMEM_STRESS_MODEL_H */
