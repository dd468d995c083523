/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the workers of guest_memfd_conversion_stress do to their files, what must come
 * of it, and what it does to the model.
 *
 * What fails must do so for a reason that the model knows.  There is one that it does
 * not: whoever peeks at a page, or faults it in, has a reference to its folio for an
 * instant, and an operation that comes across that is tried again.
 */
#ifndef SELFTEST_KVM_GMEM_STRESS_OPS_H
#define SELFTEST_KVM_GMEM_STRESS_OPS_H

#include "gmem_stress_access.h"
#include "gmem_stress_file.h"
#include "gmem_test.h"
#include "hugetlb_pool.h"

/* Of ranges of pages that are used one by one; the guest is faster than the host. */
#define MAX_ORDER	5
#define MAX_GUEST_ORDER	11
#define PIN_ORDER	2

/* In a row, at the same pages. */
#define MAX_PEEKS	4
#define MAX_PEEK_PAGES	4ul

/*
 * Half of it goes to few pages, so that workers meet: at both ends of the file, and
 * where a folio of 2M, or half of one, ends.
 */
static inline u64 random_pgoff(struct worker *w, struct stress_file *f)
{
	const u64 half = SZ_1M / PAGE_SIZE, hot[] = {
		0, f->nr_pages - 32, half - 16, 2 * half - 16, 3 * half - 16,
		f->nr_pages / 2 - 16,
	};
	u64 spot = hot[draw(w, ARRAY_SIZE(hot) - 1)] + draw(w, 31);
	u64 any = draw(w, f->nr_pages - 1);

	return kvm_random_bool(&w->rng) ? spot : any;
}

/* All orders of magnitude, small ones more often than large ones; half is aligned. */
static inline struct range random_range(struct worker *w, struct stress_file *f,
					int max_order)
{
	u64 pgoff = random_pgoff(w, f), nr, order = max_order;
	int i;

	for (i = 0; i < 3; i++)
		order = min(order, draw(w, max_order));
	nr = draw(w, BIT_ULL(order) - 1) + 1;

	if (kvm_random_bool(&w->rng)) {
		nr = BIT_ULL(order);
		pgoff &= -nr;
	}
	return (struct range) { pgoff, min(pgoff + nr, f->nr_pages) };
}

static inline int file_order(struct stress_file *f)
{
	return __builtin_ctzl(f->nr_pages);
}

static inline struct range random_huge_range(struct worker *w, struct stress_file *f)
{
	u64 first = draw(w, nr_huge(f) - 1), end = first + 1 + draw(w, nr_huge(f) - 1 - first);

	return (struct range) { first * page_nr(f), end * page_nr(f) };
}

/* Returns the page that was in use, or the end of the range. */
static inline u64 convert(struct worker *w, struct stress_file *f, struct range r,
			  bool to_private)
{
	u64 pinned = to_private ? first_pinned(f, r) : r.end, offset, pgoff;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (__gmem_set_attributes(f->fd, r.first * PAGE_SIZE, range_nr(r) * PAGE_SIZE,
				     to_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
				     &offset)) {
		CHECK(w, f, errno == EAGAIN && to_private, "[%lu, %lu): %s", r.first,
		      r.end, strerror(errno));
		pgoff = offset / PAGE_SIZE;
		CHECK(w, f, offset % PAGE_SIZE == 0 && pgoff >= r.first && pgoff < r.end &&
		      pgoff <= pinned && !f->is_private[pgoff],
		      "[%lu, %lu): refused for offset 0x%lx, first pinned page is %lu",
		      r.first, r.end, offset, pinned);
		if (pgoff == pinned)
			return pinned;
		wait_a_moment(w, f, start);
	}
	CHECK(w, f, pinned == r.end, "[%lu, %lu) was converted, but page %lu is pinned",
	      r.first, r.end, pinned);

	memset(f->is_private + r.first, to_private, range_nr(r));
	return r.end;
}

static enum result do_convert(struct worker *w, struct stress_file *f)
{
	struct range r = random_range(w, f, file_order(f));
	enum result result = DONE;

	lock_range(w, f, r);
	if (convert(w, f, r, w->op == OP_TO_PRIVATE) != r.end)
		result = REFUSED;
	unlock_range(w, f);
	return result;
}

/* The pages were visited, and written with @gen, if any. */
static inline void model_visit(struct stress_file *f, struct range r, u32 gen)
{
	if (r.first == r.end)
		return;

	set_huge(f, f->is_present, r, true);
	for (; gen && r.first < r.end; r.first++)
		f->gens[r.first] = gen;
}

static enum result do_host_access(struct worker *w, struct stress_file *f)
{
	enum look look = w->op == OP_HOST_WRITE ? LOOK_AWAY : LOOK_CHECK;
	bool write = w->op == OP_HOST_WRITE || kvm_random_bool(&w->rng);
	struct range r = random_range(w, f, MAX_ORDER);
	u32 gen = write ? next_gen(w) : 0;
	u64 nr, private, end = r.end;

	lock_range(w, f, r);
	private = first_private(f, r);
	nr = host_visit(w, f, r, new_visit(f, look, r, gen));
	CHECK(w, f, r.first + nr == private,
	      "The host used [%lu, %lu) up to %lu, the first private page is %lu",
	      r.first, r.end, r.first + nr, private);
	r.end = private;
	model_visit(f, r, gen);
	unlock_range(w, f);
	return private == end ? DONE : DENIED;
}

static enum result do_guest_access(struct worker *w, struct stress_file *f)
{
	struct range r = random_range(w, f, MAX_GUEST_ORDER);
	u32 gen = kvm_random_bool(&w->rng) ? next_gen(w) : 0;

	lock_range(w, f, r);
	guest_visit(w, f, r, new_visit(f, LOOK_CHECK, r, gen));
	model_visit(f, r, gen);
	unlock_range(w, f);
	return DONE;
}

/* Preferably where another worker is. */
static inline struct range peek_range(struct worker *w, struct stress_file *f)
{
	struct range r = random_range(w, f, MAX_ORDER);
	int other = draw(w, w->stress->nr_workers - 1);
	struct range_lock *l = &f->range_lock;

	pthread_mutex_lock(&l->mutex);
	if (l->tickets[other])
		r = l->ranges[other];
	pthread_mutex_unlock(&l->mutex);

	r.end = min(r.end, r.first + MAX_PEEK_PAGES);
	return r;
}

/* Drop the mapping now and then, to fault pages in while others convert them. */
static enum result do_host_peek(struct worker *w, struct stress_file *f)
{
	struct range r = peek_range(w, f);
	int i, times = draw(w, MAX_PEEKS - 1) + 1;
	u64 nr = 0;

	pthread_rwlock_rdlock(&f->life);
	for (i = 0; i < times; i++) {
		if (kvm_random_bool(&w->rng))
			kvm_madvise(f->mem + r.first * PAGE_SIZE, range_nr(r) * PAGE_SIZE,
				    MADV_DONTNEED);
		nr = host_visit(w, f, r, new_visit(f, LOOK_PEEK, r, 0));
	}
	set_huge(f, f->was_peeked, r, true);
	pthread_rwlock_unlock(&f->life);
	return nr == range_nr(r) ? DONE : DENIED;
}

static enum result do_guest_peek(struct worker *w, struct stress_file *f)
{
	struct range r = peek_range(w, f);
	int i, times = draw(w, MAX_PEEKS - 1) + 1;

	for (i = 0; i < times; i++)
		guest_visit(w, f, r, new_visit(f, LOOK_PEEK, r, 0));
	set_huge(f, f->was_peeked, r, true);
	return DONE;
}

/* Returns 0, or an errno; on success @fd is what keeps the pin. */
static inline int pin_range(struct worker *w, struct stress_file *f, struct range r,
			    u32 flags, int *fd)
{
	struct pin_longterm_test args = {
		.addr = (unsigned long)f->mem + r.first * PAGE_SIZE,
		.size = range_nr(r) * PAGE_SIZE,
		.flags = flags,
	};
	int err;

	*fd = open(GUP_TEST_PATH, O_RDWR);
	CHECK(w, f, *fd > 0, "Error opening " GUP_TEST_PATH);
	if (!ioctl(*fd, PIN_LONGTERM_TEST_START, &args))
		return 0;

	err = errno;
	kvm_close(*fd);
	return err;
}

static inline void model_pin(struct worker *w, struct stress_file *f, struct pin *pin,
			     struct range r, int fd)
{
	u64 i;

	pthread_mutex_lock(&f->pins_mutex);
	*pin = (struct pin) { .fd = fd, .range = r, .serial = f->serial };
	pthread_mutex_unlock(&f->pins_mutex);
	for (i = r.first; i < r.end; i++)
		f->nr_pins[i]++;
}

static enum result do_pin(struct worker *w, struct stress_file *f)
{
	struct pin *pin = &f->pins[w->id][draw(w, MAX_PINS - 1)];
	struct range r = random_range(w, f, PIN_ORDER);
	u32 flags = draw(w, PIN_LONGTERM_TEST_FLAG_USE_WRITE |
			    PIN_LONGTERM_TEST_FLAG_USE_FAST);
	u64 private, end = r.end;
	int err, fd;

	/* Nobody else makes it one that is in use. */
	if (!w->stress->can_pin || READ_ONCE(pin->fd))
		return IDLE;

	lock_range(w, f, r);
	private = first_private(f, r);
	err = pin_range(w, f, r, flags, &fd);
	CHECK(w, f, err == (private == end ? 0 : EFAULT),
	      "Pinning [%lu, %lu): %s, first private page is %lu", r.first, r.end,
	      strerror(err), private);
	if (!err)
		model_pin(w, f, pin, r, fd);
	r.end = private;
	model_visit(f, r, 0);
	unlock_range(w, f);
	return err ? DENIED : DONE;
}

/* What is pinned is still what it was, in the file or not. */
static inline void check_pin(struct worker *w, struct stress_file *f, struct pin *pin)
{
	u64 buf[MAX_PIN_PAGES][PAGE_SIZE / sizeof(u64)], addr = (unsigned long)buf, i;
	u64 expected;

	CHECK(w, f, !ioctl(pin->fd, PIN_LONGTERM_TEST_READ, &addr), "Error reading a pin");
	for (i = 0; i < range_nr(pin->range); i++) {
		u64 pgoff = pin->range.first + i;

		expected = pin->gone & BIT_ULL(i) ? pin->vals[i] :
			   stamp(page_tag(f, pgoff), f->gens[pgoff]);
		CHECK(w, f, buf[i][0] == expected,
		      "Expected 0x%lx in pinned page %lu (%s), found 0x%lx", expected, pgoff,
		      pin->gone & BIT_ULL(i) ? "gone" : "in the file", buf[i][0]);
	}
}

static inline void drop_pin(struct worker *w, struct stress_file *f, struct pin *pin)
{
	u64 i;

	check_pin(w, f, pin);
	host_unpin(pin->fd);
	for (i = 0; i < range_nr(pin->range); i++)
		if (!(pin->gone & BIT_ULL(i)))
			f->nr_pins[pin->range.first + i]--;

	pthread_mutex_lock(&f->pins_mutex);
	pin->fd = 0;
	pthread_mutex_unlock(&f->pins_mutex);
}

static inline void drop_pins(struct worker *w, struct stress_file *f)
{
	struct pin *pin;

	for_each_pin(pin, f)
		drop_pin(w, f, pin);
}

static enum result do_unpin(struct worker *w, struct stress_file *f)
{
	struct pin *pin = &f->pins[w->id][draw(w, MAX_PINS - 1)];
	bool found;

	if (!READ_ONCE(pin->fd))
		return IDLE;

	/* Whoever replaces the file may drop it first. */
	lock_range(w, f, pin->range);
	found = pin->fd;
	if (found)
		drop_pin(w, f, pin);
	unlock_range(w, f);
	return found ? DONE : IDLE;
}

/* Of huge pages, nothing leaves the file as long as anything is pinned. */
static inline bool punch_hole(struct worker *w, struct stress_file *f, struct range r)
{
	bool is_pinned = is_hugetlb(f) && first_pinned(f, r) != r.end;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (fallocate(f->fd, PUNCH, r.first * PAGE_SIZE, range_nr(r) * PAGE_SIZE)) {
		CHECK(w, f, errno == EAGAIN && is_hugetlb(f), "[%lu, %lu): %s", r.first,
		      r.end, strerror(errno));
		if (is_pinned)
			return false;
		wait_a_moment(w, f, start);
	}
	CHECK(w, f, !is_pinned, "[%lu, %lu) has gone, but page %lu is pinned", r.first, r.end,
	      first_pinned(f, r));

	model_truncate(f, r);
	return true;
}

static inline void punch_less(struct worker *w, struct stress_file *f, struct range r)
{
	u64 cut = draw(w, page_nr(f) - 2) + 1;
	int err;

	if (kvm_random_bool(&w->rng))
		r.first += cut;
	else
		r.end -= cut;
	err = fallocate(f->fd, PUNCH, r.first * PAGE_SIZE, range_nr(r) * PAGE_SIZE) ?
	      errno : 0;
	CHECK(w, f, err == EINVAL, "Part of a page, [%lu, %lu): %s", r.first, r.end,
	      strerror(err));
}

/* A page of 1G takes long to be zeroed again. */
static enum result do_punch_hole(struct worker *w, struct stress_file *f)
{
	bool less = draw(w, f->page_size == SZ_1G ? 7 : 3);
	struct range r = is_hugetlb(f) ? random_huge_range(w, f) :
					 random_range(w, f, MAX_ORDER);
	enum result result = INVALID;

	lock_range(w, f, r);
	if (is_hugetlb(f) && less)
		punch_less(w, f, r);
	else
		result = punch_hole(w, f, r) ? DONE : REFUSED;
	unlock_range(w, f);
	return result;
}

static enum result do_allocate(struct worker *w, struct stress_file *f)
{
	struct range r = random_range(w, f, file_order(f));

	lock_range(w, f, r);
	CHECK(w, f, !fallocate(f->fd, ALLOCATE, r.first * PAGE_SIZE, range_nr(r) * PAGE_SIZE),
	      "[%lu, %lu): %s", r.first, r.end, strerror(errno));
	model_visit(f, r, 0);
	unlock_range(w, f);
	return DONE;
}

static enum result do_fdinfo(struct worker *w, struct stress_file *f)
{
	pthread_rwlock_rdlock(&f->life);
	check_fdinfo(w, f);
	pthread_rwlock_unlock(&f->life);
	return DONE;
}

static enum result do_check(struct worker *w, struct stress_file *f)
{
	struct range r = random_range(w, f, file_order(f));
	bool all = !draw(w, 7);

	lock_range(w, f, all ? whole_file(f) : r);
	if (all)
		check_locked_fdinfo(w, f);
	guest_visit(w, f, r, new_visit(f, LOOK_CHECK, r, 0));
	model_visit(f, r, 0);
	unlock_range(w, f);
	return DONE;
}

/* Pins may outlive the file if the pool has enough for the next one without it. */
static enum result do_recreate(struct worker *w, struct stress_file *f)
{
	bool keep_pins = kvm_random_bool(&w->rng);

	if (f->page_size == SZ_1G && draw(w, 3))
		return IDLE;

	lock_range(w, f, whole_file(f));
	pthread_rwlock_wrlock(&f->life);
	if (!keep_pins ||
	    (is_hugetlb(f) && hugetlb_pool_available(f->page_size) < nr_huge(f)))
		drop_pins(w, f);
	close_file(w, f);
	open_file(w, f);
	pthread_rwlock_unlock(&f->life);
	unlock_range(w, f);
	return DONE;
}

#endif /* SELFTEST_KVM_GMEM_STRESS_OPS_H */
