/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A child process that does to its copy of the mapping of a guest_memfd what it is
 * told through pipes.
 */
#ifndef SELFTEST_KVM_GMEM_CHILD_H
#define SELFTEST_KVM_GMEM_CHILD_H

#include <sys/wait.h>

#include "gmem_conversion.h"

struct child {
	pid_t pid;
	int to, from;
};

struct child_job {
	u64 pgoff;
	u8 val, new;
	bool faults;
};

/* Ends with the parent at the latest, however that ends. */
static inline void child_main(struct gmem_conversion *t, int from, int to)
{
	struct child_job job;

	while (read(from, &job, sizeof(job)) == sizeof(job)) {
		if (job.faults)
			host_faults(t, job.pgoff);
		else
			host_access(t, job.pgoff, job.val, job.new);
		if (write(to, &job.faults, 1) != 1)
			break;
	}
	_exit(0);
}

static inline struct child child_start(struct gmem_conversion *t)
{
	struct child child;
	int to[2], from[2];

	TEST_ASSERT(!pipe(to) && !pipe(from), "pipe() failed: %s", strerror(errno));
	child.pid = fork();
	TEST_ASSERT(child.pid >= 0, "fork() failed: %s", strerror(errno));

	if (!child.pid) {
		kvm_close(to[1]);
		kvm_close(from[0]);
		child_main(t, to[0], from[1]);
	}
	kvm_close(to[0]);
	kvm_close(from[1]);
	child.to = to[1];
	child.from = from[0];
	return child;
}

static inline void child_do(struct child *child, struct child_job job)
{
	bool done;

	TEST_ASSERT(write(child->to, &job, sizeof(job)) == sizeof(job),
		    "Can't tell the child about page %lu", job.pgoff);
	TEST_ASSERT(read(child->from, &done, 1) == 1,
		    "Child expected to %s page %lu, which failed",
		    job.faults ? "fault on" : "access", job.pgoff);
}

static inline void child_access(struct child *child, u64 pgoff, u8 val, u8 new)
{
	child_do(child, (struct child_job) { .pgoff = pgoff, .val = val, .new = new });
}

static inline void child_faults(struct child *child, u64 pgoff)
{
	child_do(child, (struct child_job) { .pgoff = pgoff, .faults = true });
}

static inline void child_end(struct child *child)
{
	int status;

	kvm_close(child->to);
	TEST_ASSERT(waitpid(child->pid, &status, 0) == child->pid && !status,
		    "Child expected to exit, its status is 0x%x", status);
	kvm_close(child->from);
}

#endif /* SELFTEST_KVM_GMEM_CHILD_H */
