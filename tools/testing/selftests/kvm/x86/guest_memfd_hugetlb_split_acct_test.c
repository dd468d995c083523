// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test that a HugeTLB page of guest_memfd counts as one huge page of its node and of
 * its cgroups, whatever it is split into, until it is the pool's again: with memory
 * policies, in the pool's and the nodes' counters, for the hugetlb cgroup and, if
 * cgroup2 is or can be mounted with memory_hugetlb_accounting, for the memory cgroup.
 *
 * Every case ends with the pool as it began, which is checked after its process is
 * gone.
 */
#include <mntent.h>
#include <stdio.h>
#include <sys/mount.h>

#include "cgroup_util.h"
#include "gmem_pieces.h"
#include "gmem_test.h"
#include "kselftest_harness.h"
#include "numaif.h"

#define MAXNODE		8

#define TEST_ACCT(name)	TEST_F_TIMEOUT(gmem_acct, name, PIECES_TIMEOUT)

static const unsigned long node0 = BIT(0), node1 = BIT(1), both_nodes = BIT(0) | BIT(1);

/* Pages of 4K that are HugeTLB's, by node. */
struct node_pages {
	u64 nr[2];
};

FIXTURE(gmem_acct)
{
	struct hugetlb_ledger ledger;
	struct gmem_conversion t;
	struct node_pages base;
};

FIXTURE_VARIANT(gmem_acct)
{
	size_t page_size;
	u64 flag;
};

FIXTURE_VARIANT_ADD(gmem_acct, 2M)
{
	.page_size = SZ_2M,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_2M,
};

FIXTURE_VARIANT_ADD(gmem_acct, 1G)
{
	.page_size = SZ_1G,
	.flag = GUEST_MEMFD_FLAG_HUGETLB_1G,
};

/* Pages of 4K in a huge page. */
#define NR	(variant->page_size / PAGE_SIZE)

static struct node_pages node_pages(void)
{
	struct node_pages pages = {};
	char path[64], text[16384];
	const char *p;
	int i;

	for (i = 0; i < ARRAY_SIZE(pages.nr); i++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/vmstat", i);
		if (access(path, R_OK))
			continue;
		read_file(path, text, sizeof(text));
		p = strstr(text, "nr_hugetlb ");
		TEST_ASSERT(p, "Expected nr_hugetlb in %s", path);
		pages.nr[i] = strtoul(p + strlen("nr_hugetlb "), NULL, 10);
	}
	return pages;
}

FIXTURE_SETUP(gmem_acct)
{
	if (!hugetlb_pool_exists(variant->page_size) ||
	    hugetlb_pool_grow(variant->page_size, 2) < 2)
		SKIP(return, "The pool hasn't got two pages of %zu bytes", variant->page_size);

	hugetlb_ledger_open(&self->ledger, variant->page_size);
	self->base = node_pages();
}

FIXTURE_TEARDOWN_PARENT(gmem_acct)
{
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	hugetlb_ledger_close(&self->ledger);
}

/* Test bodies know self and variant; so do these.  The file has two huge pages. */
#define open_file(flags)	\
	gmem_pieces_init(&self->t, 2 * variant->page_size, variant->flag | (flags))
#define EXPECT_LEDGER(held, allocated)	\
	EXPECT_BALANCE(&self->ledger, held, allocated)

/* How many huge pages each node has given. */
#define EXPECT_NODES(from_0, from_1)	\
	expect_nodes(&self->ledger, &self->base, from_0, from_1)

static void expect_nodes(const struct hugetlb_ledger *ledger, const struct node_pages *base,
			 long from_0, long from_1)
{
	const long from[] = { from_0, from_1 };
	struct hugetlb_pool pool = hugetlb_pool_read(ledger->page_size);
	struct node_pages pages = node_pages();
	u64 nr = ledger->page_size / PAGE_SIZE;
	int i;

	for (i = 0; i < ARRAY_SIZE(from); i++) {
		TEST_ASSERT(pool.node[i].free == ledger->base.node[i].free - from[i],
			    "Expected %ld pages from node %d, which has %ld of %ld", from[i], i,
			    pool.node[i].free, ledger->base.node[i].free);
		TEST_ASSERT(pages.nr[i] == base->nr[i] + from[i] * nr,
			    "Expected nr_hugetlb of node %d to be %lu more than %lu, is %lu", i,
			    from[i] * nr, base->nr[i], pages.nr[i]);
	}
}

static bool has_two_nodes(const struct hugetlb_ledger *ledger)
{
	return ledger->base.node[0].free && ledger->base.node[1].free;
}

/* The host can ask for the node of what it may access. */
static int node_of(struct gmem_conversion *t, u64 pgoff)
{
	int node = -1;

	kvm_get_mempolicy(&node, NULL, 0, t->mem + pgoff * PAGE_SIZE,
			  MPOL_F_NODE | MPOL_F_ADDR);
	return node;
}

/* From the first touch to the end, a huge page is where it was bound to. */
TEST_ACCT(bound)
{
	struct gmem_conversion *t = &self->t;

	if (!has_two_nodes(&self->ledger))
		SKIP(return, "There are no two nodes with free pages");

	open_file(GMEM_MMAP_SHARED);
	kvm_mbind(t->mem, variant->page_size, MPOL_BIND, &node1, MAXNODE, 0);
	kvm_mbind(t->mem + variant->page_size, variant->page_size, MPOL_BIND, &node0,
		  MAXNODE, 0);

	/* The host touches the one in the middle, the guest the other. */
	WRITE_ONCE(*(u64 *)(t->mem + NR / 2 * PAGE_SIZE), PAGE_VAL(NR / 2));
	EXPECT_NODES(0, 1);
	guest_fill(t, NR, NR);
	EXPECT_NODES(1, 1);
	guest_fill(t, 0, NR);

	EXPECT_EQ(1, node_of(t, 0));
	EXPECT_EQ(1, node_of(t, NR - 1));
	EXPECT_EQ(0, node_of(t, NR));
	EXPECT_EQ(0, node_of(t, 2 * NR - 1));
	EXPECT_NODES(1, 1);

	to_private(t, 0, 2 * NR);
	expect_whole(t, 2);
	EXPECT_NODES(1, 1);
	to_shared(t, NR - 1, 2);
	expect_pieces(t, 2, &(struct gmem_run) { NR - 1, 2 }, 1);
	EXPECT_EQ(1, node_of(t, NR - 1));
	EXPECT_EQ(0, node_of(t, NR));
	EXPECT_NODES(1, 1);
	guest_expect(t, 0, 2 * NR);

	/* Back where it came from, split or not; and the policy is still there. */
	kvm_fallocate(t->fd, PUNCH, 0, variant->page_size);
	EXPECT_NODES(1, 0);
	EXPECT_EQ(1, node_of(t, NR - 1));
	EXPECT_NODES(1, 1);
	gmem_conversion_free(t);
	EXPECT_NODES(0, 0);
}

/* The policy of its first 4K is a huge page's, whatever of it is touched first. */
TEST_ACCT(bound_by_first_index)
{
	struct gmem_conversion *t = &self->t;

	if (!has_two_nodes(&self->ledger))
		SKIP(return, "There are no two nodes with free pages");

	open_file(GMEM_MMAP_SHARED);
	kvm_mbind(t->mem, t->size, MPOL_BIND, &node0, MAXNODE, 0);
	kvm_mbind(t->mem + variant->page_size, PAGE_SIZE, MPOL_BIND, &node1, MAXNODE, 0);

	EXPECT_EQ(1, node_of(t, 2 * NR - 1));
	EXPECT_NODES(0, 1);
	EXPECT_EQ(0, node_of(t, NR - 1));
	EXPECT_NODES(1, 1);
	to_private(t, 0, 2 * NR);
	EXPECT_NODES(1, 1);
}

/* Interleaving counts huge pages, however many pages of one are touched. */
TEST_ACCT(interleaved)
{
	struct gmem_conversion *t = &self->t;
	int node;
	u64 i;

	if (!has_two_nodes(&self->ledger))
		SKIP(return, "There are no two nodes with free pages");

	open_file(GMEM_MMAP_SHARED);
	kvm_mbind(t->mem, t->size, MPOL_INTERLEAVE, &both_nodes, MAXNODE, 0);

	node = node_of(t, NR / 2);
	for (i = 0; i < NR; i += NR / 64 + 1)
		EXPECT_EQ(node, node_of(t, i));
	EXPECT_NODES(node == 0, node == 1);
	for (i = NR; i < 2 * NR; i += NR / 64 + 1)
		EXPECT_EQ(!node, node_of(t, i));
	EXPECT_NODES(1, 1);
	to_private(t, 0, 2 * NR);
	EXPECT_NODES(1, 1);
}

/* For the pool and the hugetlb cgroup, a split page is a page. */
TEST_ACCT(pool_and_cgroup)
{
	struct gmem_conversion *t = &self->t;
	int pin;

	if (!host_can_pin())
		SKIP(return, "Can't pin memory for lack of gup_test");

	open_file(GMEM_MMAP_PRIVATE);
	EXPECT_LEDGER(2, 0);
	to_shared(t, NR - 5, 10);
	EXPECT_LEDGER(2, 0);
	guest_fill(t, 0, 2 * NR);
	EXPECT_LEDGER(2, 2);
	host_expect(t, NR - 5, 10);
	expect_pieces(t, 2, &(struct gmem_run) { NR - 5, 10 }, 1);
	EXPECT_LEDGER(2, 2);
	to_private(t, 0, 2 * NR);
	expect_whole(t, 2);
	EXPECT_LEDGER(2, 2);

	to_shared(t, NR - 1, 2);
	kvm_fallocate(t->fd, PUNCH, 0, variant->page_size);
	EXPECT_LEDGER(2, 1);
	host_expect(t, NR, 1);
	pin = host_pin(t, NR, 1);
	gmem_conversion_free(t);
	EXPECT_LEDGER(2, 1);
	host_unpin(pin);
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
}

/* Below the cgroup of the ledger, whose counters include it. */
static char *enter_child_cgroup(struct hugetlb_ledger *ledger, const char *root)
{
	char *child = cg_name(ledger->cgroup, "child");

	/* There are no processes where there are controllers for children. */
	TEST_ASSERT(!cg_enter_current(root) &&
		    !cg_write(ledger->cgroup, "cgroup.subtree_control", "+hugetlb") &&
		    !cg_create(child) && !cg_enter_current(child),
		    "Can't make and enter '%s'", child);
	return child;
}

/* What a cgroup leaves behind is its parent's, also what is split at that time. */
TEST_ACCT(cgroup_removed)
{
	struct gmem_conversion *t = &self->t;
	char root[PATH_MAX], *child;

	if (!self->ledger.cgroup[0] || cg_find_unified_root(root, sizeof(root), NULL))
		SKIP(return, "No cgroup v2 hierarchy with a hugetlb controller");

	child = enter_child_cgroup(&self->ledger, root);
	open_file(GMEM_MMAP_PRIVATE);
	guest_fill(t, 0, 2 * NR);
	to_shared(t, 5, 1);
	EXPECT_LEDGER(2, 2);

	ASSERT_EQ(0, cg_enter_current(root));
	ASSERT_EQ(0, cg_destroy(child));
	/* The kernel takes its time to remove it. */
	sleep(1);
	EXPECT_LEDGER(2, 2);

	to_private(t, 5, 1);
	expect_whole(t, 2);
	to_shared(t, NR, 1);
	EXPECT_LEDGER(2, 2);
	guest_expect(t, 0, 2 * NR);
	gmem_conversion_free(t);
	EXPECT_BALANCE_SOON(&self->ledger, 0, 0);
	free(child);
}

#define ACCOUNTING	"memory_hugetlb_accounting"

/* Had cgroup2 to be told to charge huge pages, and where? */
static struct {
	char root[PATH_MAX];
	bool remounted;
	pid_t owner;
} memcg;

static void stop_accounting(void)
{
	if (memcg.remounted && getpid() == memcg.owner)
		mount(NULL, memcg.root, NULL, MS_REMOUNT, NULL);
}

/* Doesn't touch a mount that has options which it would lose. */
static bool start_accounting(void)
{
	FILE *mounts = setmntent("/proc/self/mounts", "r");
	struct mntent *m = NULL;

	while (mounts && (m = getmntent(mounts)) && strcmp(m->mnt_type, "cgroup2"))
		;
	if (!m)
		return false;

	snprintf(memcg.root, sizeof(memcg.root), "%s", m->mnt_dir);
	if (!hasmntopt(m, ACCOUNTING) && !strcmp(m->mnt_opts, "rw,relatime"))
		memcg.remounted = !mount(NULL, memcg.root, NULL, MS_REMOUNT, ACCOUNTING);
	memcg.owner = getpid();
	atexit(stop_accounting);
	return memcg.remounted || hasmntopt(m, ACCOUNTING);
}

static bool charges_memcg;

/* The statistics take a moment to be up to date. */
static void expect_charged(const char *cgroup, size_t bytes)
{
	long charged = cg_read_key_long_poll(cgroup, "memory.stat", "hugetlb ", bytes,
					     GMEM_PATIENCE * 10, DEFAULT_WAIT_INTERVAL_US);

	TEST_ASSERT(charged == bytes, "Expected %zu bytes of huge pages to be charged, found %ld",
		    bytes, charged);
	TEST_ASSERT(cg_read_long(cgroup, "memory.current") >= (long)bytes,
		    "Expected at least %zu bytes in memory.current", bytes);
}

TEST_ACCT(memory_cgroup)
{
	struct gmem_conversion *t = &self->t;
	const size_t size = variant->page_size;
	const char *cgroup = self->ledger.cgroup;
	int pin;

	if (!charges_memcg || !cgroup[0])
		SKIP(return, "No cgroup2 mount with " ACCOUNTING);
	if (!host_can_pin())
		SKIP(return, "Can't pin memory for lack of gup_test");

	open_file(GMEM_MMAP_PRIVATE);
	expect_charged(cgroup, 0);
	guest_fill(t, 0, 2 * NR);
	expect_charged(cgroup, 2 * size);
	to_shared(t, NR - 5, 10);
	host_expect(t, NR - 5, 10);
	expect_charged(cgroup, 2 * size);
	to_private(t, 0, NR);
	expect_charged(cgroup, 2 * size);
	kvm_fallocate(t->fd, PUNCH, 0, size);
	expect_charged(cgroup, size);

	/* As long as somebody has a part of the page, it is not free. */
	pin = host_pin(t, NR, 1);
	gmem_conversion_free(t);
	sleep(1);
	expect_charged(cgroup, size);
	host_unpin(pin);
	expect_charged(cgroup, 0);
	EXPECT_LE(cg_read_long(cgroup, "memory.current"), size / 2);
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(gmem_conversion_supported());

	hugetlb_ledger_init();
	charges_memcg = start_accounting() &&
			!cg_write(memcg.root, "cgroup.subtree_control", "+memory");
	return test_harness_run(argc, argv);
}
