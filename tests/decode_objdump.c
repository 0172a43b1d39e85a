/* decode_objdump.c: holds the decoder against objdump over whole files.
 *
 *   decode_objdump [-l] [-v] FILE...
 *
 * Every instruction that `objdump -d` lists is decoded; lengths are compared and, unless -l is
 * given, texts after both were brought to one spelling. Prints the number of files, instructions
 * and differences by reason; -v also prints each difference. Exit status 1 if lengths differ. */
#include "../emu.h"
#include "objdump_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    unsigned long files, insns, length, text, bad, joined, prefix;
} count;
static bool lengths_only, verbose;

static void report(const char *what, const struct line *line, const char *ours, int len)
{
    if (!verbose)
        return;
    printf("%s %" PRIx64 ":", what, line->addr);
    for (int i = 0; i < line->len; i++)
        printf(" %02x", line->bytes[i]);
    printf(" | objdump %d \"%s\" | ours %d \"%s\"\n", line->len, line->text, len, ours);
}

static void compare(const struct line *line)
{
    struct insn in;
    char text[160] = "";
    count.insns++;
    int result = decode(&in, line->bytes, (size_t)line->len, line->addr);
    if (result == DECODE_OK && in.row)
        disas(text, sizeof text, &in, line->bytes, DISAS_ATT);
    if (strstr(line->text, "(bad)") || (result == DECODE_OK && !in.row)) {
        count.bad++;
        if (strstr(line->text, "(bad)") == NULL || in.row)
            report("BAD", line, text, in.len);
    } else if (only_prefixes(line)) {
        count.prefix++;
    } else if (result != DECODE_OK || in.len != line->len) {
        /* objdump joins fwait with the x87 instruction that follows */
        if (line->bytes[0] == 0x9B && in.len == 1) {
            count.joined++;
            return;
        }
        count.length++;
        report("LENGTH", line, text, in.len);
    } else if (!lengths_only && !same_text(line, &in, text)) {
        count.text++;
        report("TEXT", line, text, in.len);
    }
}

static void compare_file(const char *path)
{
    char command[4200];
    struct line line;
    snprintf(command, sizeof command,
             "objdump -dw -M suffix,intel64 --insn-width=15 '%s' 2>/dev/null", path);
    FILE *pipe = popen(command, "r");
    if (!pipe) {
        perror("objdump");
        exit(2);
    }
    count.files++;
    while (read_line(pipe, &line))
        compare(&line);
    pclose(pipe);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-l") == 0)
            lengths_only = true;
        else if (strcmp(argv[i], "-v") == 0)
            verbose = true;
        else
            compare_file(argv[i]);
    }
    printf("%lu files, %lu instructions; differences: %lu length, %lu text, %lu illegal for one or "
           "both, %lu fwait joined, %lu prefix alone\n",
           count.files, count.insns, count.length, count.text, count.bad, count.joined,
           count.prefix);
    return count.length != 0;
}
