/* x87 and MMX: stack arithmetic, transcendental functions, control and status words, the 80-bit
 * format, environment save and restore. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void show(const char *name, long double v)
{
    uint64_t low;
    uint16_t high;

    memcpy(&low, &v, 8);
    memcpy(&high, (char *)&v + 8, 2);
    printf("%-10s %04x %016llx\n", name, high, (unsigned long long)low);
}

static void functions(void)
{
    static volatile long double in[] = {0.5L, 1.25L, 3, -0.75L, 1e-5L};

    for (int i = 0; i < 5; i++) {
        show("sin", sinl(in[i]));
        show("sqrt", sqrtl(fabsl(in[i])));
        show("exp", expl(in[i]));
        show("log", logl(fabsl(in[i])));
        show("pow", powl(fabsl(in[i]), 2.5L));
        show("fmod", fmodl(in[i] * 100, 0.3L));
        show("rint", rintl(in[i] * 7));
    }
}

static void raw(void)
{
    long double st;
    uint16_t cw, sw;
    uint64_t flags;
    int64_t n = -123456789012345;
    uint8_t bcd[16] = {0};

    __asm__ volatile("fldpi\n\tfld1\n\tfpatan" : "=t"(st));
    show("fpatan", st);
    __asm__ volatile("fldl2e\n\tfldln2\n\tfxch\n\tfdivp\n\tf2xm1" : "=t"(st));
    show("f2xm1", st);
    __asm__ volatile("fildll %1\n\tfbstp %0" : "=m"(bcd) : "m"(n));
    for (int i = 9; i >= 0; i--)
        printf("%02x", bcd[i]);
    __asm__ volatile("fld1\n\tfldz\n\tfcomip %%st(1), %%st\n\tfstp %%st(0)\n\tpushfq\n\tpop %0"
                     : "=r"(flags)::"cc");
    printf(" fcomip %03llx", (unsigned long long)(flags & 0x45));
    __asm__ volatile("fldz\n\tfld1\n\tfdivp\n\tfnstsw %0\n\tfstp %%st(0)\n\tfnclex" : "=a"(sw));
    __asm__ volatile("fnstcw %0" : "=m"(cw));
    printf(" cw %04x sw %04x\n", cw, sw);
}

static void environment(void)
{
    struct {
        char bytes[108];
    } image;
    long double st;

    __asm__ volatile("fninit\n\tfldpi\n\tfldl2t\n\tfnsave %1\n\tfld1\n\tfrstor %1\n\tfaddp"
                     : "=t"(st), "+m"(image));
    show("fnsave", st);
    _Alignas(16) char area[512];
    __asm__ volatile("fldpi\n\tfxsave %1\n\tfstp %%st(0)\n\tfldz\n\tfstp %%st(0)\n\tfxrstor %1"
                     : "=t"(st), "+m"(area));
    show("fxsave", st);
    fesetround(FE_UPWARD);
    volatile long double third = 1.0L, three = 3.0L;
    show("up", third / three);
    fesetround(FE_DOWNWARD);
    show("down", third / three);
    fesetround(FE_TONEAREST);
}

static void mmx(void)
{
    uint64_t a = 0x0123456789abcdef, b = 0xfedcba9876543210, c;

    __asm__ volatile("movq %1, %%mm0\n\tpaddb %2, %%mm0\n\tpmullw %1, %%mm0\n\t"
                     "pshufw $0x1b, %%mm0, %%mm5\n\tpxor %%mm5, %%mm0\n\tmovq %%mm0, %0\n\temms"
                     : "=m"(c)
                     : "m"(a), "m"(b)
                     : "mm0", "mm5");
    printf("mmx %016llx\n", (unsigned long long)c);
}

int main(void)
{
    functions();
    raw();
    environment();
    mmx();
    return 0;
}
