// SPDX-License-Identifier: GPL-2.0-only
/*
 * The HugeTLB pool of one page size, as user space sees and sets it.
 */
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/memfd.h>
#include <linux/sizes.h>
#include <sys/mman.h>

#include "hugetlb_pool.h"
#include "kvm_syscalls.h"
#include "numaif.h"
#include "test_util.h"

/* How often to try to get pages that can't be had. */
#define RESTORE_TRIES	10

#define HVO_PATH	"/proc/sys/vm/hugetlb_optimize_vmemmap"

/* @node is a node's number, or -1 for the files of the whole host. */
static void pool_path(char *path, size_t page_size, int node, const char *name)
{
	char dir[64] = "/sys/kernel/mm";

	if (node >= 0)
		snprintf(dir, sizeof(dir), "/sys/devices/system/node/node%d", node);

	snprintf(path, PATH_MAX, "%s/hugepages/hugepages-%lukB/%s", dir,
		 page_size / 1024, name);
}

static long pool_get(size_t page_size, int node, const char *name)
{
	char path[PATH_MAX];
	long val = 0;
	FILE *f;

	pool_path(path, page_size, node, name);
	f = fopen(path, "r");

	/* Not all node numbers need to exist, and a node needs no memory. */
	if (!f && node >= 0)
		return 0;

	TEST_ASSERT(f, "Error opening '%s'", path);
	TEST_ASSERT(fscanf(f, "%ld", &val) == 1, "Error reading '%s'", path);
	fclose(f);
	return val;
}

static bool write_number(const char *path, long val)
{
	char buf[32];
	int fd, len, r;

	fd = open(path, O_WRONLY);
	if (fd < 0)
		return false;

	len = snprintf(buf, sizeof(buf), "%ld", val);
	r = write(fd, buf, len);
	close(fd);
	return r == len;
}

/* False if the kernel refuses, e.g. because 1G pages come at boot only. */
static bool pool_set(size_t page_size, int node, const char *name, long val)
{
	char path[PATH_MAX];

	pool_path(path, page_size, node, name);
	return write_number(path, val);
}

bool hugetlb_pool_exists(size_t page_size)
{
	char path[PATH_MAX];

	pool_path(path, page_size, -1, "nr_hugepages");
	return !access(path, R_OK);
}

struct hugetlb_pool hugetlb_pool_read(size_t page_size)
{
	struct hugetlb_pool pool = {
		.total = pool_get(page_size, -1, "nr_hugepages"),
		.free = pool_get(page_size, -1, "free_hugepages"),
		.resv = pool_get(page_size, -1, "resv_hugepages"),
		.surplus = pool_get(page_size, -1, "surplus_hugepages"),
		.overcommit = pool_get(page_size, -1, "nr_overcommit_hugepages"),
		/* A kernel without CONFIG_NUMA knows of none. */
		.nr_nodes = access("/sys/devices/system/node", F_OK) ? 0 : get_max_numa_node() + 1,
	};
	int i;

	if (pool.nr_nodes > HUGETLB_POOL_MAX_NODES)
		pool.nr_nodes = HUGETLB_POOL_MAX_NODES;

	for (i = 0; i < pool.nr_nodes; i++) {
		pool.node[i].total = pool_get(page_size, i, "nr_hugepages");
		pool.node[i].free = pool_get(page_size, i, "free_hugepages");
		pool.node[i].surplus = pool_get(page_size, i, "surplus_hugepages");
	}
	return pool;
}

long hugetlb_pool_available(size_t page_size)
{
	return pool_get(page_size, -1, "free_hugepages") -
	       pool_get(page_size, -1, "resv_hugepages");
}

long hugetlb_pool_grow(size_t page_size, long nr)
{
	long available = hugetlb_pool_available(page_size);

	if (available < nr)
		hugetlb_pool_set_total(page_size, nr - available +
				       pool_get(page_size, -1, "nr_hugepages"));

	return hugetlb_pool_available(page_size);
}

bool hugetlb_pool_set_total(size_t page_size, long total)
{
	return pool_set(page_size, -1, "nr_hugepages", total);
}

bool hugetlb_pool_set_overcommit(size_t page_size, long overcommit)
{
	return pool_set(page_size, -1, "nr_overcommit_hugepages", overcommit);
}

bool hugetlb_pool_can_demote(size_t page_size)
{
	char path[PATH_MAX];

	pool_path(path, page_size, -1, "demote");
	return !access(path, W_OK);
}

void hugetlb_pool_demote(size_t page_size, int node, long nr)
{
	char path[PATH_MAX];
	FILE *f;

	pool_path(path, page_size, node, "demote");
	f = fopen(path, "w");
	if (!f && node >= 0)
		return;

	TEST_ASSERT(f, "Error opening '%s'", path);
	/* EBUSY says that there was nothing to split. */
	fprintf(f, "%ld", nr);
	fclose(f);
}

static void restore_nodes(size_t page_size, const struct hugetlb_pool *saved)
{
	struct hugetlb_pool now = hugetlb_pool_read(page_size);
	int i;

	if (!saved->nr_nodes)
		hugetlb_pool_set_total(page_size, saved->total);

	for (i = 0; i < saved->nr_nodes; i++)
		if (now.node[i].total != saved->node[i].total)
			pool_set(page_size, i, "nr_hugepages", saved->node[i].total);
}

void hugetlb_pool_restore(size_t page_size, const struct hugetlb_pool *saved)
{
	int tries = RESTORE_TRIES;

	if (hugetlb_pool_read(page_size).overcommit != saved->overcommit)
		hugetlb_pool_set_overcommit(page_size, saved->overcommit);

	restore_nodes(page_size, saved);

	/* The kernel may have put something there that it can do without. */
	while (hugetlb_pool_read(page_size).total < saved->total && --tries) {
		write_number("/proc/sys/vm/drop_caches", 3);
		usleep(100000);
		restore_nodes(page_size, saved);
	}
}

bool hugetlb_pool_has_hvo(void)
{
	FILE *f = fopen(HVO_PATH, "r");
	int val = 0;

	if (!f)
		return false;
	TEST_ASSERT(fscanf(f, "%d", &val) == 1, "Error reading '%s'", HVO_PATH);
	fclose(f);
	return val;
}

bool hugetlb_pool_set_hvo(bool on)
{
	const size_t sizes[] = { SZ_2M, SZ_1G };
	struct hugetlb_pool pool;
	int i;

	if (hugetlb_pool_has_hvo() == on)
		return true;
	if (!write_number(HVO_PATH, on))
		return false;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (!hugetlb_pool_exists(sizes[i]))
			continue;
		pool = hugetlb_pool_read(sizes[i]);
		hugetlb_pool_set_total(sizes[i], 0);
		hugetlb_pool_restore(sizes[i], &pool);
	}
	return true;
}

int hugetlb_pool_memfd(size_t page_size, long nr_pages)
{
	int log2_size = __builtin_ctzl(page_size);
	int fd;

	fd = memfd_create("hugetlb_pool", MFD_HUGETLB | log2_size << MFD_HUGE_SHIFT);
	TEST_ASSERT(fd >= 0, __KVM_SYSCALL_ERROR("memfd_create()", fd));

	kvm_ftruncate(fd, nr_pages * page_size);
	return fd;
}
