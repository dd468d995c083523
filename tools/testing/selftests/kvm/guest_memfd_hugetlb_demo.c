// SPDX-License-Identifier: GPL-2.0-only
/*
 * A small VMM that shows what a guest gains from a guest_memfd of 1 GiB pages:
 * it runs the same guest on such a file and on one of 4 KiB pages, and prints
 * what it measured side by side.  Fails if KVM made no 1 GiB mapping.
 */
#include <stdio.h>
#include <time.h>

#include <linux/sizes.h>

#include "hugetlb_pool.h"
#include "kvm_util.h"
#include "processor.h"
#include "test_util.h"
#include "ucall_common.h"

#define GUEST_MEMORY	((size_t)SZ_1G)
#define GUEST_GPA	SZ_4G
#define SLOT		1
#define GMEM_FLAGS	(GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED)

#define NR_VCPUS	2

#define PAGES_TO_KB(nr)	((nr) * (SZ_4K / 1024))
/* Memory has struct pages by whole sections. */
#define SECTION_PAGES	(SZ_128M / SZ_4K)

struct measurement {
	struct hugetlb_pool before, created, touched, closed;
	long pages_1g, pages_2m, pages_4k;
	long page_tables_kb;
	long memmap_pages;
	long struct_pages_kb;
	long faults;
	long touch_ms;
};

static void guest_code(u64 start, u64 end)
{
	u64 gpa;

	/* The host measures from here: the guest's own program is in place. */
	GUEST_SYNC(0);

	for (gpa = start; gpa < end; gpa += SZ_4K)
		WRITE_ONCE(*(u64 *)gpa, gpa);
	for (gpa = start; gpa < end; gpa += SZ_4K)
		GUEST_ASSERT_EQ(READ_ONCE(*(u64 *)gpa), gpa);

	GUEST_DONE();
}

/* The sum of all numbers behind @key in a file of "key number" lines. */
static long read_key(const char *path, const char *key)
{
	char line[256], name[64];
	long val, sum = 0;
	FILE *f;

	f = fopen(path, "r");
	TEST_ASSERT(f, "Error opening '%s'", path);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %ld", name, &val) == 2 && !strcmp(name, key))
			sum += val;
	fclose(f);
	return sum;
}

/* Counters are per CPU: have the kernel sum them up before they are read. */
static void refresh_counters(void)
{
	FILE *f = fopen("/proc/sys/vm/stat_refresh", "w");

	if (f) {
		fputs("1", f);
		fclose(f);
	}
}

static long page_tables_kb(void)
{
	refresh_counters();
	return read_key("/proc/meminfo", "SecPageTables:");
}

/* The memory of all struct pages, in pages. */
static long memmap_pages(void)
{
	refresh_counters();
	return read_key("/proc/vmstat", "nr_memmap_pages") +
	       read_key("/proc/vmstat", "nr_memmap_boot_pages");
}

static void run_vcpu(struct kvm_vcpu *vcpu, u64 expected)
{
	struct ucall uc;

	vcpu_run(vcpu);
	if (get_ucall(vcpu, &uc) == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT_EQ(uc.cmd, expected);
}

static void *vcpu_thread(void *vcpu)
{
	run_vcpu(vcpu, UCALL_DONE);
	return NULL;
}

static long count_faults(struct kvm_vcpu *vcpus[])
{
	return vcpu_get_stat(vcpus[0], pf_taken) + vcpu_get_stat(vcpus[1], pf_taken);
}

/* Let the guest use its memory, each vCPU its half, and see what that costs. */
static void measure_touch(struct kvm_vcpu *vcpus[], struct measurement *m)
{
	long faults, pages_4k, tables;
	struct kvm_vm *vm = vcpus[0]->vm;
	pthread_t threads[NR_VCPUS];
	struct timespec start;
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		run_vcpu(vcpus[i], UCALL_SYNC);

	faults = count_faults(vcpus);
	pages_4k = vm_get_stat(vm, pages_4k);
	tables = page_tables_kb();

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (i = 0; i < NR_VCPUS; i++)
		kvm_pthread_create(&threads[i], NULL, vcpu_thread, vcpus[i]);
	for (i = 0; i < NR_VCPUS; i++)
		kvm_pthread_join(threads[i], NULL);
	m->touch_ms = timespec_to_ns(timespec_elapsed(start)) / 1000000;

	m->faults = count_faults(vcpus) - faults;
	m->page_tables_kb = page_tables_kb() - tables;
	m->pages_1g = vm_get_stat(vm, pages_1g);
	m->pages_2m = vm_get_stat(vm, pages_2m);
	m->pages_4k = vm_get_stat(vm, pages_4k) - pages_4k;
}

/* If the pool has pages, memmap_saved() needs one, and somebody who may take it. */
static bool can_measure_pool(size_t page_size)
{
	long total;

	if (!hugetlb_pool_exists(page_size))
		return true;

	total = hugetlb_pool_read(page_size).total;
	return !total || (hugetlb_pool_available(page_size) > 0 &&
			  hugetlb_pool_set_total(page_size, total));
}

/*
 * What a page saves of its struct pages by being in the pool, in pages: what they
 * take more while the kernel has it back.
 */
static long memmap_saved(size_t page_size)
{
	struct hugetlb_pool pool = hugetlb_pool_read(page_size);
	long saved = -memmap_pages();

	TEST_ASSERT(hugetlb_pool_set_total(page_size, pool.total - 1) &&
		    hugetlb_pool_read(page_size).total == pool.total - 1,
		    "The pool of pages of %lu KiB gives none back to the kernel", page_size / 1024);
	saved += memmap_pages();

	hugetlb_pool_restore(page_size, &pool);
	TEST_ASSERT(hugetlb_pool_read(page_size).total == pool.total,
		    "The pool of pages of %lu KiB had %ld pages, and has lost one",
		    page_size / 1024, pool.total);
	return saved;
}

/*
 * The guest's 4 KiB pages have a share of all struct pages, counted as if the pools
 * saved none of them; a 1 GiB page has that less what it saves.  What there was more
 * while the guest had its memory than there is now is the guest's, too.
 */
static void measure_struct_pages(struct measurement *huge, struct measurement *small)
{
	const long present = align_up(read_key("/proc/zoneinfo", "present"), SECTION_PAGES);
	const long saved = memmap_saved(SZ_1G);
	const long now = memmap_pages();
	long all = now + saved * hugetlb_pool_read(SZ_1G).total;
	long share;

	if (hugetlb_pool_exists(SZ_2M) && hugetlb_pool_read(SZ_2M).total)
		all += memmap_saved(SZ_2M) * hugetlb_pool_read(SZ_2M).total;
	share = all * (GUEST_MEMORY / SZ_4K) / present;

	small->struct_pages_kb = PAGES_TO_KB(share + small->memmap_pages - now);
	huge->struct_pages_kb = PAGES_TO_KB(share - saved + huge->memmap_pages - now);
}

static struct measurement measure(u64 flags)
{
	struct measurement m = { .before = hugetlb_pool_read(SZ_1G) };
	const u64 half = GUEST_MEMORY / NR_VCPUS;
	struct kvm_vcpu *vcpus[NR_VCPUS];
	struct kvm_vm *vm;
	int fd, i;
	void *mem;

	vm = vm_create_with_vcpus(NR_VCPUS, guest_code, vcpus);
	fd = vm_create_guest_memfd(vm, GUEST_MEMORY, GMEM_FLAGS | flags);
	m.created = hugetlb_pool_read(SZ_1G);

	/* KVM unmaps what the host changes at this address: nothing ever. */
	mem = kvm_mmap(2 * GUEST_MEMORY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	vm_set_user_memory_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, GUEST_GPA, GUEST_MEMORY,
				   align_ptr_up(mem, GUEST_MEMORY), fd, 0);
	virt_map_level(vm, GUEST_GPA, GUEST_GPA, GUEST_MEMORY, PG_LEVEL_2M);
	for (i = 0; i < NR_VCPUS; i++)
		vcpu_args_set(vcpus[i], 2, GUEST_GPA + i * half, GUEST_GPA + (i + 1) * half);

	measure_touch(vcpus, &m);
	m.touched = hugetlb_pool_read(SZ_1G);
	m.memmap_pages = memmap_pages();

	close(fd);
	m.closed = hugetlb_pool_read(SZ_1G);
	kvm_vm_free(vm);
	kvm_munmap(mem, 2 * GUEST_MEMORY);
	return m;
}

static void print_pool(const char *when, const struct hugetlb_pool *huge,
		       const struct hugetlb_pool *small)
{
	printf("  %-38s %6ld free, %ld reserved %6ld free, %ld reserved\n", when,
	       huge->free, huge->resv, small->free, small->resv);
}

static void print_row(const char *what, long huge, long small, const char *unit)
{
	printf("  %-38s %15ld %-4s %15ld %s\n", what, huge, unit, small, unit);
}

static void report(const struct measurement *huge, const struct measurement *small)
{
	printf("One guest with 1 GiB of memory writes and reads all its 4 KiB pages, on a\n"
	       "guest_memfd from the pool of 1 GiB HugeTLB pages and on an ordinary one.\n\n");
	printf("  %-38s %20s %20s\n\n", "", "1G guest_memfd", "4K guest_memfd");

	printf("The pool of 1 GiB pages (%ld in all)\n", huge->before.total);
	print_pool("before", &huge->before, &small->before);
	print_pool("guest_memfd created", &huge->created, &small->created);
	print_pool("guest has used its memory", &huge->touched, &small->touched);
	print_pool("guest_memfd closed", &huge->closed, &small->closed);

	printf("\nHow KVM maps the guest's memory\n");
	print_row("1 GiB mappings", huge->pages_1g, small->pages_1g, "");
	print_row("2 MiB mappings", huge->pages_2m, small->pages_2m, "");
	print_row("4 KiB mappings (1)", huge->pages_4k, small->pages_4k, "");

	printf("\nWhat the host pays for it\n");
	print_row("page tables of KVM", huge->page_tables_kb, small->page_tables_kb, "KiB");
	print_row("struct pages of this memory (2)", huge->struct_pages_kb,
		  small->struct_pages_kb, "KiB");
	print_row("page faults of the guest", huge->faults, small->faults, "");
	print_row("time until all memory was used (3)", huge->touch_ms, small->touch_ms, "ms");

	printf("\n(1) A few belong to the guest's own page tables.\n"
	       "(2) 4K: its share of what all struct pages would take if the pools saved none.\n"
	       "    1G: that, less what they took more (nr_memmap_pages in /proc/vmstat) when a\n"
	       "    page of the pool was given back.  HugeTLB Vmemmap Optimization is %s.\n"
	       "(3) With zeroing it.  Under emulation, only the ratio says something.\n",
	       hugetlb_pool_has_hvo() ? "on" : "off");
}

int main(void)
{
	struct measurement huge, small;
	u64 flags;

	flags = kvm_check_cap(KVM_CAP_GUEST_MEMFD_FLAGS);
	__TEST_REQUIRE(flags & GUEST_MEMFD_FLAG_HUGETLB_1G,
		       "KVM can't back guest_memfd with 1 GiB pages");
	__TEST_REQUIRE(hugetlb_pool_available(SZ_1G) > 0,
		       "The pool has no available 1 GiB page (boot with hugepagesz=1G hugepages=1)");
	__TEST_REQUIRE(can_measure_pool(SZ_1G) && can_measure_pool(SZ_2M),
		       "A pool has no available page, or can't be changed (be root)");

	huge = measure(GUEST_MEMFD_FLAG_HUGETLB_1G);
	small = measure(0);
	measure_struct_pages(&huge, &small);
	report(&huge, &small);

	TEST_ASSERT(huge.pages_1g, "KVM made no 1 GiB mapping");
	return 0;
}
