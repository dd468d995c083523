// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test memory errors in HugeTLB pages of a guest_memfd: whether the page is whole or
 * split, private or shared, the guest loses 4K; all else keeps working and converting.
 * The pool gets the huge page back, and doesn't hand it out again.
 */
#include <pthread.h>
#include <sys/stat.h>

#include "gmem_conversion.h"
#include "gmem_pieces.h"
#include "gmem_test.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define INJECT_PATH	"/sys/kernel/debug/hwpoison/corrupt-pfn"
#define UNPOISON_PATH	"/sys/kernel/debug/hwpoison/unpoison-pfn"

#define NR_ERRORS	100

FIXTURE(gmem_poison)
{
	struct gmem_conversion t;
	/* Page frame of the first page, to undo what is done to the huge page. */
	u64 pfn;
	u64 nr;
	struct hugetlb_ledger ledger;
};

FIXTURE_VARIANT(gmem_poison)
{
	size_t page_size;
	u64 flag;
};

FIXTURE_VARIANT_ADD(gmem_poison, 2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
};

FIXTURE_VARIANT_ADD(gmem_poison, 1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
};

static void write_pfn(const char *path, u64 pfn)
{
	FILE *f = fopen(path, "w");

	TEST_ASSERT(f && fprintf(f, "0x%lx", pfn) > 0, "Can't write to %s", path);
	TEST_ASSERT(!fclose(f), "Writing 0x%lx to %s failed: %s", pfn, path, strerror(errno));
}

/* One huge page that is private and whole, with something in each page that matters. */
FIXTURE_SETUP(gmem_poison)
{
	if (access(INJECT_PATH, W_OK))
		SKIP(return, "No " INJECT_PATH " (CONFIG_HWPOISON_INJECT)");
	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 2) < 2)
		SKIP(return, "The pool hasn't got two pages of %zu bytes", variant->page_size);

	self->nr = variant->page_size / PAGE_SIZE;
	self->ledger.page_size = variant->page_size;
	self->ledger.base = hugetlb_pool_read(variant->page_size);
	gmem_pieces_init(&self->t, variant->page_size, variant->flag | GMEM_MMAP_PRIVATE);
	guest_fill(&self->t, 0, self->nr);

	to_shared(&self->t, 0, 1);
	host_expect_page(&self->t, 0);
	self->pfn = pfn_of(self->t.mem);
	to_private(&self->t, 0, 1);
	expect_whole(&self->t, 1);
}

/* As many pages of the pool as somebody else can get. */
static long count_obtainable(size_t page_size)
{
	long nr = hugetlb_pool_available(page_size), i;
	int fd = hugetlb_pool_memfd(page_size, nr);

	for (i = 0; i < nr; i++)
		if (fallocate(fd, 0, i * page_size, page_size))
			break;
	kvm_close(fd);
	return i;
}

/* Nor can anybody have them reserved. */
static bool can_reserve(size_t page_size, u64 flag, long nr)
{
	struct kvm_vm *vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	int fd = __vm_create_guest_memfd(vm, nr * page_size, flag);
	bool success = fd >= 0;

	TEST_ASSERT(success || errno == ENOMEM, "Expected ENOMEM, got %s", strerror(errno));
	if (success)
		kvm_close(fd);
	kvm_vm_free(vm);
	return success;
}

/* The huge page comes back in pieces, and nobody gets it before it is good again. */
static void expect_kept_by_pool(const struct hugetlb_ledger *ledger, u64 flag, u64 pfn)
{
	const char *diff = ledger_wait(ledger, 0, 0);
	long available;

	TEST_ASSERT(!diff, "The pool isn't what it was: %s", diff);

	available = hugetlb_pool_available(ledger->page_size);
	TEST_ASSERT_EQ(count_obtainable(ledger->page_size), available - 1);
	TEST_ASSERT(can_reserve(ledger->page_size, flag, available - 1), "Expected pages");
	TEST_ASSERT(!can_reserve(ledger->page_size, flag, available), "Got the bad page reserved");

	write_pfn(UNPOISON_PATH, pfn);
	TEST_ASSERT_EQ(count_obtainable(ledger->page_size), available);
}

FIXTURE_TEARDOWN(gmem_poison)
{
	gmem_conversion_free(&self->t);
	expect_kept_by_pool(&self->ledger, variant->flag, self->pfn);
}

/* All of the guest's memory but one page is what it was. */
static void guest_expect_others(struct gmem_conversion *t, u64 bad, u64 nr)
{
	guest_expect(t, 0, bad);
	guest_expect(t, bad + 1, nr - bad - 1);
}

/* The last thing that the guest does: it can't go on. */
static void guest_loses(struct gmem_conversion *t, u64 bad)
{
	typeof(gmem_pieces_todo) todo = { bad, 1, false };
	int r;

	write_guest_global(t->vm, gmem_pieces_todo, todo);
	r = __vcpu_run(t->vcpu);
	TEST_ASSERT(r == -1 && errno == EHWPOISON,
		    "Expected EHWPOISON for page %lu, got %d (%s)", bad, r, strerror(errno));
}

static void expect_split_around(struct gmem_conversion *t, u64 bad)
{
	const struct gmem_run run = { bad, 1 };

	expect_pieces(t, 1, &run, 1);
}

TEST_F_TIMEOUT(gmem_poison, whole, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;
	u64 bad = self->nr / 2 + 3;

	write_pfn(INJECT_PATH, self->pfn + bad);
	expect_split_around(t, bad);
	guest_expect_others(t, bad, self->nr);

	/* What is beside it converts, and merges as far as it can. */
	to_shared(t, bad - 1, 3);
	host_expect_page(t, bad - 1);
	host_expect_page(t, bad + 1);
	host_faults(t, bad);
	to_private(t, bad - 1, 3);
	expect_split_around(t, bad);
	guest_expect_others(t, bad, self->nr);
	guest_loses(t, bad);
}

/* The error is in a piece whose struct page is read-only with HVO. */
TEST_F_TIMEOUT(gmem_poison, large_piece, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;
	u64 bad = self->nr - 7;

	to_shared(t, 1, 1);
	write_pfn(INJECT_PATH, self->pfn + bad);
	to_private(t, 1, 1);
	expect_split_around(t, bad);
	guest_expect_others(t, bad, self->nr);
	guest_loses(t, bad);
}

static void ignore_sigbus(int signum)
{
}

/* Mapped by the host, which learns of it by a signal. */
static void inject_into_mapping(struct gmem_conversion *t, u64 pgoff)
{
	struct sigaction old, new = { .sa_handler = ignore_sigbus };
	int r;

	sigaction(SIGBUS, &new, &old);
	r = madvise(t->mem + pgoff * PAGE_SIZE, PAGE_SIZE, MADV_HWPOISON);
	sigaction(SIGBUS, &old, NULL);
	TEST_ASSERT(!r, "MADV_HWPOISON failed: %s", strerror(errno));
}

TEST_F_TIMEOUT(gmem_poison, shared, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;
	u64 bad = 2;

	to_shared(t, 0, 4);
	host_expect(t, 0, 4);
	inject_into_mapping(t, bad);
	host_faults(t, bad);
	host_expect_page(t, bad - 1);
	host_expect_page(t, bad + 1);
	guest_expect_others(t, bad, self->nr);

	to_private(t, 0, 4);
	expect_split_around(t, bad);
	guest_expect_others(t, bad, self->nr);
	guest_loses(t, bad);
}

/* With a new page in its place nobody remembers the error. */
TEST_F_TIMEOUT(gmem_poison, punch_hole, PIECES_TIMEOUT)
{
	struct gmem_conversion *t = &self->t;

	to_shared(t, 0, 4);
	host_expect(t, 0, 4);
	inject_into_mapping(t, 1);
	host_faults(t, 1);

	kvm_fallocate(t->fd, PUNCH, 0, t->size);
	host_access(t, 1, 0, 'a');
	to_private(t, 0, 4);
	expect_whole(t, 1);
	guest_fill(t, 0, self->nr);
	guest_expect(t, 0, self->nr);
}

/* Touch a page in each 2M of the first half of a huge page, which splits it there. */
static void *touch_first_half(void *data)
{
	struct gmem_conversion *t = data;
	u64 pgoff;

	for (pgoff = BLOCK_NR; pgoff < SZ_512M / PAGE_SIZE; pgoff += BLOCK_NR)
		host_access(t, pgoff, 0, 'a');
	return NULL;
}

FIXTURE(gmem_errors)
{
	struct gmem_conversion t;
	struct hugetlb_ledger ledger;
	u64 pfn;
};

/* A page of 1G that the host may touch, and hasn't yet but for the beginning. */
FIXTURE_SETUP(gmem_errors)
{
	if (access(INJECT_PATH, W_OK) || !hugetlb_pool_exists(SZ_1G) ||
	    hugetlb_pool_grow(SZ_1G, 1) < 1)
		SKIP(return, "No " INJECT_PATH ", or no page of 1G in the pool");

	self->ledger.page_size = SZ_1G;
	self->ledger.base = hugetlb_pool_read(SZ_1G);
	gmem_conversion_init(&self->t, SZ_1G, GUEST_MEMFD_FLAG_HUGETLB_1G | GMEM_MMAP_SHARED,
			     NULL);
	host_access(&self->t, 0, 0, 'a');
	self->pfn = pfn_of(self->t.mem);
}

FIXTURE_TEARDOWN(gmem_errors)
{
	gmem_conversion_free(&self->t);
	expect_kept_by_pool(&self->ledger, GUEST_MEMFD_FLAG_HUGETLB_1G, self->pfn);
}

/*
 * While errors are being handled the rest of the huge page is still one folio with
 * them.  Nobody gets a SIGBUS, which would end the test, for healthy pages of it.
 */
TEST_F_TIMEOUT(gmem_errors, while_host_touches, PIECES_TIMEOUT)
{
	const u64 nr = SZ_1G / PAGE_SIZE;
	pthread_t thread;
	int i;

	kvm_pthread_create(&thread, NULL, touch_first_half, &self->t);
	for (i = 1; i <= NR_ERRORS; i++)
		write_pfn(INJECT_PATH, self->pfn + nr - i * BLOCK_NR);
	kvm_pthread_join(thread, NULL);

	host_access(&self->t, nr - BLOCK_NR + 1, 0, 'a');
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());
	TEST_REQUIRE(host_has_pagemap());

	return test_harness_run(argc, argv);
}
