// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test how KVM announces in-place conversion of guest_memfd's memory, and what
 * comes and goes with it.  To be run with kvm.gmem_in_place_conversion on and off:
 * all values have to agree with the parameter.
 */
#include "gmem_conversion.h"
#include "gmem_test.h"
#include "kselftest_harness.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"

#define PARAM		"gmem_in_place_conversion"
#define PRIVATE		KVM_MEMORY_ATTRIBUTE_PRIVATE
#define FILE_SIZE	(4 * PAGE_SIZE)

/* Emulated hosts and debug kernels are slow. */
#define TIMEOUT_SECONDS	120
#define TEST_CAPS(name)	TEST_F_TIMEOUT(gmem_caps, name, TIMEOUT_SECONDS)

/* A kernel that doesn't know the parameter can't convert either. */
static bool is_on(void)
{
	return !access("/sys/module/kvm/parameters/" PARAM, F_OK) &&
	       get_kvm_param_bool(PARAM);
}

/* One VM of either kind, and a file of the first. */
FIXTURE(gmem_caps)
{
	struct kvm_vm *protected, *plain;
	int fd;
};

FIXTURE_SETUP(gmem_caps)
{
	if (!(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM)))
		SKIP(return, "KVM has no software-protected VMs");

	self->protected = ____vm_create(gmem_conversion_shape());
	self->plain = vm_create_barebones_type(KVM_X86_DEFAULT_VM);
	self->fd = vm_create_guest_memfd(self->protected, FILE_SIZE, GMEM_MMAP_PRIVATE);
}

FIXTURE_TEARDOWN(gmem_caps)
{
	kvm_close(self->fd);
	kvm_vm_free(self->protected);
	kvm_vm_free(self->plain);
}

TEST_CAPS(follows_the_parameter)
{
	const long cap = KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES;

	EXPECT_EQ(is_on() ? PRIVATE : 0, kvm_check_cap(cap));
	EXPECT_EQ(is_on() ? PRIVATE : 0, vm_check_cap(self->protected, cap));
	EXPECT_EQ(0, vm_check_cap(self->plain, cap));
}

static int set_vm_attributes(struct kvm_vm *vm, u64 attributes)
{
	struct kvm_memory_attributes attrs = {
		.address = GMEM_GPA,
		.size = PAGE_SIZE,
		.attributes = attributes,
	};

	return __vm_ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &attrs) ? errno : 0;
}

/* Either the VM tracks what is private, or guest_memfd does. */
TEST_CAPS(excludes_attributes_of_vm)
{
	const long cap = KVM_CAP_MEMORY_ATTRIBUTES;
	bool built_in = set_vm_attributes(self->protected, 0) != ENOTTY;
	bool vm_tracks = built_in && !is_on();
	int err = built_in ? EINVAL : ENOTTY;

	EXPECT_EQ(vm_tracks ? PRIVATE : 0, kvm_check_cap(cap));
	EXPECT_EQ(vm_tracks ? PRIVATE : 0, vm_check_cap(self->protected, cap));
	EXPECT_EQ(0, vm_check_cap(self->plain, cap));

	EXPECT_EQ(vm_tracks ? 0 : err, set_vm_attributes(self->protected, PRIVATE));
	EXPECT_EQ(err, set_vm_attributes(self->plain, PRIVATE));
}

TEST_CAPS(allows_init_shared)
{
	const u64 flags = GMEM_MMAP_SHARED;
	u64 expected = is_on() ? flags : GUEST_MEMFD_FLAG_MMAP;

	EXPECT_EQ(expected, flags & vm_check_cap(self->protected, KVM_CAP_GUEST_MEMFD_FLAGS));
	EXPECT_EQ(flags, flags & vm_check_cap(self->plain, KVM_CAP_GUEST_MEMFD_FLAGS));

	EXPECT_ERRNO(is_on() ? 0 : EINVAL,
		     __vm_create_guest_memfd(self->protected, FILE_SIZE, flags));
	EXPECT_LE(0, __vm_create_guest_memfd(self->plain, FILE_SIZE, flags));
}

/* ENOTTY comes before anything else that could be wrong. */
TEST_CAPS(decides_about_the_ioctl)
{
	struct kvm_memory_attributes2 attrs = { .size = FILE_SIZE, .flags = 1 };
	struct kvm_vm *vms[] = { self->protected, self->plain };
	int i, fd;

	for (i = 0; i < ARRAY_SIZE(vms); i++) {
		fd = vm_create_guest_memfd(vms[i], FILE_SIZE, GUEST_MEMFD_FLAG_MMAP);
		EXPECT_ERRNO(is_on() ? EINVAL : ENOTTY,
			     ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, &attrs));
		EXPECT_ERRNO(is_on() ? EFAULT : ENOTTY,
			     ioctl(fd, KVM_SET_MEMORY_ATTRIBUTES2, NULL));
	}

	EXPECT_EQ(is_on() ? 0 : -1, __gmem_set_shared(self->fd, 0, FILE_SIZE, NULL));
	EXPECT_EQ(is_on() ? 0 : -1, __gmem_set_private(self->fd, 0, FILE_SIZE, NULL));
}

int main(int argc, char **argv)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));

	return test_harness_run(argc, argv);
}
