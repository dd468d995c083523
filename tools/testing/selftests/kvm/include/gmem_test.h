/* SPDX-License-Identifier: GPL-2.0-only */
/* What tests of guest_memfd say often: modes of fallocate(), and how a call fails. */
#ifndef SELFTEST_KVM_GMEM_TEST_H
#define SELFTEST_KVM_GMEM_TEST_H

#include <errno.h>
#include <linux/falloc.h>

#define ALLOCATE	FALLOC_FL_KEEP_SIZE
#define PUNCH		(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)

/* Within a test of kselftest_harness.h: @call fails with @err, or doesn't if that is 0. */
#define EXPECT_ERRNO(err, call)	EXPECT_EQ((err), (call) == -1 ? errno : 0)

#endif /* SELFTEST_KVM_GMEM_TEST_H */
