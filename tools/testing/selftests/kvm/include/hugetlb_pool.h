/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The HugeTLB pool of one page size, as user space sees and sets it: the
 * counters in sysfs, of the host and of each node.
 */
#ifndef SELFTEST_KVM_HUGETLB_POOL_H
#define SELFTEST_KVM_HUGETLB_POOL_H

#include <stdbool.h>
#include <stddef.h>

#define HUGETLB_POOL_MAX_NODES	8

struct hugetlb_pool_node {
	long total;
	long free;
	long surplus;
};

struct hugetlb_pool {
	long total;
	long free;
	long resv;
	long surplus;
	long overcommit;
	int nr_nodes;
	struct hugetlb_pool_node node[HUGETLB_POOL_MAX_NODES];
};

bool hugetlb_pool_exists(size_t page_size);
struct hugetlb_pool hugetlb_pool_read(size_t page_size);

/* Pages that are free and that nobody has reserved. */
long hugetlb_pool_available(size_t page_size);

/*
 * Try to have at least @nr available pages.  Return how many there are: large
 * pages can rarely be had after boot.
 */
long hugetlb_pool_grow(size_t page_size, long nr);

/* False if the kernel refuses: some can't change the pool of 1G pages. */
bool hugetlb_pool_set_total(size_t page_size, long total);
bool hugetlb_pool_set_overcommit(size_t page_size, long overcommit);

/* Ask to split up to @nr pages of @node (-1: any) into smaller ones. */
bool hugetlb_pool_can_demote(size_t page_size);
void hugetlb_pool_demote(size_t page_size, int node, long nr);

/* Give each node the size that it had when @saved was read. */
void hugetlb_pool_restore(size_t page_size, const struct hugetlb_pool *saved);

/* Do pages that come into the pools save the memory of their struct pages (HVO)? */
bool hugetlb_pool_has_hvo(void);

/*
 * Let all pages of the pools that are free have HVO, or none: if that is not how it
 * is, the kernel gives them up and allocates others, of which there may be fewer.
 * False if the kernel can't.
 */
bool hugetlb_pool_set_hvo(bool on);

/* A hugetlbfs file of @nr_pages: the pool's other kind of user. */
int hugetlb_pool_memfd(size_t page_size, long nr_pages);

#endif /* SELFTEST_KVM_HUGETLB_POOL_H */
