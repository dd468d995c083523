/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tests of guest_memfd say often: modes of fallocate(), how a call fails, and which
 * page is mapped.
 */
#ifndef SELFTEST_KVM_GMEM_TEST_H
#define SELFTEST_KVM_GMEM_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <linux/bits.h>
#include <linux/falloc.h>

#include "kvm_util.h"
#include "test_util.h"

#define ALLOCATE	FALLOC_FL_KEEP_SIZE
#define PUNCH		(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)

/* Within a test of kselftest_harness.h: @call fails with @err, or doesn't if that is 0. */
#define EXPECT_ERRNO(err, call)	EXPECT_EQ((err), (call) == -1 ? errno : 0)

/* The page frame, which must have been touched. */
static inline u64 pfn_of(void *addr)
{
	int fd = open_path_or_exit("/proc/self/pagemap", O_RDONLY);
	u64 entry = 0;

	TEST_ASSERT(pread(fd, &entry, sizeof(entry), (unsigned long)addr / getpagesize() *
			  sizeof(entry)) == sizeof(entry), "Can't read the pagemap");
	kvm_close(fd);
	entry &= GENMASK_ULL(54, 0);
	TEST_ASSERT(entry, "Expected to be told of page frames");
	return entry;
}

#endif /* SELFTEST_KVM_GMEM_TEST_H */
