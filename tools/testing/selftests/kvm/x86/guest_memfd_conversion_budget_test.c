// SPDX-License-Identifier: GPL-2.0-only
/*
 * What it may cost at most to convert one 4K page of a guest_memfd of 1G pages, in
 * memory, and in time compared to a conversion of all of the 1G page and to the same
 * in a larger file.  guest_memfd_conversion_perf_test tells times in detail.
 */
#include <linux/falloc.h>
#include <linux/sizes.h>

#include "gmem_attributes.h"
#include "gmem_conversion.h"
#include "gmem_pieces.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

/* More kernel memory for one page that is shared. */
#define MEMORY_BUDGET		SZ_64K
/* How many times longer the whole page takes, at least. */
#define TIME_BUDGET		30
/* How many times longer the one page may take in a file of four times the size. */
#define NOISE			3

#define ROUNDS			16
#define PATIENCE		180

FIXTURE(gmem_budget)
{
	struct kvm_vm *vm;
};

FIXTURE_SETUP(gmem_budget)
{
	if (!hugetlb_pool_exists(SZ_1G) || hugetlb_pool_grow(SZ_1G, 1) < 1)
		SKIP(return, "The pool hasn't got a page of 1G");

	self->vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
}

FIXTURE_TEARDOWN(gmem_budget)
{
	kvm_vm_free(self->vm);
}

/* All allocated, all private. */
static int create_file(struct kvm_vm *vm, long nr_huge_pages)
{
	int fd = vm_create_guest_memfd(vm, nr_huge_pages * SZ_1G,
				       GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_HUGETLB_1G);

	kvm_fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, nr_huge_pages * SZ_1G);
	return fd;
}

static u64 convert_ns(int fd, u64 offset, u64 size, u64 attributes)
{
	struct timespec start;
	u64 error_offset;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &start);
	r = __gmem_set_attributes(fd, offset, size, attributes, &error_offset);
	TEST_ASSERT(!r, "Conversion failed at 0x%lx: %s", error_offset, strerror(errno));
	return timespec_to_ns(timespec_elapsed(start));
}

struct cost {
	u64 to_shared, to_private;
};

/* The best of some rounds, there and back. */
static struct cost measure(int fd, u64 offset, u64 size, int rounds)
{
	struct cost best = { -1ull, -1ull };

	while (rounds--) {
		best.to_shared = min(best.to_shared, convert_ns(fd, offset, size, 0));
		best.to_private = min(best.to_private,
				      convert_ns(fd, offset, size, KVM_MEMORY_ATTRIBUTE_PRIVATE));
	}
	return best;
}

/* Slab and vmemmap, which is all that a conversion allocates, in bytes. */
static u64 kernel_memory(void)
{
	return PAGE_SIZE * (vm_event_count("nr_memmap_pages") +
			    vm_event_count("nr_slab_unreclaimable") +
			    vm_event_count("nr_slab_reclaimable"));
}

TEST_F_TIMEOUT(gmem_budget, memory, PATIENCE)
{
	int fd = create_file(self->vm, 1);
	struct gmem_info whole = gmem_info(fd), split;
	s64 held, least = LLONG_MAX;
	u64 before;
	int i;

	if (!hugetlb_pool_has_hvo())
		SKIP(return, "HVO is off");

	/* Others allocate, too, but not each time. */
	for (i = 0; i < ROUNDS; i++) {
		before = kernel_memory();
		gmem_set_shared(fd, SZ_512M + SZ_16K, PAGE_SIZE);
		held = kernel_memory() - before;
		least = min(least, held);

		split = gmem_info(fd);
		gmem_set_private(fd, SZ_512M + SZ_16K, PAGE_SIZE);
	}

	TH_LOG("One shared page holds %ld bytes, %lu of them struct pages", least,
	       split.vmemmap - whole.vmemmap);
	EXPECT_LE(least, MEMORY_BUDGET);
	EXPECT_LE(split.vmemmap - whole.vmemmap, MEMORY_BUDGET);
	EXPECT_GT(split.vmemmap, whole.vmemmap);

	split = gmem_info(fd);
	EXPECT_EQ(whole.vmemmap, split.vmemmap);
	EXPECT_EQ(1, split.pieces.nr[NR_ORDERS - 1]);
	kvm_close(fd);
}

TEST_F_TIMEOUT(gmem_budget, time, PATIENCE)
{
	int fd = create_file(self->vm, 1);
	struct cost one, all;

	one = measure(fd, SZ_512M, PAGE_SIZE, ROUNDS);
	all = measure(fd, 0, SZ_1G, 2);
	TH_LOG("us to share 4K: %lu, 1G: %lu (%lu times); back: %lu and %lu (%lu times)",
	       one.to_shared / 1000, all.to_shared / 1000, all.to_shared / one.to_shared,
	       one.to_private / 1000, all.to_private / 1000, all.to_private / one.to_private);
	EXPECT_LE(one.to_shared * TIME_BUDGET, all.to_shared);
	EXPECT_LE(one.to_private * TIME_BUDGET, all.to_private);
	kvm_close(fd);
}

TEST_F_TIMEOUT(gmem_budget, file_size, PATIENCE)
{
	struct cost small, large;
	int fd;

	if (hugetlb_pool_available(SZ_1G) < 4)
		SKIP(return, "The pool hasn't got four pages of 1G");

	fd = create_file(self->vm, 1);
	small = measure(fd, SZ_512M, PAGE_SIZE, ROUNDS);
	kvm_close(fd);

	fd = create_file(self->vm, 4);
	large = measure(fd, 2ul * SZ_1G + SZ_512M, PAGE_SIZE, ROUNDS);
	kvm_close(fd);

	TH_LOG("us to share 4K of a file of 1G: %lu, of 4G: %lu; back: %lu and %lu",
	       small.to_shared / 1000, large.to_shared / 1000,
	       small.to_private / 1000, large.to_private / 1000);
	EXPECT_LE(large.to_shared, NOISE * small.to_shared);
	EXPECT_LE(large.to_private, NOISE * small.to_private);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
