// SPDX-License-Identifier: GPL-2.0-only
/*
 * Race in-place conversion of guest_memfd with accesses of host threads and
 * processes, with mappings that come and go, and with other conversions.  The
 * host may not see or change private memory, and no data may get lost.
 */
#include <sys/wait.h>

#include "gmem_race.h"

#define NR_CONVERSIONS	10000

/* Marks what only the guest may see. */
#define SECRET		BIT_ULL(63)

/* The words of the page that host and guest fight for. */
struct target {
	u64 of_guest, of_host;
};

/*
 * Wait, and watch that @mine stays in the page, whatever its state.  Exit now
 * and then, as whoever is waited for may need the CPU.
 */
static bool guest_wait(u64 *counter, u64 round, u64 mine)
{
	struct target *page = (struct target *)GMEM_GPA;
	u64 i;

	for (i = 1; READ_ONCE(*counter) < round; i++) {
		GUEST_ASSERT_EQ(READ_ONCE(page->of_guest), mine);
		if (READ_ONCE(control.stop))
			return false;
		if (i % 1024 == 0)
			GUEST_SYNC(0);
	}
	return true;
}

/* The page is private from the beginning of a round until it is wiped. */
static void guest_keep_secrets(void)
{
	struct target *page = (struct target *)GMEM_GPA;
	u64 round, of_host = 0;

	for (round = 1; guest_wait(&control.converted, round, round - 1); round++) {
		__GUEST_ASSERT(READ_ONCE(page->of_host) >= of_host,
			       "The host's write %lu got lost", of_host);
		of_host = READ_ONCE(page->of_host);
		WRITE_ONCE(page->of_guest, SECRET | round);
		WRITE_ONCE(control.written, round);

		guest_wait(&control.seen, round, SECRET | round);
		GUEST_ASSERT_EQ(READ_ONCE(page->of_host), of_host);
		WRITE_ONCE(page->of_guest, round);
		WRITE_ONCE(control.wiped, round);
	}
	guest_stopped();
}

struct hammer {
	struct race *race;
	u64 nr_tries, nr_reads, nr_writes, nr_read_faults, nr_write_faults;
};

static void *hammer_page(void *data)
{
	struct hammer *h = data;
	struct target *page = (struct target *)h->race->t.mem;
	u64 val;

	while (!READ_ONCE(h->race->stop)) {
		if (try_read(&page->of_guest, &val)) {
			TEST_ASSERT(!(val & SECRET), "The host has read the secret of round %lu",
				    (u64)(val & ~SECRET));
			h->nr_reads++;
		} else {
			h->nr_read_faults++;
		}

		if (try_write(&page->of_host, h->nr_writes + 1))
			h->nr_writes++;
		else
			h->nr_write_faults++;

		WRITE_ONCE(h->nr_tries, h->nr_tries + 1);
		if (h->nr_tries % 8 == 0)
			sched_yield();
	}
	return NULL;
}

/*
 * Of two tries that end from now on, one begins from now on.  In every other
 * round, give the host no time to map the page: it is in the middle of that
 * when the page is converted again.
 */
static void have_a_secret(struct race *race, struct hammer *h, u64 round)
{
	struct target *page = (struct target *)race->t.mem;

	convert(race, 0, 1, true);
	WRITE_ONCE(race->control->converted, round);
	wait_for(&race->control->written, round);
	wait_for_more(&h->nr_tries, 2);
	WRITE_ONCE(race->control->seen, round);
	wait_for(&race->control->wiped, round);
	convert(race, 0, 1, false);

	if (round % 2) {
		wait_for_more(&h->nr_tries, 2);
		TEST_ASSERT_EQ(READ_ONCE(page->of_guest), round);
	}
}

TEST_RACE(host_never_sees_a_secret)
{
	struct race *race = &self->race;
	struct hammer h = { .race = race };
	pthread_t thread;
	u64 nr = 0;

	start_guest(race, guest_keep_secrets);
	kvm_pthread_create(&thread, NULL, hammer_page, &h);
	while (goes_on(race, nr, NR_CONVERSIONS / 2, LONG_RACE))
		have_a_secret(race, &h, ++nr);
	WRITE_ONCE(race->stop, true);
	kvm_pthread_join(thread, NULL);
	stop_guest(race);

	TH_LOG("%lu rounds, refused %lu times; %lu reads, %lu SIGBUS; %lu writes, %lu SIGBUS",
	       nr, race->nr_refused, h.nr_reads, h.nr_read_faults, h.nr_writes,
	       h.nr_write_faults);
	EXPECT_LE(500, nr);
	EXPECT_LE(nr, h.nr_read_faults);
	EXPECT_LE(nr, h.nr_write_faults);
	EXPECT_LE(nr / 2, h.nr_reads);
	EXPECT_EQ(h.nr_writes, host_page(race, 0)[1]);
}

/* Have a fault on its way at any time. */
static void *fault_page(void *data)
{
	struct race *race = data;
	u64 val;

	while (!READ_ONCE(race->stop)) {
		kvm_madvise(race->t.mem, PAGE_SIZE, MADV_DONTNEED);
		try_read(host_page(race, 0), &val);
	}
	return NULL;
}

TEST_RACE(host_faults_dont_stay)
{
	struct race *race = &self->race;
	pthread_t thread;
	u64 nr = 0;

	if (!host_has_pagemap())
		SKIP(return, "No " PAGEMAP_PATH);

	kvm_pthread_create(&thread, NULL, fault_page, race);
	for (nr = 0; goes_on(race, nr, NR_CONVERSIONS / 2, RACE); nr++) {
		convert(race, 0, 1, true);
		TEST_ASSERT(!host_has_mapped(&race->t, 0),
			    "Expected a private page not to be mapped, in round %lu", nr);
		convert(race, 0, 1, false);
	}
	WRITE_ONCE(race->stop, true);
	kvm_pthread_join(thread, NULL);
	TH_LOG("%lu rounds, refused %lu times", nr, race->nr_refused);
	EXPECT_LT(0, nr);
}

/* A thread, or a process, that has a word of its own in each page. */
struct visitor {
	struct race *race;
	int word;
	struct kvm_random_state rng;
	u64 counts[NR_PAGES];
	u64 nr_hits, nr_faults, nr_mappings;
};

static void visit_page(struct visitor *v, u8 *mem)
{
	u64 pgoff = kvm_random_u32_in_range(&v->rng, 0, NR_PAGES - 1);
	u64 *page = (u64 *)(mem + OFFSET(pgoff)), val = tag(pgoff), count;
	u64 state = READ_ONCE(v->race->states[pgoff]);
	bool readable, writable;

	count = v->counts[pgoff];
	readable = try_read(page, &val) && try_read(page + v->word, &count);
	TEST_ASSERT(val == tag(pgoff) && count == v->counts[pgoff],
		    "Expected 0x%lx and %lu in page %lu, found 0x%lx and %lu",
		    tag(pgoff), v->counts[pgoff], pgoff, val, count);

	writable = try_write(page + v->word, count + 1);
	v->counts[pgoff] += writable;
	v->nr_hits += writable;
	v->nr_faults += !writable;

	/* In between, both are right. */
	if (state & CHANGING || READ_ONCE(v->race->states[pgoff]) != state)
		return;
	TEST_ASSERT(readable == writable && writable == !(state & PRIVATE),
		    "Page %lu is %s, yet readable: %d, writable: %d", pgoff,
		    state & PRIVATE ? "private" : "shared", readable, writable);
}

static void visit_mapping(struct visitor *v, u8 *mem)
{
	int i;

	for (i = 0; i < 16; i++)
		visit_page(v, mem);
	v->nr_mappings++;
}

static void *visit_one_mapping(void *data)
{
	struct visitor *v = data;

	do {
		visit_mapping(v, v->race->t.mem);
	} while (!READ_ONCE(v->race->stop));
	return NULL;
}

static void *visit_new_mappings(void *data)
{
	struct visitor *v = data;
	size_t size = v->race->t.size;
	void *mem, *target;

	do {
		mem = kvm_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, v->race->t.fd);
		visit_mapping(v, mem);

		target = kvm_mmap(size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		mem = mremap(mem, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, target);
		TEST_ASSERT(mem == target, __KVM_SYSCALL_ERROR("mremap()", -1));
		visit_mapping(v, mem);
		kvm_munmap(mem, size);
	} while (!READ_ONCE(v->race->stop));
	return NULL;
}

static void *visit_from_children(void *data)
{
	struct visitor *v = data;
	int status;
	pid_t pid;

	do {
		pid = fork();
		TEST_ASSERT(pid >= 0, __KVM_SYSCALL_ERROR("fork()", pid));
		if (!pid) {
			visit_mapping(v, v->race->t.mem);
			_exit(0);
		}
		TEST_ASSERT(waitpid(pid, &status, 0) == pid && !status,
			    "Expected a child to succeed, its status is 0x%x", status);
	} while (!READ_ONCE(v->race->stop));
	return NULL;
}

TEST_RACE(mappings_come_and_go)
{
	void *(*const visits[])(void *) = {
		visit_one_mapping, visit_one_mapping,
		visit_new_mappings, visit_from_children,
	};
	struct visitor *v, *visitors = kvm_mmap(sizeof(*v) * ARRAY_SIZE(visits),
						PROT_READ | PROT_WRITE,
						MAP_SHARED | MAP_ANONYMOUS, -1);
	pthread_t threads[ARRAY_SIZE(visits)];
	struct race *race = &self->race;
	u64 nr, pgoff;
	int i;

	for (pgoff = 0; pgoff < NR_PAGES; pgoff++)
		*host_page(race, pgoff) = tag(pgoff);

	for (i = 0; i < ARRAY_SIZE(visits); i++) {
		visitors[i].race = race;
		visitors[i].word = i + 1;
		visitors[i].rng = new_kvm_random_state(kvm_random_seed + i + 1);
		kvm_pthread_create(&threads[i], NULL, visits[i], &visitors[i]);
	}
	nr = convert_random_ranges(race, 2000);
	WRITE_ONCE(race->stop, true);
	for (i = 0; i < ARRAY_SIZE(visits); i++)
		kvm_pthread_join(threads[i], NULL);

	TH_LOG("%lu conversions, refused %lu times", nr, race->nr_refused);
	EXPECT_LE(50, nr);
	check_states(race);
	convert(race, 0, NR_PAGES, false);
	for (i = 0; i < ARRAY_SIZE(visits); i++) {
		v = &visitors[i];
		EXPECT_LT(0, v->nr_hits);
		EXPECT_LT(0, v->nr_faults);
		EXPECT_LT(0, v->nr_mappings);
		for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
			EXPECT_EQ(tag(pgoff), host_page(race, pgoff)[0]);
			EXPECT_EQ(v->counts[pgoff], host_page(race, pgoff)[v->word]);
		}
	}
}

struct claim {
	struct race *race;
	u64 pgoff, nr;
	bool make_private;
};

static void *claim_pages(void *data)
{
	struct claim *claim = data;
	int i;

	for (i = 0; i < 8; i++)
		convert(claim->race, claim->pgoff, claim->nr, claim->make_private);
	return NULL;
}

/* What both want, pages 16 to 47, belongs to the last one, all of it. */
static void check_claims(struct race *race)
{
	bool is_shared, shared_16 = false;
	u64 pgoff, val;

	for (pgoff = 0; pgoff < NR_PAGES; pgoff++) {
		is_shared = try_read(host_page(race, pgoff), &val);
		if (pgoff == 16)
			shared_16 = is_shared;
		TEST_ASSERT(is_shared == (pgoff < 16 ? false : pgoff < 48 ? shared_16 : true),
			    "Page %lu is %s", pgoff, is_shared ? "shared" : "private");
	}
}

TEST_RACE(opposite_conversions)
{
	struct race *race = &self->race;
	struct claim claims[] = {
		{ race, 0, 48, true },
		{ race, 16, 48, false },
	};
	pthread_t threads[2];
	u64 nr, i;

	for (nr = 0; goes_on(race, nr, 300, RACE); nr++) {
		convert(race, 0, 16, false);
		convert(race, 48, 16, true);
		for (i = 0; i < 2; i++)
			kvm_pthread_create(&threads[i], NULL, claim_pages, &claims[i]);
		for (i = 0; i < 2; i++)
			kvm_pthread_join(threads[i], NULL);
		check_claims(race);
	}

	EXPECT_LE(20, nr);
	convert(race, 0, NR_PAGES, true);
	for (i = 0; i < NR_PAGES; i++)
		guest_access(&race->t, i, 0, 'a');
	convert(race, 0, NR_PAGES, false);
	for (i = 0; i < NR_PAGES; i++)
		host_access(&race->t, i, 'a', 'b');
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
