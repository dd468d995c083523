// SPDX-License-Identifier: GPL-2.0-only
/*
 * A hugetlbfs mount with a size limit counts the pages in use.  A page fault
 * that finds no huge page in the pool must leave that count alone: otherwise
 * the mount fills up with pages that do not exist, until it refuses pages
 * although it is empty.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <unistd.h>
#include "vm_util.h"
#include "hugepage_settings.h"

#define NR_PAGES	2

static sigjmp_buf sigbus_jmp;

static void handle_sigbus(int sig)
{
	siglongjmp(sigbus_jmp, 1);
}

/* Write to @ptr.  Return false if that raises SIGBUS. */
static bool try_touch(char *ptr)
{
	struct sigaction act = { .sa_handler = handle_sigbus }, old;
	bool failed;

	sigaction(SIGBUS, &act, &old);
	failed = sigsetjmp(sigbus_jmp, 1) != 0;
	if (!failed)
		*ptr = 1;
	sigaction(SIGBUS, &old, NULL);
	return !failed;
}

FIXTURE(hugetlb_subpool)
{
	unsigned long page_size;
	char dir[32];
	bool mounted;
	int fd;
	char *mem;
};

FIXTURE_VARIANT(hugetlb_subpool)
{
	int map_flags;
	/* Pages that the mount has reserved for itself. */
	int nr_min;
};

FIXTURE_VARIANT_ADD(hugetlb_subpool, shared)
{
	.map_flags = MAP_SHARED,
};

FIXTURE_VARIANT_ADD(hugetlb_subpool, private)
{
	.map_flags = MAP_PRIVATE,
};

FIXTURE_VARIANT_ADD(hugetlb_subpool, shared_min_size)
{
	.map_flags = MAP_SHARED,
	.nr_min = 1,
};

static long free_blocks(const char *dir)
{
	struct statfs st;

	return statfs(dir, &st) ? -1 : st.f_bfree;
}

/* Reserve whatever nobody else has reserved. */
static char *hog_pool(unsigned long page_size, unsigned long *len)
{
	unsigned long nr;
	char *mem;

	for (nr = hugetlb_free_pages(page_size); nr; nr--) {
		*len = nr * page_size;
		mem = mmap(NULL, *len, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
		if (mem != MAP_FAILED)
			return mem;
	}
	return NULL;
}

FIXTURE_SETUP(hugetlb_subpool)
{
	char options[128], path[64];

	if (geteuid())
		SKIP(return, "Mounting hugetlbfs needs root");

	self->page_size = default_huge_page_size();
	if (!hugetlb_setup_default(NR_PAGES))
		SKIP(return, "The pool doesn't have %d free pages", NR_PAGES);

	strcpy(self->dir, "/tmp/hugetlb.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	snprintf(options, sizeof(options), "pagesize=%lu,size=%lu,min_size=%lu",
		 self->page_size, NR_PAGES * self->page_size,
		 variant->nr_min * self->page_size);
	if (!variant->nr_min)
		*strstr(options, ",min_size") = '\0';
	ASSERT_EQ(0, mount("none", self->dir, "hugetlbfs", 0, options));
	self->mounted = true;

	snprintf(path, sizeof(path), "%s/file", self->dir);
	self->fd = open(path, O_CREAT | O_RDWR, 0600);
	ASSERT_LE(0, self->fd);
	self->mem = mmap(NULL, NR_PAGES * self->page_size, PROT_READ | PROT_WRITE,
			 variant->map_flags | MAP_NORESERVE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
}

FIXTURE_TEARDOWN(hugetlb_subpool)
{
	munmap(self->mem, NR_PAGES * self->page_size);
	close(self->fd);
	EXPECT_EQ(0, umount(self->dir));
	rmdir(self->dir);
	hugetlb_restore_settings();
}

TEST_F(hugetlb_subpool, failed_faults)
{
	char *last = self->mem + (NR_PAGES - 1) * self->page_size;
	unsigned long hog_len;
	long nr_free;
	char *hog;
	int i;

	hog = hog_pool(self->page_size, &hog_len);
	ASSERT_NE(NULL, hog);

	/* The mount's own reservation serves; then there is nothing left. */
	for (i = 0; i < variant->nr_min; i++) {
		ASSERT_TRUE(try_touch(self->mem + i * self->page_size))
			TH_LOG("reserved page %d", i);
	}

	nr_free = free_blocks(self->dir);
	EXPECT_EQ(NR_PAGES - variant->nr_min, nr_free);
	for (i = 0; i < 3; i++) {
		if (try_touch(last))
			SKIP(break, "The host gives surplus pages");
		EXPECT_EQ(nr_free, free_blocks(self->dir))
			TH_LOG("after %d failed faults", i + 1);
	}
	munmap(hog, hog_len);

	/* Now there are pages, and the mount has room for all of them. */
	for (i = 0; i < NR_PAGES; i++) {
		EXPECT_TRUE(try_touch(self->mem + i * self->page_size))
			TH_LOG("page %d", i);
	}
	EXPECT_EQ(0, free_blocks(self->dir));

	/* An empty mount is empty. */
	munmap(self->mem, NR_PAGES * self->page_size);
	EXPECT_EQ(0, ftruncate(self->fd, 0));
	EXPECT_EQ(NR_PAGES, free_blocks(self->dir));
}

TEST_HARNESS_MAIN
