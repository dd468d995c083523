/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Run a guest that reports with GUEST_SYNC() when it is done with what it was told.
 */
#ifndef SELFTEST_KVM_GUEST_RUN_H
#define SELFTEST_KVM_GUEST_RUN_H

#include "kvm_util.h"
#include "test_util.h"
#include "ucall_common.h"

/* Run the guest until it is done with what it has been told. */
static inline void guest_run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;

	vcpu_run(vcpu);

	switch (get_ucall(vcpu, &uc)) {
	case UCALL_SYNC:
		return;
	case UCALL_ABORT:
		REPORT_GUEST_ASSERT(uc);
		break;
	default:
		TEST_FAIL("Unexpected exit: %s",
			  exit_reason_str(vcpu->run->exit_reason));
	}
}

#endif /* SELFTEST_KVM_GUEST_RUN_H */
