// SPDX-License-Identifier: GPL-2.0-only
/*
 * Double-entry bookkeeping of a test's HugeTLB pages.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/kernel.h>
#include <linux/sizes.h>
#include <sys/mount.h>

#include "cgroup_util.h"
#include "hugetlb_ledger.h"
#include "test_util.h"

/* The pools as they were before any test. */
static struct {
	size_t page_size;
	struct hugetlb_pool original;
} pools[] = {
	{ SZ_2M },
	{ SZ_1G },
};

static bool original_hvo;

/* Where cgroup v2 is, or "" if it can't charge huge pages. */
static char cgroup_root[PATH_MAX];
/* The mount that is ours to take away, or "". */
static char own_mount[32];

/* The process that put things up and has to take them down. */
static pid_t owner;

static void mount_cgroups(void)
{
	strcpy(own_mount, "/tmp/cgroup.XXXXXX");
	if (!mkdtemp(own_mount)) {
		own_mount[0] = '\0';
	} else if (mount("none", own_mount, "cgroup2", 0, NULL)) {
		rmdir(own_mount);
		own_mount[0] = '\0';
	}
	strcpy(cgroup_root, own_mount);
}

static void init_cgroups(void)
{
	if (cg_find_unified_root(cgroup_root, sizeof(cgroup_root), NULL))
		mount_cgroups();

	if (!cgroup_root[0])
		return;

	if (cg_read_strstr(cgroup_root, "cgroup.controllers", "hugetlb") ||
	    cg_write(cgroup_root, "cgroup.subtree_control", "+hugetlb"))
		cgroup_root[0] = '\0';
}

static void clean_up(void)
{
	/* Tests run in children, and some exit where they fail. */
	if (getpid() != owner)
		return;

	hugetlb_pool_set_hvo(original_hvo);
	hugetlb_ledger_restore_pools();
	if (own_mount[0] && !umount(own_mount))
		rmdir(own_mount);
}

void hugetlb_ledger_save_pools(void)
{
	int i;

	owner = getpid();
	atexit(clean_up);

	for (i = 0; i < ARRAY_SIZE(pools); i++)
		if (hugetlb_pool_exists(pools[i].page_size))
			pools[i].original = hugetlb_pool_read(pools[i].page_size);
	original_hvo = hugetlb_pool_has_hvo();
}

void hugetlb_ledger_init(void)
{
	hugetlb_ledger_save_pools();
	init_cgroups();
}

void hugetlb_ledger_restore_pools(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(pools); i++)
		if (hugetlb_pool_exists(pools[i].page_size))
			hugetlb_pool_restore(pools[i].page_size, &pools[i].original);
}

void hugetlb_ledger_open(struct hugetlb_ledger *ledger, size_t page_size)
{
	ledger->page_size = page_size;

	if (cgroup_root[0]) {
		snprintf(ledger->cgroup, sizeof(ledger->cgroup), "%.*s/hugetlb_ledger.%d",
			 PATH_MAX - 64, cgroup_root, getpid());
		TEST_ASSERT(!cg_create(ledger->cgroup) && !cg_enter_current(ledger->cgroup),
			    "Can't make and enter cgroup '%s'", ledger->cgroup);
	}

	ledger->base = hugetlb_pool_read(page_size);
}

void hugetlb_ledger_close(struct hugetlb_ledger *ledger)
{
	if (ledger->cgroup[0])
		TEST_ASSERT(!cg_destroy(ledger->cgroup), "Can't remove cgroup '%s'",
			    ledger->cgroup);

	hugetlb_ledger_restore_pools();
}

static void cgroup_file(char *file, size_t len, size_t page_size, const char *name)
{
	snprintf(file, len, "hugetlb.%s.%s", page_size == SZ_1G ? "1GB" : "2MB", name);
}

void hugetlb_ledger_set_limit(const struct hugetlb_ledger *ledger,
			      const char *name, long val)
{
	char file[64];

	cgroup_file(file, sizeof(file), ledger->page_size, name);
	TEST_ASSERT(!cg_write_numeric(ledger->cgroup, file, val),
		    "Can't set '%s' of the cgroup to %ld", file, val);
}

static long cgroup_pages(const struct hugetlb_ledger *ledger, const char *name)
{
	char file[64];

	cgroup_file(file, sizeof(file), ledger->page_size, name);
	return cg_read_long(ledger->cgroup, file) / (long)ledger->page_size;
}

static void compare(char *diff, size_t len, const char *what, long wanted, long is)
{
	size_t used = strlen(diff);

	if (wanted != is)
		snprintf(diff + used, len - used, "%s%s: %ld, not %ld",
			 used ? "; " : "", what, is, wanted);
}

const char *hugetlb_ledger_diff(const struct hugetlb_ledger *ledger, long held,
				long allocated)
{
	struct hugetlb_pool now = hugetlb_pool_read(ledger->page_size);
	const struct hugetlb_pool *base = &ledger->base;
	static char diff[1024];
	long node_free = 0;
	int i;

	diff[0] = '\0';
#define COMPARE(what, wanted, is)	compare(diff, sizeof(diff), what, wanted, is)
	COMPARE("free", base->free - allocated, now.free);
	COMPARE("reserved", base->resv + held - allocated, now.resv);
	COMPARE("total", base->total, now.total);
	COMPARE("surplus", base->surplus, now.surplus);

	for (i = 0; i < now.nr_nodes; i++) {
		node_free += now.node[i].free;
		COMPARE("total of a node", base->node[i].total, now.node[i].total);
		COMPARE("surplus of a node", base->node[i].surplus, now.node[i].surplus);
		if (!allocated)
			COMPARE("free on a node", base->node[i].free, now.node[i].free);
	}
	if (now.nr_nodes)
		COMPARE("free on all nodes", now.free, node_free);

	if (ledger->cgroup[0]) {
		COMPARE("usage of the cgroup", allocated, cgroup_pages(ledger, "current"));
		COMPARE("reserved by the cgroup", held, cgroup_pages(ledger, "rsvd.current"));
	}
#undef COMPARE

	return diff[0] ? diff : NULL;
}
