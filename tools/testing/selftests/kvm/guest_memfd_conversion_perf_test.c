// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measure how long it takes to convert memory of a guest_memfd between private
 * and shared, in place: for ranges of 4K, 2M and 1G of which no page is present,
 * all are allocated, or all are mapped by the host, too.
 *
 * No guest runs, and KVM has no mappings to zap.  What is measured is the work on
 * the file and on the host's mappings of it.
 */
#include <stdio.h>

#include <linux/falloc.h>
#include <linux/perf_event.h>
#include <linux/sizes.h>
#include <sys/stat.h>

#include "gmem_attributes.h"
#include "hugetlb_pool.h"
#include "kvm_util.h"
#include "test_util.h"

#define SLOT		1
#define BASE_GPA	SZ_4G

/* Unless told how often, repeat for some time, but not without end. */
#define MIN_RUNS	3
#define DEFAULT_RUNS	100
#define MAX_RUNS	10000
#define ROW_MSECS	500
#define QUICK_ROW_MSECS	100

/* Allocating isn't measured, but can take longer than all the rest. */
#define ALLOCATE_MSECS	10000

enum page_state { PAGES_ABSENT, PAGES_ALLOCATED, PAGES_TOUCHED, NR_PAGE_STATES };

static const char * const page_state_names[] = { "absent", "allocated", "touched" };

/* In this order, so that each step begins where the one before has ended. */
static const struct step {
	const char *name;
	int nr_conversions;
	u64 attributes[2];
} steps[] = {
	{ "to-private", 1, { KVM_MEMORY_ATTRIBUTE_PRIVATE } },
	{ "round-trip", 2, { 0, KVM_MEMORY_ATTRIBUTE_PRIVATE } },
	{ "to-shared", 1, { 0 } },
};

static struct {
	u64 ns[MAX_RUNS];
	u64 instructions[MAX_RUNS];
} results[ARRAY_SIZE(steps)];

static struct {
	bool all, csv, quick;
	int nr_runs;
	size_t page_size;
	u64 sizes;	/* The sum of them: they are different powers of two. */
} options = { .page_size = SZ_4K };

/* A file of which the first @size bytes are converted. */
struct subject {
	int fd;
	char *mem;
	size_t size;
	enum page_state state;
};

static int instructions_fd = -1;
static u64 instructions_overhead;

static u64 read_instructions(void)
{
	u64 count = 0;

	/* Nothing to read: others keep the counter from being scheduled. */
	if (instructions_fd >= 0 &&
	    read(instructions_fd, &count, sizeof(count)) != sizeof(count))
		kvm_free_fd(instructions_fd);
	return count;
}

/* Count what user space and kernel do, if there is a counter that counts. */
static void open_instructions(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.pinned = 1,
	};
	u64 count, overhead = -1ull;
	int i;

	instructions_fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, 0);

	for (i = 0; i < 100; i++) {
		count = read_instructions();
		overhead = min(overhead, read_instructions() - count);
	}

	instructions_overhead = overhead;
	if (instructions_fd >= 0 && !overhead)
		kvm_free_fd(instructions_fd);
}

static u64 msecs_since(struct timespec start)
{
	return timespec_to_ns(timespec_elapsed(start)) / 1000000;
}

static const char *size_name(size_t size)
{
	return size == SZ_4K ? "4K" : size == SZ_2M ? "2M" : "1G";
}

static size_t mem_available(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	size_t kb = 0;
	char line[128];

	TEST_ASSERT(f, "Error opening /proc/meminfo");
	while (!kb && fgets(line, sizeof(line), f))
		sscanf(line, "MemAvailable: %zu", &kb);
	fclose(f);
	return kb * 1024;
}

/* The pages that the range has a share in; a huge page can't be had in parts. */
static size_t present_size(const struct subject *s)
{
	return align_up(s->size, options.page_size);
}

/* Larger than the range, as it is rare that a file is converted as a whole. */
static size_t file_size(size_t size)
{
	return align_up(size + SZ_4K, options.page_size);
}

static void create(struct subject *s, struct kvm_vm *vm, u64 flags)
{
	size_t size = file_size(s->size);

	s->fd = vm_create_guest_memfd(vm, size, flags);
	s->mem = kvm_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd);
	vm_set_user_memory_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, BASE_GPA, size,
				   s->mem, s->fd, 0);
}

static void destroy(struct subject *s, struct kvm_vm *vm)
{
	vm_set_user_memory_region2(vm, SLOT, 0, 0, 0, NULL, -1, 0);
	kvm_munmap(s->mem, file_size(s->size));
	kvm_close(s->fd);
}

/* False if it takes too long. */
static bool allocate(const struct subject *s)
{
	size_t off, chunk, end = present_size(s);
	struct timespec start;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (off = 0; off < end; off += chunk) {
		if (!options.all && msecs_since(start) > ALLOCATE_MSECS)
			return false;

		chunk = min(end - off, max_t(size_t, SZ_2M, options.page_size));
		kvm_fallocate(s->fd, FALLOC_FL_KEEP_SIZE, off, chunk);
	}
	return true;
}

/* Undo what the spot checks of the last run have done to shared pages. */
static void prepare_run(const struct subject *s)
{
	size_t off;

	if (s->state == PAGES_ABSENT)
		kvm_fallocate(s->fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0,
			      present_size(s));
	else if (s->state == PAGES_ALLOCATED)
		kvm_madvise(s->mem, s->size, MADV_DONTNEED);
	else
		for (off = 0; off < s->size; off += SZ_4K)
			WRITE_ONCE(*(u64 *)(s->mem + off), off + 1);
}

static void check_presence(const struct subject *s)
{
	size_t expected = s->state == PAGES_ABSENT ? 0 : present_size(s);
	struct stat st;

	TEST_ASSERT(!fstat(s->fd, &st), "fstat() failed, errno: %d", errno);
	TEST_ASSERT(st.st_blocks * 512 == expected,
		    "Expected 0x%lx bytes of pages to be present, found 0x%lx",
		    expected, st.st_blocks * 512);
}

static void spot_check(const struct subject *s, bool is_private)
{
	u64 off = kvm_random_u64_in_range(&kvm_rng, 0, s->size / SZ_4K - 1) * SZ_4K;
	u64 expected = s->state == PAGES_TOUCHED ? off + 1 : 0;
	u64 *p = (u64 *)(s->mem + off), val;

	if (is_private) {
		TEST_EXPECT_SIGBUS((void)READ_ONCE(*p));
	} else {
		val = READ_ONCE(*p);
		TEST_ASSERT(val == expected,
			    "Shared page at 0x%lx should hold 0x%lx, got 0x%lx",
			    off, expected, val);
	}
}

static void measure_step(const struct subject *s, int nr, int run)
{
	const struct step *step = &steps[nr];
	u64 instructions, error_offset = 0;
	struct timespec start;
	int i, r = 0;

	check_presence(s);
	instructions = read_instructions();
	clock_gettime(CLOCK_MONOTONIC, &start);

	for (i = 0; !r && i < step->nr_conversions; i++)
		r = __gmem_set_attributes(s->fd, 0, s->size, step->attributes[i],
					  &error_offset);

	results[nr].ns[run] = timespec_to_ns(timespec_elapsed(start));
	TEST_ASSERT(!r, "Conversion (%s) of %s should succeed, errno: %d (%s), error_offset: 0x%lx",
		    step->name, size_name(s->size), errno, strerror(errno), error_offset);

	results[nr].instructions[run] = read_instructions() - instructions -
					instructions_overhead;

	spot_check(s, step->attributes[step->nr_conversions - 1]);
}

/* Returns how many times. */
static int measure_steps(const struct subject *s)
{
	u64 msecs = options.quick ? QUICK_ROW_MSECS : ROW_MSECS;
	struct timespec start;
	int run, step;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (run = 0; run < (options.nr_runs ?: DEFAULT_RUNS); run++) {
		if (!options.nr_runs && run >= MIN_RUNS && msecs_since(start) > msecs)
			break;

		prepare_run(s);
		for (step = 0; step < ARRAY_SIZE(steps); step++)
			measure_step(s, step, run);
	}
	return run;
}

static int compare_u64(const void *_a, const void *_b)
{
	u64 a = *(const u64 *)_a, b = *(const u64 *)_b;

	return (a > b) - (a < b);
}

/* @vals are sorted then. */
static u64 median(u64 *vals, int nr)
{
	qsort(vals, nr, sizeof(*vals), compare_u64);
	return nr % 2 ? vals[nr / 2] : (vals[nr / 2 - 1] + vals[nr / 2]) / 2;
}

static void report_header(void)
{
	if (options.csv)
		puts("page_size,range,pages,conversion,runs,median_ns,min_ns,median_instructions");
	else
		printf("guest_memfd of %s pages\n\n%-6s %-10s %-11s %6s %13s %13s %13s\n",
		       size_name(options.page_size), "range", "pages", "conversion",
		       "runs", "median us", "min us", "instructions");
}

static void report(const struct subject *s, int nr, int runs)
{
	u64 ns = median(results[nr].ns, runs), min_ns = results[nr].ns[0];
	char instructions[32] = "n/a";

	if (instructions_fd >= 0)
		snprintf(instructions, sizeof(instructions), "%lu",
			 median(results[nr].instructions, runs));

	if (options.csv)
		printf("%s,%s,%s,%s,%d,%lu,%lu,%s\n", size_name(options.page_size),
		       size_name(s->size), page_state_names[s->state], steps[nr].name,
		       runs, ns, min_ns, instructions);
	else
		printf("%-6s %-10s %-11s %6d %9lu.%03lu %9lu.%03lu %13s\n",
		       size_name(s->size), page_state_names[s->state], steps[nr].name,
		       runs, ns / 1000, ns % 1000, min_ns / 1000, min_ns % 1000,
		       instructions);
}

/* Why not to measure, or NULL. */
static const char *find_obstacle(size_t size, enum page_state state)
{
	size_t page_size = options.page_size;

	if (page_size != SZ_4K &&
	    hugetlb_pool_available(page_size) < (long)(file_size(size) / page_size))
		return "there are too few pages in the pool";
	if (size != SZ_1G || state == PAGES_ABSENT)
		return NULL;
	if (options.quick)
		return "it isn't quick";
	if (state == PAGES_TOUCHED && !options.all)
		return "it takes long (use -a)";
	if (page_size == SZ_4K && mem_available() < 2 * size)
		return "less than twice its memory is available";
	return NULL;
}

static bool measure(struct kvm_vm *vm, u64 flags, size_t size, enum page_state state)
{
	struct subject s = { .size = size, .state = state };
	const char *obstacle = find_obstacle(size, state);
	int i, runs = 0;

	if (!obstacle) {
		create(&s, vm, flags);
		if (state == PAGES_ABSENT || allocate(&s))
			runs = measure_steps(&s);
		else
			obstacle = "its memory takes long to allocate (use -a)";
		destroy(&s, vm);
	}

	if (obstacle)
		fprintf(options.csv ? stderr : stdout, "# %s, %s: not measured, %s\n",
			size_name(size), page_state_names[state], obstacle);

	for (i = 0; runs && i < ARRAY_SIZE(steps); i++)
		report(&s, i, runs);
	return runs;
}

static void usage(const char *name)
{
	printf("\nusage: %s [-h] [-a] [-c] [-n runs] [-p page_size] [-q] [-s size]\n\n", name);
	puts(" -a: measure all, no matter how long it takes");
	puts(" -c: print comma separated values below a header line (notes: stderr)");
	printf(" -n: the number of runs, %d at most (default: %d, or as many as fit in\n"
	       "     %d ms per range and state of pages, but at least %d)\n",
	       MAX_RUNS, DEFAULT_RUNS, ROW_MSECS, MIN_RUNS);
	puts(" -p: the page size of the file: 4k, 2m or 1g (default: 4k)");
	puts(" -q: quick, for automated runs");
	puts(" -s: the size of the range: 4k, 2m or 1g; can be repeated (default: all)");
	puts("\nPages are absent, allocated (by fallocate()), or touched (by the host, and\n"
	     "mapped until they are converted to private).  A round trip is a conversion to\n"
	     "shared and back.\n");
	exit(0);
}

static size_t parse_page_size(const char *arg)
{
	size_t size = parse_size(arg);

	TEST_ASSERT(size == SZ_4K || size == SZ_2M || size == SZ_1G,
		    "'%s' should be 4k, 2m or 1g", arg);
	return size;
}

static void parse_options(int argc, char *argv[])
{
	int opt;

	while ((opt = getopt(argc, argv, "hacn:p:qs:")) != -1) {
		switch (opt) {
		case 'a':
			options.all = true;
			break;
		case 'c':
			options.csv = true;
			break;
		case 'n':
			options.nr_runs = atoi_positive("Number of runs", optarg);
			TEST_ASSERT(options.nr_runs <= MAX_RUNS, "%d runs at most", MAX_RUNS);
			break;
		case 'p':
			options.page_size = parse_page_size(optarg);
			break;
		case 'q':
			options.quick = true;
			break;
		case 's':
			options.sizes |= parse_page_size(optarg);
			break;
		case 'h':
		default:
			usage(argv[0]);
		}
	}
}

int main(int argc, char *argv[])
{
	u64 flags = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
	const size_t sizes[] = { SZ_4K, SZ_2M, SZ_1G };
	int i, state, nr_measured = 0;
	struct kvm_vm *vm;

	parse_options(argc, argv);
	if (options.page_size == SZ_2M)
		flags |= GUEST_MEMFD_FLAG_HUGETLB_2M;
	else if (options.page_size == SZ_1G)
		flags |= GUEST_MEMFD_FLAG_HUGETLB_1G;

	TEST_REQUIRE(kvm_check_cap(KVM_CAP_VM_TYPES) & BIT(KVM_X86_SW_PROTECTED_VM));
	__TEST_REQUIRE(kvm_has_gmem_attributes, "kvm.gmem_in_place_conversion is off");

	vm = vm_create_barebones_type(KVM_X86_SW_PROTECTED_VM);
	__TEST_REQUIRE((vm_check_cap(vm, KVM_CAP_GUEST_MEMFD_FLAGS) & flags) == flags,
		       "KVM can't create a guest_memfd of %s pages",
		       size_name(options.page_size));

	pin_self_to_any_cpu();
	open_instructions();
	report_header();

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (options.sizes && !(options.sizes & sizes[i]))
			continue;
		for (state = 0; state < NR_PAGE_STATES; state++)
			nr_measured += measure(vm, flags, sizes[i], state);
	}

	kvm_vm_free(vm);
	__TEST_REQUIRE(nr_measured, "Nothing could be measured");
	return 0;
}
