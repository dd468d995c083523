// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test in-place conversion of guest_memfd's memory between private and shared:
 * who can access a page before and after, what is in it, and who can be in the
 * way of a conversion.  See guest_memfd_conversions_map_test for mappings of the
 * host and the guest, and guest_memfd_conversions_args_test for the ioctl itself.
 */
#include <linux/sizes.h>

#include "gmem_backing.h"
#include "gmem_child.h"
#include "gmem_conversion.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

/* Emulated hosts and debug kernels are slow. */
#define TIMEOUT_SECONDS	180
#define TEST_GMEM(name)	TEST_F_TIMEOUT(gmem_convert, name, TIMEOUT_SECONDS)

#define NR_PAGES	4
#define ALL_PAGES	(BIT_ULL(NR_PAGES) - 1)

FIXTURE(gmem_convert)
{
	struct gmem_conversion t;
};

FIXTURE_VARIANT(gmem_convert)
{
	struct gmem_backing backing;
};

FIXTURE_VARIANT_ADD(gmem_convert, 4K) { };
FIXTURE_VARIANT_ADD(gmem_convert, 2M) { GMEM_2M };
FIXTURE_VARIANT_ADD(gmem_convert, 2M_border) { GMEM_2M_BORDER };
FIXTURE_VARIANT_ADD(gmem_convert, 1G) { GMEM_1G };
FIXTURE_VARIANT_ADD(gmem_convert, 1G_middle) { GMEM_1G_MIDDLE };
FIXTURE_VARIANT_ADD(gmem_convert, 2M_nohvo) { GMEM_2M_NOHVO };
FIXTURE_VARIANT_ADD(gmem_convert, 1G_nohvo) { GMEM_1G_NOHVO };

FIXTURE_SETUP(gmem_convert)
{
	const char *missing = gmem_backing_use(&variant->backing);

	if (missing)
		SKIP(return, "%s", missing);
}

FIXTURE_TEARDOWN(gmem_convert)
{
	gmem_backing_finish(&self->t);
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
	int r = gmem_punch(t, pgoff, nr_pages);

	TEST_ASSERT(!r, __KVM_SYSCALL_ERROR("fallocate()", r));
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
	EXPECT_EQ(0, gmem_nr_allocated(t));
	expect_private(t, 0, 0, 'a');
	to_shared(t, 0, 1);
	expect_shared(t, 0, 'a', 'b');
}

TEST_GMEM(before_allocation_private)
{
	struct gmem_conversion *t = start(&self->t, 1, GMEM_MMAP_PRIVATE);

	to_shared(t, 0, 1);
	EXPECT_EQ(0, gmem_nr_allocated(t));
	expect_shared(t, 0, 0, 'a');
	to_private(t, 0, 1);
	expect_private(t, 0, 'a', 'b');
}

/* Two pages of the range, or only one, are there. */
static void convert_with_holes(struct gmem_conversion *t, u64 nr_pages,
			       u64 one, u64 other)
{
	u64 i, allocated, expected = gmem_nr_backing(t, one, 1);

	if (gmem_nr_backing(t, min(one, other), max(one, other) - min(one, other) + 1) > expected)
		expected *= 2;

	punch(t, 0, nr_pages);
	host_access(t, one, 0, VAL(one));
	host_access(t, other, other == one ? VAL(one) : 0, VAL(other));

	allocated = gmem_nr_allocated(t);
	TEST_ASSERT_EQ(allocated, expected);
	to_private(t, 0, nr_pages);
	TEST_ASSERT_EQ(allocated, gmem_nr_allocated(t));

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
	/* It is about folios, and takes new huge pages each time. */
	const u64 step = gmem_backing.flag & GUEST_MEMFD_FLAG_HUGETLB_1G ? 5 : 1;
	u64 i;

	for (i = 0; i < nr_pages; i += step) {
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
	u64 all = gmem_nr_backing(t, 0, NR_PAGES);

	to_private(t, 1, 2);
	punch(t, 0, 2);
	EXPECT_EQ(all - gmem_nr_backing(t, 0, 2), gmem_nr_allocated(t));
	expect_shared(t, 0, 0, VAL(0));
	expect_private(t, 1, 0, VAL(1));
	if (gmem_nr_backing(t, 0, 2) == all) {
		expect_private(t, 2, 0, VAL(2));
		expect_shared(t, 3, 0, VAL(3));
	}
	expect_pages(t, BIT(1) | BIT(2));

	punch(t, 0, NR_PAGES);
	EXPECT_EQ(0, gmem_nr_allocated(t));
	expect_shared(t, 0, 0, VAL(0));
	expect_private(t, 1, 0, VAL(1));
	expect_private(t, 2, 0, VAL(2));
	expect_shared(t, 3, 0, VAL(3));
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
	t->mem = gmem_mmap(t, t->size);
	expect_shared(t, 0, 'c', 'd');
}

/* Nothing changes for any page, and the first one in use is reported. */
static void expect_in_use(struct gmem_conversion *t, u64 pgoff, u64 nr_pages,
			  u64 in_use)
{
	expect_eagain(t, pgoff, nr_pages, in_use);
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

	gmem_backing_init();
	return test_harness_run(argc, argv);
}
