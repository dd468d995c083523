// SPDX-License-Identifier: GPL-2.0-only
/*
 * A small VMM that shows what a guest pays for sharing one 4 KiB page out of its
 * 1 GiB page: it converts the page to shared, lets the host read it, converts it back, and
 * prints what it measured before, meanwhile and after.  Fails if the huge page, or
 * the pool, isn't at the end what it was at the beginning.
 */
#include <stdio.h>

#include <linux/sizes.h>

#include "gmem_conversion.h"
#include "gmem_pieces.h"
#include "hugetlb_pool.h"
#include "kvm_util.h"
#include "test_util.h"

#define NR_PAGES	(SZ_1G / PAGE_SIZE)
#define SHARED_PAGE	(NR_PAGES / 3)

enum stage { PRIVATE, ONE_SHARED, PRIVATE_AGAIN, NR_STAGES };

struct measurement {
	long pages_1g, pages_2m, pages_4k;
	long faults;
	struct gmem_info info;
	u64 convert_ns;
	struct hugetlb_pool pool;
};

/* Let the guest look at all of its memory, and see how it is mapped then. */
static void measure(struct gmem_conversion *t, const struct measurement *others,
		    struct measurement *m)
{
	long faults = vcpu_get_stat(t->vcpu, pf_taken);

	guest_expect(t, 0, NR_PAGES);
	m->faults = vcpu_get_stat(t->vcpu, pf_taken) - faults;
	m->pages_1g = vm_get_stat(t->vm, pages_1g) - others->pages_1g;
	m->pages_2m = vm_get_stat(t->vm, pages_2m) - others->pages_2m;
	m->pages_4k = vm_get_stat(t->vm, pages_4k) - others->pages_4k;
	m->info = gmem_info(t->fd);
	m->pool = hugetlb_pool_read(SZ_1G);
}

static u64 convert_ns(struct gmem_conversion *t, bool private)
{
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	if (private)
		to_private(t, SHARED_PAGE, 1);
	else
		to_shared(t, SHARED_PAGE, 1);
	return timespec_to_ns(timespec_elapsed(start));
}

static void print_longs(const char *what, long private, long shared, long again)
{
	printf("  %-38s %11ld %15ld %15ld\n", what, private, shared, again);
}

#define PRINT(what, m, field)	\
	print_longs(what, (m)[PRIVATE].field, (m)[ONE_SHARED].field, (m)[PRIVATE_AGAIN].field)

static long count_folios(const struct gmem_info *info)
{
	long nr = 0;
	int order;

	for (order = 0; order < NR_ORDERS; order++)
		nr += info->pieces.nr[order];
	return nr;
}

static void report(const struct measurement *m)
{
	char folios[512];

	printf("\nThe guest's memory is private.  It shares one of its 262144 pages of 4 KiB, the\n"
	       "host reads it, and the guest takes it back.\n\n");
	printf("  %-38s %11s %15s %15s\n\n", "", "private", "4 KiB shared", "private again");

	print_longs("conversion (us, emulated)", 0, m[ONE_SHARED].convert_ns / 1000,
		    m[PRIVATE_AGAIN].convert_ns / 1000);
	print_longs("folios", count_folios(&m[PRIVATE].info), count_folios(&m[ONE_SHARED].info),
		    count_folios(&m[PRIVATE_AGAIN].info));
	PRINT("struct pages of the huge page (KiB)", m, info.vmemmap / 1024);
	PRINT("1 GiB mappings of the guest", m, pages_1g);
	PRINT("2 MiB mappings", m, pages_2m);
	PRINT("4 KiB mappings", m, pages_4k);
	PRINT("page faults to touch all of it again", m, faults);
	PRINT("free 1 GiB pages in the pool", m, pool.free);

	pieces_print(&m[ONE_SHARED].info.pieces, folios, sizeof(folios));
	printf("\nFolios while the page is shared (order:number):\n %s\n", folios);
	printf("Split into pages of 4 KiB there would be 262144, and 16384 KiB of struct pages.\n");
}

int main(void)
{
	struct hugetlb_pool before = hugetlb_pool_read(SZ_1G), after;
	struct measurement m[NR_STAGES] = {}, others = {};
	struct gmem_conversion t;

	__TEST_REQUIRE(gmem_conversion_supported(), "kvm.gmem_in_place_conversion is off");
	__TEST_REQUIRE(hugetlb_pool_available(SZ_1G) > 0,
		       "The pool has no available 1 GiB page (boot with hugepagesz=1G hugepages=1)");

	gmem_pieces_init(&t, SZ_1G, GUEST_MEMFD_FLAG_HUGETLB_1G | GMEM_MMAP_PRIVATE);
	guest_fill(&t, 0, NR_PAGES);
	/* The guest's own page tables and program. */
	others.pages_4k = vm_get_stat(t.vm, pages_4k);
	measure(&t, &others, &m[PRIVATE]);

	m[ONE_SHARED].convert_ns = convert_ns(&t, false);
	host_expect_page(&t, SHARED_PAGE);
	measure(&t, &others, &m[ONE_SHARED]);

	m[PRIVATE_AGAIN].convert_ns = convert_ns(&t, true);
	measure(&t, &others, &m[PRIVATE_AGAIN]);
	gmem_conversion_free(&t);

	report(m);
	after = hugetlb_pool_read(SZ_1G);
	printf("The pool: %ld free, %ld reserved before; %ld free, %ld reserved after.\n",
	       before.free, before.resv, after.free, after.resv);

	TEST_ASSERT(m[ONE_SHARED].info.pieces.nr[NR_ORDERS - 2] == 1,
		    "Nothing stayed large beside the shared page");
	TEST_ASSERT(m[PRIVATE_AGAIN].info.pieces.nr[NR_ORDERS - 1] == 1 &&
		    m[PRIVATE_AGAIN].info.vmemmap == m[PRIVATE].info.vmemmap,
		    "The huge page isn't whole again");
	TEST_ASSERT(after.free == before.free && after.resv == before.resv,
		    "The pool isn't what it was");
	return 0;
}
