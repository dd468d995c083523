/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest that does what the test tells it to do with memory at BASE_GPA, on up to two
 * vCPUs, and says so after each job:
 *
 *	vcpu_args_set(vcpu, 1, id);
 *	guest_run(vcpu);
 *	vcpu_do(vcpu, GUEST_WRITE, 0, SZ_2M, SZ_4K, seed);
 *	vcpu_do(vcpu, GUEST_CHECK, 0, SZ_2M, SZ_4K, seed);
 *
 * The guest's code is guest_code().
 */
#ifndef SELFTEST_KVM_GMEM_JOB_H
#define SELFTEST_KVM_GMEM_JOB_H

#include "guest_run.h"
#include "kvm_util.h"
#include "processor.h"

#define BASE_GPA	SZ_4G

enum guest_op {
	GUEST_WRITE,
	GUEST_CHECK,
	GUEST_CHECK_ZERO,
	GUEST_COUNT,
};

/* What a vCPU does next with each @stride of [@gpa, @gpa + @len). */
struct guest_job {
	u64 op;
	u64 gpa;
	u64 len;
	u64 stride;
	u64 seed;

	/* Of GUEST_COUNT: how far it is, and whether it shall end. */
	u64 count;
	u64 stop;
};

static struct guest_job jobs[2];

/*
 * Count up in memory that the host takes away now and then: it holds what was
 * written last, or zero.
 */
static void guest_count(struct guest_job *job)
{
	u64 *p = (u64 *)job->gpa, val;

	while (!READ_ONCE(job->stop)) {
		val = READ_ONCE(*p);
		GUEST_ASSERT(!val || val == job->count);
		WRITE_ONCE(*p, job->count + 1);
		WRITE_ONCE(job->count, job->count + 1);
	}
}

static void guest_do(struct guest_job *job)
{
	u64 off, *p;

	for (off = 0; off < job->len; off += job->stride) {
		p = (u64 *)(job->gpa + off);

		if (job->op == GUEST_WRITE)
			WRITE_ONCE(*p, job->seed + off);
		else if (job->op == GUEST_CHECK)
			GUEST_ASSERT_EQ(READ_ONCE(*p), job->seed + off);
		else
			GUEST_ASSERT_EQ(READ_ONCE(*p), 0);
	}
}

static void guest_code(u64 id)
{
	for (;;) {
		if (jobs[id].op == GUEST_COUNT)
			guest_count(&jobs[id]);
		else
			guest_do(&jobs[id]);
		GUEST_SYNC(id);
	}
}

static struct guest_job *vcpu_prepare(struct kvm_vcpu *vcpu, struct guest_job job)
{
	struct guest_job *guest_jobs = addr_gva2hva(vcpu->vm, (gva_t)jobs);

	guest_jobs[vcpu->id] = job;
	return &guest_jobs[vcpu->id];
}

static void vcpu_do(struct kvm_vcpu *vcpu, u64 op, u64 off, u64 len, u64 stride,
		    u64 seed)
{
	vcpu_prepare(vcpu, (struct guest_job) {
		.op = op,
		.gpa = BASE_GPA + off,
		.len = len,
		.stride = stride,
		.seed = seed,
	});
	guest_run(vcpu);
}

static void *vcpu_thread(void *vcpu)
{
	guest_run(vcpu);
	return NULL;
}

#endif /* SELFTEST_KVM_GMEM_JOB_H */
