// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test how KVM maps a guest_memfd of HugeTLB pages that are converted in part: as
 * large as memory is private, or shared, throughout, and at full size again when
 * all of it is.  Contents are kept.
 */
#include "gmem_conversion.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define PAGES_2M	(SZ_2M / PAGE_SIZE)

struct mappings {
	long nr_2m, nr_1g;
};

FIXTURE(gmem_huge)
{
	struct gmem_conversion t;
	/* What isn't of the file. */
	struct mappings others;
	u64 nr_pages;
};

FIXTURE_VARIANT(gmem_huge)
{
	size_t page_size;
	u64 flags;
};

FIXTURE_VARIANT_ADD(gmem_huge, begins_private)
{
	.page_size = SZ_2M,
	.flags = GUEST_MEMFD_FLAG_HUGETLB_2M | GMEM_MMAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(gmem_huge, begins_shared)
{
	.page_size = SZ_2M,
	.flags = GUEST_MEMFD_FLAG_HUGETLB_2M | GMEM_MMAP_SHARED,
};

FIXTURE_VARIANT_ADD(gmem_huge, begins_private_1g)
{
	.page_size = SZ_1G,
	.flags = GUEST_MEMFD_FLAG_HUGETLB_1G | GMEM_MMAP_PRIVATE,
};

static struct mappings count(struct gmem_conversion *t)
{
	return (struct mappings) {
		.nr_2m = vm_get_stat(t->vm, pages_2m),
		.nr_1g = vm_get_stat(t->vm, pages_1g),
	};
}

/* Not those of 4K: the guest's own page tables make some come and go. */
static long nr_of_size(struct gmem_conversion *t, struct mappings *others, size_t size)
{
	struct mappings now = count(t);

	return size == SZ_1G ? now.nr_1g - others->nr_1g : now.nr_2m - others->nr_2m;
}

/* How many pages KVM maps for that; the guest's page table has to be mapped. */
static long map_page(struct gmem_conversion *t, u64 pgoff, u8 expected, u8 new)
{
	long before = vcpu_get_stat(t->vcpu, pf_fixed);

	guest_access(t, pgoff, expected, new);
	return vcpu_get_stat(t->vcpu, pf_fixed) - before;
}

FIXTURE_SETUP(gmem_huge)
{
	size_t size = 2 * variant->page_size;

	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 2) < 2)
		SKIP(return, "The pool hasn't got two pages of %zu bytes", variant->page_size);

	gmem_conversion_init(&self->t, size, variant->flags, NULL);
	self->nr_pages = variant->page_size / PAGE_SIZE;
	self->others = count(&self->t);
}

FIXTURE_TEARDOWN(gmem_huge)
{
	gmem_conversion_free(&self->t);
}

/* To the opposite of what the file began with, and back. */
static void convert(struct gmem_conversion *t, u64 flags, u64 pgoff, u64 nr, bool back)
{
	if (!!(flags & GUEST_MEMFD_FLAG_INIT_SHARED) != back)
		to_private(t, pgoff, nr);
	else
		to_shared(t, pgoff, nr);
}

TEST_F_TIMEOUT(gmem_huge, one_page, 180)
{
	const u64 nr = self->nr_pages, middle = nr / 2 + 5;
	struct gmem_conversion *t = &self->t;
	const size_t size = variant->page_size;

	guest_access(t, middle, 0, 'a');
	guest_access(t, nr, 0, 'b');
	EXPECT_EQ(2, nr_of_size(t, &self->others, size));

	/* The other huge page isn't touched. */
	convert(t, variant->flags, middle, 1, false);
	EXPECT_EQ(1, nr_of_size(t, &self->others, size));
	EXPECT_EQ(0, map_page(t, nr, 'b', 'c'));

	/* Neither the page nor its neighbours are mapped with the huge page. */
	guest_access(t, middle, 'a', 'd');
	guest_access(t, middle - 1, 0, 'e');
	guest_access(t, middle + 1, 0, 'f');
	EXPECT_EQ(1, nr_of_size(t, &self->others, size));

	/* Back, and large again as soon as the guest touches the page. */
	convert(t, variant->flags, middle, 1, true);
	guest_access(t, middle, 'd', 'g');
	EXPECT_EQ(2, nr_of_size(t, &self->others, size));
	EXPECT_EQ(0, map_page(t, middle - 2, 0, 'h'));
	EXPECT_EQ(0, map_page(t, middle + 1, 'f', 'i'));
}

FIXTURE(gmem_1g)
{
	struct gmem_conversion t;
	struct mappings others;
};

FIXTURE_SETUP(gmem_1g)
{
	if (!hugetlb_pool_exists(SZ_1G) || hugetlb_pool_grow(SZ_1G, 1) < 1)
		SKIP(return, "The pool hasn't got a page of 1G");

	gmem_conversion_init(&self->t, SZ_1G, GUEST_MEMFD_FLAG_HUGETLB_1G | GMEM_MMAP_PRIVATE,
			     NULL);
	self->others = count(&self->t);
}

FIXTURE_TEARDOWN(gmem_1g)
{
	gmem_conversion_free(&self->t);
}

/* What is uniform in a 1G page is mapped with 2M. */
TEST_F_TIMEOUT(gmem_1g, parts_of_2m, 180)
{
	struct gmem_conversion *t = &self->t;

	to_shared(t, PAGES_2M, 2 * PAGES_2M);
	guest_access(t, 0, 0, 'a');
	guest_access(t, PAGES_2M, 0, 'b');
	guest_access(t, 2 * PAGES_2M, 0, 'c');
	guest_access(t, 3 * PAGES_2M, 0, 'd');
	EXPECT_EQ(4, nr_of_size(t, &self->others, SZ_2M));
	EXPECT_EQ(0, nr_of_size(t, &self->others, SZ_1G));

	to_private(t, 0, SZ_1G / PAGE_SIZE);
	guest_access(t, 2 * PAGES_2M, 'c', 'e');
	EXPECT_EQ(0, nr_of_size(t, &self->others, SZ_2M));
	EXPECT_EQ(1, nr_of_size(t, &self->others, SZ_1G));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
