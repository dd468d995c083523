/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Double-entry bookkeeping of a test's HugeTLB pages: what the pool, its nodes
 * and the test's hugetlb cgroup must say, given how many pages the test's files
 * hold and how many of these are allocated.
 */
#ifndef SELFTEST_KVM_HUGETLB_LEDGER_H
#define SELFTEST_KVM_HUGETLB_LEDGER_H

#include <linux/limits.h>

#include "hugetlb_pool.h"

struct hugetlb_ledger {
	size_t page_size;
	struct hugetlb_pool base;
	/* The cgroup of the test's process, or "" where there can be none. */
	char cgroup[PATH_MAX];
};

/*
 * In main(), before all tests: remember the pools of 2M and 1G pages, have a
 * cgroup v2 hierarchy with a hugetlb controller if possible.  The exit of the
 * process puts all back as it was.  A test that only remembers the pools has no
 * cgroups in its ledgers, and needs not close them.
 */
void hugetlb_ledger_init(void);
void hugetlb_ledger_save_pools(void);
void hugetlb_ledger_restore_pools(void);

/*
 * Open a ledger in the test's process, which enters a cgroup of its own.  Close
 * it in another process when the test's is gone.
 */
void hugetlb_ledger_open(struct hugetlb_ledger *ledger, size_t page_size);
void hugetlb_ledger_close(struct hugetlb_ledger *ledger);

/* Write "hugetlb.<page size>.@name" of the test's cgroup. */
void hugetlb_ledger_set_limit(const struct hugetlb_ledger *ledger,
			      const char *name, long val);

/*
 * What is wrong, in words, or NULL.  The test holds @held pages, of which
 * @allocated are no longer in the pool.
 */
const char *hugetlb_ledger_diff(const struct hugetlb_ledger *ledger, long held,
				long allocated);

#define EXPECT_BALANCE(ledger, held, allocated)					\
do {										\
	const char *__diff = hugetlb_ledger_diff(ledger, held, allocated);	\
										\
	EXPECT_EQ(NULL, __diff)							\
		TH_LOG("%s", __diff ?: "balanced");					\
} while (0)

#endif /* SELFTEST_KVM_HUGETLB_LEDGER_H */
