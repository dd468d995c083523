/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tests have in common that race in-place conversion of guest_memfd with
 * all that can happen to the same memory meanwhile.
 *
 * Every race is bounded by rounds and by time.  A thread that waits for another
 * one in vain fails the test, and the harness kills what doesn't get that far.
 */
#ifndef SELFTEST_KVM_GMEM_RACE_H
#define SELFTEST_KVM_GMEM_RACE_H

#include <sched.h>
#include <time.h>

#include "gmem_conversion.h"
#include "kselftest_harness.h"

#define NR_PAGES	64

/* In seconds: a race, one that wants many rounds, something that can't last. */
#define RACE		8
#define LONG_RACE	90
#define PATIENCE	30

/* The state of a page; the bits above count how often it has changed. */
#define PRIVATE		BIT_ULL(0)
#define CHANGING	BIT_ULL(1)
#define CHANGED		BIT_ULL(2)

/* What the guest reads where there is no memslot. */
#define MISSING		0xdeadull

/* For host and guest to talk, in memory that is not guest_memfd's. */
static struct control {
	u64 stop, stopped, read_only;
	/* How often the guest saw all pages; its data, nothing, no memory there. */
	u64 nr_passes, nr_kept, nr_zero, nr_missing;
	/* The last round in which that happened. */
	u64 converted, written, seen, wiped;
} control;

struct race {
	struct gmem_conversion t;
	/* The guest's instance. */
	struct control *control;
	/* Of each page; all processes see them. */
	u64 *states;
	struct kvm_random_state rng;
	struct timespec start;
	pthread_t vcpu_thread;
	bool stop;
	u64 nr_refused, nr_memory_faults, nr_punched;
};

static inline u64 tag(u64 pgoff)
{
	return (pgoff + 1) << 32;
}

static inline u64 *host_page(struct race *race, u64 pgoff)
{
	return (u64 *)(race->t.mem + OFFSET(pgoff));
}

static __thread sigjmp_buf sigbus_jmpbuf;
static __thread bool is_trying;

/* Where nobody tries, the access is repeated, and kills the test. */
static inline void handle_sigbus(int signum)
{
	if (!READ_ONCE(is_trying)) {
		signal(SIGBUS, SIG_DFL);
		return;
	}
	WRITE_ONCE(is_trying, false);
	siglongjmp(sigbus_jmpbuf, 1);
}

static inline bool has_succeeded(void)
{
	bool success = READ_ONCE(is_trying);

	WRITE_ONCE(is_trying, false);
	return success;
}

/* False if the page is private.  The mask of signals stays as it is. */
static inline bool try_read(u64 *p, u64 *val)
{
	WRITE_ONCE(is_trying, true);
	if (!sigsetjmp(sigbus_jmpbuf, 0))
		*val = READ_ONCE(*p);
	return has_succeeded();
}

static inline bool try_write(u64 *p, u64 val)
{
	WRITE_ONCE(is_trying, true);
	if (!sigsetjmp(sigbus_jmpbuf, 0))
		WRITE_ONCE(*p, val);
	return has_succeeded();
}

static inline bool goes_on(struct race *race, u64 round, u64 nr_rounds, int seconds)
{
	return round < nr_rounds && timespec_elapsed(race->start).tv_sec < seconds;
}

/* There are more threads than CPUs: let the one that is waited for run. */
static inline void wait_for(u64 *counter, u64 val)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (READ_ONCE(*counter) < val) {
		TEST_ASSERT(timespec_elapsed(start).tv_sec < PATIENCE,
			    "Expected a thread to get to %lu, it is at %lu",
			    val, READ_ONCE(*counter));
		sched_yield();
	}
}

static inline void wait_for_more(u64 *counter, u64 nr)
{
	wait_for(counter, READ_ONCE(*counter) + nr);
}

/* A page that somebody is about to map is in use, for a moment. */
static inline void convert(struct race *race, u64 pgoff, u64 nr, bool make_private)
{
	u64 attributes = make_private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0, busy;
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (__gmem_set_attributes(race->t.fd, OFFSET(pgoff), OFFSET(nr),
				     attributes, &busy)) {
		TEST_ASSERT(make_private && errno == EAGAIN,
			    "Making pages [%lu, +%lu) %s failed: %s", pgoff, nr,
			    make_private ? "private" : "shared", strerror(errno));
		TEST_ASSERT(busy % PAGE_SIZE == 0 && busy / PAGE_SIZE - pgoff < nr,
			    "Expected the offset of one of pages [%lu, +%lu), got 0x%lx",
			    pgoff, nr, busy);
		TEST_ASSERT(timespec_elapsed(start).tv_sec < PATIENCE,
			    "Expected the page at 0x%lx to be in use only briefly", busy);
		race->nr_refused++;
		sched_yield();
	}
}

static inline void set_states(struct race *race, u64 pgoff, u64 nr, u64 flags)
{
	u64 *state;

	for (state = race->states + pgoff; nr--; state++)
		WRITE_ONCE(*state, ((*state + CHANGED) & -CHANGED) | flags);
}

static inline void random_range(struct kvm_random_state *rng, u64 *pgoff, u64 *nr)
{
	*pgoff = kvm_random_u32_in_range(rng, 0, NR_PAGES - 1);
	*nr = kvm_random_u32_in_range(rng, 1, NR_PAGES - *pgoff);
}

static inline u64 convert_random_ranges(struct race *race, u64 nr_rounds)
{
	u64 i, pgoff, nr;
	bool make_private;

	for (i = 0; goes_on(race, i, nr_rounds, RACE); i++) {
		random_range(&race->rng, &pgoff, &nr);
		make_private = kvm_random_bool(&race->rng);
		set_states(race, pgoff, nr, CHANGING);
		convert(race, pgoff, nr, make_private);
		set_states(race, pgoff, nr, make_private ? PRIVATE : 0);
		sched_yield();
	}
	return i;
}

static inline void check_states(struct race *race)
{
	u64 pgoff, val;

	for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
		bool is_private = !try_read(host_page(race, pgoff), &val);

		TEST_ASSERT(is_private == (race->states[pgoff] & PRIVATE),
			    "Expected page %lu to be %s", pgoff,
			    is_private ? "shared" : "private");
	}
}

/*
 * KVM asks for help if a page is converted, or the memslot deleted, while it
 * handles a fault there.  All that takes is to enter the guest again.
 */
static inline void enter_guest(struct race *race)
{
	struct kvm_vcpu *vcpu = race->t.vcpu;
	struct kvm_run *run = vcpu->run;
	const u64 missing = MISSING;
	struct ucall uc;

	if (_vcpu_run(vcpu)) {
		TEST_ASSERT(errno == EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT,
			    "Expected a memory fault, if any, got %s (%s)",
			    exit_reason_str(run->exit_reason), strerror(errno));
		race->nr_memory_faults++;
	} else if (race->control->read_only && run->exit_reason == KVM_EXIT_MMIO) {
		TEST_ASSERT(!run->mmio.is_write, "Expected the guest to read only");
		memcpy(run->mmio.data, &missing, sizeof(missing));
	} else if (get_ucall(vcpu, &uc) == UCALL_ABORT) {
		REPORT_GUEST_ASSERT(uc);
	} else {
		TEST_ASSERT(uc.cmd == UCALL_SYNC, "Unexpected exit: %s",
			    exit_reason_str(run->exit_reason));
	}
}

static inline void *run_guest(void *data)
{
	struct race *race = data;

	while (!READ_ONCE(race->control->stopped)) {
		enter_guest(race);
		TEST_ASSERT(timespec_elapsed(race->start).tv_sec < LONG_RACE + PATIENCE,
			    "Expected the guest to stop");
		sched_yield();
	}
	return NULL;
}

static inline void start_guest(struct race *race, void *guest_code)
{
	vcpu_arch_set_entry_point(race->t.vcpu, guest_code);
	kvm_pthread_create(&race->vcpu_thread, NULL, run_guest, race);
}

static inline void stop_guest(struct race *race)
{
	WRITE_ONCE(race->control->stop, 1);
	kvm_pthread_join(race->vcpu_thread, NULL);
}

static inline void guest_stopped(void)
{
	WRITE_ONCE(control.stopped, 1);
	GUEST_SYNC(0);
}

static inline void race_init(struct race *race)
{
	struct sigaction sa = { .sa_handler = handle_sigbus, .sa_flags = SA_NODEFER };

	gmem_conversion_init(&race->t, OFFSET(NR_PAGES), GMEM_MMAP_SHARED, NULL);
	race->control = addr_gva2hva(race->t.vm, (gva_t)&control);
	race->states = kvm_mmap(NR_PAGES * sizeof(u64), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1);
	race->rng = new_kvm_random_state(kvm_random_seed);
	sigaction(SIGBUS, &sa, NULL);
	clock_gettime(CLOCK_MONOTONIC, &race->start);
}

FIXTURE(gmem_race)
{
	struct race race;
};

FIXTURE_SETUP(gmem_race)
{
	race_init(&self->race);
}

FIXTURE_TEARDOWN(gmem_race)
{
	gmem_conversion_free(&self->race.t);
}

#define TEST_RACE(name)	TEST_F_TIMEOUT(gmem_race, name, 2 * LONG_RACE + PATIENCE)

#endif /* SELFTEST_KVM_GMEM_RACE_H */
