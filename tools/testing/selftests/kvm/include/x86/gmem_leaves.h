/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * With how many leaves of which size KVM maps a guest_memfd, and how many faults that
 * takes the guest, for tests on top of gmem_pieces.h.
 */
#ifndef SELFTEST_KVM_GMEM_LEAVES_H
#define SELFTEST_KVM_GMEM_LEAVES_H

#include "gmem_pieces.h"

struct leaves {
	long nr_1g, nr_2m, nr_4k;
};

/* Of all memslots: the guest's program and page tables have some, too. */
static inline struct leaves count_leaves(struct kvm_vm *vm)
{
	return (struct leaves) {
		.nr_1g = vm_get_stat(vm, pages_1g),
		.nr_2m = vm_get_stat(vm, pages_2m),
		.nr_4k = vm_get_stat(vm, pages_4k),
	};
}

static inline struct leaves leaves_since(struct kvm_vm *vm, struct leaves before)
{
	struct leaves now = count_leaves(vm);

	return (struct leaves) {
		.nr_1g = now.nr_1g - before.nr_1g,
		.nr_2m = now.nr_2m - before.nr_2m,
		.nr_4k = now.nr_4k - before.nr_4k,
	};
}

#define EXPECT_SAME_LEAVES(is, _1g, _2m, _4k)		\
do {							\
	struct leaves _is = (is);			\
							\
	EXPECT_EQ(_1g, _is.nr_1g);			\
	EXPECT_EQ(_2m, _is.nr_2m);			\
	EXPECT_EQ(_4k, _is.nr_4k);			\
} while (0)

/* How many faults it takes the guest to look at pages. */
static inline long count_faults(struct gmem_conversion *t, u64 first, u64 nr)
{
	long before = vcpu_get_stat(t->vcpu, pf_taken);

	if (nr)
		guest_expect(t, first, nr);
	return vcpu_get_stat(t->vcpu, pf_taken) - before;
}

#endif /* SELFTEST_KVM_GMEM_LEAVES_H */
