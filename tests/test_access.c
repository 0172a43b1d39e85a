/* test_access.c: what a plugin is told of memory accesses, instruction by instruction.
 *
 * The rows are those of accesses.h. Which bytes an instruction needs and what it writes comes from
 * a native run of tests/guest/accesses.c; in which pieces and in which order that is reported is
 * the row's. */
#include "accesses.h"
#include "run.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdbool.h>

#include <cmocka.h>

#define MEMORY     (4 * 4096)
#define MAX_EVENTS 256
#define MAX_LIST   512 /* text of a row's accesses */

struct event {
    bool is_row; /* not one of the instructions that set things up */
    char rw, flags[4];
    unsigned size;
    uint64_t address;
    uint8_t value[16];
};

struct row {
    const char *name;
    unsigned align;
    const char *accesses;
};

#define ROW(name, feature, align, setup, insn, ours, qemu) {#name, align, ours},
static const struct row rows[] = {ACCESS_ROWS(ROW)};
#define ROWS (sizeof rows / sizeof *rows)

static struct result native_dump, native_probe, dump; /* outputs of the program */
static char plugin[PATH_MAX + 32];

/* ---- running ------------------------------------------------------------------------------- */

static void run_program(struct result *r, const char *options, const char *mode)
{
    char program[MAX_PATH], option[MAX_PATH];
    char *const env[] = {NULL};

    snprintf(program, sizeof program, "%s/accesses-no-pie", guest_dir);
    snprintf(option, sizeof option, "%s%s", plugin, options ? options : "");
    char *const emulated[] = {emu_path, "-plugin", option, program, (char *)(uintptr_t)mode, NULL};
    char *const native[] = {program, (char *)(uintptr_t)mode, NULL};
    run_command(r, options ? emulated : native, env, NULL, NULL, 120);
    assert_int_equal(r->status, 0);
}

static int run_all(void **state)
{
    (void)state;
    assert_true(build_plugin(plugin, "accesses", "accesses", "-DEMU_PLUGIN_API_VERSION=4"));
    run_program(&native_dump, NULL, "dump");
    run_program(&native_probe, NULL, "probe");
    run_program(&dump, "", "dump");
    return 0;
}

/* What follows "NAME " at the start of a line of text, or NULL. */
static const char *find_line(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (; text; text = strchr(text, '\n')) {
        text += *text == '\n';
        if (!strncmp(text, name, len) && text[len] == ' ')
            return text + len + 1;
    }
    return NULL;
}

/* Takes one line of the plugin's apart; false: it is not about this row. */
static bool parse_event(const char *line, const char *name, struct event *event)
{
    char row[64], kind[8];
    uint64_t high, low;

    if (sscanf(line, "%63s %7s %c %u %3s 0x%" SCNx64 " 0x%16" SCNx64 "%16" SCNx64, row, kind,
               &event->rw, &event->size, event->flags, &event->address, &high, &low) != 8 ||
        strcmp(row, name))
        return false;
    event->is_row = !strcmp(kind, "row");
    event->flags[strcspn(event->flags, "-")] = 0;
    memcpy(event->value, &low, 8);
    memcpy(event->value + 8, &high, 8);
    if (strchr(event->flags, 'b')) /* in memory it is the other way round */
        for (unsigned i = 0; i < event->size; i++)
            event->value[i] = (uint8_t)((event->size == 8 ? low : low << 32) >> (56 - 8 * i));
    return true;
}

static size_t find_events(const char *name, struct event *events)
{
    size_t n = 0;
    for (const char *line = dump.out[1]; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        assert_true(n < MAX_EVENTS);
        n += parse_event(line, name, &events[n]);
    }
    return n;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* "3*W8" becomes "W8 W8 W8 ". */
static void expand(char *out, const char *list)
{
    char token[16];
    int used;

    for (*out = 0; sscanf(list, "%15s%n", token, &used) == 1; list += used) {
        const char *star = strchr(token, '*');
        for (int times = star ? atoi(token) : 1; times; times--)
            out += sprintf(out, "%s ", star ? star + 1 : token);
    }
}

static void check_sequence(const struct row *row, const struct event *events, size_t n)
{
    char wanted[MAX_LIST], seen[MAX_LIST + 1] = "", *end = seen;

    expand(wanted, row->accesses);
    for (size_t i = 0; i < n && end < seen + MAX_LIST - 16; i++)
        if (events[i].is_row)
            end += sprintf(end, "%c%u%s ", events[i].rw, events[i].size, events[i].flags);
    assert_string_equal(seen, wanted);
}

/* The pattern of the program, changed by the reported writes, is what the native run left; what is
 * read is what was there. */
static void check_values(const struct row *row, const struct event *events, size_t n)
{
    static uint8_t memory[MEMORY];
    const char *native = find_line(native_dump.out[0], row->name);
    unsigned byte;

    for (unsigned i = 0; i < MEMORY; i++)
        memory[i] = (uint8_t)(i * 7 + (i >> 8) + 3);
    for (size_t i = 0; i < n; i++) {
        const struct event *event = &events[i];
        uint64_t at = event->address - ACCESS_PAGE;
        if (at > MEMORY - event->size)
            continue;
        if (event->rw == 'R')
            assert_memory_equal(memory + at, event->value, event->size);
        else
            memcpy(memory + at, event->value, event->size);
    }
    for (unsigned i = 0; i < ACCESS_BYTES; i++) {
        assert_int_equal(sscanf(native + 2 * i, "%2x", &byte), 1);
        if (memory[ACCESS_FROM - ACCESS_PAGE + i] != byte)
            fail_msg("byte %d: %02x, natively %02x", (int)(ACCESS_FROM + i - ACCESS_AT),
                     memory[ACCESS_FROM - ACCESS_PAGE + i], byte);
    }
}

static long round_to(long value, long align)
{
    return (value + (value > 0 ? align - 1 : -(align - 1))) / align * align;
}

/* Natively the instruction faults when the first or last byte reported is not there. */
static void check_extent(const struct row *row, const struct event *events, size_t n)
{
    const char *native = find_line(native_probe.out[0], row->name);
    long start, end, first = ACCESS_REACH, last = -ACCESS_REACH, align = row->align;

    assert_non_null(native);
    assert_int_equal(sscanf(native, "%ld %ld", &start, &end), 2);
    for (size_t i = 0; i < n; i++) {
        long at = (long)(events[i].address - ACCESS_AT);
        if (events[i].is_row && at < first)
            first = at;
        if (events[i].is_row && at + (long)events[i].size > last)
            last = at + (long)events[i].size;
    }
    assert_int_equal(first < 0 ? round_to(first, align) : first / align * align, start);
    assert_int_equal(last > 0 ? round_to(last, align) : last / align * align, end);
}

static void test_row(void **state)
{
    const struct row *row = *state;
    struct event events[MAX_EVENTS];

    if (!find_line(native_dump.out[0], row->name))
        skip(); /* the processor does not have the instruction */
    size_t n = find_events(row->name, events);
    check_sequence(row, events, n);
    check_values(row, events, n);
    if (row->align)
        check_extent(row, events, n);
}

/* Beside a page that is not there: nothing is reported there, and the program sees what it sees
 * natively. */
static void test_faults(void **state)
{
    struct result r;

    (void)state;
    run_program(&r, ",outside=on", "probe");
    assert_string_equal(r.out[0], native_probe.out[0]);
    assert_string_equal(r.out[1], "");
    free_result(&r);
}

static unsigned long count_tokens(const char *list, char kind)
{
    unsigned long n = 0;
    for (; (list = strchr(list, kind)); list++)
        n++;
    return n;
}

/* Counted inline, there are as many accesses as are reported. */
static void test_counts(void **state)
{
    struct result r;
    char list[MAX_LIST];
    unsigned long reads, writes;

    (void)state;
    run_program(&r, ",count=on", "dump");
    for (size_t i = 0; i < ROWS; i++) {
        const char *line = find_line(r.out[1], rows[i].name);
        if (!find_line(native_dump.out[0], rows[i].name))
            continue;
        expand(list, rows[i].accesses);
        assert_non_null(line);
        assert_int_equal(sscanf(line, "%lu %lu", &reads, &writes), 2);
        if (reads != count_tokens(list, 'R') || writes != count_tokens(list, 'W'))
            fail_msg("%s: %lu reads and %lu writes", rows[i].name, reads, writes);
    }
    free_result(&r);
}

/* Likewise where a repeated instruction faults after some of its elements. */
static void test_counts_at_faults(void **state)
{
    static const char *const names[] = {"rep_stos", "rep_lods", "repne_scas"};
    struct result counted, reported;
    unsigned long reads, writes;

    (void)state;
    run_program(&counted, ",count=on", "probe");
    run_program(&reported, "", "probe");
    assert_string_equal(counted.out[0], native_probe.out[0]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        unsigned long n[2] = {0};
        const char *text = reported.out[1], *line = find_line(counted.out[1], names[i]);
        struct event event;
        for (; text; text = strchr(text, '\n')) {
            text += *text == '\n';
            if (parse_event(text, names[i], &event) && event.is_row)
                n[event.rw == 'W']++;
        }
        assert_non_null(line);
        assert_int_equal(sscanf(line, "%lu %lu", &reads, &writes), 2);
        assert_int_equal(reads, n[0]);
        assert_int_equal(writes, n[1]);
    }
    free_result(&counted);
    free_result(&reported);
}

int main(void)
{
    struct CMUnitTest tests[ROWS + 3] = {{0}};

    locate_emu();
    for (size_t i = 0; i < ROWS; i++)
        tests[i] =
            (struct CMUnitTest){rows[i].name, test_row, NULL, NULL, (void *)(uintptr_t)&rows[i]};
    tests[ROWS] = (struct CMUnitTest){"faults", test_faults, NULL, NULL, NULL};
    tests[ROWS + 1] = (struct CMUnitTest){"counts", test_counts, NULL, NULL, NULL};
    tests[ROWS + 2] =
        (struct CMUnitTest){"counts at faults", test_counts_at_faults, NULL, NULL, NULL};
    return _cmocka_run_group_tests("access", tests, ROWS + 3, run_all, NULL);
}
