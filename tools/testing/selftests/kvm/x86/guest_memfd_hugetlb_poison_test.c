// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test memory errors in HugeTLB pages of a guest_memfd: whether the page is whole or
 * split, private or shared, the guest loses 4K; all else keeps working and converting.
 * The pool gets the huge page back, and doesn't hand it out again.
 */
#include <linux/falloc.h>
#include <pthread.h>
#include <sys/stat.h>

#include "gmem_conversion.h"
#include "gmem_pieces.h"
#include "hugetlb_pool.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define PUNCH		(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)
#define INJECT_PATH	"/sys/kernel/debug/hwpoison/corrupt-pfn"
#define UNPOISON_PATH	"/sys/kernel/debug/hwpoison/unpoison-pfn"

#define NR_ERRORS	20

struct toucher {
	struct gmem_conversion *t;
	u64 first, nr;
	bool stop;
};

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

/* Of a page that the host has mapped. */
static u64 read_pfn(struct gmem_conversion *t, u64 pgoff)
{
	u64 vpn = (unsigned long)t->mem / PAGE_SIZE + pgoff, entry;
	int fd = open(PAGEMAP_PATH, O_RDONLY);

	TEST_ASSERT(pread(fd, &entry, sizeof(entry), vpn * sizeof(entry)) == sizeof(entry),
		    "Can't read %s: %s", PAGEMAP_PATH, strerror(errno));
	kvm_close(fd);
	entry &= GENMASK_ULL(54, 0);
	TEST_ASSERT(entry, "Expected a page frame for page %lu", pgoff);
	return entry;
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
	self->pfn = read_pfn(&self->t, 0);
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

FIXTURE_TEARDOWN(gmem_poison)
{
	long available;

	gmem_conversion_free(&self->t);

	/* It comes back in pieces, and nobody gets it. */
	EXPECT_EQ(NULL, ledger_wait(&self->ledger, 0, 0));
	available = hugetlb_pool_available(variant->page_size);
	EXPECT_EQ(available - 1, count_obtainable(variant->page_size));
	EXPECT_TRUE(can_reserve(variant->page_size, variant->flag, available - 1));
	EXPECT_FALSE(can_reserve(variant->page_size, variant->flag, available));

	write_pfn(UNPOISON_PATH, self->pfn);
	EXPECT_EQ(available, count_obtainable(variant->page_size));
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

/* Touch pages of a huge page that is whole, and private, until told to stop. */
static void *toucher(void *data)
{
	struct toucher *touch = data;

	while (!READ_ONCE(touch->stop))
		guest_expect(touch->t, touch->first, touch->nr);
	return NULL;
}

/* While an error is being handled, too, only the page that has it is lost. */
TEST_F_TIMEOUT(gmem_poison, while_guest_runs, PIECES_TIMEOUT)
{
	struct toucher touch = { .t = &self->t, .first = 8, .nr = 64 };
	struct gmem_conversion *t = &self->t;
	pthread_t thread;
	int i;

	kvm_pthread_create(&thread, NULL, toucher, &touch);
	for (i = 0; i < NR_ERRORS; i++) {
		/* Have the guest fault on all of the huge page. */
		to_shared(t, 0, 1);
		to_private(t, 0, 1);
		write_pfn(INJECT_PATH, self->pfn + self->nr - 1 - i);
	}
	WRITE_ONCE(touch.stop, true);
	kvm_pthread_join(thread, NULL);
	guest_expect(t, 0, self->nr - NR_ERRORS);
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

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());
	TEST_REQUIRE(host_has_pagemap());

	return test_harness_run(argc, argv);
}
