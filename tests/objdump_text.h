/* objdump_text.h: reading what objdump prints, and its spelling against ours; for the programs
 * that compare the two. */
#ifndef OBJDUMP_TEXT_H
#define OBJDUMP_TEXT_H

#include "../emu.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct line {
    uint64_t addr;
    uint8_t bytes[16];
    int len;
    char text[256];
};

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "  401000:<tab>48 89 c3 <tab>movq %rax,%rbx" */
static bool parse_line(const char *buf, struct line *line)
{
    char *end;
    line->addr = strtoull(buf, &end, 16);
    if (end == buf || *end != ':' || end[1] != '\t')
        return false;
    const char *p = end + 2;
    for (line->len = 0; line->len < 15; line->len++, p += 3) {
        if (hex_digit(p[0]) < 0 || hex_digit(p[1]) < 0)
            break;
        line->bytes[line->len] = (uint8_t)(hex_digit(p[0]) << 4 | hex_digit(p[1]));
    }
    p = strchr(p, '\t');
    snprintf(line->text, sizeof line->text, "%s", p ? p + 1 : "");
    line->text[strcspn(line->text, "\n")] = '\0';
    return line->len > 0;
}

/* The next instruction of a listing; false at its end. */
static bool read_line(FILE *from, struct line *line)
{
    char buf[1024];
    while (fgets(buf, sizeof buf, from))
        /* no text, or .byte: data between functions */
        if (parse_line(buf, line) && line->text[0] && line->text[0] != '.')
            return true;
    return false;
}

/* objdump's words for what is no instruction: (bad), and {bad} in the middle of a mnemonic. */
static bool is_bad(const struct line *line)
{
    return strstr(line->text, "(bad)") || strstr(line->text, "{ba");
}

/* ---- one spelling for both texts ---- */

#define NORMAL 200

/* Words that objdump sets before the mnemonic; ours show them otherwise or not at all. */
static bool is_prefix_word(const char *word, size_t len)
{
    static const char *const words[] = {"data16",  "addr32",   "cs",       "ds",    "es",
                                        "ss",      "fs",       "gs",       "lock",  "rep",
                                        "repz",    "repnz",    "repe",     "repne", "bnd",
                                        "notrack", "xacquire", "xrelease", "{vex}", "{evex}"};
    if (strncmp(word, "rex", 3) == 0)
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == len && memcmp(words[i], word, len) == 0)
            return true;
    return false;
}

static const char *skip_prefix_words(const char *text)
{
    for (;;) {
        size_t len = strcspn(text, " ,");
        if (!is_prefix_word(text, len) || text[len] != ' ')
            return text;
        text += len + strspn(text + len, " ");
    }
}

/* A prefix that no instruction follows has a line of its own. */
static bool only_prefixes(const struct line *line)
{
    const char *text = skip_prefix_words(line->text);
    size_t len = strcspn(text, " ");
    return is_prefix_word(text, len) && text[len + strspn(text + len, " ")] == '\0';
}

static void replace_all(char *text, const char *from, const char *to)
{
    size_t from_len = strlen(from), to_len = strlen(to);
    for (char *p = text; (p = strstr(p, from)); p += to_len) {
        memmove(p + to_len, p + from_len, strlen(p + from_len) + 1);
        memcpy(p, to, to_len);
    }
}

/* Copies, with every number as unsigned hexadecimal of at most `bytes` bytes. */
static void copy_numbers(char *out, const char *text, unsigned bytes)
{
    char last = ' ';
    uint64_t mask = bytes >= 8 ? ~0ull : (1ull << 8 * bytes) - 1;
    while (*text) {
        bool starts = strchr(" ,$(*:", last) != NULL;
        if (starts &&
            (isdigit((unsigned char)*text) || (*text == '-' && isdigit((unsigned char)text[1])))) {
            bool minus = *text == '-';
            char *end;
            uint64_t v = strtoull(text + minus, &end, 0);
            v = minus ? 0 - v : v;
            out += sprintf(out, "0x%llx", (unsigned long long)(last == '$' ? v & mask : v));
            text = end;
            last = '0';
        } else {
            last = *text++;
            *out++ = last;
        }
    }
    *out = '\0';
}

/* Mnemonic to `name`, operands to `operands`, both without what is a matter of taste. */
static void normalise(const char *text, unsigned bytes, char *name, char *operands)
{
    static const char *const spelling[][2] = {
        {",%riz,0x2)", ")"}, {",%riz,0x4)", ")"}, {",%riz,0x8)", ")"}, {",%eiz,0x2)", ")"},
        {",%eiz,0x4)", ")"}, {",%eiz,0x8)", ")"}, {"%es:", ""},        {"%ds:", ""},
        {"%cs:", ""},        {"%ss:", ""},        {"%st(0x0)", "%st"}, {"%db", "%dr"},
        {"(%dx)", "%dx"},    {"0x0(", "("},       {",0x1)", ")"},      {",%riz", ""},
        {",%eiz", ""},       {",0x2)", ",2)"},    {"()", ""},
    };
    char buf[NORMAL], *o = buf;
    text = skip_prefix_words(text);
    size_t len = strcspn(text, " ");
    snprintf(name, NORMAL, "%.*s", (int)len, text);
    replace_all(name, ".s", "");
    replace_all(name, ",pn", ""); /* branch hints */
    replace_all(name, ",pt", "");
    replace_all(name, "movabs", "mov");
    text += len;
    for (; *text && *text != '#' && *text != '<' && o < buf + sizeof buf - 1; text++)
        if (*text != ' ')
            *o++ = *text;
    *o = '\0';
    copy_numbers(operands, buf, bytes);
    for (size_t i = 0; i < sizeof spelling / sizeof *spelling; i++)
        replace_all(operands, spelling[i][0], spelling[i][1]);
}

static bool same_mnemonic(const char *a, const char *b)
{
    static const char *const aliases[][2] = {{"fwait", "wait"},     {"xchgw", "nop"},
                                             {"xchgq", "nop"},      {"movsxd", "movslq"},
                                             {"fldenvs", "fldenv"}, {"fnstenvs", "fnstenv"},
                                             {"fnsaves", "fnsave"}, {"frstors", "frstor"}};
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (strcmp(a, aliases[i][0]) == 0 && strcmp(b, aliases[i][1]) == 0)
            return true;
    size_t la = strlen(a), lb = strlen(b);
    if (la < lb) {
        const char *c = a;
        size_t lc = la;
        a = b, b = c;
        la = lb, lb = lc;
    }
    if (memcmp(a, b, lb) != 0)
        return false;
    return la == lb || (la == lb + 1 && strchr("bwlqxyz", a[lb]));
}

/* %a,%b against %b,%a */
static bool is_swapped(const char *a, const char *b)
{
    const char *comma = strrchr(a, ',');
    if (!comma || strlen(a) != strlen(b))
        return false;
    size_t tail = strlen(comma + 1), head = (size_t)(comma - a);
    return memcmp(b, comma + 1, tail) == 0 && b[tail] == ',' && memcmp(b + tail + 1, a, head) == 0;
}

/* objdump names the carry-less multiplications by the halves they take: the bits of the immediate.
 */
static void expand_clmul(char *name, char *operands)
{
    char *kind = strstr(name, "clmul");
    if (!kind || strlen(kind) != 11)
        return;
    unsigned imm = (kind[5] == 'h' ? 1u : 0) | (kind[7] == 'h' ? 0x10u : 0);
    char rest[NORMAL];
    memcpy(rest, operands, NORMAL);
    strcpy(kind, "clmulqdq");
    snprintf(operands, NORMAL, "$0x%x,%.180s", imm, rest);
}

/* What objdump 2.40 says otherwise than the manual. */
static bool is_objdump_error(const struct line *line)
{
    static const char *const errors[] = {
        "lvpdp",    "qvpmadd52", "lvcvtne", /* the size suffix stands in front */
        "adcxw",                            /* its 66 is no operand size */
        "nop",                              /* prefetchit0 and prefetchit1 are newer */
        "vmovss.s", "vmovsd.s",             /* ymm where VEX.L is ignored */
        "xbeginw",                          /* a 16-bit target */
        "invlpgb",                          /* no operands */
        "movmskp",  "pmovmskb",             /* 64-bit registers where W changes nothing */
        "vmovmskp", "vpmovmskb",            /* likewise */
        "umwait",   "tpause",               /* likewise */
    };
    const char *text = skip_prefix_words(line->text);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strncmp(text, errors[i], strlen(errors[i])) == 0)
            return true;
    return false;
}

static bool same_text(const struct line *line, const struct insn *in, const char *ours)
{
    char name[2][NORMAL], operands[2][NORMAL], *theirs = operands[0];
    unsigned bytes = in->imm_size == 1 && in->opsize == 1 ? 1 : in->opsize;
    char copy[256];
    memcpy(copy, line->text, sizeof copy);
    if ((in->kind >= INSN_JUMP && in->kind <= INSN_CALL) || in->flags & INSN_BRANCH_REL) {
        /* "call 1040 <f>": a target has no 0x */
        char *space = strrchr(copy, ' ');
        char *angle = strchr(copy, '<');
        if (angle) {
            *angle = '\0';
            while (angle > copy && angle[-1] == ' ')
                *--angle = '\0';
            space = strrchr(copy, ' ');
        }
        if (space) {
            char target[40];
            snprintf(target, sizeof target, "%s%s", strncmp(space + 1, "0x", 2) ? "0x" : "",
                     space + 1);
            snprintf(space + 1, 40, "%s", target);
        }
    }
    normalise(copy, bytes, name[0], operands[0]);
    normalise(ours, bytes, name[1], operands[1]);
    expand_clmul(name[0], operands[0]);
    if (!same_mnemonic(name[0], name[1]))
        return false;
    if (strcmp(operands[0], operands[1]) == 0)
        return true;
    if (name[0][0] == 'f') { /* x87: ours leaves the implied %st out */
        size_t len = strlen(theirs);
        if (len > 4 && strcmp(theirs + len - 4, ",%st") == 0)
            theirs[len - 4] = '\0';
        else if (strncmp(theirs, "%st,", 4) == 0)
            theirs += 4;
        return strcmp(theirs, operands[1]) == 0;
    }
    if (strncmp(name[0], "xchg", 4) == 0)
        return is_swapped(operands[0], operands[1]) || strcmp(operands[0], "%ax,%ax") == 0 ||
               strcmp(operands[0], "%rax,%rax") == 0;
    /* shifts by one: "shll %eax" */
    return strncmp(operands[1], "$0x1,", 5) == 0 && strcmp(theirs, operands[1] + 5) == 0;
}

#endif
