// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that what the kernel keeps about private and shared pages is charged to the
 * memory cgroup of the caller.  It takes no memory in the file to make it grow, and
 * a file can be as large as one likes.
 */
#include <limits.h>
#include <stdio.h>

#include "cgroup_util.h"
#include "gmem_conversion.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "test_util.h"

#define FILE_SIZE	BIT_ULL(40)

/* Every second page is converted, and the tree has 16 entries in 256 bytes at best. */
#define NR_RUNS		16384
#define MIN_CHARGE	(NR_RUNS / 16 * 256)

/* The kernel keeps some of what is freed, and charges in batches. */
#define SLACK		(MIN_CHARGE / 4)

/* In seconds: RCU has freed what it had to, and the statistics are up to date. */
#define SETTLED		5

FIXTURE(gmem_memcg)
{
	struct gmem_conversion t;
	char root[PATH_MAX], *cgroup;
	int fd;
};

FIXTURE_SETUP(gmem_memcg)
{
	char name[32];

	if (cg_find_unified_root(self->root, sizeof(self->root), NULL) ||
	    cg_write(self->root, "cgroup.subtree_control", "+memory"))
		SKIP(return, "No memory cgroup to be had");

	gmem_conversion_init(&self->t, 16 * PAGE_SIZE, GMEM_MMAP_PRIVATE, NULL);
	snprintf(name, sizeof(name), "guest_memfd-%d", getpid());
	self->cgroup = cg_name(self->root, name);
	ASSERT_EQ(0, cg_create(self->cgroup));
	ASSERT_EQ(0, cg_enter_current(self->cgroup));
	self->fd = vm_create_guest_memfd(self->t.vm, FILE_SIZE, GMEM_MMAP_PRIVATE);
}

FIXTURE_TEARDOWN(gmem_memcg)
{
	gmem_conversion_free(&self->t);
	EXPECT_EQ(0, cg_enter_current(self->root));
	EXPECT_EQ(0, cg_destroy(self->cgroup));
	free(self->cgroup);
}

static long slab_charged(const char *cgroup)
{
	long val = cg_read_key_long(cgroup, "memory.stat", "slab_unreclaimable ");

	TEST_ASSERT(val >= 0, "Expected slab_unreclaimable in memory.stat of %s", cgroup);
	return val;
}

/* Freed memory is uncharged late. */
static void expect_uncharged(const char *cgroup, long before)
{
	int i;

	for (i = 0; i < 100 && slab_charged(cgroup) > before + SLACK; i++)
		usleep(100000);
	TEST_ASSERT(slab_charged(cgroup) <= before + SLACK,
		    "Expected at most %ld bytes to be charged, found %ld",
		    before + SLACK, slab_charged(cgroup));
}

static void share_every_second_page(int fd, u64 first)
{
	u64 i;

	for (i = first; i < NR_RUNS; i += 2)
		gmem_set_shared(fd, i * PAGE_SIZE, PAGE_SIZE);
}

TEST_F_TIMEOUT(gmem_memcg, attributes_are_charged, 120)
{
	long before = slab_charged(self->cgroup);

	share_every_second_page(self->fd, 0);

	/* What is freed, but not yet, doesn't count. */
	sleep(SETTLED);
	EXPECT_LE(before + MIN_CHARGE, slab_charged(self->cgroup));

	/* One run again. */
	gmem_set_private(self->fd, 0, FILE_SIZE);
	expect_uncharged(self->cgroup, before);
	kvm_close(self->fd);
}

/* Neighbours that are equal are one entry, however they became it. */
TEST_F_TIMEOUT(gmem_memcg, neighbours_are_merged, 120)
{
	long before = slab_charged(self->cgroup);

	share_every_second_page(self->fd, 0);
	sleep(SETTLED);
	EXPECT_LE(before + MIN_CHARGE, slab_charged(self->cgroup));

	share_every_second_page(self->fd, 1);
	expect_uncharged(self->cgroup, before);
	kvm_close(self->fd);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	return test_harness_run(argc, argv);
}
