/* bench_decode.c: million instructions a second of decode() and disas() on the text of a file.
 *
 *   bench_decode [FILE [SECONDS]]
 *
 * Built with -DHAVE_ZYDIS -lZydis or -DHAVE_CAPSTONE -lcapstone (the Makefile does where they are
 * installed) it measures those beside it, on the same bytes: Zydis decoding all operands, and both
 * with AT&T text. */
#include "../emu.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>
#endif
#ifdef HAVE_CAPSTONE
#include <capstone/capstone.h>
#endif

static const uint8_t *text; /* the largest executable section */
static size_t text_size;
static uint64_t text_addr;
static double seconds = 2;
static volatile uint64_t sink;

static void open_text(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st)) {
        perror(path);
        exit(2);
    }
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
    const Elf64_Shdr *section = (const Elf64_Shdr *)(file + header->e_shoff);
    for (unsigned i = 0; i < header->e_shnum; i++, section++)
        if (section->sh_flags & SHF_EXECINSTR && section->sh_size > text_size) {
            text = file + section->sh_offset;
            text_size = section->sh_size;
            text_addr = section->sh_addr;
        }
    close(fd);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static size_t pass_decode(void)
{
    size_t insns = 0;
    for (size_t at = 0; at < text_size; insns++) {
        struct insn in;
        if (decode(&in, text + at, text_size - at, text_addr + at) != DECODE_OK)
            break;
        sink += in.regs_read;
        at += in.row ? in.len : 1;
    }
    return insns;
}

static size_t pass_disas(void)
{
    size_t insns = 0;
    for (size_t at = 0; at < text_size; insns++) {
        struct insn in;
        char buf[128];
        if (decode(&in, text + at, text_size - at, text_addr + at) != DECODE_OK)
            break;
        sink += disas(buf, sizeof buf, &in, text + at, DISAS_ATT);
        at += in.row ? in.len : 1;
    }
    return insns;
}

#ifdef HAVE_ZYDIS
static size_t pass_zydis(void)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction in;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    size_t insns = 0;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (size_t at = 0; at < text_size; insns++) {
        bool good = ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder, text + at, text_size - at, &in, operands));
        sink += good ? operands[0].size : 0;
        at += good ? in.length : 1;
    }
    return insns;
}

static size_t pass_zydis_text(void)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction in;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    char buf[128];
    size_t insns = 0;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_ATT);
    for (size_t at = 0; at < text_size; insns++) {
        bool good = ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder, text + at, text_size - at, &in, operands));
        if (good)
            ZydisFormatterFormatInstruction(&formatter, &in, operands, in.operand_count_visible,
                                            buf, sizeof buf, text_addr + at, NULL);
        at += good ? in.length : 1;
    }
    return insns;
}
#endif

#ifdef HAVE_CAPSTONE
static size_t pass_capstone(void)
{
    csh handle;
    cs_open(CS_ARCH_X86, CS_MODE_64, &handle);
    cs_option(handle, CS_OPT_SYNTAX, CS_OPT_SYNTAX_ATT);
    cs_insn *in = cs_malloc(handle);
    const uint8_t *code = text;
    size_t left = text_size, insns = 0;
    uint64_t addr = text_addr;
    for (; left; insns++) {
        if (!cs_disasm_iter(handle, &code, &left, &addr, in))
            code++, left--, addr++;
    }
    cs_free(in, 1);
    cs_close(&handle);
    return insns;
}
#endif

static struct decoder {
    const char *name;
    size_t (*pass)(void);
    double best; /* seconds of its fastest pass */
    size_t insns;
} decoders[] = {
    {"decode", pass_decode, 1e9, 0},
    {"decode + disas", pass_disas, 1e9, 0},
#ifdef HAVE_ZYDIS
    {"Zydis, all operands", pass_zydis, 1e9, 0},
    {"Zydis, AT&T text", pass_zydis_text, 1e9, 0},
#endif
#ifdef HAVE_CAPSTONE
    {"Capstone, AT&T text", pass_capstone, 1e9, 0},
#endif
};
enum { DECODERS = sizeof decoders / sizeof *decoders };

/* The best pass counts, and the decoders take turns: others share the machine. */
static void measure_all(void)
{
    double end = now() + seconds * DECODERS;
    do {
        for (struct decoder *d = decoders; d < decoders + DECODERS; d++) {
            double start = now();
            d->insns = d->pass();
            double took = now() - start;
            d->best = took < d->best ? took : d->best;
        }
    } while (now() < end);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/lib/x86_64-linux-gnu/libc.so.6";
    if (argc > 2)
        seconds = atof(argv[2]);
    open_text(path);
    printf("%s: %zu bytes of text\n", path, text_size);
    measure_all();
    for (struct decoder *d = decoders; d < decoders + DECODERS; d++)
        printf("%-24s %8.2f million instructions a second\n", d->name,
               (double)d->insns / d->best / 1e6);
    return 0;
}
