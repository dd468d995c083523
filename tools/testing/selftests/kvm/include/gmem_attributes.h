/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Converting memory of a guest_memfd between private and shared, in place.
 *
 * The variants with underscores return what the ioctl does, and leave errno.
 */
#ifndef SELFTEST_KVM_GMEM_ATTRIBUTES_H
#define SELFTEST_KVM_GMEM_ATTRIBUTES_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "kvm_util.h"
#include "test_util.h"

/* Not page aligned, thus not what any failure reports. */
#define GMEM_NO_ERROR_OFFSET	0x5a5a5a5a5a5a5a5aul

/* What each VM can convert; ask the VM, as it depends on its type. */
static inline bool vm_has_gmem_attributes(struct kvm_vm *vm)
{
	return vm_check_cap(vm, KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES) &
	       KVM_MEMORY_ATTRIBUTE_PRIVATE;
}

/* @error_offset may be NULL; GMEM_NO_ERROR_OFFSET if the kernel wrote none. */
static inline int __gmem_set_attributes(int fd, u64 offset, u64 size,
					u64 attributes, u64 *error_offset)
{
	struct kvm_memory_attributes2 attrs = {
		.offset = offset,
		.size = size,
		.attributes = attributes,
		.error_offset = GMEM_NO_ERROR_OFFSET,
	};
	int r = ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &attrs);

	if (error_offset)
		*error_offset = attrs.error_offset;
	return r;
}

static inline int __gmem_set_private(int fd, u64 offset, u64 size,
				     u64 *error_offset)
{
	return __gmem_set_attributes(fd, offset, size,
				     KVM_MEMORY_ATTRIBUTE_PRIVATE, error_offset);
}

static inline int __gmem_set_shared(int fd, u64 offset, u64 size,
				    u64 *error_offset)
{
	return __gmem_set_attributes(fd, offset, size, 0, error_offset);
}

static inline void gmem_set_private(int fd, u64 offset, u64 size)
{
	u64 error_offset;
	int r = __gmem_set_private(fd, offset, size, &error_offset);

	TEST_ASSERT(!r, "Converting [0x%lx, +0x%lx) to private failed at 0x%lx: %s",
		    offset, size, error_offset, strerror(errno));
}

static inline void gmem_set_shared(int fd, u64 offset, u64 size)
{
	u64 error_offset;
	int r = __gmem_set_shared(fd, offset, size, &error_offset);

	TEST_ASSERT(!r, "Converting [0x%lx, +0x%lx) to shared failed at 0x%lx: %s",
		    offset, size, error_offset, strerror(errno));
}

#endif /* SELFTEST_KVM_GMEM_ATTRIBUTES_H */
