// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test in-place conversion of guest_memfd's memory between private and shared:
 * who can access a page before and after, what is in it, and who can be in the
 * way of a conversion.  See guest_memfd_conversions_map_test for mappings of the
 * host and the guest, and guest_memfd_conversions_args_test for the ioctl itself.
 */
#include <linux/falloc.h>
#include <linux/sizes.h>

#include <sys/stat.h>
#include <sys/wait.h>

#include "gmem_conversion.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

#define PUNCH		(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)

/* Emulated hosts and debug kernels are slow. */
#define TIMEOUT_SECONDS	180
#define TEST_GMEM(name)	TEST_F_TIMEOUT(gmem_convert, name, TIMEOUT_SECONDS)

#define NR_PAGES	4
#define ALL_PAGES	(BIT_ULL(NR_PAGES) - 1)

FIXTURE(gmem_convert)
{
	struct gmem_conversion t;
};

FIXTURE_SETUP(gmem_convert)
{
}

FIXTURE_TEARDOWN(gmem_convert)
{
	gmem_conversion_free(&self->t);
}

static struct gmem_conversion *start(struct gmem_conversion *t, u64 nr_pages,
				     u64 gmem_flags)
{
	gmem_conversion_init(t, nr_pages * PAGE_SIZE, gmem_flags, NULL);
	return t;
}

static struct gmem_conversion *start_filled(struct gmem_conversion *t, u64 nr_pages)
{
	gmem_conversion_init_filled(t, nr_pages * PAGE_SIZE);
	return t;
}

static void punch(struct gmem_conversion *t, u64 pgoff, u64 nr_pages)
{
	kvm_fallocate(t->fd, PUNCH, pgoff * PAGE_SIZE, nr_pages * PAGE_SIZE);
}

static u64 nr_allocated(struct gmem_conversion *t)
{
	struct stat st;

	TEST_ASSERT(!fstat(t->fd, &st), "fstat() failed: %s", strerror(errno));
	return st.st_blocks * 512 / PAGE_SIZE;
}

TEST_GMEM(init_private)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_PRIVATE);

	expect_private(t, 0, 0, 'a');
	to_shared(t, 0, 1);
	expect_shared(t, 0, 'a', 'b');
	to_private(t, 0, 1);
	expect_private(t, 0, 'b', 'c');
}

TEST_GMEM(init_shared)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_SHARED);

	expect_shared(t, 0, 0, 'a');
	to_private(t, 0, 1);
	expect_private(t, 0, 'a', 'b');
	to_shared(t, 0, 1);
	expect_shared(t, 0, 'b', 'c');
}

TEST_GMEM(indexing)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u64 i;

	for (i = 0; i < NR_PAGES; i++) {
		to_private(t, i, 1);
		expect_pages(t, BIT_ULL(i));
		to_shared(t, i, 1);
		expect_pages(t, 0);
	}
}

TEST_GMEM(before_allocation_shared)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_SHARED);

	to_private(t, 0, 1);
	EXPECT_EQ(0, nr_allocated(t));
	expect_private(t, 0, 0, 'a');
	to_shared(t, 0, 1);
	expect_shared(t, 0, 'a', 'b');
}

TEST_GMEM(before_allocation_private)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_PRIVATE);

	to_shared(t, 0, 1);
	EXPECT_EQ(0, nr_allocated(t));
	expect_shared(t, 0, 0, 'a');
	to_private(t, 0, 1);
	expect_private(t, 0, 'a', 'b');
}

/* Two pages of the range, or only one, are there. */
static void convert_with_holes(struct gmem_conversion *t, u64 nr_pages,
			       u64 one, u64 other)
{
	u64 i, allocated;

	punch(t, 0, nr_pages);
	host_access(t, one, 0, VAL(one));
	host_access(t, other, other == one ? VAL(one) : 0, VAL(other));

	allocated = nr_allocated(t);
	TEST_ASSERT_EQ(allocated, one == other ? 1 : 2);
	to_private(t, 0, nr_pages);
	TEST_ASSERT_EQ(allocated, nr_allocated(t));

	for (i = 0; i < nr_pages; i++)
		expect_private(t, i, i == one || i == other ? VAL(i) : 0, VAL(i));
	for (i = 0; i < nr_pages; i++) {
		host_faults(t, i);
		to_shared(t, i, 1);
		expect_shared(t, i, VAL(i), VAL(i));
	}
}

TEST_GMEM(unallocated_folios)
{
	const u64 nr_pages = 8;
	struct gmem_conversion *t = start(&self->t, nr_pages, GMEM_MMAP_SHARED);
	u64 i;

	for (i = 0; i < nr_pages; i++) {
		convert_with_holes(t, nr_pages, i, i);
		convert_with_holes(t, nr_pages, i, (i + 3) % nr_pages);
	}
}

TEST_GMEM(truncate)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_SHARED);

	expect_shared(t, 0, 0, 'a');
	punch(t, 0, 1);
	expect_shared(t, 0, 0, 'b');

	to_private(t, 0, 1);
	expect_private(t, 0, 'b', 'c');
	punch(t, 0, 1);
	expect_private(t, 0, 0, 'd');
	to_shared(t, 0, 1);
	expect_shared(t, 0, 'd', 'e');
}

TEST_GMEM(punch_across_states)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);

	to_private(t, 1, 2);
	punch(t, 0, 2);
	EXPECT_EQ(2, nr_allocated(t));
	expect_shared(t, 0, 0, VAL(0));
	expect_private(t, 1, 0, VAL(1));
	expect_pages(t, BIT(1) | BIT(2));

	punch(t, 0, NR_PAGES);
	EXPECT_EQ(0, nr_allocated(t));
	expect_shared(t, 0, 0, VAL(0));
	expect_private(t, 1, 0, VAL(1));
	expect_private(t, 2, 0, VAL(2));
	expect_shared(t, 3, 0, VAL(3));
}

/* A child process does to its copy of the mapping what it is told through pipes. */
struct child {
	pid_t pid;
	int to, from;
};

struct child_job {
	u64 pgoff;
	u8 val, new;
	bool faults;
};

/* Ends with the parent at the latest, however that ends. */
static void child_main(struct gmem_conversion *t, int from, int to)
{
	struct child_job job;

	while (read(from, &job, sizeof(job)) == sizeof(job)) {
		if (job.faults)
			host_faults(t, job.pgoff);
		else
			host_access(t, job.pgoff, job.val, job.new);
		if (write(to, &job.faults, 1) != 1)
			break;
	}
	_exit(0);
}

static struct child child_start(struct gmem_conversion *t)
{
	struct child child;
	int to[2], from[2];

	TEST_ASSERT(!pipe(to) && !pipe(from), "pipe() failed: %s", strerror(errno));
	child.pid = fork();
	TEST_ASSERT(child.pid >= 0, "fork() failed: %s", strerror(errno));

	if (!child.pid) {
		kvm_close(to[1]);
		kvm_close(from[0]);
		child_main(t, to[0], from[1]);
	}
	kvm_close(to[0]);
	kvm_close(from[1]);
	child.to = to[1];
	child.from = from[0];
	return child;
}

static void child_do(struct child *child, struct child_job job)
{
	bool done;

	TEST_ASSERT(write(child->to, &job, sizeof(job)) == sizeof(job),
		    "Can't tell the child about page %lu", job.pgoff);
	TEST_ASSERT(read(child->from, &done, 1) == 1,
		    "Child expected to %s page %lu, which failed",
		    job.faults ? "fault on" : "access", job.pgoff);
}

static void child_access(struct child *child, u64 pgoff, u8 val, u8 new)
{
	child_do(child, (struct child_job) { .pgoff = pgoff, .val = val, .new = new });
}

static void child_faults(struct child *child, u64 pgoff)
{
	child_do(child, (struct child_job) { .pgoff = pgoff, .faults = true });
}

static void child_end(struct child *child)
{
	int status;

	kvm_close(child->to);
	TEST_ASSERT(waitpid(child->pid, &status, 0) == child->pid && !status,
		    "Child expected to exit, its status is 0x%x", status);
	kvm_close(child->from);
}

TEST_GMEM(forked_accesses)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_SHARED);
	struct child child = child_start(t);

	child_access(&child, 0, 0, 'a');
	expect_shared(t, 0, 'a', 'b');

	to_private(t, 0, 1);
	child_faults(&child, 0);
	expect_private(t, 0, 'b', 'c');

	to_shared(t, 0, 1);
	child_access(&child, 0, 'c', 'd');
	expect_shared(t, 0, 'd', 'e');
	child_end(&child);
}

TEST_GMEM(forked_while_private)
{
	struct gmem_conversion *t = start_filled(&self->t, 1);
	struct child child;

	to_private(t, 0, 1);
	child = child_start(t);
	child_faults(&child, 0);

	to_shared(t, 0, 1);
	child_access(&child, 0, VAL(0), 'a');
	to_private(t, 0, 1);
	child_faults(&child, 0);
	expect_private(t, 0, 'a', 'b');
	child_end(&child);
}

TEST_GMEM(mapped_by_child_only)
{
	struct gmem_conversion *t = start_filled(&self->t, 1);
	struct child child = child_start(t);

	child_access(&child, 0, VAL(0), 'a');
	kvm_munmap(t->mem, t->size);
	to_private(t, 0, 1);
	child_faults(&child, 0);
	guest_access(t, 0, 'a', 'b');

	to_shared(t, 0, 1);
	child_access(&child, 0, 'b', 'c');
	child_end(&child);
	t->mem = kvm_mmap(t->size, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd);
	expect_shared(t, 0, 'c', 'd');
}

/* Nothing changes for any page, and the first one in use is reported. */
static void expect_in_use(struct gmem_conversion *t, u64 pgoff, u64 nr_pages,
			  u64 in_use)
{
	u64 error_offset;
	int r = __gmem_set_private(t->fd, pgoff * PAGE_SIZE,
				   nr_pages * PAGE_SIZE, &error_offset);

	TEST_ASSERT(r == -1 && errno == EAGAIN && error_offset == in_use * PAGE_SIZE,
		    "Expected EAGAIN at 0x%llx, got r %d errno %d at 0x%lx",
		    in_use * PAGE_SIZE, r, errno, error_offset);
	expect_pages(t, 0);
}

static void convert_around_pin(struct gmem_conversion *t, u64 pinned)
{
	int pin = host_pin(t, pinned, 1);
	u64 i;

	expect_in_use(t, 0, NR_PAGES, pinned);
	expect_in_use(t, pinned, 1, pinned);
	to_shared(t, 0, NR_PAGES);

	for (i = 0; i < NR_PAGES; i++) {
		if (i != pinned)
			to_private(t, i, 1);
	}
	expect_pages(t, ALL_PAGES & ~BIT_ULL(pinned));

	/* To shared, a pin is no obstacle. */
	to_shared(t, 0, NR_PAGES);
	expect_pages(t, 0);

	host_unpin(pin);
	to_private(t, 0, NR_PAGES);
	expect_pages(t, ALL_PAGES);
	to_shared(t, 0, NR_PAGES);
}

TEST_GMEM(elevated_refcount)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	u64 i;

	if (!host_can_pin())
		SKIP(return, "No " GUP_TEST_PATH " to pin pages with");

	for (i = 0; i < NR_PAGES; i++)
		convert_around_pin(t, i);
}

TEST_GMEM(first_of_many_pins)
{
	struct gmem_conversion *t = start_filled(&self->t, NR_PAGES);
	int pin, another;

	if (!host_can_pin())
		SKIP(return, "No " GUP_TEST_PATH " to pin pages with");

	pin = host_pin(t, 1, 2);
	another = host_pin(t, 2, 1);
	expect_in_use(t, 0, NR_PAGES, 1);
	expect_in_use(t, 2, 2, 2);

	host_unpin(pin);
	expect_in_use(t, 0, NR_PAGES, 2);
	host_unpin(another);
	to_private(t, 0, NR_PAGES);
	expect_pages(t, ALL_PAGES);
}

#define CONTENTS_SIZE	SZ_16M
#define HOST_SEED	0x5eed0f0457ull
#define GUEST_SEED	0x5eed0f6e57ull

/* Multiplied by an odd number, so no two words of the file are equal. */
static u64 pattern(u64 seed, u64 off)
{
	return seed + off * 0x9e3779b97f4a7c15ull;
}

static void guest_rewrite_contents(void)
{
	u64 off, *p;

	for (off = 0; off < CONTENTS_SIZE; off += sizeof(*p)) {
		p = (u64 *)(GMEM_GPA + off);
		GUEST_ASSERT_EQ(READ_ONCE(*p), pattern(HOST_SEED, off));
		WRITE_ONCE(*p, pattern(GUEST_SEED, off));
	}
	GUEST_SYNC(0);
}

TEST_GMEM(contents_are_kept)
{
	struct gmem_conversion *t = &self->t;
	u64 off, *p;

	gmem_conversion_init(t, CONTENTS_SIZE, GMEM_MMAP_SHARED, guest_rewrite_contents);
	p = (u64 *)t->mem;
	for (off = 0; off < CONTENTS_SIZE; off += sizeof(*p))
		p[off / sizeof(*p)] = pattern(HOST_SEED, off);

	to_private(t, 0, CONTENTS_SIZE / PAGE_SIZE);
	guest_run(t->vcpu);
	to_shared(t, 0, CONTENTS_SIZE / PAGE_SIZE);

	for (off = 0; off < CONTENTS_SIZE; off += sizeof(*p))
		TEST_ASSERT_EQ(p[off / sizeof(*p)], pattern(GUEST_SEED, off));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
