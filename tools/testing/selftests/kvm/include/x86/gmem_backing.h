/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Variants of tests that convert memory in place: pages of 4K, of 2M and of 1G, the
 * latter two with and without HVO, and the test's pages at different places in them.
 *
 *	FIXTURE(my)
 *	{
 *		struct gmem_conversion t;
 *	};
 *
 *	FIXTURE_VARIANT(my)
 *	{
 *		struct gmem_backing backing;
 *	};
 *
 *	FIXTURE_VARIANT_ADD(my, 4K) { };
 *	FIXTURE_VARIANT_ADD(my, 2M) { GMEM_2M };
 *
 *	FIXTURE_SETUP(my)
 *	{
 *		const char *missing = gmem_backing_use(&variant->backing);
 *
 *		if (missing)
 *			SKIP(return, "%s", missing);
 *		gmem_conversion_init(&self->t, ...);
 *	}
 *
 *	FIXTURE_TEARDOWN(my)
 *	{
 *		gmem_backing_finish(&self->t);
 *	}
 *
 * and gmem_backing_init() in main().  By default a huge page begins with the test's
 * pages: that is where its folio has its own data, in the first struct pages.
 *
 * gmem_backing_finish() makes all of the file private and expects huge pages to be
 * whole then, in as few struct pages as before, and the pool to have them at once
 * when the file is gone.
 */
#ifndef SELFTEST_KVM_GMEM_BACKING_H
#define SELFTEST_KVM_GMEM_BACKING_H

#include <linux/falloc.h>
#include <sys/stat.h>

#include "gmem_conversion.h"
#include "gmem_pieces.h"
#include "hugetlb_ledger.h"

#define GMEM_2M		.backing = { .flag = GUEST_MEMFD_FLAG_HUGETLB_2M }
#define GMEM_1G		.backing = { .flag = GUEST_MEMFD_FLAG_HUGETLB_1G }

/* In two huge pages; and around the middle of one, the border of its largest parts. */
#define GMEM_2M_BORDER	\
	.backing = { .flag = GUEST_MEMFD_FLAG_HUGETLB_2M, .base = SZ_2M / PAGE_SIZE - 2 }
#define GMEM_1G_MIDDLE	\
	.backing = { .flag = GUEST_MEMFD_FLAG_HUGETLB_1G, .base = SZ_512M / PAGE_SIZE - 2 }

#define GMEM_2M_NOHVO	\
	.backing = { .flag = GUEST_MEMFD_FLAG_HUGETLB_2M, .without_hvo = true }
#define GMEM_1G_NOHVO	\
	.backing = { .flag = GUEST_MEMFD_FLAG_HUGETLB_1G, .without_hvo = true }

/* What tests need at most: 16M and a border, or two files. */
#define GMEM_MAX_2M_PAGES	16
#define GMEM_MAX_1G_PAGES	2

/* The kernel has HVO only where a struct page is that large. */
#define GMEM_STRUCT_PAGE_SIZE	64

/* The pool before the test. */
static struct hugetlb_ledger gmem_ledger;

/* Before any test, in bytes: the struct pages of a page of the pool. */
static u64 gmem_vmemmap_2m, gmem_vmemmap_1g;
static bool gmem_pool_has_hvo;

static inline u64 gmem_full_vmemmap(u64 flag)
{
	return gmem_page_size(flag) / PAGE_SIZE * GMEM_STRUCT_PAGE_SIZE;
}

static inline u64 gmem_expected_vmemmap(void)
{
	if (gmem_backing.without_hvo)
		return gmem_full_vmemmap(gmem_backing.flag);
	return gmem_backing.flag & GUEST_MEMFD_FLAG_HUGETLB_1G ? gmem_vmemmap_1g :
								  gmem_vmemmap_2m;
}

/* 0 if there is no such page to be had. */
static inline u64 gmem_probe_vmemmap(u64 flag)
{
	size_t page_size = gmem_page_size(flag);
	struct kvm_vm *vm;
	u64 vmemmap = 0;
	int fd;

	if (!hugetlb_pool_exists(page_size) || hugetlb_pool_grow(page_size, 1) < 1)
		return 0;

	vm = ____vm_create(gmem_conversion_shape());
	fd = __vm_create_guest_memfd(vm, page_size, flag);
	if (fd >= 0) {
		kvm_fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, page_size);
		vmemmap = gmem_info(fd).vmemmap;
		kvm_close(fd);
	}
	kvm_vm_free(vm);
	return vmemmap;
}

static inline void gmem_backing_init(void)
{
	hugetlb_ledger_save_pools();
	gmem_pool_has_hvo = hugetlb_pool_has_hvo();
	gmem_vmemmap_2m = gmem_probe_vmemmap(GUEST_MEMFD_FLAG_HUGETLB_2M);
	gmem_vmemmap_1g = gmem_probe_vmemmap(GUEST_MEMFD_FLAG_HUGETLB_1G);
}

/* Make the files of this test's process of that, or return why it can't be. */
static inline const char *gmem_backing_use(const struct gmem_backing *backing)
{
	size_t page_size = gmem_page_size(backing->flag);
	long nr = page_size == SZ_1G ? GMEM_MAX_1G_PAGES : GMEM_MAX_2M_PAGES;

	gmem_backing = *backing;
	if (!backing->flag)
		return NULL;
	if (!(kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS) & backing->flag))
		return "KVM can't back guest_memfd with pages of this size";
	if (backing->without_hvo && !gmem_pool_has_hvo)
		return "The pool is without HVO in any case";
	if (!hugetlb_pool_set_hvo(gmem_pool_has_hvo && !backing->without_hvo))
		return "Can't switch HVO";
	if (hugetlb_pool_grow(page_size, nr) < nr)
		return "The pool hasn't got enough pages of this size";

	hugetlb_ledger_open(&gmem_ledger, page_size);
	return NULL;
}

static inline bool gmem_is_huge(void)
{
	return gmem_backing.flag;
}

/* In 4K: the size of the huge pages, if so, that pages [@first, @first + @nr) are in. */
static inline u64 gmem_nr_backing(struct gmem_conversion *t, u64 first, u64 nr)
{
	size_t page_size = gmem_page_size(gmem_backing.flag);

	if (!nr)
		return 0;
	return (align_up(gmem_offset(t, first + nr), page_size) -
		align_down(gmem_offset(t, first), page_size)) / PAGE_SIZE;
}

static inline u64 gmem_nr_allocated(struct gmem_conversion *t)
{
	struct stat st;

	TEST_ASSERT(!fstat(t->fd, &st), "fstat() failed: %s", strerror(errno));
	return st.st_blocks * 512 / PAGE_SIZE;
}

static inline int gmem_punch(struct gmem_conversion *t, u64 first, u64 nr)
{
	size_t page_size = gmem_page_size(gmem_backing.flag);
	u64 start = align_down(gmem_offset(t, first), page_size);

	return fallocate(t->fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, start,
			 gmem_nr_backing(t, first, nr) * PAGE_SIZE);
}

/* Nobody else has a reference to any page, except for a moment. */
static inline void gmem_make_all_private(struct gmem_conversion *t)
{
	struct timespec start;
	u64 busy;

	clock_gettime(CLOCK_MONOTONIC, &start);
	while (__gmem_set_private(t->fd, 0, t->file_size, &busy)) {
		TEST_ASSERT(errno == EAGAIN &&
			    timespec_elapsed(start).tv_sec < GMEM_PATIENCE,
			    "Expected to make all private, got %s for 0x%lx",
			    strerror(errno), busy);
		usleep(1000);
	}
}

static inline void gmem_expect_whole(struct gmem_conversion *t)
{
	u64 nr = gmem_nr_allocated(t) * PAGE_SIZE / gmem_page_size(gmem_backing.flag);
	u64 expected = nr * gmem_expected_vmemmap(), is = gmem_info(t->fd).vmemmap;

	expect_whole(t, nr);
	TEST_ASSERT(is == expected, "Expected %lu bytes of vmemmap, found %lu", expected, is);
}

/* If the test closed the file, somebody may have held a page of it. */
static inline void gmem_expect_pool(bool at_once)
{
	const char *diff = at_once ? hugetlb_ledger_diff(&gmem_ledger, 0, 0) :
				     ledger_wait(&gmem_ledger, 0, 0);

	TEST_ASSERT(!diff, "Expected the pool to have all pages back: %s", diff);
}

/* Whoever held any of the memory has let go of it, or will do so in a moment. */
static inline void gmem_backing_finish(struct gmem_conversion *t)
{
	bool is_open = t->fd >= 0;

	if (is_open && gmem_is_huge()) {
		gmem_make_all_private(t);
		gmem_expect_whole(t);
	}
	if (is_open)
		gmem_conversion_free(t);
	if (gmem_is_huge())
		gmem_expect_pool(is_open);
}

#endif /* SELFTEST_KVM_GMEM_BACKING_H */
